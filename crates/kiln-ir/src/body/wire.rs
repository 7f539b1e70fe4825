//! Reads and writes the bytes of the canonical form and the binary form. Integers are LEB128;
//! numbers of a fixed size are little-endian.
//!
//! Invariants:
//! - Every integer has only one valid encoding, the shortest. A reader refuses all others, so equal
//!   content has equal bytes.
//! - A [`ByteReader`] never looks beyond its end. A count that it returns is at most the number of
//!   bytes that are left. So the memory that a caller reserves for a count is bounded by the length
//!   of the input.

/// An error while reading bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {what}")]
pub(crate) struct DecodeError {
    /// The offset from the start of the whole input.
    pub(crate) offset: usize,
    /// The reason.
    pub(crate) what: &'static str,
}

/// The result of reading bytes.
pub(crate) type DecodeResult<T> = Result<T, DecodeError>;

/// Writes bytes to a vector.
#[derive(Default)]
pub(crate) struct ByteWriter(pub(crate) Vec<u8>);

impl ByteWriter {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Writes an unsigned integer.
    #[inline]
    pub(crate) fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Writes up to four unsigned integers.
    ///
    /// Most integers take one or two bytes, in no regular pattern, so a branch on the length of
    /// each would often be mispredicted. That would cost more than the rest of the work, so there
    /// is no such branch.
    #[inline(always)]
    pub(crate) fn uints<const N: usize>(&mut self, values: [u64; N]) {
        const { assert!(N <= 4) };
        if values.iter().fold(0, |all, value| all | value) >= 1 << 14 {
            values.into_iter().for_each(|value| self.uint(value));
            return;
        }
        let (mut bytes, mut len) = ([0; 8], 0);
        for value in values {
            let long = value >= 0x80;
            bytes[len & 7] = value as u8 & 0x7f | u8::from(long) << 7;
            bytes[(len + 1) & 7] = (value >> 7) as u8;
            len += 1 + usize::from(long);
        }
        let end = self.0.len() + len;
        self.0.extend_from_slice(&bytes);
        self.0.truncate(end);
    }

    /// Writes a number of entries or a position in a table.
    #[inline]
    pub(crate) fn count(&mut self, value: usize) {
        self.uint(value as u64);
    }

    /// Writes a signed integer. Small integers of either sign are short.
    #[inline]
    pub(crate) fn int(&mut self, value: i64) {
        self.uint(zigzag(value));
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    /// Writes a length and that many bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub(crate) fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }
}

/// Maps 0, -1, 1, -2, .. to 0, 1, 2, 3, ..
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads bytes from front to back.
#[derive(Clone)]
pub(crate) struct ByteReader<'b> {
    bytes: &'b [u8],
    position: usize,
    /// The offset of the bytes in the whole input.
    base: usize,
}

impl<'b> ByteReader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self::with_base(bytes, 0)
    }

    /// Creates a reader of bytes that start at offset `base` of a larger input.
    pub(crate) fn with_base(bytes: &'b [u8], base: usize) -> Self {
        Self { bytes, position: 0, base }
    }

    /// Returns an error at the current position.
    #[cold]
    pub(crate) fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { offset: self.base + self.position, what }
    }

    /// Returns the position from the start of the whole input.
    pub(crate) fn offset(&self) -> usize {
        self.base + self.position
    }

    /// Returns the bytes that `later`, a copy of this reader, has read since it was copied.
    pub(crate) fn until(&self, later: &Self) -> &'b [u8] {
        &self.bytes[self.position..later.position]
    }

    /// Returns the next byte without consuming it.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    /// Returns the number of bytes, read or not.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Checks that no bytes are left.
    pub(crate) fn end(&self) -> DecodeResult<()> {
        if self.left() == 0 { Ok(()) } else { Err(self.error("more bytes than were announced")) }
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> DecodeResult<u8> {
        match self.bytes.get(self.position) {
            Some(byte) => {
                self.position += 1;
                Ok(*byte)
            }
            None => Err(self.error("ends early")),
        }
    }

    #[inline]
    pub(crate) fn raw(&mut self, length: usize) -> DecodeResult<&'b [u8]> {
        if length > self.left() {
            return Err(self.error("ends early"));
        }
        self.position += length;
        Ok(&self.bytes[self.position - length..self.position])
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> DecodeResult<[u8; N]> {
        let bytes = self.raw(N)?;
        Ok(bytes.try_into().expect("`raw` returns `N` bytes"))
    }

    #[inline]
    pub(crate) fn uint(&mut self) -> DecodeResult<u64> {
        let first = self.byte()?;
        if first < 0x80 { Ok(u64::from(first)) } else { self.long(first) }
    }

    fn long(&mut self, first: u8) -> DecodeResult<u64> {
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(self.error("an integer of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if byte == 0 { Err(self.error("an integer longer than need be")) } else { Ok(value) };
            }
            shift += 7;
        }
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> DecodeResult<u32> {
        let value = self.uint()?;
        u32::try_from(value).map_err(|_| self.error("an integer of more than 32 bits"))
    }

    #[inline]
    pub(crate) fn int(&mut self) -> DecodeResult<i64> {
        self.uint().map(unzigzag)
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> DecodeResult<i32> {
        let value = self.int()?;
        i32::try_from(value).map_err(|_| self.error("an integer of more than 32 bits"))
    }

    pub(crate) fn bool(&mut self) -> DecodeResult<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error("neither 0 nor 1")),
        }
    }

    /// Reads a number of entries, each of which takes at least one byte.
    #[inline]
    pub(crate) fn count(&mut self) -> DecodeResult<usize> {
        let value = self.uint()?;
        match usize::try_from(value) {
            Ok(count) if count <= self.left() => Ok(count),
            _ => Err(self.error("a count beyond the end")),
        }
    }

    /// Reads a position in a table of `len` entries.
    #[inline]
    pub(crate) fn index(&mut self, len: usize, what: &'static str) -> DecodeResult<usize> {
        let value = self.uint()?;
        match usize::try_from(value) {
            Ok(index) if index < len => Ok(index),
            _ => Err(self.error(what)),
        }
    }

    pub(crate) fn bytes(&mut self) -> DecodeResult<&'b [u8]> {
        let length = self.count()?;
        self.raw(length)
    }

    pub(crate) fn str(&mut self) -> DecodeResult<&'b str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.error("text that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut writer = ByteWriter::default();
            writer.uint(value);
            writer.int(value as i64);
            let mut reader = ByteReader::new(&writer.0);
            assert_eq!((reader.uint(), reader.int()), (Ok(value), Ok(value as i64)));
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn one_encoding_only() {
        let wrong = |bytes: &[u8]| ByteReader::new(bytes).uint().unwrap_err().what;
        assert_eq!(wrong(&[0x80, 0]), "an integer longer than need be");
        assert_eq!(wrong(&[0xff; 10]), "an integer of more than 64 bits");
        assert_eq!(wrong(&[0x80]), "ends early");
        assert_eq!(ByteReader::new(&[5, 0]).count().unwrap_err().what, "a count beyond the end");
        assert_eq!(
            ByteReader::new(&[2]).bool().unwrap_err(),
            DecodeError { offset: 1, what: "neither 0 nor 1" }
        );
    }
}
