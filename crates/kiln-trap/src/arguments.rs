//! The types of arguments and results that a caught call passes, by the C calling convention.

use std::mem::MaybeUninit;

/// The number of registers for arguments of each kind: the most of any architecture.
const REGISTERS: usize = 8;

/// The registers of arguments and results. Public, because traits mention it, but not reachable.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    pub(crate) ints: [MaybeUninit<u64>; REGISTERS],
    pub(crate) floats: [MaybeUninit<u64>; REGISTERS],
    pub(crate) float_result: MaybeUninit<u64>,
}

impl Registers {
    #[inline]
    pub(crate) fn new() -> Self {
        let unknown = MaybeUninit::uninit();
        Self { ints: [unknown; _], floats: [unknown; _], float_result: unknown }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A value that fits a register: an integer, a pointer, `f32` or `f64`.
pub trait Argument: Copy + sealed::Sealed {
    #[doc(hidden)]
    const FLOAT: bool;
    #[doc(hidden)]
    fn to_word(self) -> u64;
}

/// A result: a value that fits a register, or nothing.
pub trait Output: sealed::Sealed {
    #[doc(hidden)]
    fn from_results(results: [u64; 2]) -> Self;
}

/// A tuple of up to six [`Argument`]s.
pub trait Arguments: sealed::Sealed {
    #[doc(hidden)]
    const HAS_FLOATS: bool;
    #[doc(hidden)]
    fn store(self, registers: &mut Registers);
}

/// A pointer to a function that takes the arguments `A`.
pub trait Callee<A>: sealed::Sealed {
    /// The type of the result.
    type Output: Output;
    #[doc(hidden)]
    fn address(self) -> *const u8;
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl sealed::Sealed for $type {}
        impl Argument for $type {
            const FLOAT: bool = false;
            #[inline]
            fn to_word(self) -> u64 {
                // Extended to the whole register: compilers for C rely on 32 bits of it.
                self as i64 as u64
            }
        }
        impl Output for $type {
            #[inline]
            fn from_results(results: [u64; 2]) -> Self {
                results[0] as Self
            }
        }
    )*};
}

integers!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

macro_rules! floats {
    ($($type:ty, $bits:ty;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Argument for $type {
            const FLOAT: bool = true;
            #[inline]
            fn to_word(self) -> u64 {
                self.to_bits().into()
            }
        }
        impl Output for $type {
            #[inline]
            fn from_results(results: [u64; 2]) -> Self {
                Self::from_bits(results[1] as $bits)
            }
        }
    )*};
}

floats! { f32, u32; f64, u64; }

macro_rules! pointers {
    ($($type:ty)*) => {$(
        impl<T> sealed::Sealed for $type {}
        impl<T> Argument for $type {
            const FLOAT: bool = false;
            #[inline]
            fn to_word(self) -> u64 {
                self.expose_provenance() as u64
            }
        }
        impl<T> Output for $type {
            #[inline]
            fn from_results(results: [u64; 2]) -> Self {
                results[0] as usize as Self
            }
        }
    )*};
}

pointers!(*const T *mut T);

impl sealed::Sealed for bool {}

impl Argument for bool {
    const FLOAT: bool = false;
    #[inline]
    fn to_word(self) -> u64 {
        self.into()
    }
}

impl Output for bool {
    #[inline]
    fn from_results(results: [u64; 2]) -> Self {
        results[0] as u8 != 0
    }
}

impl Output for () {
    #[inline]
    fn from_results(_results: [u64; 2]) -> Self {}
}

/// Writes an argument to the next register of its kind.
#[inline]
fn store<T: Argument>(value: T, registers: &mut Registers, ints: &mut usize, floats: &mut usize) {
    let Registers { ints: int_registers, floats: float_registers, .. } = registers;
    let (place, next) = match T::FLOAT {
        true => (&mut float_registers[*floats], floats),
        false => (&mut int_registers[*ints], ints),
    };
    *place = MaybeUninit::new(value.to_word());
    *next += 1;
}

macro_rules! signatures {
    ($(($($type:ident $name:ident),*))*) => {$(
        impl<$($type: Argument),*> sealed::Sealed for ($($type,)*) {}
        impl<$($type: Argument),*> Arguments for ($($type,)*) {
            const HAS_FLOATS: bool = false $(|| $type::FLOAT)*;
            #[inline]
            fn store(self, registers: &mut Registers) {
                let ($($name,)*) = self;
                let (mut _ints, mut _floats) = (0, 0);
                let _ = &registers;
                $(store($name, registers, &mut _ints, &mut _floats);)*
            }
        }
        signatures!(@ ($($type),*) extern "C" fn);
        signatures!(@ ($($type),*) unsafe extern "C" fn);
        signatures!(@ ($($type),*) extern "C-unwind" fn);
        signatures!(@ ($($type),*) unsafe extern "C-unwind" fn);
    )*};
    (@ ($($type:ident),*) $($function:tt)*) => {
        impl<$($type: Argument,)* R: Output> sealed::Sealed for $($function)*($($type),*) -> R {}
        impl<$($type: Argument,)* R: Output> Callee<($($type,)*)> for $($function)*($($type),*) -> R {
            type Output = R;
            #[inline]
            fn address(self) -> *const u8 {
                self as *const u8
            }
        }
    };
}

signatures! {
    ()
    (A a)
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
    (A a, B b, C c, D d, E e)
    (A a, B b, C c, D d, E e, F f)
}
