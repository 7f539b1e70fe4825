//! The only file with `unsafe` code: it reads the memory of objects.
//!
//! Other threads may write that memory meanwhile, so it is read as atomic words. What comes of such
//! a race is a value of before or after each write, and the second reading tells.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::object::{Object, Target};

/// A run-time system that knows its objects.
///
/// # Safety
///
/// Whatever [`target`](Self::target) returns as an object must be memory that can be read, from
/// `address` on for `size` bytes, until the visitor is no longer borrowed. Other threads may write
/// it, if they do so in machine code or through atomics. Everything else that a visitor says is
/// checked.
#[expect(unsafe_code, reason = "memory is read where an implementation says")]
pub unsafe trait Visit {
    /// Says what a pointer leads to, which is not null. `None` if it is not known to this visitor:
    /// then [`Input::names`](crate::Input::names) is asked. The same address must always lead to
    /// the same object.
    fn target(&mut self, pointer: usize) -> Option<Target<'_>>;

    /// Passes the offset of each pointer in an object that [`target`](Self::target) returned, in
    /// ascending order. A pointer is 8 bytes, in the byte order of this machine; null is allowed.
    fn pointers(&mut self, object: &Object, report: &mut dyn FnMut(usize));
}

/// Appends the bytes of an object to `out`.
///
/// # Safety
///
/// `object` must be what [`Visit::target`] returned, whose implementation promises that it can be
/// read.
#[expect(unsafe_code, reason = "the one place where foreign memory is read")]
pub(crate) unsafe fn read(object: &Object, out: &mut Vec<u8>) {
    let Object { address, size, .. } = *object;
    out.reserve(size);
    let head = size.min(address.next_multiple_of(8) - address);
    let words = (size - head) / 8;
    let byte = |at: usize| {
        let place = std::ptr::with_exposed_provenance_mut::<u8>(at);
        // SAFETY: the caller promises that the byte can be read; atomics of bytes need no
        // alignment.
        unsafe { AtomicU8::from_ptr(place) }.load(Ordering::Relaxed)
    };
    let word = |at: usize| {
        let place = std::ptr::with_exposed_provenance_mut::<u64>(at);
        // SAFETY: as above, and `at` is a multiple of 8.
        unsafe { AtomicU64::from_ptr(place) }.load(Ordering::Relaxed)
    };
    let body = address + head;
    out.extend((address..body).map(byte));
    out.extend((0..words).flat_map(|index| word(body + 8 * index).to_ne_bytes()));
    out.extend((body + 8 * words..address + size).map(byte));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Temperature;

    #[test]
    fn every_start_and_length_is_read() {
        let bytes: Vec<u8> = (0..64).collect();
        for start in 0..16 {
            for size in 1..=40 {
                let address = bytes.as_ptr().expose_provenance() + start;
                let object =
                    Object { address, size, align: 1, mutable: false, temperature: Temperature::Hot };
                let mut out = vec![99];
                // SAFETY: a part of `bytes`.
                #[expect(unsafe_code, reason = "memory of this test")]
                unsafe {
                    read(&object, &mut out);
                }
                assert_eq!((out[0], &out[1..]), (99, &bytes[start..start + size]), "{start}, {size}");
            }
        }
    }
}
