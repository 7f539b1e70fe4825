//! The note of an image that is read, as a view of its bytes.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::checksum::{SUM_LEN, checksum};
use super::format::{
    FORMAT_VERSION, HEAD_LEN, Head, MAGIC, PREFIX_LEN, SlotRecord, Span, SumRecord, SymbolicRecord, Text,
    prefix,
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
    /// Checks a whole ELF note at file offset `offset`: prefix, version, checksum, and the range of
    /// every table.
    pub(crate) fn parse(note: &'a [u8], arch: Arch, offset: u64) -> Result<Self, LoadError> {
        let fail = |what| Err(LoadError::malformed(what, offset));
        let Some((start, body)) = note.split_first_chunk::<PREFIX_LEN>() else {
            return fail("truncated note");
        };
        if u32::try_from(body.len()).ok().is_none_or(|len| *start != prefix(arch, len)) {
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
        if checksum(&body[SUM_LEN..]) != head.sum {
            return Err(LoadError::Altered { section: "note".into() });
        }
        if head.head_len.get() as usize != HEAD_LEN {
            return Err(LoadError::malformed("note head of another length", body_offset));
        }
        let note = Self { head, body };
        let whole = note.table::<Text>(head.producers).is_some()
            && note.table::<Text>(head.features).is_some()
            && note.table::<Text>(head.signatures).is_some()
            && note.table::<SlotRecord>(head.slots).is_some()
            && note.table::<U32>(head.export_signatures).is_some()
            && note.table::<SymbolicRecord>(head.symbolic).is_some()
            && note.table::<SumRecord>(head.sums).is_some()
            && note.table::<u8>(head.strings).is_some();
        if whole { Ok(note) } else { Err(LoadError::malformed("note table outside the note", body_offset)) }
    }

    /// The note with this body, which [`Note::parse`] accepted before; `None` if it is too short.
    #[cfg(feature = "load")]
    pub(crate) fn again(body: &'a [u8]) -> Option<Self> {
        Head::ref_from_prefix(body).ok().map(|(head, _)| Self { head, body })
    }

    /// The table with this range; `None` if it is outside the body or not a whole number of
    /// records.
    fn table<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self, span: Span) -> Option<&'a [T]> {
        <[T]>::ref_from_bytes(&self.body[span.within(self.body.len())?]).ok()
    }

    /// A text; `None` if it is outside the strings or not UTF-8.
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

    /// The checksums, in order of the file.
    pub(crate) fn sums(&self) -> &'a [SumRecord] {
        self.table(self.head.sums).unwrap_or_default()
    }

    /// The signature with this index.
    pub(crate) fn signature(&self, index: u32) -> Option<&'a str> {
        let signatures = self.table::<Text>(self.head.signatures)?;
        self.text(*signatures.get(index as usize)?)
    }

    /// The signature of the dynamic symbol with this index.
    pub(crate) fn export_signature(&self, symbol: u32) -> Option<&'a str> {
        let indices = self.table::<U32>(self.head.export_signatures)?;
        let index = indices.get(symbol.checked_sub(self.head.first_export.get())? as usize)?;
        self.signature(index.get())
    }
}
