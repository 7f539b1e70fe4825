//! The artifact: one byte string with a directory of sections.
//!
//! Layout, all numbers little-endian: magic (8 bytes), format version (`u32`), number of sections (`u32`), total
//! length (`u64`), then per section its length (`u64`), then the sections in that order without gaps.
//!
//! Invariant: [`Artifact::from_bytes`] has checked every range and index, so every accessor returns what it finds.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::record::{
    FunctionRecord, Handler, HandlerKind, Linkage, NamedData, PatchableCall, Reloc, ResolvedCall,
    SectionKind, StackMap, StackMapEntry, Str, Summary, SymbolKind, SymbolRecord,
};
use crate::stream::{CallSite, CallSites, SourceRange, SourceRanges, Trap, Traps};
use crate::{ArtifactError, FORMAT_VERSION, RelocKind, unwind};

const MAGIC: [u8; 8] = *b"KilnArt\0";
/// Number of sections of an artifact.
pub(crate) const TABLES: usize = Table::ALL.len();
/// Bytes before the first section.
pub(crate) const HEADER_LEN: usize = 8 + 4 + 4 + 8 + 8 * TABLES;

macro_rules! sections {
    ($($name:ident, $text:literal;)*) => {
        /// A part of an artifact, in order of its place in the bytes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is documented at its accessor in `Artifact`")]
        pub enum Table { $($name),* }

        impl Table {
            /// Every section in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The section's name, for messages and tools.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

sections! {
    Summary, "summary";
    Strings, "strings";
    Features, "features";
    Signatures, "signatures";
    Symbols, "symbols";
    Functions, "functions";
    Text, "text";
    ReadOnly, "read-only data";
    Writable, "writable data";
    TextRelocs, "text relocations";
    ReadOnlyRelocs, "read-only relocations";
    WritableRelocs, "writable relocations";
    Cie, "common unwind information";
    Unwind, "unwind rows";
    Traps, "traps";
    SourceRanges, "source locations";
    CallSites, "call sites";
    Handlers, "exception handlers";
    StackMaps, "stack maps";
    StackMapEntries, "stack map entries";
    PatchableCalls, "patchable calls";
    Nops, "no-ops";
    References, "references";
    ResolvedCalls, "resolved calls";
    NamedData, "named data";
}

/// The compiled form of one module. Cheap to clone.
#[derive(Clone)]
pub struct Artifact(Arc<Inner>);

struct Inner {
    /// What was handed over; the artifact lies from `start` to the end.
    buffer: Vec<u8>,
    start: usize,
    /// The string section, as text: names are taken from it very often.
    strings: Box<str>,
    /// Start and end of each section in `buffer`.
    sections: [(usize, usize); TABLES],
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

/// Writes everything that stands before the sections.
pub(crate) fn write_header(out: &mut Vec<u8>, sections: &[(Table, usize); TABLES]) {
    let total = HEADER_LEN + sections.iter().map(|(_, len)| len).sum::<usize>();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&(TABLES as u32).to_le_bytes());
    out.extend_from_slice(&(total as u64).to_le_bytes());
    for (expected, (section, len)) in Table::ALL.iter().zip(sections) {
        assert_eq!(expected, section, "sections are written in order");
        out.extend_from_slice(&(*len as u64).to_le_bytes());
    }
}

impl Artifact {
    /// Takes bytes that may come from anywhere, and checks them.
    ///
    /// # Errors
    ///
    /// [`ArtifactError`] if the bytes are not an artifact of this format version: wrong magic or version, truncated,
    /// longer than they say, or with a record that points outside its target. Time is linear in the length.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, ArtifactError> {
        Self::from_buffer(bytes.into(), 0)
    }

    /// Takes an artifact that lies in `buffer` from `start` to the end, and leaves it there: nothing is copied but names.
    ///
    /// For whoever reads a file that holds more than the artifact.
    ///
    /// # Errors
    ///
    /// As [`Artifact::from_bytes`]; also if `start` lies outside the buffer.
    pub fn from_buffer(buffer: Vec<u8>, start: usize) -> Result<Self, ArtifactError> {
        let bytes = buffer.get(start..).ok_or(ArtifactError::new("header", 0, "start outside the buffer"))?;
        let sections = read_header(bytes)?.map(|(from, to)| (start + from, start + to));
        let (from, to) = sections[Table::Strings as usize];
        let strings = std::str::from_utf8(&buffer[from..to])
            .map_err(|_| ArtifactError::new(Table::Strings.name(), 0, "text that is not UTF-8"))?
            .into();
        let artifact = Self(Arc::new(Inner { buffer, start, strings, sections }));
        artifact.check()?;
        Ok(artifact)
    }

    /// The bytes, as [`Artifact::from_bytes`] takes them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.buffer[self.0.start..]
    }

    /// The raw bytes of one section.
    pub fn table_bytes(&self, table: Table) -> &[u8] {
        let (start, end) = self.0.sections[table as usize];
        &self.0.buffer[start..end]
    }

    /// Facts about the module as a whole.
    pub fn summary(&self) -> &Summary {
        &self.table::<Summary>(Table::Summary)[0]
    }

    /// Target triple, as target-lexicon prints it.
    pub fn triple(&self) -> &str {
        self.str(self.summary().triple)
    }

    /// Who compiled the module, with version.
    pub fn producer(&self) -> &str {
        self.str(self.summary().producer)
    }

    /// CPU features that the code may use, by Cranelift's setting names (`has_avx2`), sorted.
    pub fn features(&self) -> impl ExactSizeIterator<Item = &str> {
        self.table::<Str>(Table::Features).iter().map(|&text| self.str(text))
    }

    /// Signatures of the module's functions and imports, as [`Signature`](crate::Signature) prints them.
    pub fn signatures(&self) -> impl ExactSizeIterator<Item = &str> {
        self.table::<Str>(Table::Signatures).iter().map(|&text| self.str(text))
    }

    /// The signature with this index, or `None` if there is none.
    pub fn signature(&self, index: usize) -> Option<&str> {
        self.table::<Str>(Table::Signatures).get(index).map(|&text| self.str(text))
    }

    /// Symbols that the module defines or uses. Globals stand in order of first use.
    pub fn symbols(&self) -> &[SymbolRecord] {
        self.table(Table::Symbols)
    }

    /// A symbol's name, or a global's key; empty for an anonymous local.
    pub fn name(&self, symbol: &SymbolRecord) -> &str {
        self.str(symbol.name)
    }

    /// Keys of the globals that the module uses, in order of first use.
    pub fn globals(&self) -> impl Iterator<Item = &str> {
        self.symbols()
            .iter()
            .filter(|symbol| symbol.kind() == SymbolKind::Global)
            .map(|symbol| self.name(symbol))
    }

    /// Functions in order of their place in the code.
    pub fn functions(&self) -> &[FunctionRecord] {
        self.table(Table::Functions)
    }

    /// Code, position independent, with calls inside the module resolved.
    pub fn text(&self) -> &[u8] {
        self.table_bytes(Table::Text)
    }

    /// Data that is never written once it is relocated.
    pub fn read_only(&self) -> &[u8] {
        self.table_bytes(Table::ReadOnly)
    }

    /// Initial content of writable data.
    pub fn writable(&self) -> &[u8] {
        self.table_bytes(Table::Writable)
    }

    /// Places to patch in the code.
    pub fn text_relocs(&self) -> &[Reloc] {
        self.table(Table::TextRelocs)
    }

    /// Places to patch in read-only data; all are [`RelocKind::Abs64`].
    pub fn read_only_relocs(&self) -> &[Reloc] {
        self.table(Table::ReadOnlyRelocs)
    }

    /// Places to patch in writable data; all are [`RelocKind::Abs64`].
    pub fn writable_relocs(&self) -> &[Reloc] {
        self.table(Table::WritableRelocs)
    }

    /// The common information entry of `.eh_frame` that all unwind rows refer to, with its length field; empty if
    /// there is none. Its augmentation is `zR`, with 4-byte pc-relative pointers.
    pub fn cie(&self) -> &[u8] {
        self.table_bytes(Table::Cie)
    }

    /// Call frame instructions of all functions; [`FunctionRecord`] says which are whose.
    pub fn unwind(&self) -> &[u8] {
        self.table_bytes(Table::Unwind)
    }

    /// Traps of all functions, by ascending offset.
    pub fn traps(&self) -> impl Iterator<Item = Trap> {
        (0..self.functions().len()).flat_map(|function| self.traps_of(function))
    }

    /// Traps of the function at this position, by ascending offset.
    ///
    /// # Panics
    ///
    /// When there is no such function.
    pub fn traps_of(&self, function: usize) -> Traps<'_> {
        let record = &self.functions()[function];
        Traps::new(self.stream_of(function, Table::Traps), record.start.get(), 0)
    }

    /// Source locations of all functions, by ascending offset.
    pub fn source_ranges(&self) -> impl Iterator<Item = SourceRange> {
        (0..self.functions().len()).flat_map(|function| self.source_ranges_of(function))
    }

    /// Source locations of the function at this position, by ascending offset.
    ///
    /// # Panics
    ///
    /// When there is no such function.
    pub fn source_ranges_of(&self, function: usize) -> SourceRanges<'_> {
        let record = &self.functions()[function];
        let piece = self.stream_of(function, Table::SourceRanges);
        SourceRanges::new(piece, record.start.get(), record.base_location.get())
    }

    /// Calls of all functions, by ascending return address, each with its exception handlers.
    pub fn call_sites(&self) -> impl Iterator<Item = (CallSite, &[Handler])> {
        (0..self.functions().len()).flat_map(|function| self.call_sites_of(function))
    }

    /// Calls of the function at this position, likewise.
    ///
    /// # Panics
    ///
    /// When there is no such function.
    pub fn call_sites_of(&self, function: usize) -> impl Iterator<Item = (CallSite, &[Handler])> {
        let record = &self.functions()[function];
        let mut handlers = self.handlers_of(function);
        CallSites::new(self.stream_of(function, Table::CallSites), record.start.get(), 0).map(move |site| {
            let (own, rest) = handlers.split_at(site.handlers as usize);
            handlers = rest;
            (site, own)
        })
    }

    /// Entries of the exception tables of all functions.
    pub fn handlers(&self) -> &[Handler] {
        self.table(Table::Handlers)
    }

    /// Those of the function at this position.
    ///
    /// # Panics
    ///
    /// When there is no such function.
    pub fn handlers_of(&self, function: usize) -> &[Handler] {
        let (start, end) = self.bounds(function, Table::Handlers);
        &self.handlers()[start..end]
    }

    /// A function's piece of one of the sections that are streams, as a compiler wrote it.
    ///
    /// # Panics
    ///
    /// When there is no such function, or the section is not a stream.
    pub fn stream_of(&self, function: usize, section: Table) -> &[u8] {
        let (start, end) = self.bounds(function, section);
        &self.table_bytes(section)[start..end]
    }

    /// Where a function's part of a section starts and ends.
    fn bounds(&self, function: usize, section: Table) -> (usize, usize) {
        let start = |function: &FunctionRecord| match section {
            Table::Traps => function.traps_start.get() as usize,
            Table::SourceRanges => function.source_ranges_start.get() as usize,
            Table::CallSites => function.call_sites_start.get() as usize,
            Table::Handlers => function.handlers_start.get() as usize,
            _ => panic!("{} are not divided by functions", section.name()),
        };
        let whole = match section {
            Table::Handlers => self.handlers().len(),
            _ => self.table_bytes(section).len(),
        };
        let functions = self.functions();
        (start(&functions[function]), functions.get(function + 1).map_or(whole, start))
    }

    /// Stack maps, by ascending return address.
    pub fn stack_maps(&self) -> &[StackMap] {
        self.table(Table::StackMaps)
    }

    /// Entries of the stack maps; [`StackMap`] says which are whose.
    pub fn stack_map_entries(&self) -> &[StackMapEntry] {
        self.table(Table::StackMapEntries)
    }

    /// Calls that can be switched off.
    pub fn patchable_calls(&self) -> &[PatchableCall] {
        self.table(Table::PatchableCalls)
    }

    /// The shortest no-op of the target: repeat it over a patchable call to switch the call off.
    pub fn nops(&self) -> &[u8] {
        self.table_bytes(Table::Nops)
    }

    /// Symbols that functions refer to, each function's in order of first use; [`FunctionRecord`] says which are whose.
    pub fn references(&self) -> &[U32] {
        self.table(Table::References)
    }

    /// Calls inside the module that are resolved in the code, by ascending offset.
    pub fn resolved_calls(&self) -> &[ResolvedCall] {
        self.table(Table::ResolvedCalls)
    }

    /// Runs of data that ask for a section of an image, read-only ones first, by ascending offset.
    pub fn named_data(&self) -> &[NamedData] {
        self.table(Table::NamedData)
    }

    /// Name of the section that a run of named data asks for.
    pub fn section_name(&self, run: &NamedData) -> &str {
        self.str(run.name)
    }

    /// Number of bytes at the start of `section` that are in no named section.
    pub fn unnamed_len(&self, section: SectionKind) -> u64 {
        let runs = self.named_data();
        let first = runs.get(runs.partition_point(|run| run.section < section as u8));
        match first.filter(|run| run.section == section as u8) {
            Some(run) => run.start.get(),
            None => self.section_size(section),
        }
    }

    /// Index of the run of named data that what lies at `offset` of `section` belongs to, if it does to one.
    pub fn named_data_at(&self, section: SectionKind, offset: u64) -> Option<usize> {
        let runs = self.named_data();
        let behind = runs.partition_point(|run| (run.section, run.start.get()) <= (section as u8, offset));
        behind.checked_sub(1).filter(|&index| runs[index].section == section as u8)
    }

    fn table<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self, section: Table) -> &[T] {
        <[T]>::ref_from_bytes(self.table_bytes(section)).expect("lengths were checked")
    }

    fn str(&self, text: Str) -> &str {
        let start = text.start.get() as usize;
        &self.0.strings[start..start + text.len.get() as usize]
    }

    fn check(&self) -> Result<(), ArtifactError> {
        self.check_table_lengths()?;
        self.check_strings()?;
        self.check_named_data()?;
        self.check_symbols()?;
        self.check_functions()?;
        self.check_relocs(Table::TextRelocs, SectionKind::Text)?;
        self.check_relocs(Table::ReadOnlyRelocs, SectionKind::ReadOnly)?;
        self.check_relocs(Table::WritableRelocs, SectionKind::Writable)?;
        self.check_tables()
    }

    fn check_table_lengths(&self) -> Result<(), ArtifactError> {
        fn whole<T>(artifact: &Artifact, section: Table) -> Result<usize, ArtifactError> {
            let len = artifact.table_bytes(section).len();
            if !len.is_multiple_of(size_of::<T>()) {
                return Err(ArtifactError::new(section.name(), len / size_of::<T>(), "truncated record"));
            }
            Ok(len / size_of::<T>())
        }
        if whole::<Summary>(self, Table::Summary)? != 1 {
            return Err(ArtifactError::new(Table::Summary.name(), 0, "not exactly one record"));
        }
        whole::<Str>(self, Table::Features)?;
        whole::<Str>(self, Table::Signatures)?;
        whole::<SymbolRecord>(self, Table::Symbols)?;
        whole::<FunctionRecord>(self, Table::Functions)?;
        whole::<Reloc>(self, Table::TextRelocs)?;
        whole::<Reloc>(self, Table::ReadOnlyRelocs)?;
        whole::<Reloc>(self, Table::WritableRelocs)?;
        whole::<Handler>(self, Table::Handlers)?;
        whole::<StackMap>(self, Table::StackMaps)?;
        whole::<StackMapEntry>(self, Table::StackMapEntries)?;
        whole::<PatchableCall>(self, Table::PatchableCalls)?;
        whole::<U32>(self, Table::References)?;
        whole::<ResolvedCall>(self, Table::ResolvedCalls)?;
        whole::<NamedData>(self, Table::NamedData)?;
        Ok(())
    }

    fn check_strings(&self) -> Result<(), ArtifactError> {
        let check = |section: Table, record: usize, text: Str| {
            let start = text.start.get() as usize;
            let end = start.checked_add(text.len.get() as usize);
            match end.and_then(|end| self.0.strings.get(start..end)) {
                Some(_) => Ok(()),
                None => Err(ArtifactError::new(section.name(), record, "string outside the string section")),
            }
        };
        let summary = self.summary();
        check(Table::Summary, 0, summary.triple)?;
        check(Table::Summary, 0, summary.producer)?;
        for section in [Table::Features, Table::Signatures] {
            for (index, &text) in self.table::<Str>(section).iter().enumerate() {
                check(section, index, text)?;
            }
        }
        for (index, symbol) in self.symbols().iter().enumerate() {
            check(Table::Symbols, index, symbol.name)?;
        }
        for (index, run) in self.named_data().iter().enumerate() {
            check(Table::NamedData, index, run.name)?;
        }
        let summary = self.summary();
        for align in
            [summary.text_align, summary.read_only_align, summary.writable_align, summary.zeroed_align]
        {
            if !align.get().is_power_of_two() {
                return Err(ArtifactError::new(
                    Table::Summary.name(),
                    0,
                    "alignment that is not a power of two",
                ));
            }
        }
        Ok(())
    }

    fn section_size(&self, section: SectionKind) -> u64 {
        match section {
            SectionKind::Undefined => 0,
            SectionKind::Text => self.text().len() as u64,
            SectionKind::ReadOnly => self.read_only().len() as u64,
            SectionKind::Writable => self.writable().len() as u64,
            SectionKind::Zeroed => self.summary().zeroed_size.get(),
        }
    }

    fn check_named_data(&self) -> Result<(), ArtifactError> {
        // SectionKind and end of the run before.
        let mut before = None;
        for (index, run) in self.named_data().iter().enumerate() {
            let fail = |what| Err(ArtifactError::new(Table::NamedData.name(), index, what));
            let name = self.str(run.name);
            if name.is_empty() || name.contains('\0') {
                return fail("an empty name, or one with a zero byte");
            }
            if !matches!(run.section(), SectionKind::ReadOnly | SectionKind::Writable) {
                return fail("a section that cannot have named data");
            }
            let (start, align) = (run.start.get(), run.align.get());
            if !align.is_power_of_two() || !start.is_multiple_of(align.into()) {
                return fail("an alignment that is not a power of two, or not kept");
            }
            let Some(end) =
                start.checked_add(run.len.get()).filter(|&end| end <= self.section_size(run.section()))
            else {
                return fail("extent outside its section");
            };
            if before.is_some_and(|before| before >= (run.section, start)) {
                return fail("not behind the run before it");
            }
            before = Some((run.section, end));
        }
        Ok(())
    }

    /// End of what lies in one piece around `offset`: a run of named data, or what comes before all runs.
    fn piece_end(&self, section: SectionKind, offset: u64) -> u64 {
        match self.named_data_at(section, offset) {
            Some(index) => {
                let run = &self.named_data()[index];
                run.start.get() + run.len.get()
            }
            None => self.unnamed_len(section),
        }
    }

    fn check_symbols(&self) -> Result<(), ArtifactError> {
        let signatures = self.signatures().len();
        for (index, symbol) in self.symbols().iter().enumerate() {
            let fail = |what| Err(ArtifactError::new(Table::Symbols.name(), index, what));
            let (Some(kind), Some(linkage), Some(section)) = (
                SymbolKind::from_code(symbol.kind),
                Linkage::from_code(symbol.linkage),
                SectionKind::from_code(symbol.section),
            ) else {
                return fail("unknown kind, linkage or section");
            };
            if (linkage == Linkage::Import) != (section == SectionKind::Undefined) {
                return fail("an import that is defined, or a definition that has no section");
            }
            if kind == SymbolKind::Global && linkage != Linkage::Import {
                return fail("a global that is defined");
            }
            if linkage != Linkage::Local && symbol.name.len.get() == 0 {
                return fail("a visible symbol without a name");
            }
            let end = symbol.offset.get().checked_add(symbol.size.get());
            if end.is_none_or(|end| end > self.piece_end(section, symbol.offset.get())) {
                return fail("extent outside its section, or across the border of named data");
            }
            if symbol.signature().is_some_and(|signature| signature >= signatures) {
                return fail("unknown signature");
            }
        }
        Ok(())
    }

    fn check_functions(&self) -> Result<(), ArtifactError> {
        if !self.cie().is_empty() && !unwind::is_common_entry(self.cie()) {
            return Err(ArtifactError::new(Table::Cie.name(), 0, "not an entry that unwinders can follow"));
        }
        let mut end = 0;
        for (index, function) in self.functions().iter().enumerate() {
            let fail = |what| Err(ArtifactError::new(Table::Functions.name(), index, what));
            if function.symbol.get() as usize >= self.symbols().len() {
                return fail("unknown symbol");
            }
            let Some(extent) = range(function.start, function.len, self.text().len()) else {
                return fail("extent outside the code");
            };
            if extent.start < end {
                return fail("overlaps the function before it");
            }
            end = extent.end;
            let references = self.references().len();
            if range(function.references_start, function.references_len, references).is_none() {
                return fail("references outside their section");
            }
            let Some(rows) = range(function.unwind_start, function.unwind_len, self.unwind().len()) else {
                return fail("unwind rows outside their section");
            };
            if !rows.is_empty() && (self.cie().is_empty() || !unwind::are_rows(&self.unwind()[rows])) {
                return fail("unwind rows that unwinders cannot follow");
            }
        }
        Ok(())
    }

    fn check_relocs(&self, table: Table, section: SectionKind) -> Result<(), ArtifactError> {
        for (index, reloc) in self.table::<Reloc>(table).iter().enumerate() {
            let fail = |what| Err(ArtifactError::new(table.name(), index, what));
            let Some(kind) = RelocKind::from_code(reloc.kind) else {
                return fail("unknown kind");
            };
            if section != SectionKind::Text && kind != RelocKind::Abs64 {
                return fail("a kind that data cannot have");
            }
            let end = reloc.offset.get().checked_add(kind.width() as u64);
            if end.is_none_or(|end| end > self.piece_end(section, reloc.offset.get())) {
                return fail("patch site outside its section, or across the border of named data");
            }
            if reloc.symbol.get() as usize >= self.symbols().len() {
                return fail("unknown symbol");
            }
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<(), ArtifactError> {
        let text = self.text().len();
        // A return address or the end of a range may be one past the last byte.
        let inside = |section: Table, record: usize, offset: U32| {
            if offset.get() as usize <= text {
                Ok(())
            } else {
                Err(ArtifactError::new(section.name(), record, "offset outside the code"))
            }
        };
        for section in [Table::Traps, Table::SourceRanges, Table::CallSites, Table::Handlers] {
            let (mut next, mut len) = (0, 0);
            for index in 0..self.functions().len() {
                let start;
                (start, len) = self.bounds(index, section);
                // What stands before the first function's part would be nobody's.
                if start != next || start > len {
                    return Err(ArtifactError::new(section.name(), index, "parts of functions out of order"));
                }
                next = len;
            }
            let whole = match section {
                Table::Handlers => self.handlers().len(),
                _ => self.table_bytes(section).len(),
            };
            if len != whole {
                return Err(ArtifactError::new(section.name(), 0, "more than what functions have"));
            }
        }
        for (index, function) in self.functions().iter().enumerate() {
            // Return addresses and ends of ranges may be one past the last byte.
            let end = function.start.get() + function.len.get();
            let fail = |section: Table, what| Err(ArtifactError::new(section.name(), index, what));
            let outside = "an entry that is not whole, or outside of its function";
            let mut traps = self.traps_of(index);
            if traps.any(|trap| trap.offset > end) || traps.is_broken() {
                return fail(Table::Traps, outside);
            }
            let mut ranges = self.source_ranges_of(index);
            if ranges.any(|range| range.end > end) || ranges.is_broken() {
                return fail(Table::SourceRanges, outside);
            }
            let piece = self.stream_of(index, Table::CallSites);
            let mut sites = CallSites::new(piece, function.start.get(), 0);
            let mut handlers = 0u64;
            for site in &mut sites {
                handlers += u64::from(site.handlers);
                if site.return_offset > end {
                    return fail(Table::CallSites, outside);
                }
            }
            if sites.is_broken() {
                return fail(Table::CallSites, outside);
            }
            if handlers != self.handlers_of(index).len() as u64 {
                return fail(Table::CallSites, "another number of handlers");
            }
        }
        for (index, handler) in self.handlers().iter().enumerate() {
            inside(Table::Handlers, index, handler.target)?;
            if HandlerKind::from_code(handler.kind).is_none() {
                return Err(ArtifactError::new(Table::Handlers.name(), index, "unknown kind"));
            }
        }
        for (index, map) in self.stack_maps().iter().enumerate() {
            inside(Table::StackMaps, index, map.return_offset)?;
            if range(map.entries_start, map.entries_len, self.stack_map_entries().len()).is_none() {
                return Err(ArtifactError::new(
                    Table::StackMaps.name(),
                    index,
                    "entries outside their section",
                ));
            }
        }
        for (index, symbol) in self.references().iter().enumerate() {
            if symbol.get() as usize >= self.symbols().len() {
                return Err(ArtifactError::new(Table::References.name(), index, "unknown symbol"));
            }
        }
        for (index, call) in self.resolved_calls().iter().enumerate() {
            let fail = |what| Err(ArtifactError::new(Table::ResolvedCalls.name(), index, what));
            let Some(kind) = RelocKind::from_code(call.kind).filter(|kind| kind.width() <= 8) else {
                return fail("unknown kind");
            };
            if call.offset.get() as usize + kind.width() > text {
                return fail("patch site outside the code");
            }
            if call.symbol.get() as usize >= self.symbols().len() {
                return fail("unknown symbol");
            }
        }
        for (index, call) in self.patchable_calls().iter().enumerate() {
            inside(Table::PatchableCalls, index, call.end)?;
            if call.len > call.end {
                return Err(ArtifactError::new(
                    Table::PatchableCalls.name(),
                    index,
                    "starts before the code",
                ));
            }
        }
        Ok(())
    }
}

fn range(start: U32, len: U32, limit: usize) -> Option<Range<usize>> {
    let start = start.get() as usize;
    let end = start.checked_add(len.get() as usize)?;
    (end <= limit).then_some(start..end)
}

fn read_header(bytes: &[u8]) -> Result<[(usize, usize); TABLES], ArtifactError> {
    let fail = |what| Err(ArtifactError::new("header", 0, what));
    if bytes.len() < 8 || bytes[..8] != MAGIC {
        return fail("not a Kiln artifact");
    }
    let Ok((version, rest)) = U32::read_from_prefix(&bytes[8..]) else {
        return fail("truncated");
    };
    if version.get() != FORMAT_VERSION {
        return fail("another format version");
    }
    let Ok((count, rest)) = U32::read_from_prefix(rest) else {
        return fail("truncated");
    };
    if count.get() as usize != TABLES {
        return fail("wrong number of sections");
    }
    let Ok((total, rest)) = U64::read_from_prefix(rest) else {
        return fail("truncated");
    };
    if total.get() != bytes.len() as u64 {
        return fail("length differs from the header");
    }
    let Ok((lens, _)) = <[U64; TABLES]>::read_from_prefix(rest) else {
        return fail("truncated");
    };
    let mut sections = [(0, 0); TABLES];
    let mut start = HEADER_LEN;
    for (section, len) in sections.iter_mut().zip(lens) {
        let end = usize::try_from(len.get()).ok().and_then(|len| start.checked_add(len));
        let Some(end) = end.filter(|&end| end <= bytes.len()) else {
            return fail("section outside the artifact");
        };
        *section = (start, end);
        start = end;
    }
    if start != bytes.len() {
        return fail("bytes after the last section");
    }
    Ok(sections)
}
