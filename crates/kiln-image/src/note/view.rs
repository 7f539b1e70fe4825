//! The note of an image that is being read, as a view of its bytes.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

#[cfg(feature = "verify")]
use super::checksum::image_id;
use super::checksum::{QUICK_LEN, quick_sum};
#[cfg(feature = "sign")]
use super::format::SignerRecord;
use super::format::{
    BaseRecord, ExportRecord, FORMAT_VERSION, HEAD_LEN, Head, ImportRecord, LevelRecord, MAGIC, PREFIX_LEN,
    ReplaceableRecord, ReplacementRecord, SlotRecord, Span, SumRecord, SymbolicRecord, Text, VersionRecord,
    prefix,
};
use crate::arch::Arch;
use crate::error::LoadError;

/// A checked note.
#[derive(Clone, Copy)]
pub(crate) struct Note<'a> {
    pub(crate) head: &'a Head,
    /// All tables but the exports.
    body: &'a [u8],
    /// The whole body.
    whole: &'a [u8],
}

impl<'a> Note<'a> {
    /// Checks a whole ELF note at file offset `offset`: that it is a Kiln note of this format
    /// version, its checksum, and the ranges of tables and texts. The keys of slots are left to
    /// [`Note::check_keys`].
    ///
    /// `read` are the first bytes of the note, or none, that were read in another way. They are
    /// used if they are enough, so that nobody waits for the page of the note.
    pub(crate) fn parse(note: &'a [u8], read: &'a [u8], arch: Arch, offset: u64) -> Result<Self, LoadError> {
        let truncated = || LoadError::malformed("truncated note", offset);
        let Some((_, whole)) = note.split_first_chunk::<PREFIX_LEN>() else { return Err(truncated()) };
        let front = if has_front(read) { read } else { note };
        let Some((start, body)) = front.split_first_chunk::<PREFIX_LEN>() else { return Err(truncated()) };
        if u32::try_from(whole.len()).ok().is_none_or(|len| *start != prefix(arch, len)) {
            return Err(LoadError::malformed("note that is not kiln's", offset));
        }
        let fail = |what| Err(LoadError::malformed(what, offset + PREFIX_LEN as u64));
        let Ok((head, _)) = Head::ref_from_prefix(body) else { return fail("truncated note") };
        if head.magic != MAGIC {
            return fail("note that is not kiln's");
        }
        if head.version.get() != FORMAT_VERSION {
            return Err(LoadError::Version { found: head.version.get(), expected: FORMAT_VERSION });
        }
        let end = usize::try_from(head.exports.start.get()).unwrap_or(usize::MAX);
        if body.get(QUICK_LEN..end).map(quick_sum) != Some(head.sum.get()) {
            return Err(LoadError::Altered { section: "note".into() });
        }
        let last = head.exports.within(whole.len()).zip(head.signers.within(whole.len()));
        if last.is_none_or(|(exports, room)| exports.end != room.start || room.end != whole.len()) {
            return fail("a note that does not end after its tables");
        }
        if head.head_len.get() as usize != HEAD_LEN {
            return fail("note head of a wrong length");
        }
        let note = Self { head, body, whole };
        note.check().map_err(|what| LoadError::malformed(what, offset + PREFIX_LEN as u64))?;
        Ok(note)
    }

    /// Returns the note with this head and body, which [`Note::parse`] accepted before. It does not
    /// read them.
    #[cfg(feature = "load")]
    pub(crate) fn again(head: &'a Head, body: &'a [u8]) -> Self {
        Self { head, body, whole: body }
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
        std::str::from_utf8(strings.get(text.range())?).ok()
    }

    /// All texts, one after the other, if they are UTF-8.
    #[cfg(feature = "load")]
    pub(crate) fn strings(&self) -> Option<&'a str> {
        std::str::from_utf8(self.table::<u8>(self.head.strings)?).ok()
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

    /// The levels of the processor that there is code for, the lowest first; none if all code is
    /// the same for all.
    pub(crate) fn levels(&self) -> &'a [LevelRecord] {
        self.table(self.head.levels).unwrap_or_default()
    }

    /// The features of all levels.
    pub(super) fn level_features(&self) -> &'a [Text] {
        self.table(self.head.level_features).unwrap_or_default()
    }

    /// The features that the code for a level may use.
    pub(crate) fn features_of(&self, level: &LevelRecord) -> impl Iterator<Item = &'a str> + use<'a> {
        let (start, len) = (level.first_feature.get() as usize, level.features.get() as usize);
        let all = self.level_features().get(start..start.saturating_add(len)).unwrap_or_default();
        let note = *self;
        // One without a name is none that a processor has.
        all.iter().map(move |&feature| note.text(feature).unwrap_or("unknown"))
    }

    /// The bodies of functions for levels, in order of levels and slots.
    pub(crate) fn versions(&self) -> &'a [VersionRecord] {
        self.table(self.head.versions).unwrap_or_default()
    }

    /// The bodies for one level.
    #[cfg(feature = "load")]
    pub(crate) fn versions_for(&self, level: u32) -> &'a [VersionRecord] {
        let all = self.versions();
        let from = all.partition_point(|version| version.level.get() < level);
        let to = all.partition_point(|version| version.level.get() <= level);
        &all[from..to]
    }

    /// The bases, in order.
    pub(crate) fn bases(&self) -> &'a [BaseRecord] {
        self.table(self.head.bases).unwrap_or_default()
    }

    /// The slots that are filled from bases, in order of slots.
    pub(crate) fn imports(&self) -> &'a [ImportRecord] {
        self.table(self.head.imports).unwrap_or_default()
    }

    /// The functions of bases that have new code.
    pub(crate) fn replacements(&self) -> &'a [ReplacementRecord] {
        self.table(self.head.replacements).unwrap_or_default()
    }

    /// Whether the id is that of the note, which has passed [`Note::parse`].
    #[cfg(feature = "verify")]
    pub(crate) fn has_its_hash(&self) -> bool {
        let end = usize::try_from(self.head.exports.start.get()).unwrap_or(usize::MAX);
        self.whole.get(..end).is_some_and(|front| image_id(front, super::format::IMAGE_ID) == self.head.id)
    }

    /// The signatures.
    pub(crate) fn signatures(&self) -> &'a [Text] {
        self.table(self.head.signatures).unwrap_or_default()
    }

    /// The exports, in order of the dynamic symbols from `head.first_export` on.
    pub(crate) fn exports(&self) -> &'a [ExportRecord] {
        let range = self.head.exports.within(self.whole.len()).unwrap_or_default();
        <[ExportRecord]>::ref_from_bytes(&self.whole[range]).unwrap_or_default()
    }

    /// The digital signatures, and the room for more.
    #[cfg(feature = "sign")]
    pub(crate) fn signers(&self) -> &'a [SignerRecord] {
        let range = self.head.signers.within(self.whole.len()).unwrap_or_default();
        <[SignerRecord]>::ref_from_bytes(&self.whole[range]).unwrap_or_default()
    }

    /// The bytes of the exports' records.
    #[cfg(feature = "verify")]
    pub(crate) fn export_bytes(&self) -> &'a [u8] {
        zerocopy::IntoBytes::as_bytes(self.exports())
    }

    /// The record of the export with this dynamic symbol and name; `None` if the symbol had another
    /// name when the image was linked.
    pub(crate) fn export(&self, symbol: u32, name: &[u8]) -> Option<&'a ExportRecord> {
        let number = symbol.checked_sub(self.head.first_export.get())?;
        let export = self.exports().get(number as usize)?;
        (export.hash.get() == object::elf::gnu_hash(name)).then_some(export)
    }

    /// The signature with this index.
    #[cfg(feature = "load")]
    pub(crate) fn signature(&self, index: usize) -> Option<&'a str> {
        self.text(*self.signatures().get(index)?)
    }
}

/// Returns whether the first bytes of a note have everything in front of its exports.
fn has_front(bytes: &[u8]) -> bool {
    let head = bytes.get(PREFIX_LEN..).and_then(|body| Head::ref_from_prefix(body).ok());
    let exports = head.and_then(|(head, _)| usize::try_from(head.exports.start.get()).ok());
    exports.is_some_and(|exports| bytes.len() - PREFIX_LEN >= exports)
}
