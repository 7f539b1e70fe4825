//! Numbers in the byte order of a machine, in untrusted bytes.

use object::Endianness;

/// Bytes that hold numbers. A method returns `None` if the bytes end too early.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) endian: Endianness,
}

impl Numbers<'_> {
    fn get<const LEN: usize>(&self, offset: usize) -> Option<[u8; LEN]> {
        let mut bytes = *self.bytes.get(offset..)?.first_chunk()?;
        if self.endian == Endianness::Big {
            bytes.reverse();
        }
        Some(bytes)
    }

    pub(crate) fn u16(&self, offset: usize) -> Option<u16> {
        self.get(offset).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&self, offset: usize) -> Option<u32> {
        self.get(offset).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&self, offset: usize) -> Option<u64> {
        self.get(offset).map(u64::from_le_bytes)
    }
}
