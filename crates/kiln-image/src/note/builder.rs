//! The note of an image that is being written.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::checksum::{QUICK_LEN, image_id, quick_sum};
use super::format::{
    BaseRecord, ExportRecord, FORMAT_VERSION, HEAD_LEN, Head, IMAGE_ID, ImportRecord, LevelRecord, MAGIC,
    NONE, PREFIX_LEN, ReplaceableRecord, ReplacementRecord, SignerRecord, SlotRecord, Span, SumRecord,
    SymbolicRecord, Text, VersionRecord, prefix,
};
use crate::arch::Arch;

/// The length of an ELF note is a multiple of this.
const NOTE_ALIGN: usize = 4;
const _: () = assert!(size_of::<ExportRecord>().is_multiple_of(NOTE_ALIGN));
const _: () = assert!(size_of::<SignerRecord>().is_multiple_of(NOTE_ALIGN));

/// A note that is being made. Its length does not depend on addresses and checksums, so its range
/// of the file can be reserved before they are known.
#[derive(Default)]
pub(crate) struct NoteBuilder {
    pub(crate) head: Head,
    pub(crate) producers: Vec<Text>,
    pub(crate) features: Vec<Text>,
    pub(crate) signatures: Vec<Text>,
    pub(crate) slots: Vec<SlotRecord>,
    pub(crate) exports: Vec<ExportRecord>,
    pub(crate) symbolic: Vec<SymbolicRecord>,
    pub(crate) replaceable: Vec<ReplaceableRecord>,
    pub(crate) sums: Vec<SumRecord>,
    pub(crate) signers: Vec<SignerRecord>,
    pub(crate) levels: Vec<LevelRecord>,
    pub(crate) level_features: Vec<Text>,
    pub(crate) versions: Vec<VersionRecord>,
    pub(crate) bases: Vec<BaseRecord>,
    pub(crate) imports: Vec<ImportRecord>,
    pub(crate) replacements: Vec<ReplacementRecord>,
    strings: Vec<u8>,
}

impl NoteBuilder {
    /// Adds a text to the strings and returns its range there.
    pub(crate) fn text(&mut self, text: &str) -> Text {
        let start = U32::new(self.strings.len() as u32);
        self.strings.extend_from_slice(text.as_bytes());
        Text { start, len: U32::new(text.len() as u32) }
    }

    /// The bytes of the tables, in the order that [`finish`](Self::finish) gives their spans.
    fn tables(&self) -> [&[u8]; 16] {
        [
            self.producers.as_bytes(),
            self.features.as_bytes(),
            self.signatures.as_bytes(),
            self.slots.as_bytes(),
            self.symbolic.as_bytes(),
            self.replaceable.as_bytes(),
            self.sums.as_bytes(),
            self.levels.as_bytes(),
            self.level_features.as_bytes(),
            self.versions.as_bytes(),
            self.bases.as_bytes(),
            self.imports.as_bytes(),
            self.replacements.as_bytes(),
            &self.strings,
            self.exports.as_bytes(),
            self.signers.as_bytes(),
        ]
    }

    /// Returns the length of the ELF note in bytes, or `None` if it is too long for an ELF note.
    /// After this call, records may still be changed, but no string or record may be added.
    pub(crate) fn len(&self) -> Option<usize> {
        let all = HEAD_LEN + self.tables().iter().map(|table| table.len()).sum::<usize>();
        let last = self.exports.as_bytes().len() + self.signers.as_bytes().len();
        let len = PREFIX_LEN + (all - last).next_multiple_of(NOTE_ALIGN) + last;
        (len < NONE as usize).then_some(len)
    }

    /// Returns the bytes of the ELF note.
    pub(crate) fn finish(&self, arch: Arch) -> Vec<u8> {
        let mut head = self.head;
        let mut body = vec![0; HEAD_LEN];
        let tables = self.tables();
        let mut left = tables.len();
        let spans = tables.map(|table| {
            left -= 1;
            if left == 1 {
                // In front of the exports, where the note's own checksum covers it. So the note
                // ends with its last table, and no byte of it is unchecked.
                body.resize(body.len().next_multiple_of(NOTE_ALIGN), 0);
            }
            let span = Span::new(body.len() as u64, table.len() as u64);
            body.extend_from_slice(table);
            span
        });
        [
            head.producers,
            head.features,
            head.signatures,
            head.slots,
            head.symbolic,
            head.replaceable,
            head.sums,
            head.levels,
            head.level_features,
            head.versions,
            head.bases,
            head.imports,
            head.replacements,
            head.strings,
            head.exports,
            head.signers,
        ] = spans;
        head.magic = MAGIC;
        head.version = U32::new(FORMAT_VERSION);
        head.head_len = U32::new(HEAD_LEN as u32);
        body[..HEAD_LEN].copy_from_slice(head.as_bytes());
        let end = head.exports.start.get() as usize;
        let id = image_id(&body[..end], IMAGE_ID);
        body[IMAGE_ID].copy_from_slice(&id);
        let sum = quick_sum(&body[QUICK_LEN..end]);
        body[..QUICK_LEN].copy_from_slice(&sum.to_le_bytes());
        let mut note = prefix(arch, body.len() as u32).to_vec();
        note.append(&mut body);
        note
    }
}
