//! The note of an image that is being read, as a view of its bytes.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::checksum::{SUM_LEN, checksum};
use super::format::{
    FORMAT_VERSION, HEAD_LEN, Head, MAGIC, PREFIX_LEN, ReplaceableRecord, SlotRecord, Span, SumRecord,
    SymbolicRecord, Text, prefix,
};
use crate::arch::Arch;
use crate::error::LoadError;

/// A checked note.
#[derive(Clone, Copy)]
pub(crate) struct Note<'a> {
    pub(crate) head: &'a Head,
    body: &'a [u8],
}

impl<'a> Note<'a> {
    /// Checks a whole ELF note at file offset `offset`: first what [`Note::peek`] does, then its
    /// checksum, and the ranges of tables and texts. The keys of slots are left to
    /// [`Note::check_keys`].
    pub(crate) fn parse(note: &'a [u8], arch: Arch, offset: u64, file_len: u64) -> Result<Self, LoadError> {
        let note = Self::peek(note, note.len(), arch, offset, file_len)?;
        let Self { head, body } = note;
        let body_offset = offset + PREFIX_LEN as u64;
        if checksum(&body[SUM_LEN..]) != head.sum {
            return Err(LoadError::Altered { section: "note".into() });
        }
        if head.head_len.get() as usize != HEAD_LEN {
            return Err(LoadError::malformed("note head of a wrong length", body_offset));
        }
        note.check().map_err(|what| LoadError::malformed(what, body_offset))?;
        Ok(note)
    }

    /// Checks the start of an ELF note of `len` bytes for a file of `file_len` bytes: that it is a
    /// Kiln note of this format version, which was written into a file of this length. Nothing is
    /// hashed, so a file of gigabytes that is not an image is refused before it is read.
    pub(crate) fn peek(
        note: &'a [u8],
        len: usize,
        arch: Arch,
        offset: u64,
        file_len: u64,
    ) -> Result<Self, LoadError> {
        let fail = |what| Err(LoadError::malformed(what, offset));
        let (Some((start, body)), Some(body_len)) =
            (note.split_first_chunk::<PREFIX_LEN>(), len.checked_sub(PREFIX_LEN))
        else {
            return fail("truncated note");
        };
        if u32::try_from(body_len).ok().is_none_or(|len| *start != prefix(arch, len)) {
            return fail("note that is not kiln's");
        }
        let body_offset = offset + PREFIX_LEN as u64;
        let Ok((head, _)) = Head::ref_from_prefix(body) else {
            return Err(LoadError::malformed("truncated note", body_offset));
        };
        if head.magic != MAGIC {
            return Err(LoadError::malformed("note that is not kiln's", body_offset));
        }
        if head.version.get() != FORMAT_VERSION {
            return Err(LoadError::Version { found: head.version.get(), expected: FORMAT_VERSION });
        }
        if head.file_len.get() != file_len {
            return Err(LoadError::Length { found: file_len, expected: head.file_len.get() });
        }
        Ok(Self { head, body })
    }

    /// Returns the note with this body, which [`Note::parse`] accepted before, or `None` if the
    /// body is too short.
    #[cfg(feature = "load")]
    pub(crate) fn again(body: &'a [u8]) -> Option<Self> {
        Head::ref_from_prefix(body).ok().map(|(head, _)| Self { head, body })
    }

    /// Returns the table with this range, or `None` if the range is outside the body or not a
    /// whole number of records.
    pub(super) fn table<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &self,
        span: Span,
    ) -> Option<&'a [T]> {
        <[T]>::ref_from_bytes(&self.body[span.within(self.body.len())?]).ok()
    }

    /// Returns a text, or `None` if it is outside the strings or not UTF-8.
    pub(crate) fn text(&self, text: Text) -> Option<&'a str> {
        let strings = self.table::<u8>(self.head.strings)?;
        let start = text.start.get() as usize;
        let bytes = strings.get(start..start.checked_add(text.len.get() as usize)?)?;
        std::str::from_utf8(bytes).ok()
    }

    /// The compilers of the modules.
    pub(crate) fn producers(&self) -> &'a [Text] {
        self.table(self.head.producers).unwrap_or_default()
    }

    /// The CPU features that the code may use.
    pub(crate) fn features(&self) -> &'a [Text] {
        self.table(self.head.features).unwrap_or_default()
    }

    /// The external slots, in order.
    pub(crate) fn slots(&self) -> &'a [SlotRecord] {
        self.table(self.head.slots).unwrap_or_default()
    }

    /// The pointers in data that are the value of a slot plus a constant.
    pub(crate) fn symbolic(&self) -> &'a [SymbolicRecord] {
        self.table(self.head.symbolic).unwrap_or_default()
    }

    /// The replaceable functions, in order of their dynamic symbols.
    pub(crate) fn replaceable(&self) -> &'a [ReplaceableRecord] {
        self.table(self.head.replaceable).unwrap_or_default()
    }

    /// The address of the slot of the dynamic symbol with this index, if that is a replaceable
    /// function.
    pub(crate) fn replaceable_slot(&self, symbol: u32) -> Option<u64> {
        let records = self.replaceable();
        let position = records.binary_search_by_key(&symbol, |record| record.symbol.get()).ok()?;
        Some(records[position].slot.get())
    }

    /// The checksums, in order of the file.
    pub(crate) fn sums(&self) -> &'a [SumRecord] {
        self.table(self.head.sums).unwrap_or_default()
    }

    /// The signatures.
    pub(crate) fn signatures(&self) -> &'a [Text] {
        self.table(self.head.signatures).unwrap_or_default()
    }

    /// The indices of the exports' signatures, in order of the dynamic symbols from
    /// `head.first_export` on; `u32::MAX` for an export without a signature.
    pub(crate) fn export_signatures(&self) -> &'a [U32] {
        self.table(self.head.export_signatures).unwrap_or_default()
    }

    /// The index of the signature of the dynamic symbol with this index.
    pub(crate) fn export_signature_index(&self, symbol: u32) -> Option<usize> {
        let number = symbol.checked_sub(self.head.first_export.get())?;
        self.export_signatures().get(number as usize).map(|index| index.get() as usize)
    }

    /// The signature of the dynamic symbol with this index.
    #[cfg(feature = "load")]
    pub(crate) fn export_signature(&self, symbol: u32) -> Option<&'a str> {
        self.signature(self.export_signature_index(symbol)?)
    }

    /// The signature with this index.
    #[cfg(feature = "load")]
    pub(crate) fn signature(&self, index: usize) -> Option<&'a str> {
        self.text(*self.signatures().get(index)?)
    }
}
