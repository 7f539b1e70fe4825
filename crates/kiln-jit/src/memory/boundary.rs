//! Addresses at which no function may begin.

/// A function must not begin at a multiple of this number of bytes. When linkers remove a function,
/// they leave its unwind rows with a zero address, and libgcc's unwinder ignores such rows. If
/// addresses are encoded in 4 bytes, it tests only the low 32 bits of the address that it computes
/// (`unwind-dw2-fde.c`, `classify_object_over_fdes`), so it also ignores a function at a multiple
/// of 4 GiB, and no panic can unwind through that function.
pub(super) const BOUNDARY: u64 = 1 << 32;

/// Returns whether a function in `len` bytes of code at `address` begins at a [`BOUNDARY`].
/// `is_start` says whether a function begins at an offset.
pub(super) fn starts_at_boundary(address: u64, len: u64, is_start: impl Fn(u64) -> bool) -> bool {
    let offset = address.next_multiple_of(BOUNDARY) - address;
    offset < len && is_start(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_at_a_boundary_are_found() {
        let start = 5 * BOUNDARY;
        let only = |offset| move |other| other == offset;
        assert!(starts_at_boundary(start, 1, only(0)));
        assert!(starts_at_boundary(start - 16, 17, only(16)));
        // The boundary is inside a function, is after the code, or there is no code.
        assert!(!starts_at_boundary(start - 16, 17, only(8)));
        assert!(!starts_at_boundary(start - 16, 16, only(16)));
        assert!(!starts_at_boundary(start + 1, 4096, |_| true));
        assert!(!starts_at_boundary(start, 0, |_| true));
    }
}
