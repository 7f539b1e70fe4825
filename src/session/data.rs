//! The writable data of modules, as the program has left it.
//!
//! Words that lead into the session's memory are pointers, whether the compiler made them or the
//! program stored them there: they become relocations. No other word of 64 bits has such a value
//! but by the rarest chance.

use std::collections::HashMap;

use kiln_artifact::record::{Linkage, NONE, NamedData, Reloc, SectionKind, SymbolRecord};
use kiln_artifact::{Artifact, Contents, RelocKind};
use kiln_heap::Name;
use kiln_jit::{Jit, ModuleData, Unit};

use super::error::SessionError;
use super::names::Names;

/// The section of data that was zero at first, and is not any more.
const SECTION: &str = ".data.zeroed";

/// Returns the artifact of a module whose data is as it is now in memory.
///
/// # Errors
///
/// [`SessionError::DataPointer`] for a pointer at something that has no name in an image, and
/// [`SessionError::DataChanged`] if another thread writes the data meanwhile.
pub(super) fn with_data_of_now(
    jit: &Jit,
    unit: &Unit,
    module: usize,
    names: &Names,
) -> Result<Artifact, SessionError> {
    let artifact = &unit.artifacts()[module];
    let name = || Box::from(unit.module_name(module));
    if artifact.writable().is_empty() && artifact.summary().zeroed_size.get() == 0 {
        return Ok(artifact.clone());
    }
    let changed = || SessionError::DataChanged { module: name() };
    let data = jit.data(unit, module).ok_or_else(changed)?;
    let mut writer = Writer { contents: Contents::of(artifact), imports: HashMap::new() };
    writer.add_zeroed(&data);
    writer.contents.writable[..data.writable.len()].copy_from_slice(&data.writable);
    writer.relocate(unit, module, names).map_err(|(offset, what)| {
        let holds = |record: &&SymbolRecord| {
            let start = record.offset.get();
            record.section() == SectionKind::Writable && (start..start + record.size.get()).contains(&offset)
        };
        let object = writer.contents.symbols.iter().position(|record| holds(&record));
        let object = object.and_then(|index| artifact.symbols().get(index));
        let object = object.map_or("", |record| artifact.name(record)).into();
        SessionError::DataPointer { module: name(), object, what }
    })?;
    // As for heaps: what is the same at two readings was one state in between.
    if jit.data(unit, module).as_ref() != Some(&data) {
        return Err(changed());
    }
    Ok(writer.contents.finish())
}

struct Writer {
    contents: Contents,
    /// The symbols that were added.
    imports: HashMap<Box<str>, u32>,
}

impl Writer {
    /// Moves data that was zero behind the data that was not, if a byte of it is not zero now.
    fn add_zeroed(&mut self, data: &ModuleData) {
        if data.zeroed.iter().all(|byte| *byte == 0) {
            return;
        }
        let contents = &mut self.contents;
        let align = contents.summary.zeroed_align;
        let end = contents.writable.len();
        // A run of named data begins after the end of what is in front.
        let start = (end + 1).next_multiple_of(align.get() as usize);
        contents.writable.resize(start, 0);
        contents.writable.extend_from_slice(&data.zeroed);
        let name = contents.string(SECTION);
        contents.named_data.push(NamedData {
            name,
            start: (start as u64).into(),
            len: (data.zeroed.len() as u64).into(),
            align,
            section: SectionKind::Writable as u8,
            reserved: [0; 3],
        });
        let writable = &mut contents.summary.writable_align;
        *writable = align.get().max(writable.get()).into();
        contents.summary.zeroed_size = 0.into();
        contents.summary.zeroed_align = 1.into();
        for symbol in contents.symbols.iter_mut().filter(|it| it.section() == SectionKind::Zeroed) {
            symbol.section = SectionKind::Writable as u8;
            symbol.offset = (start as u64 + symbol.offset.get()).into();
        }
    }

    /// Makes relocations of pointers. The error has the offset of a pointer, and what it leads to.
    fn relocate(&mut self, unit: &Unit, module: usize, names: &Names) -> Result<(), (u64, Box<str>)> {
        let before = std::mem::take(&mut self.contents.writable_relocs);
        let mut places: Vec<(u64, bool)> = before.iter().map(|reloc| (reloc.offset.get(), true)).collect();
        // A pointer is in one piece: what is in no section, or a run of one.
        let runs = self.contents.named_data.iter().filter(|run| run.section() == SectionKind::Writable);
        let runs: Vec<_> = runs.map(|run| (run.start.get(), run.start.get() + run.len.get())).collect();
        let unnamed = runs.first().map_or(self.contents.writable.len() as u64, |run| run.0);
        for (start, end) in [(0, unnamed)].into_iter().chain(runs) {
            let first = start.next_multiple_of(8);
            places.extend((first..end.saturating_sub(7)).step_by(8).map(|offset| (offset, false)));
        }
        places.sort_unstable_by_key(|&(offset, is_known)| (offset, !is_known));
        let mut end = 0;
        for (offset, is_known) in places {
            if offset < end {
                continue;
            }
            let place = &mut self.contents.writable[offset as usize..offset as usize + 8];
            let word = usize::from_ne_bytes((&*place).try_into().expect("8 bytes"));
            let (symbol, addend) = match names.find(word) {
                _ if word == 0 => continue,
                Ok(name) => (Target::Named(name.clone()), name.offset),
                Err(None) if is_known => return Err((offset, format!("{word:#x}").into())),
                Err(None) => continue,
                // Private, but perhaps of this module.
                Err(Some(what)) => {
                    let own = unit.symbols().filter(|it| it.module == module);
                    let own = own.filter(|it| (0..it.size).contains(&word.wrapping_sub(it.address.addr())));
                    let Some(own) = own.last() else { return Err((offset, what)) };
                    (Target::Own(own.symbol as u32), (word - own.address.addr()) as i64)
                }
            };
            place.fill(0);
            let symbol = match symbol {
                Target::Own(symbol) => symbol,
                Target::Named(name) => self.symbol(unit, module, name),
            };
            self.contents.writable_relocs.push(Reloc {
                offset: offset.into(),
                addend: addend.into(),
                symbol: symbol.into(),
                kind: RelocKind::Abs64 as u8,
                flags: 0,
                reserved: [0; 2],
            });
            end = offset + 8;
        }
        Ok(())
    }

    /// Returns the number of the symbol with a name.
    fn symbol(&mut self, unit: &Unit, module: usize, name: Name) -> u32 {
        let artifact = &unit.artifacts()[module];
        let known = artifact.symbols().iter().position(|record| {
            record.linkage() != Linkage::Local
                && record.kind() == name.kind
                && artifact.name(record) == &*name.name
        });
        if let Some(known) = known.or_else(|| self.imports.get(&name.name).map(|&number| number as usize)) {
            return known as u32;
        }
        let number = self.contents.symbols.len() as u32;
        let text = self.contents.string(&name.name);
        self.contents.symbols.push(SymbolRecord {
            name: text,
            offset: 0.into(),
            size: 0.into(),
            signature: NONE.into(),
            kind: name.kind as u8,
            linkage: Linkage::Import as u8,
            section: SectionKind::Undefined as u8,
            libcall: 0,
        });
        self.imports.insert(name.name, number);
        number
    }
}

enum Target {
    /// A symbol of the module.
    Own(u32),
    Named(Name),
}
