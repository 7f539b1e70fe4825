//! The note: what an image says about itself beyond ELF, in one `PT_NOTE` named `Kiln`.
//!
//! Body: a fixed [`Head`], then tables that the head refers to, all little-endian and unaligned on every architecture.
//! The head begins with a checksum of everything after it, so one short hash guards all that a loader goes by; the
//! checksums of sections are in a table and are compared only on demand. Invariant: [`Note::parse`] has checked that
//! every table lies in the body, so accessors only slice.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::LoadError;
use crate::arch::Arch;
use crate::elf64::NOTE_HEADER;

/// Version of the note, and so of the image format. Images of another version are refused.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"KilnImg\0";
/// The ELF note's owner, padded to a multiple of 4.
const OWNER: [u8; 8] = *b"Kiln\0\0\0\0";
const OWNER_LEN: u32 = 5;
const NOTE_TYPE: u32 = 1;
/// Bytes of the ELF note before its body.
pub(crate) const PREFIX_LEN: usize = NOTE_HEADER + OWNER.len();
pub(crate) const SUM_LEN: usize = 16;
/// "None" in a field that holds an index.
#[cfg(feature = "write")]
pub(crate) const NONE: u32 = u32::MAX;

pub(crate) type Sum = [u8; SUM_LEN];

/// BLAKE3, cut to 128 bits.
pub(crate) fn checksum(bytes: &[u8]) -> Sum {
    truncate(blake3::hash(bytes))
}

/// The same, with every thread of the pool.
#[cfg(feature = "write")]
pub(crate) fn checksum_parallel(bytes: &[u8]) -> Sum {
    // Below this, hashing takes less time than waking a thread.
    const SMALL: usize = 128 << 10;
    if bytes.len() < SMALL {
        return checksum(bytes);
    }
    truncate(blake3::Hasher::new().update_rayon(bytes).finalize())
}

pub(crate) fn truncate(hash: blake3::Hash) -> Sum {
    let mut sum = [0; SUM_LEN];
    sum.copy_from_slice(&hash.as_bytes()[..SUM_LEN]);
    sum
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $ty,)* }
    };
}

record! {
    /// A range of the note's body, or of the file, in bytes.
    Span { start: U64, len: U64, }
}

record! {
    /// A text in the note's strings.
    Text { start: U32, len: U32, }
}

record! {
    /// An external slot. `kind` is 0 for a global, 1 for a symbol; `signature` indexes the signatures or is `u32::MAX`.
    SlotRecord { key: Text, kind: U32, signature: U32, }
}

record! {
    /// A pointer in data that is the value of external slot `slot` plus `addend`.
    SymbolicRecord { place: U64, addend: I64, slot: U32, reserved: U32, }
}

record! {
    /// The checksum of a range of the file. The ranges follow each other without gaps.
    SumRecord { name: Text, range: Span, sum: Sum, }
}

record! {
    /// The fixed part. Spans up to `strings` are ranges of the body, later ones of the file, where offset and virtual
    /// address are equal.
    Head {
        sum: Sum,
        magic: [u8; 8],
        version: U32,
        head_len: U32,
        file_len: U64,
        headers_sum: Sum,
        kiln_version: Text,
        triple: Text,
        internal_slots: U64,
        relative_count: U64,
        first_export: U32,
        reserved: U32,
        producers: Span,
        features: Span,
        signatures: Span,
        slots: Span,
        export_signatures: Span,
        symbolic: Span,
        sums: Span,
        strings: Span,
        gnu_hash: Span,
        dynsym: Span,
        dynstr: Span,
        rela: Span,
        slot_array: Span,
        eh_frame: Span,
        text: Span,
    }
}

pub(crate) const HEAD_LEN: usize = size_of::<Head>();

impl Span {
    pub(crate) fn new(start: u64, len: u64) -> Self {
        Self { start: U64::new(start), len: U64::new(len) }
    }

    /// The span that covers `range`.
    #[cfg(feature = "write")]
    pub(crate) fn of(range: &std::ops::Range<usize>) -> Self {
        Self::new(range.start as u64, range.len() as u64)
    }

    /// The span as a range of indices, if it ends at `limit` or before.
    pub(crate) fn within(&self, limit: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(self.start.get()).ok()?;
        let end = start.checked_add(usize::try_from(self.len.get()).ok()?)?;
        (end <= limit).then_some(start..end)
    }
}

/// A checked note.
#[derive(Clone, Copy)]
pub(crate) struct Note<'a> {
    pub(crate) head: &'a Head,
    body: &'a [u8],
}

impl<'a> Note<'a> {
    /// Checks a whole ELF note at file offset `at`: prefix, version, checksum, and the place of every table.
    pub(crate) fn parse(note: &'a [u8], arch: Arch, at: u64) -> Result<Self, LoadError> {
        let fail = |what| Err(LoadError::malformed(what, at));
        let Some((prefix, body)) = note.split_first_chunk::<PREFIX_LEN>() else {
            return fail("truncated note");
        };
        if u32::try_from(body.len()).ok().is_none_or(|len| *prefix != self::prefix(arch, len)) {
            return fail("note that is not kiln's");
        }
        let at = at + PREFIX_LEN as u64;
        let Ok((head, _)) = Head::ref_from_prefix(body) else {
            return Err(LoadError::malformed("truncated note", at));
        };
        if head.magic != MAGIC {
            return Err(LoadError::malformed("note that is not kiln's", at));
        }
        if head.version.get() != FORMAT_VERSION {
            return Err(LoadError::Version { found: head.version.get(), expected: FORMAT_VERSION });
        }
        if checksum(&body[SUM_LEN..]) != head.sum {
            return Err(LoadError::Altered { section: "note".into() });
        }
        if head.head_len.get() as usize != HEAD_LEN {
            return Err(LoadError::malformed("note head of another length", at));
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
        if whole { Ok(note) } else { Err(LoadError::malformed("note table outside the note", at)) }
    }

    /// The note whose body is `body`, which [`Note::parse`] accepted before.
    #[cfg(feature = "load")]
    pub(crate) fn again(body: &'a [u8]) -> Option<Self> {
        Head::ref_from_prefix(body).ok().map(|(head, _)| Self { head, body })
    }

    fn table<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self, span: Span) -> Option<&'a [T]> {
        <[T]>::ref_from_bytes(&self.body[span.within(self.body.len())?]).ok()
    }

    /// A text; `None` if it lies outside the strings or is not UTF-8.
    pub(crate) fn text(&self, text: Text) -> Option<&'a str> {
        let strings = self.table::<u8>(self.head.strings)?;
        let start = text.start.get() as usize;
        let bytes = strings.get(start..start.checked_add(text.len.get() as usize)?)?;
        std::str::from_utf8(bytes).ok()
    }

    pub(crate) fn producers(&self) -> &'a [Text] {
        self.table(self.head.producers).unwrap_or_default()
    }

    pub(crate) fn features(&self) -> &'a [Text] {
        self.table(self.head.features).unwrap_or_default()
    }

    pub(crate) fn slots(&self) -> &'a [SlotRecord] {
        self.table(self.head.slots).unwrap_or_default()
    }

    pub(crate) fn symbolic(&self) -> &'a [SymbolicRecord] {
        self.table(self.head.symbolic).unwrap_or_default()
    }

    pub(crate) fn sums(&self) -> &'a [SumRecord] {
        self.table(self.head.sums).unwrap_or_default()
    }

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

fn prefix(arch: Arch, body_len: u32) -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    prefix[..4].copy_from_slice(&arch.u32_bytes(OWNER_LEN));
    prefix[4..8].copy_from_slice(&arch.u32_bytes(body_len));
    prefix[8..12].copy_from_slice(&arch.u32_bytes(NOTE_TYPE));
    prefix[12..].copy_from_slice(&OWNER);
    prefix
}

/// A note while it is being made. Its length does not depend on addresses and checksums, so it can be reserved first.
#[cfg(feature = "write")]
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) head: Head,
    pub(crate) producers: Vec<Text>,
    pub(crate) features: Vec<Text>,
    pub(crate) signatures: Vec<Text>,
    pub(crate) slots: Vec<SlotRecord>,
    pub(crate) export_signatures: Vec<U32>,
    pub(crate) symbolic: Vec<SymbolicRecord>,
    pub(crate) sums: Vec<SumRecord>,
    strings: Vec<u8>,
}

#[cfg(feature = "write")]
impl Builder {
    pub(crate) fn text(&mut self, text: &str) -> Text {
        let start = U32::new(self.strings.len() as u32);
        self.strings.extend_from_slice(text.as_bytes());
        Text { start, len: U32::new(text.len() as u32) }
    }

    fn tables(&self) -> [&[u8]; 8] {
        [
            self.producers.as_bytes(),
            self.features.as_bytes(),
            self.signatures.as_bytes(),
            self.slots.as_bytes(),
            self.export_signatures.as_bytes(),
            self.symbolic.as_bytes(),
            self.sums.as_bytes(),
            &self.strings,
        ]
    }

    /// Length of the ELF note in bytes; no more strings and records may be added, but they may be changed. `None` if it
    /// is too long for an ELF note.
    pub(crate) fn len(&self) -> Option<usize> {
        let body = HEAD_LEN + self.tables().iter().map(|table| table.len()).sum::<usize>();
        let len = PREFIX_LEN + body.next_multiple_of(4);
        (len < NONE as usize).then_some(len)
    }

    /// The bytes of the ELF note.
    pub(crate) fn finish(&self, arch: Arch) -> Vec<u8> {
        let mut head = self.head;
        let mut body = vec![0; HEAD_LEN];
        let spans = self.tables().map(|table| {
            let span = Span::new(body.len() as u64, table.len() as u64);
            body.extend_from_slice(table);
            span
        });
        body.resize(body.len().next_multiple_of(4), 0);
        [
            head.producers,
            head.features,
            head.signatures,
            head.slots,
            head.export_signatures,
            head.symbolic,
            head.sums,
            head.strings,
        ] = spans;
        head.magic = MAGIC;
        head.version = U32::new(FORMAT_VERSION);
        head.head_len = U32::new(HEAD_LEN as u32);
        body[..HEAD_LEN].copy_from_slice(head.as_bytes());
        let sum = checksum(&body[SUM_LEN..]);
        body[..SUM_LEN].copy_from_slice(&sum);
        let mut note = prefix(arch, body.len() as u32).to_vec();
        note.append(&mut body);
        note
    }
}
