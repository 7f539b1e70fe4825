//! Converts bytes to an [`Artifact`], after checking every range and index once. There is no other
//! way to make an artifact.
//!
//! The order of the checks matters, because later checks rely on earlier ones: record lengths come
//! before records, strings before names, and named data before the symbols and relocations that
//! must not cross its borders. The checks copy and allocate nothing. Their time is linear in the
//! length, except for a binary search in the named data for each symbol and relocation.
//!
//! The ranges of functions and of stack maps are in order and disjoint, and the texts of all names
//! together are no longer than the string table. So no two functions or stack maps share bytes, and
//! anything made from an artifact has a size proportional to that of the artifact: an image has
//! every unwind row and every name once.

mod code;
mod debug;
mod strings;

use kiln_globals::GlobalAccess;
use zerocopy::little_endian::U32;

use crate::layout::Table;
use crate::record::{
    FunctionRecord, Handler, LabelledFunction, Linkage, NamedData, PatchableCall, Reloc, ResolvedCall,
    SectionKind, SourceFile, StackMap, StackMapEntry, Str, Summary, SymbolKind, SymbolRecord,
};
use crate::{Artifact, ArtifactError, RelocKind};

type Checked = Result<(), ArtifactError>;

impl Artifact {
    /// Makes an artifact of bytes that may come from anywhere, if they pass every check.
    ///
    /// # Errors
    ///
    /// [`ArtifactError`] if the bytes are not an artifact of this format version: wrong magic or
    /// version, truncated, longer than the header says, with a record that refers to something
    /// outside its table or section, or with two records that share a part of a table that each
    /// must have for itself. Time is linear in the length, except for a binary search for each
    /// symbol and relocation.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, ArtifactError> {
        Self::from_buffer(bytes.into(), 0)
    }

    /// Makes an artifact of the bytes of `buffer` from `start` to the end, if they pass every
    /// check. The bytes stay in `buffer`; only the string table is copied.
    ///
    /// Use it to read files that hold more than the artifact.
    ///
    /// # Errors
    ///
    /// The errors of [`Artifact::from_bytes`]; also an error if `start` is outside the buffer.
    pub fn from_buffer(buffer: Vec<u8>, start: usize) -> Result<Self, ArtifactError> {
        let artifact = Self::unchecked(buffer, start)?;
        check_record_lengths(&artifact)?;
        strings::check_strings(&artifact)?;
        check_summary(artifact.summary())?;
        check_named_data(&artifact)?;
        check_symbols(&artifact)?;
        code::check_functions(&artifact)?;
        check_relocs(&artifact, Table::TextRelocs, SectionKind::Text)?;
        check_relocs(&artifact, Table::ReadOnlyRelocs, SectionKind::ReadOnly)?;
        check_relocs(&artifact, Table::WritableRelocs, SectionKind::Writable)?;
        code::check_streams(&artifact)?;
        code::check_records(&artifact)?;
        debug::check_lines(&artifact)?;
        debug::check_labels(&artifact)?;
        Ok(artifact)
    }
}

/// Checks that every table of records has whole records, and that there is one summary.
fn check_record_lengths(artifact: &Artifact) -> Checked {
    fn count<T>(artifact: &Artifact, table: Table) -> Result<usize, ArtifactError> {
        let len = artifact.table_bytes(table).len();
        if !len.is_multiple_of(size_of::<T>()) {
            return Err(table.error(len / size_of::<T>(), "truncated record"));
        }
        Ok(len / size_of::<T>())
    }
    if count::<Summary>(artifact, Table::Summary)? != 1 {
        return Err(Table::Summary.error(0, "not exactly one record"));
    }
    count::<Str>(artifact, Table::Features)?;
    count::<Str>(artifact, Table::Signatures)?;
    count::<SymbolRecord>(artifact, Table::Symbols)?;
    count::<FunctionRecord>(artifact, Table::Functions)?;
    count::<Reloc>(artifact, Table::TextRelocs)?;
    count::<Reloc>(artifact, Table::ReadOnlyRelocs)?;
    count::<Reloc>(artifact, Table::WritableRelocs)?;
    count::<Handler>(artifact, Table::Handlers)?;
    count::<StackMap>(artifact, Table::StackMaps)?;
    count::<StackMapEntry>(artifact, Table::StackMapEntries)?;
    count::<PatchableCall>(artifact, Table::PatchableCalls)?;
    count::<U32>(artifact, Table::References)?;
    count::<ResolvedCall>(artifact, Table::ResolvedCalls)?;
    count::<NamedData>(artifact, Table::NamedData)?;
    count::<SourceFile>(artifact, Table::SourceFiles)?;
    count::<LabelledFunction>(artifact, Table::LabelledFunctions)?;
    Ok(())
}

fn check_summary(summary: &Summary) -> Checked {
    if GlobalAccess::from_code(summary.globals).is_none() || summary.reserved != [0; 3] {
        return Err(Table::Summary.error(0, "an unknown way to reach globals"));
    }
    for align in [summary.text_align, summary.read_only_align, summary.writable_align, summary.zeroed_align] {
        if !code::is_alignment(align.get()) {
            return Err(Table::Summary.error(0, "an alignment that is not a power of two up to 4096"));
        }
    }
    Ok(())
}

fn check_named_data(artifact: &Artifact) -> Checked {
    // The section and the end of the previous run.
    let mut before = None;
    for (index, run) in artifact.named_data().iter().enumerate() {
        let fail = |what| Err(Table::NamedData.error(index, what));
        let name = artifact.section_name(run);
        if name.is_empty() || name.contains('\0') {
            return fail("an empty name, or one with a zero byte");
        }
        if !matches!(run.section(), SectionKind::ReadOnly | SectionKind::Writable) {
            return fail("a section that cannot have named data");
        }
        let (start, align) = (run.start.get(), run.align.get());
        if !code::is_alignment(align) {
            return fail("an alignment that is not a power of two up to 4096");
        }
        if !start.is_multiple_of(align.into()) {
            return fail("a start that is not a multiple of the alignment");
        }
        let end = start.checked_add(run.len.get());
        let Some(end) = end.filter(|&end| end <= artifact.section_size(run.section())) else {
            return fail("range outside its section");
        };
        if before.is_some_and(|before| before >= (run.section, start)) {
            return fail("not after the run before it");
        }
        before = Some((run.section, end));
    }
    Ok(())
}

/// Returns the end of the piece of `section` that contains `offset`. A piece stays together when an
/// image is laid out: it is a run of named data, or all data before the first run.
fn piece_end(artifact: &Artifact, section: SectionKind, offset: u64) -> u64 {
    match artifact.named_data_at(section, offset) {
        Some(index) => {
            let run = &artifact.named_data()[index];
            run.start.get() + run.len.get()
        }
        None => artifact.unnamed_len(section),
    }
}

fn check_symbols(artifact: &Artifact) -> Checked {
    let signatures = artifact.signatures().len();
    for (index, symbol) in artifact.symbols().iter().enumerate() {
        let fail = |what| Err(Table::Symbols.error(index, what));
        let (Some(kind), Some(linkage), Some(section)) = (
            SymbolKind::from_code(symbol.kind),
            Linkage::from_code(symbol.linkage),
            SectionKind::from_code(symbol.section),
        ) else {
            return fail("unknown kind, linkage or section");
        };
        if (linkage == Linkage::Import) != (section == SectionKind::Undefined) {
            return fail("an import that is defined, or a definition without a section");
        }
        let is_data = !matches!(section, SectionKind::Undefined | SectionKind::Text);
        if kind == SymbolKind::Global
            && !(linkage == Linkage::Import || (linkage == Linkage::Export && is_data))
        {
            return fail("a global that is neither an import nor exported data");
        }
        // Its type is compared when it is replaced.
        let typed_code = section == SectionKind::Text && symbol.signature().is_some();
        if linkage == Linkage::Replaceable && !(kind == SymbolKind::Function && typed_code) {
            return fail("a replaceable symbol that is not a function with a type");
        }
        if linkage != Linkage::Local && symbol.name.len.get() == 0 {
            return fail("a visible symbol without a name");
        }
        let end = symbol.offset.get().checked_add(symbol.size.get());
        if end.is_none_or(|end| end > piece_end(artifact, section, symbol.offset.get())) {
            return fail("range outside its section, or across the border of named data");
        }
        if symbol.signature().is_some_and(|signature| signature >= signatures) {
            return fail("unknown signature");
        }
    }
    Ok(())
}

/// Checks the relocations in `table`, which patch `section`.
fn check_relocs(artifact: &Artifact, table: Table, section: SectionKind) -> Checked {
    for (index, reloc) in artifact.records::<Reloc>(table).iter().enumerate() {
        let fail = |what| Err(table.error(index, what));
        let Some(kind) = RelocKind::from_code(reloc.kind) else {
            return fail("unknown kind");
        };
        let fits = match section {
            SectionKind::Text => kind != RelocKind::ThreadLocal,
            SectionKind::ReadOnly => matches!(kind, RelocKind::Abs64 | RelocKind::ThreadLocal),
            _ => kind == RelocKind::Abs64,
        };
        if !fits {
            return fail("a kind that its section cannot have");
        }
        let flags = if section == SectionKind::Text { Reloc::TAKES_ADDRESS | Reloc::OWN } else { 0 };
        if reloc.flags & !flags != 0 {
            return fail("unknown flags");
        }
        let end = reloc.offset.get().checked_add(kind.width() as u64);
        if end.is_none_or(|end| end > piece_end(artifact, section, reloc.offset.get())) {
            return fail("patch site outside its section, or across the border of named data");
        }
        if reloc.symbol.get() as usize >= artifact.symbols().len() {
            return fail("unknown symbol");
        }
    }
    Ok(())
}
