//! Rust function pointer types, and the Cranelift signature of each.

use kiln_artifact::{Param, Signature};
use kiln_globals::Bindings;

mod sealed {
    pub trait Sealed {}
}

/// A type that Rust's `extern "C"` and Cranelift's `system_v` pass in the same single register.
pub trait AbiValue: sealed::Sealed {
    /// The Cranelift type of such values.
    const TYPE: &'static str;
}

macro_rules! values {
    ($($ty:ty => $name:literal,)*) => {
        $(impl sealed::Sealed for $ty {}
        impl AbiValue for $ty { const TYPE: &'static str = $name; })*
    };
}

values! {
    i8 => "i8", u8 => "i8", i16 => "i16", u16 => "i16", i32 => "i32", u32 => "i32", i64 => "i64", u64 => "i64",
    isize => "i64", usize => "i64", f32 => "f32", f64 => "f64",
}

impl<T> sealed::Sealed for *const T {}
impl<T> AbiValue for *const T {
    const TYPE: &'static str = "i64";
}
impl<T> sealed::Sealed for *mut T {}
impl<T> AbiValue for *mut T {
    const TYPE: &'static str = "i64";
}

/// An `extern "C"` function pointer type, safe or `unsafe`, with up to eight parameters. Each
/// parameter, and the result if there is one, is an [`AbiValue`].
///
/// # Safety
///
/// `signature` must describe exactly the type's calling convention, parameters and return value.
pub unsafe trait FunctionPointer: Copy + sealed::Sealed {
    /// Returns the Cranelift signature of functions of this type.
    fn signature() -> Signature;

    /// Returns the function at `code`.
    ///
    /// # Safety
    ///
    /// `code` must be the address of a function of this type for as long as the result is used.
    unsafe fn from_address(code: *const u8) -> Self;

    /// Returns the address of the function's first instruction.
    fn address(self) -> *const u8;
}

/// Binds the function `name` of the host, and its type: code that calls it with another type is
/// refused.
///
/// ```
/// use kiln_globals::{Bindings, Resolve, SlotKey};
///
/// extern "C" fn sine(x: f64) -> f64 {
///     x.sin()
/// }
///
/// let mut bindings = Bindings::new();
/// kiln_image::bind_function(&mut bindings, "sin", sine as extern "C" fn(f64) -> f64);
/// let sin = SlotKey::Symbol("sin".into());
/// assert!(bindings.resolve(&sin, Some("(f64) -> f64 system_v")).is_ok());
/// assert!(bindings.resolve(&sin, Some("(f32) -> f32 system_v")).is_err());
/// ```
pub fn bind_function<F: FunctionPointer>(bindings: &mut Bindings, name: &str, function: F) {
    bindings.bind_function(name, function.address() as usize, &F::signature());
}

/// Makes a signature from names of Cranelift types, with the calling convention of `extern "C"`.
fn signature(params: &[&str], result: Option<&str>) -> Signature {
    let param = |ty: &&str| Param { ty: (*ty).into(), attributes: Vec::new() };
    Signature {
        params: params.iter().map(param).collect(),
        returns: result.iter().map(param).collect(),
        call_conv: "system_v".into(),
    }
}

macro_rules! function {
    ($fn:ty, [$($arg:ident)*], [$($result:ident)?], $returns:expr) => {
        impl<$($arg: AbiValue,)* $($result: AbiValue)?> sealed::Sealed for $fn {}

        // SAFETY: `extern "C"` on Linux is what Cranelift calls `system_v`, and each `AbiValue`
        // names its own Cranelift type.
        unsafe impl<$($arg: AbiValue,)* $($result: AbiValue)?> FunctionPointer for $fn {
            fn signature() -> Signature {
                signature(&[$($arg::TYPE),*], $returns)
            }

            unsafe fn from_address(code: *const u8) -> Self {
                // SAFETY: a function pointer has the size of a data pointer; the caller promises
                // that `code` is the address of such a function.
                unsafe { std::mem::transmute::<*const u8, Self>(code) }
            }

            fn address(self) -> *const u8 {
                self as *const u8
            }
        }
    };
}

macro_rules! functions {
    ($([$($arg:ident)*])*) => {
        $(
            function!(extern "C" fn($($arg),*), [$($arg)*], [], None);
            function!(unsafe extern "C" fn($($arg),*), [$($arg)*], [], None);
            function!(extern "C" fn($($arg),*) -> R, [$($arg)*], [R], Some(R::TYPE));
            function!(unsafe extern "C" fn($($arg),*) -> R, [$($arg)*], [R], Some(R::TYPE));
            // A panic of the host may unwind through these.
            function!(extern "C-unwind" fn($($arg),*), [$($arg)*], [], None);
            function!(unsafe extern "C-unwind" fn($($arg),*), [$($arg)*], [], None);
            function!(extern "C-unwind" fn($($arg),*) -> R, [$($arg)*], [R], Some(R::TYPE));
            function!(unsafe extern "C-unwind" fn($($arg),*) -> R, [$($arg)*], [R], Some(R::TYPE));
        )*
    };
}

functions! {
    []
    [A]
    [A B]
    [A B C]
    [A B C D]
    [A B C D E]
    [A B C D E F]
    [A B C D E F G]
    [A B C D E F G H]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_cranelift_text() {
        assert_eq!(<extern "C" fn()>::signature().to_string(), "() system_v");
        assert_eq!(
            <unsafe extern "C" fn(*const u8, f32) -> u32>::signature().to_string(),
            "(i64, f32) -> i32 system_v"
        );
    }
}
