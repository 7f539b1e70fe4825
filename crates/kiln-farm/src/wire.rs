//! Reads fields of untrusted bytes, with little-endian numbers.

/// Bytes are not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {what}")]
pub struct FormatError {
    /// The offset of the first byte that is wrong or missing.
    pub offset: usize,
    /// The reason.
    pub what: &'static str,
}

/// Reads from the front of a byte string.
pub(crate) struct Reader<'a> {
    all: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(all: &'a [u8]) -> Self {
        Self { all, offset: 0 }
    }

    pub(crate) fn error(&self, what: &'static str) -> FormatError {
        FormatError { offset: self.offset, what }
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Result<&'a [u8], FormatError> {
        let rest = &self.all[self.offset..];
        let part = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let part = part.ok_or_else(|| self.error("it ends in the middle of a field"))?;
        self.offset += part.len();
        Ok(part)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let bytes = self.bytes(N as u64)?;
        Ok(bytes.try_into().expect("as many bytes as were asked for"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads the first bytes of a form.
    pub(crate) fn magic(&mut self, magic: &[u8; 8], what: &'static str) -> Result<(), FormatError> {
        if self.all.starts_with(magic) {
            self.offset += magic.len();
            return Ok(());
        }
        Err(self.error(what))
    }

    /// Reads the number of items, of which each has at least `least` bytes. So a list that is made
    /// for them is never longer than the bytes.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, FormatError> {
        let start = self.offset;
        let count = self.u32()? as usize;
        if count > (self.all.len() - self.offset) / least {
            return Err(FormatError { offset: start, what: "more items than bytes" });
        }
        Ok(count)
    }

    pub(crate) fn end(&self) -> Result<(), FormatError> {
        if self.offset == self.all.len() { Ok(()) } else { Err(self.error("bytes after the end")) }
    }
}
