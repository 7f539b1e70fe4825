//! The editable form of an artifact: plain vectors, which [`Contents::finish`] turns into bytes.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::Artifact;
use crate::layout::{HEADER_LEN, TABLES, Table, write_header};
use crate::record::{
    FunctionRecord, Handler, LabelledFunction, NamedData, PatchableCall, Reloc, ResolvedCall, SourceFile,
    StackMap, StackMapEntry, Str, Summary, SymbolRecord,
};

/// The content of an artifact that is being made. Each field has the name of the accessor of
/// [`Artifact`] that describes it.
///
/// Fill the vectors, intern strings with [`Contents::string`], then call [`Contents::finish`].
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each field is documented at the accessor of the same name in `Artifact`")]
pub struct Contents {
    pub summary: Summary,
    pub features: Vec<Str>,
    pub signatures: Vec<Str>,
    pub symbols: Vec<SymbolRecord>,
    pub functions: Vec<FunctionRecord>,
    pub text: Vec<u8>,
    pub read_only: Vec<u8>,
    pub writable: Vec<u8>,
    pub text_relocs: Vec<Reloc>,
    pub read_only_relocs: Vec<Reloc>,
    pub writable_relocs: Vec<Reloc>,
    pub cie: Vec<u8>,
    pub unwind: Vec<u8>,
    pub traps: Vec<u8>,
    pub source_ranges: Vec<u8>,
    pub call_sites: Vec<u8>,
    pub handlers: Vec<Handler>,
    pub stack_maps: Vec<StackMap>,
    pub stack_map_entries: Vec<StackMapEntry>,
    pub patchable_calls: Vec<PatchableCall>,
    pub nops: Vec<u8>,
    pub references: Vec<U32>,
    pub resolved_calls: Vec<ResolvedCall>,
    pub named_data: Vec<NamedData>,
    pub source_files: Vec<SourceFile>,
    pub lines: Vec<u8>,
    pub labelled_functions: Vec<LabelledFunction>,
    pub labels: Vec<u8>,
    pub variables: Vec<u8>,
    strings: Vec<u8>,
}

impl Contents {
    /// Returns the content of an artifact, to be changed. Its symbols and strings keep their
    /// places, so [`finish`](Self::finish) makes an equal artifact of it.
    pub fn of(artifact: &Artifact) -> Self {
        let bytes = |table| artifact.table_bytes(table).to_vec();
        Self {
            summary: *artifact.summary(),
            features: artifact.records(Table::Features).to_vec(),
            signatures: artifact.records(Table::Signatures).to_vec(),
            symbols: artifact.records(Table::Symbols).to_vec(),
            functions: artifact.records(Table::Functions).to_vec(),
            text: bytes(Table::Text),
            read_only: bytes(Table::ReadOnly),
            writable: bytes(Table::Writable),
            text_relocs: artifact.records(Table::TextRelocs).to_vec(),
            read_only_relocs: artifact.records(Table::ReadOnlyRelocs).to_vec(),
            writable_relocs: artifact.records(Table::WritableRelocs).to_vec(),
            cie: bytes(Table::Cie),
            unwind: bytes(Table::Unwind),
            traps: bytes(Table::Traps),
            source_ranges: bytes(Table::SourceRanges),
            call_sites: bytes(Table::CallSites),
            handlers: artifact.records(Table::Handlers).to_vec(),
            stack_maps: artifact.records(Table::StackMaps).to_vec(),
            stack_map_entries: artifact.records(Table::StackMapEntries).to_vec(),
            patchable_calls: artifact.records(Table::PatchableCalls).to_vec(),
            nops: bytes(Table::Nops),
            references: artifact.records(Table::References).to_vec(),
            resolved_calls: artifact.records(Table::ResolvedCalls).to_vec(),
            named_data: artifact.records(Table::NamedData).to_vec(),
            source_files: artifact.records(Table::SourceFiles).to_vec(),
            lines: bytes(Table::Lines),
            labelled_functions: artifact.records(Table::LabelledFunctions).to_vec(),
            labels: bytes(Table::Labels),
            variables: bytes(Table::Variables),
            strings: bytes(Table::Strings),
        }
    }

    /// Appends `text` to the string table, even if an equal string is there already. To share a
    /// string, keep the result and use it again, but only in another table: the strings that one
    /// table refers to must together be no longer than the string table.
    ///
    /// # Panics
    ///
    /// If the strings of one module exceed 4 GiB.
    pub fn string(&mut self, text: &str) -> Str {
        if self.strings.is_empty() {
            // Enough for the names of a module of one function.
            self.strings.reserve(256);
        }
        let start = u32::try_from(self.strings.len()).expect("strings of one module below 4 GiB");
        self.strings.extend_from_slice(text.as_bytes());
        let len = u32::try_from(text.len()).expect("strings of one module below 4 GiB");
        Str { start: U32::new(start), len: U32::new(len) }
    }

    /// Returns the length that the artifact will have, in bytes.
    pub fn artifact_len(&self) -> usize {
        len_of(&self.tables())
    }

    fn tables(&self) -> [(Table, &[u8]); TABLES] {
        // Exhaustive, so that a new field cannot be forgotten.
        let Self {
            summary,
            features,
            signatures,
            symbols,
            functions,
            text,
            read_only,
            writable,
            text_relocs,
            read_only_relocs,
            writable_relocs,
            cie,
            unwind,
            traps,
            source_ranges,
            call_sites,
            handlers,
            stack_maps,
            stack_map_entries,
            patchable_calls,
            nops,
            references,
            resolved_calls,
            named_data,
            source_files,
            lines,
            labelled_functions,
            labels,
            variables,
            strings,
        } = self;
        [
            (Table::Summary, summary.as_bytes()),
            (Table::Strings, strings),
            (Table::Features, features.as_bytes()),
            (Table::Signatures, signatures.as_bytes()),
            (Table::Symbols, symbols.as_bytes()),
            (Table::Functions, functions.as_bytes()),
            (Table::Text, text),
            (Table::ReadOnly, read_only),
            (Table::Writable, writable),
            (Table::TextRelocs, text_relocs.as_bytes()),
            (Table::ReadOnlyRelocs, read_only_relocs.as_bytes()),
            (Table::WritableRelocs, writable_relocs.as_bytes()),
            (Table::Cie, cie),
            (Table::Unwind, unwind),
            (Table::Traps, traps),
            (Table::SourceRanges, source_ranges),
            (Table::CallSites, call_sites),
            (Table::Handlers, handlers.as_bytes()),
            (Table::StackMaps, stack_maps.as_bytes()),
            (Table::StackMapEntries, stack_map_entries.as_bytes()),
            (Table::PatchableCalls, patchable_calls.as_bytes()),
            (Table::Nops, nops),
            (Table::References, references.as_bytes()),
            (Table::ResolvedCalls, resolved_calls.as_bytes()),
            (Table::NamedData, named_data.as_bytes()),
            (Table::SourceFiles, source_files.as_bytes()),
            (Table::Lines, lines),
            (Table::LabelledFunctions, labelled_functions.as_bytes()),
            (Table::Labels, labels),
            (Table::Variables, variables),
        ]
    }

    /// Makes the artifact. Equal contents give equal bytes.
    ///
    /// # Panics
    ///
    /// If the contents break a rule that [`Artifact::from_bytes`] checks. That is a bug in the
    /// compiler that made them, not an error in its input. Compilers see first that
    /// [`artifact_len`](Self::artifact_len) is below 4 GiB.
    pub fn finish(self) -> Artifact {
        let tables = self.tables();
        let total = len_of(&tables);
        let mut bytes = Vec::with_capacity(total);
        write_header(&mut bytes, &tables.map(|(table, bytes)| (table, bytes.len())));
        for (_, table) in tables {
            bytes.extend_from_slice(table);
        }
        match Artifact::from_bytes(bytes) {
            Ok(artifact) => artifact,
            Err(error) => panic!("the compiler made contents that are not an artifact: {error}"),
        }
    }
}

/// Returns the length of an artifact with these tables, in bytes.
fn len_of(tables: &[(Table, &[u8]); TABLES]) -> usize {
    HEADER_LEN + tables.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
}
