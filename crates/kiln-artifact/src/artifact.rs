//! The [`Artifact`] type: one byte string, with an accessor for each of its tables.
//!
//! Invariant: an [`Artifact`] exists only if its bytes passed the checks in `check.rs`, where
//! [`Artifact::from_bytes`] is defined. So accessors cannot fail, and every index in a record is
//! valid.

use std::ops::Range;
use std::sync::Arc;

use kiln_globals::GlobalAccess;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::ArtifactError;
use crate::layout::{HEADER_LEN, TABLES, Table, header_error, read_header};
use crate::record::{
    FunctionRecord, NamedData, PatchableCall, Reloc, ResolvedCall, SectionKind, StackMap, StackMapEntry, Str,
    Summary, SymbolKind, SymbolRecord,
};

/// The compiled form of one module. It is cheap to clone.
#[derive(Clone)]
pub struct Artifact(Arc<Inner>);

struct Inner {
    /// The buffer that the caller gave; the artifact is in it from `start` to the end.
    buffer: Vec<u8>,
    start: usize,
    /// The end of each table in `buffer`, where the next one starts.
    ends: [u32; TABLES],
}

/// Returns the range of a table, in the buffer of an artifact that starts at `start`.
#[inline]
fn range(start: usize, ends: &[u32; TABLES], table: Table) -> Range<usize> {
    let before = match (table as usize).checked_sub(1) {
        Some(before) => ends[before] as usize,
        None => start + HEADER_LEN,
    };
    before..ends[table as usize] as usize
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact")
            .field("bytes", &self.as_bytes().len())
            .field("functions", &self.functions().len())
            .field("symbols", &self.symbols().len())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Artifact {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Artifact {}

impl Artifact {
    /// Finds the tables of the artifact that starts at `start` in `buffer`, without checking their
    /// content. Until the result is checked, only [`Artifact::table_bytes`] may be used.
    pub(crate) fn unchecked(buffer: Vec<u8>, start: usize) -> Result<Self, ArtifactError> {
        let bytes = buffer.get(start..).ok_or(header_error("start outside the buffer"))?;
        if u32::try_from(buffer.len()).is_err() {
            return Err(header_error("4 GiB or more, with what comes before it"));
        }
        let ends = read_header(bytes)?.map(|end| start as u32 + end);
        Ok(Self(Arc::new(Inner { buffer, start, ends })))
    }

    /// Returns the artifact's bytes, in the form that [`Artifact::from_bytes`] accepts.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.buffer[self.0.start..]
    }

    /// Returns the raw bytes of one table.
    #[inline]
    pub fn table_bytes(&self, table: Table) -> &[u8] {
        &self.0.buffer[range(self.0.start, &self.0.ends, table)]
    }

    /// Returns the records of one table.
    #[inline]
    pub(crate) fn records<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self, table: Table) -> &[T] {
        <[T]>::ref_from_bytes(self.table_bytes(table)).expect("lengths were checked")
    }

    pub(crate) fn str(&self, text: Str) -> &str {
        // Most are short. A copy of the table as text would take as much memory again.
        str::from_utf8(self.str_bytes(text)).expect("strings were checked")
    }

    #[inline]
    fn str_bytes(&self, text: Str) -> &[u8] {
        let start = text.start.get() as usize;
        &self.table_bytes(Table::Strings)[start..start + text.len.get() as usize]
    }

    /// Returns the facts about the module as a whole.
    #[inline]
    pub fn summary(&self) -> &Summary {
        &self.records::<Summary>(Table::Summary)[0]
    }

    /// Returns the target triple, as target-lexicon prints it.
    pub fn triple(&self) -> &str {
        self.str(self.summary().triple)
    }

    /// Returns how the code reaches globals and everything else outside of the module. Only with
    /// [`GlobalAccess::Direct`] may it contain addresses, [`RelocKind::Abs64`](crate::RelocKind).
    pub fn global_access(&self) -> GlobalAccess {
        GlobalAccess::from_code(self.summary().globals).unwrap_or_default()
    }

    /// Returns the name and version of the compiler.
    pub fn producer(&self) -> &str {
        self.str(self.summary().producer)
    }

    /// Returns the CPU features that the code may use, by their names in Cranelift's settings
    /// (`has_avx2`), sorted.
    pub fn features(&self) -> impl ExactSizeIterator<Item = &str> {
        self.records::<Str>(Table::Features).iter().map(|&text| self.str(text))
    }

    /// Whether the module was compiled for the target triple `triple`.
    pub fn has_triple(&self, triple: &str) -> bool {
        self.str_bytes(self.summary().triple) == triple.as_bytes()
    }

    /// Whether the module was compiled for the target triple `triple` and may use exactly the CPU
    /// features `features`, which are sorted. This compares bytes, which is faster than to read
    /// [`triple`](Self::triple) and [`features`](Self::features).
    pub fn is_for<'a>(&self, triple: &str, features: impl ExactSizeIterator<Item = &'a str>) -> bool {
        let own = self.records::<Str>(Table::Features);
        self.has_triple(triple)
            && own.len() == features.len()
            && own.iter().zip(features).all(|(&own, feature)| self.str_bytes(own) == feature.as_bytes())
    }

    /// Whether both modules were compiled for the same target triple and may use the same CPU
    /// features.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        let [own, others] = [self, other].map(|artifact| artifact.records::<Str>(Table::Features));
        self.str_bytes(self.summary().triple) == other.str_bytes(other.summary().triple)
            && own.len() == others.len()
            && own.iter().zip(others).all(|(&own, &of)| self.str_bytes(own) == other.str_bytes(of))
    }

    /// Returns the signatures of the module's functions and imports, as
    /// [`Signature`](crate::Signature) prints them.
    pub fn signatures(&self) -> impl ExactSizeIterator<Item = &str> {
        self.records::<Str>(Table::Signatures).iter().map(|&text| self.str(text))
    }

    /// Returns the signature with this index, or `None` if there is none.
    #[inline]
    pub fn signature(&self, index: usize) -> Option<&str> {
        self.records::<Str>(Table::Signatures).get(index).map(|&text| self.str(text))
    }

    /// Returns the symbols that the module defines or uses. Globals are in order of first use.
    #[inline]
    pub fn symbols(&self) -> &[SymbolRecord] {
        self.records(Table::Symbols)
    }

    /// Returns a symbol's name, or a global's key; empty for an anonymous local.
    #[inline]
    pub fn name(&self, symbol: &SymbolRecord) -> &str {
        self.str(symbol.name)
    }

    /// Returns the bytes of a symbol's name, to compare, hash or copy it. This is faster than
    /// [`name`](Self::name), because nothing is checked.
    #[inline]
    pub fn name_bytes(&self, symbol: &SymbolRecord) -> &[u8] {
        self.str_bytes(symbol.name)
    }

    /// Returns the keys of the globals that the module uses and does not define, in order of first
    /// use.
    pub fn globals(&self) -> impl Iterator<Item = &str> {
        self.symbols()
            .iter()
            .filter(|symbol| symbol.kind() == SymbolKind::Global && !symbol.is_defined())
            .map(|symbol| self.name(symbol))
    }

    /// Returns the module's functions, in the order of their code in the text section.
    #[inline]
    pub fn functions(&self) -> &[FunctionRecord] {
        self.records(Table::Functions)
    }

    /// Returns the text section: position-independent code, in which calls inside the module are
    /// resolved.
    #[inline]
    pub fn text(&self) -> &[u8] {
        self.table_bytes(Table::Text)
    }

    /// Returns the data that is never written once it is relocated.
    #[inline]
    pub fn read_only(&self) -> &[u8] {
        self.table_bytes(Table::ReadOnly)
    }

    /// Returns the initial content of writable data, without zeroed data.
    #[inline]
    pub fn writable(&self) -> &[u8] {
        self.table_bytes(Table::Writable)
    }

    /// Returns the relocations of the code, in order of offset.
    #[inline]
    pub fn text_relocs(&self) -> &[Reloc] {
        self.records(Table::TextRelocs)
    }

    /// Returns the relocations of read-only data; all are
    /// [`RelocKind::Abs64`](crate::RelocKind::Abs64).
    #[inline]
    pub fn read_only_relocs(&self) -> &[Reloc] {
        self.records(Table::ReadOnlyRelocs)
    }

    /// Returns the relocations of writable data; all are
    /// [`RelocKind::Abs64`](crate::RelocKind::Abs64).
    #[inline]
    pub fn writable_relocs(&self) -> &[Reloc] {
        self.records(Table::WritableRelocs)
    }

    /// Returns the common information entry (CIE) of `.eh_frame` that all unwind rows refer to,
    /// with its length field; empty if there is none. Its augmentation is `zR`, with 4-byte
    /// pc-relative pointers.
    #[inline]
    pub fn cie(&self) -> &[u8] {
        self.table_bytes(Table::Cie)
    }

    /// Returns the call frame instructions of all functions. Each [`FunctionRecord`] gives the
    /// range that belongs to its function; these ranges do not overlap.
    #[inline]
    pub fn unwind(&self) -> &[u8] {
        self.table_bytes(Table::Unwind)
    }

    /// Returns the stack maps, in order of return address.
    #[inline]
    pub fn stack_maps(&self) -> &[StackMap] {
        self.records(Table::StackMaps)
    }

    /// Returns the entries of all stack maps. Each [`StackMap`] gives the range of its own entries;
    /// these ranges do not overlap.
    pub fn stack_map_entries(&self) -> &[StackMapEntry] {
        self.records(Table::StackMapEntries)
    }

    /// Returns the calls that can be switched off, in order of their end.
    pub fn patchable_calls(&self) -> &[PatchableCall] {
        self.records(Table::PatchableCalls)
    }

    /// Returns the shortest no-op instruction of the target; empty if no call is patchable. To
    /// switch a patchable call off, overwrite it with copies of this instruction.
    pub fn nops(&self) -> &[u8] {
        self.table_bytes(Table::Nops)
    }

    /// Returns the indices of the symbols that functions refer to. Each [`FunctionRecord`] gives
    /// the range that belongs to its function, in order of first use; these ranges do not overlap.
    pub fn references(&self) -> &[U32] {
        self.records(Table::References)
    }

    /// Returns the calls inside the module that are already resolved in the code, in order of
    /// offset.
    pub fn resolved_calls(&self) -> &[ResolvedCall] {
        self.records(Table::ResolvedCalls)
    }

    /// Returns the runs of data that belong to a named section of an image: first the read-only
    /// runs, then the writable runs, each in order of offset.
    #[inline]
    pub fn named_data(&self) -> &[NamedData] {
        self.records(Table::NamedData)
    }

    /// Returns the name of the image's section that a run of named data belongs to.
    pub fn section_name(&self, run: &NamedData) -> &str {
        self.str(run.name)
    }

    /// Returns the size of a section of the module, in bytes; 0 for [`SectionKind::Undefined`].
    pub(crate) fn section_size(&self, section: SectionKind) -> u64 {
        match section {
            SectionKind::Undefined => 0,
            SectionKind::Text => self.text().len() as u64,
            SectionKind::ReadOnly => self.read_only().len() as u64,
            SectionKind::Writable => self.writable().len() as u64,
            SectionKind::Zeroed => self.summary().zeroed_size.get(),
        }
    }

    /// Returns the number of bytes of `section` before its first run of named data; if it has no
    /// such run, the size of the section.
    pub fn unnamed_len(&self, section: SectionKind) -> u64 {
        let runs = self.named_data();
        let first = runs.get(runs.partition_point(|run| run.section < section as u8));
        match first.filter(|run| run.section == section as u8) {
            Some(run) => run.start.get(),
            None => self.section_size(section),
        }
    }

    /// Returns the index of the run of named data that `offset` of `section` belongs to: the last
    /// run that starts at or before it.
    pub fn named_data_at(&self, section: SectionKind, offset: u64) -> Option<usize> {
        let runs = self.named_data();
        let after = runs.partition_point(|run| (run.section, run.start.get()) <= (section as u8, offset));
        after.checked_sub(1).filter(|&index| runs[index].section == section as u8)
    }
}
