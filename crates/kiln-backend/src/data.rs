//! The layout of a module's data objects: read-only, writable and zeroed data. The runs for named
//! sections come after the plain data.
//!
//! A plain data object takes at least one byte, so that it has an address of its own even if it is
//! empty. In a named section an empty object takes no bytes: code that walks over the section finds
//! exactly the data that was put there.

use indexmap::{IndexMap, IndexSet};
use kiln_artifact::record::{NamedData, Reloc, SectionKind};
use kiln_artifact::{Contents, RelocKind};
use kiln_ir::{DataObject, Init, Module};

use crate::error::{AssembleError, CompileErrorKind, MAX_SIZE};
use crate::symbols::SymbolRange;
use crate::thread_locals;

/// The data objects of one named section.
#[derive(Default)]
struct Run<'a> {
    bytes: Vec<u8>,
    align: u32,
    /// Each data object, and its offset in `bytes`.
    data: Vec<(&'a DataObject, u64)>,
}

/// Lays out all data of `module`, each object aligned to `symbol_align` bytes at least, and writes
/// the place of its symbol to `ranges`. Returns the offset in the read-only data of the words by
/// which code finds `thread_locals`, if there are some.
///
/// # Errors
///
/// An error for the first data object that makes a section exceed [`MAX_SIZE`].
pub(crate) fn lay_out(
    module: &Module,
    symbol_align: u32,
    thread_locals: &IndexSet<u32>,
    contents: &mut Contents,
    ranges: &mut [SymbolRange],
) -> Result<Option<u64>, AssembleError> {
    let mut zeroed_size = 0u64;
    let [mut read_only_align, mut writable_align, mut zeroed_align] = [1u32; 3];
    let mut runs: IndexMap<(bool, &str), Run<'_>> = IndexMap::new();
    for data in &module.data {
        let kind = if data.writable { "writable" } else { "read-only" };
        let too_large = |kind: &str, size| too_large(module, data, kind, size);
        let align = data.align.max(symbol_align);
        if let Some(name) = &data.section {
            // Of thread-local data, the program writes copies.
            let writable = data.writable && !data.is_thread_local();
            let run = runs.entry((writable, name)).or_default();
            run.align = run.align.max(align);
            let offset =
                append(&mut run.bytes, data, align, data.init.len()).map_err(|size| too_large(kind, size))?;
            run.data.push((data, offset));
            continue;
        }
        let (section, offset) = match (data.writable, &data.init) {
            (true, Init::Zeros(len)) if data.addresses.is_empty() => {
                zeroed_align = zeroed_align.max(align);
                let offset = zeroed_size.next_multiple_of(u64::from(align));
                zeroed_size = offset.saturating_add((*len).max(1));
                if zeroed_size > u64::from(MAX_SIZE) {
                    return Err(too_large("zeroed", zeroed_size));
                }
                (SectionKind::Zeroed, offset)
            }
            (true, _) => {
                writable_align = writable_align.max(align);
                let offset = append(&mut contents.writable, data, align, data.init.len().max(1))
                    .map_err(|size| too_large(kind, size))?;
                contents.writable_relocs.extend(relocs(data, offset));
                (SectionKind::Writable, offset)
            }
            (false, _) => {
                read_only_align = read_only_align.max(align);
                let offset = append(&mut contents.read_only, data, align, data.init.len().max(1))
                    .map_err(|size| too_large(kind, size))?;
                contents.read_only_relocs.extend(relocs(data, offset));
                (SectionKind::ReadOnly, offset)
            }
        };
        ranges[data.symbol.index()] = SymbolRange { section: section as u8, offset, size: data.init.len() };
    }
    let words = thread_locals::append(thread_locals, contents);
    read_only_align = read_only_align.max(if words.is_some() { thread_locals::ALIGN } else { 1 });
    for section in [SectionKind::ReadOnly, SectionKind::Writable] {
        append_runs(section, &runs, contents, ranges)?;
    }
    let summary = &mut contents.summary;
    summary.zeroed_size = zeroed_size.into();
    summary.read_only_align = read_only_align.into();
    summary.writable_align = writable_align.into();
    summary.zeroed_align = zeroed_align.into();
    Ok(words)
}

/// Appends the runs for named sections to the read-only or the writable data.
fn append_runs(
    section: SectionKind,
    runs: &IndexMap<(bool, &str), Run<'_>>,
    contents: &mut Contents,
    ranges: &mut [SymbolRange],
) -> Result<(), AssembleError> {
    let is_writable = section == SectionKind::Writable;
    let mut first = true;
    for ((_, section_name), run) in runs.iter().filter(|((writable, _), _)| *writable == is_writable) {
        let name = contents.string(section_name);
        let (bytes, all_relocs) = match is_writable {
            true => (&mut contents.writable, &mut contents.writable_relocs),
            false => (&mut contents.read_only, &mut contents.read_only_relocs),
        };
        // Leave a gap of a byte between runs. Otherwise, an empty object at the end of a run would
        // have the address of the first object of the next run.
        let gap = usize::from(!std::mem::take(&mut first));
        let start = (bytes.len() + gap).next_multiple_of(run.align.max(1) as usize);
        let end = start.saturating_add(run.bytes.len());
        if end > MAX_SIZE as usize {
            let kind = if is_writable { "writable" } else { "read-only" };
            let what = format!("the module's {kind} data with its section `{section_name}`");
            let (size, limit) = (end as u64, MAX_SIZE.into());
            let kind = CompileErrorKind::TooLarge { what: what.into(), size, limit };
            return Err(AssembleError::Data { line: 0, kind });
        }
        bytes.resize(end, 0);
        bytes[start..].copy_from_slice(&run.bytes);
        for &(data, offset) in &run.data {
            let offset = start as u64 + offset;
            all_relocs.extend(relocs(data, offset));
            ranges[data.symbol.index()] =
                SymbolRange { section: section as u8, offset, size: data.init.len() };
        }
        contents.named_data.push(NamedData {
            name,
            start: (start as u64).into(),
            len: (run.bytes.len() as u64).into(),
            align: run.align.into(),
            section: section as u8,
            reserved: [0; 3],
        });
    }
    Ok(())
}

/// Returns the error for a section that would have `size` bytes with the object `data`. `kind` is
/// the kind of data in it, for the message.
fn too_large(module: &Module, data: &DataObject, kind: &str, size: u64) -> AssembleError {
    let name = &module.symbol(data.symbol).name;
    let object =
        if name.is_empty() { "an unnamed data object".into() } else { format!("data object `{name}`") };
    let what = match &data.section {
        Some(section) => format!("{kind} section `{section}` with {object}"),
        None => format!("the module's {kind} data with {object}"),
    };
    let kind = CompileErrorKind::TooLarge { what: what.into(), size, limit: MAX_SIZE.into() };
    AssembleError::Data { line: data.line, kind }
}

/// Appends the content of `data`, aligned to `align` and padded to `room` bytes, and returns its
/// offset. If the section would be too large, returns the size that it would have as the error.
fn append(section: &mut Vec<u8>, data: &DataObject, align: u32, room: u64) -> Result<u64, u64> {
    let offset = section.len().next_multiple_of(align as usize);
    let end = (offset as u64).saturating_add(room);
    if end > u64::from(MAX_SIZE) {
        return Err(end);
    }
    section.resize(end as usize, 0);
    if let Init::Bytes(bytes) = &data.init {
        section[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    Ok(offset as u64)
}

/// Returns the relocations of a data object that is at offset `start`.
fn relocs(data: &DataObject, start: u64) -> impl Iterator<Item = Reloc> + '_ {
    data.addresses.iter().map(move |address| Reloc {
        offset: (start + address.offset).into(),
        addend: address.addend.into(),
        symbol: address.symbol.as_u32().into(),
        kind: RelocKind::Abs64 as u8,
        flags: 0,
        reserved: [0; 2],
    })
}
