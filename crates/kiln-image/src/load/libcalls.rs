//! Routines that Cranelift calls when the target has no instruction for an operation.
//!
//! A plain Rust program may not link libm, so looking these names up in the process is not enough.
//! [`resolve`] finds the routines of this module; [`process`] tries [`resolve`] first, then asks
//! the dynamic linker.

use std::ffi::{CString, c_char, c_void};

use kiln_globals::SlotKey;

unsafe extern "C" {
    fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memset(to: *mut c_void, byte: i32, len: usize) -> *mut c_void;
    fn memcmp(a: *const c_void, b: *const c_void, len: usize) -> i32;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

macro_rules! float_routines {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        $(extern "C" fn $name($($arg: $ty),*) -> $ret { $body })*
    };
}

float_routines! {
    ceilf(x: f32) -> f32 = x.ceil();
    ceil(x: f64) -> f64 = x.ceil();
    floorf(x: f32) -> f32 = x.floor();
    floor(x: f64) -> f64 = x.floor();
    truncf(x: f32) -> f32 = x.trunc();
    trunc(x: f64) -> f64 = x.trunc();
    nearbyintf(x: f32) -> f32 = x.round_ties_even();
    nearbyint(x: f64) -> f64 = x.round_ties_even();
    fmaf(x: f32, y: f32, z: f32) -> f32 = x.mul_add(y, z);
    fma(x: f64, y: f64, z: f64) -> f64 = x.mul_add(y, z);
}

/// Does what `pshufb` does, for CPUs without SSSE3: lane *i* of the result is lane `mask[i] & 15`
/// of `value`, or 0 if `mask[i]` is negative.
#[cfg(target_arch = "x86_64")]
#[expect(
    improper_ctypes_definitions,
    reason = "the System V ABI passes `__m128i` in an SSE register, as Cranelift does"
)]
extern "C" fn x86_pshufb(
    value: std::arch::x86_64::__m128i,
    mask: std::arch::x86_64::__m128i,
) -> std::arch::x86_64::__m128i {
    // SAFETY: both types are 16 bytes, and every bit pattern is a value of either.
    let bytes = |vector| unsafe { std::mem::transmute::<std::arch::x86_64::__m128i, [u8; 16]>(vector) };
    let (value, mask) = (bytes(value), bytes(mask));
    let lanes = mask.map(|index| if index & 0x80 != 0 { 0 } else { value[usize::from(index & 15)] });
    // SAFETY: as above.
    unsafe { std::mem::transmute::<[u8; 16], std::arch::x86_64::__m128i>(lanes) }
}

/// Touches every page of a frame of `rax` bytes below the stack pointer, so that the stack cannot
/// grow past a guard page. Prologues call it, so it preserves every register.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn probestack() {
    std::arch::naked_asm!(
        "push r11",
        "push rax",
        "lea r11, [rsp + 24]",
        "2:",
        "cmp rax, 4096",
        "jb 3f",
        "sub r11, 4096",
        "test [r11], r11",
        "sub rax, 4096",
        "jmp 2b",
        "3:",
        "sub r11, rax",
        "test [r11], r11",
        "pop rax",
        "pop r11",
        "ret",
    )
}

/// Returns the address of the routine that Cranelift calls `name`, if this module has it.
pub fn resolve(name: &str) -> Option<usize> {
    Some(match name {
        "ceilf" => ceilf as *const () as usize,
        "ceil" => ceil as *const () as usize,
        "floorf" => floorf as *const () as usize,
        "floor" => floor as *const () as usize,
        "truncf" => truncf as *const () as usize,
        "trunc" => trunc as *const () as usize,
        "nearbyintf" => nearbyintf as *const () as usize,
        "nearbyint" => nearbyint as *const () as usize,
        "fmaf" => fmaf as *const () as usize,
        "fma" => fma as *const () as usize,
        "memcpy" => memcpy as *const () as usize,
        "memmove" => memmove as *const () as usize,
        "memset" => memset as *const () as usize,
        "memcmp" => memcmp as *const () as usize,
        #[cfg(target_arch = "x86_64")]
        "__cranelift_x86_pshufb" => x86_pshufb as *const () as usize,
        #[cfg(target_arch = "x86_64")]
        "__cranelift_probestack" => probestack as *const () as usize,
        _ => return None,
    })
}

/// Resolves a symbol or routine to a routine of this module, or else to a definition in this
/// program or its shared libraries. Globals are never found here.
pub fn process(key: &SlotKey) -> Option<usize> {
    let (SlotKey::Symbol(name) | SlotKey::Routine(name)) = key else { return None };
    if let Some(address) = resolve(name) {
        return Some(address);
    }
    let name = CString::new(&**name).ok()?;
    // SAFETY: the name ends with a zero; a null handle means the default search order.
    let address = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    (!address.is_null()).then_some(address as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_finds_its_own_symbols_and_no_others() {
        assert_eq!(process(&SlotKey::Symbol("ceilf".into())), resolve("ceilf"));
        assert_eq!(process(&SlotKey::Routine("ceilf".into())), resolve("ceilf"));
        assert!(process(&SlotKey::Symbol("malloc".into())).is_some());
        assert_eq!(process(&SlotKey::Symbol("no such symbol".into())), None);
        assert_eq!(process(&SlotKey::Symbol("a\0b".into())), None);
        assert_eq!(process(&SlotKey::Global("malloc".into())), None);
    }
}
