//! Reads numbers and texts from untrusted bytes.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The rest of some bytes. A method returns `None` if they end too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Reads a LEB128 number of at most 32 bits.
    #[inline]
    pub(super) fn uint(&mut self) -> Option<u32> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(first.into());
        }
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.byte()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0xf {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a number that is an index or a length.
    pub(super) fn len(&mut self) -> Option<usize> {
        usize::try_from(self.uint()?).ok()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Reads the length and the bytes of a text, which may not be UTF-8.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.len()?;
        self.bytes(len)
    }

    /// Reads `count` records.
    pub(super) fn records<T>(&mut self, count: usize) -> Option<&'a [T]>
    where
        T: FromBytes + Immutable + KnownLayout + Unaligned,
    {
        let (records, rest) = <[T]>::ref_from_prefix_with_elems(self.0, count).ok()?;
        self.0 = rest;
        Some(records)
    }
}
