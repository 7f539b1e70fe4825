//! The symbols of an object: their numbers, which relocations refer to, and their table.
//!
//! The order is that of ELF, local symbols first: those of sections, of modules, and the labels of
//! riscv64, to which the second half of a pair of instructions refers. Definitions and undefined
//! symbols follow, in order of modules. Two undefined symbols with one name are one symbol.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::{Linkage, SymbolKind};
use object::elf;

use super::options::{GlobalSymbols, ObjectOptions};
use super::section::Sections;
use crate::arch::Arch;
use crate::elf64::{SYMBOL, symbol_info};
use crate::link::{Area, DataReloc, LinkError, ObjectPlan, RelocTarget, ResolvedId, stub_size};
use crate::write::{ElfSymbol, Strings};

/// The name of each label.
const LABEL: &str = ".L";
/// Precedes the name of a replaceable function in the name of its slot.
const SLOT_OF: &str = "kiln_slot_";

/// A symbol whose section is not yet numbered.
struct Entry {
    name: u32,
    info: u8,
    other: u8,
    /// Its place; `None` if it is undefined.
    place: Option<(Area, u64)>,
    size: u64,
}

/// The symbols of an object.
pub(super) struct Symbols {
    /// All symbols after the null symbol and those of sections.
    list: Vec<Entry>,
    /// The number of sections that have a symbol.
    sections: u32,
    /// The number of local symbols, without the null symbol.
    local_count: u32,
    /// The number of the symbol of each resolved symbol; 0 if it has none.
    numbers: Vec<u32>,
    /// The number of the first label of each module, and of stubs.
    labels: Vec<u32>,
    /// `.strtab`.
    pub(super) names: Vec<u8>,
}

impl Symbols {
    /// Returns the size of the table in bytes.
    pub(super) fn table_size(&self) -> usize {
        SYMBOL * (1 + self.sections as usize + self.list.len())
    }

    /// Returns the number of local symbols, with the null symbol.
    pub(super) fn first_global(&self) -> u32 {
        1 + self.local_count
    }

    /// Returns the number of the symbol of a section at a position in the list.
    pub(super) fn of_section(position: usize) -> u32 {
        1 + position as u32
    }

    /// Returns the number of the symbol that is or has the target of a relocation of a module, and
    /// what is to be added for it.
    pub(super) fn of_target(
        &self,
        sections: &Sections<'_>,
        module: usize,
        target: RelocTarget,
    ) -> (u32, i64) {
        match target {
            RelocTarget::Symbol(id) => (self.numbers[id.index()], 0),
            RelocTarget::Label(label) => (self.labels[module] + label, 0),
            RelocTarget::Area(area, offset) => {
                let (position, offset) = sections.find(area, offset);
                // The program is smaller than 2 GiB.
                (Self::of_section(position), offset as i64)
            }
        }
    }

    /// Writes the table. The section at a position of the list has the number `1 + position`.
    pub(super) fn write(&self, arch: Arch, sections: &Sections<'_>) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.table_size());
        let endian = arch.endian();
        ElfSymbol::NULL.write(endian, &mut table);
        let info = symbol_info(elf::STB_LOCAL, elf::STT_SECTION);
        for position in 0..self.sections as usize {
            let section = 1 + position as u16;
            ElfSymbol { info, section, ..ElfSymbol::NULL }.write(endian, &mut table);
        }
        for &Entry { name, info, other, place, size } in &self.list {
            let (section, value) = place.map_or((elf::SHN_UNDEF, 0), |(area, offset)| {
                let (position, offset) = sections.find(area, offset);
                (1 + position as u16, offset)
            });
            ElfSymbol { name, info, other, section, value, size }.write(endian, &mut table);
        }
        table
    }

    /// Numbers the symbols of an object with these sections and pointers in data.
    ///
    /// # Errors
    ///
    /// Those about names that the linker cannot tell apart, or not hold.
    pub(super) fn of(
        plan: &ObjectPlan<'_>,
        sections: &Sections<'_>,
        data: &[DataReloc],
        options: &ObjectOptions,
    ) -> Result<Self, Vec<LinkError>> {
        let mut numberer = Numberer {
            plan,
            strings: Strings::new(),
            list: Vec::new(),
            numbers: vec![0; plan.resolved_count()],
            sections: sections.list.len() as u32,
            errors: Vec::new(),
        };
        if !options.strip {
            numberer.add_locals();
        }
        let labels = numberer.add_labels();
        let local_count = numberer.sections + numberer.list.len() as u32;
        numberer.add_definitions();
        if let GlobalSymbols::Array(name) = &options.globals {
            numberer.add_slots(name);
        }
        numberer.add_undefined(data);
        let Numberer { strings, list, numbers, sections, mut errors, .. } = numberer;
        match strings.finish() {
            Ok(names) if errors.is_empty() => {
                Ok(Self { list, sections, local_count, numbers, labels, names })
            }
            Ok(_) => Err(errors),
            Err(error) => {
                errors.push(error);
                Err(errors)
            }
        }
    }
}

struct Numberer<'n, 'p> {
    plan: &'n ObjectPlan<'p>,
    strings: Strings,
    list: Vec<Entry>,
    numbers: Vec<u32>,
    sections: u32,
    errors: Vec<LinkError>,
}

fn kind_of(kind: SymbolKind) -> u8 {
    if kind == SymbolKind::Function { elf::STT_FUNC } else { elf::STT_OBJECT }
}

impl Numberer<'_, '_> {
    fn push(&mut self, name: &str, info: u8, other: u8, place: Option<(Area, u64)>, size: u64) -> u32 {
        let name = self.strings.add(name);
        self.list.push(Entry { name, info, other, place, size });
        // The null symbol is the first.
        self.sections + self.list.len() as u32
    }

    /// Adds the named definitions that other objects do not know.
    fn add_locals(&mut self) {
        let program = self.plan.plan();
        for (module, artifact) in program.artifacts().iter().enumerate() {
            for (number, symbol) in artifact.symbols().iter().enumerate() {
                let name = artifact.name(symbol);
                let place = program.locate(module, symbol.section(), symbol.offset.get());
                let is_known = match symbol.linkage() {
                    Linkage::Local | Linkage::Replaceable => false,
                    _ => program.is_definition(module, number),
                };
                if place.is_none() || is_known || name.is_empty() || name.contains('\0') {
                    continue;
                }
                let info = symbol_info(elf::STB_LOCAL, kind_of(symbol.kind()));
                self.push(name, info, elf::STV_DEFAULT, place, symbol.size.get());
            }
        }
    }

    /// Adds the labels of all modules and of stubs. Returns the number of the first of each.
    fn add_labels(&mut self) -> Vec<u32> {
        let program = self.plan.plan();
        let info = symbol_info(elf::STB_LOCAL, elf::STT_NOTYPE);
        let mut name = None;
        let mut starts = Vec::with_capacity(program.artifacts().len() + 1);
        let mut add = |start: u64, offsets: &[u64]| {
            starts.push(self.sections + 1 + self.list.len() as u32);
            for offset in offsets {
                let name = *name.get_or_insert_with(|| self.strings.add(LABEL));
                let place = Some((Area::Text, start + offset));
                self.list.push(Entry { name, info, other: elf::STV_DEFAULT, place, size: 0 });
            }
        };
        for module in 0..program.artifacts().len() {
            add(program.text_of(module), self.plan.labels_of(module));
        }
        add(0, self.plan.stub_labels());
        starts
    }

    /// Adds the definitions that other objects may know.
    fn add_definitions(&mut self) {
        let program = self.plan.plan();
        for (module, artifact) in program.artifacts().iter().enumerate() {
            for (number, symbol) in artifact.symbols().iter().enumerate() {
                let (binding, visibility) = match symbol.linkage() {
                    Linkage::Export | Linkage::Replaceable => (elf::STB_GLOBAL, elf::STV_DEFAULT),
                    Linkage::Hidden => (elf::STB_GLOBAL, elf::STV_HIDDEN),
                    Linkage::Preemptible => (elf::STB_WEAK, elf::STV_DEFAULT),
                    Linkage::Import | Linkage::Local => continue,
                };
                if !symbol.is_defined() || !program.is_definition(module, number) {
                    continue;
                }
                let name = artifact.name(symbol);
                if name.contains('\0') {
                    // A hidden name, which needs no symbol: see `link::lean`.
                    continue;
                }
                let mut place = program.locate(module, symbol.section(), symbol.offset.get());
                let mut size = symbol.size.get();
                if symbol.linkage() == Linkage::Replaceable {
                    let (slot, stub) = self.plan.indirection(module, number);
                    (place, size) = (Some((Area::Text, stub)), stub_size(program.arch()));
                    let slot_name = format!("{SLOT_OF}{name}");
                    self.check_free(&slot_name, module);
                    let info = symbol_info(elf::STB_GLOBAL, elf::STT_OBJECT);
                    self.push(&slot_name, info, elf::STV_DEFAULT, Some((Area::Slots, slot)), 8);
                }
                let info = symbol_info(binding, kind_of(symbol.kind()));
                let index = self.push(name, info, visibility, place, size);
                self.numbers[self.plan.resolved(module)[number].index()] = index;
            }
        }
    }

    /// Adds the array of the globals' slots.
    fn add_slots(&mut self, name: &str) {
        let count = self.plan.plan().slots().len() as u64;
        if count == 0 {
            return;
        }
        self.check_free(name, 0);
        if name.contains('\0') {
            self.errors.push(LinkError::NameWithZero { module: 0, name: name.into() });
        }
        let info = symbol_info(elf::STB_GLOBAL, elf::STT_OBJECT);
        self.push(name, info, elf::STV_DEFAULT, Some((Area::Slots, 0)), 8 * count);
    }

    /// Refuses a name that the object itself needs, if a module defines it.
    fn check_free(&mut self, name: &str, user: usize) {
        if let Some((module, _)) = self.plan.find(name) {
            let module = (module as usize).max(user);
            self.errors.push(LinkError::ReservedName { module, name: name.into() });
        }
    }

    /// Adds the symbols that the linker must find.
    fn add_undefined(&mut self, data: &[DataReloc]) {
        let plan = self.plan;
        let pointed = data.iter().filter_map(|reloc| match reloc.target {
            RelocTarget::Symbol(id) => Some(id).filter(|id| plan.is_undefined(*id)),
            _ => None,
        });
        let mut known: HashMap<&str, u32, FastHash> = HashMap::default();
        for id in plan.undefined().chain(pointed) {
            if self.numbers[id.index()] != 0 {
                continue;
            }
            let name = plan.name(id);
            // A global and an import may mean a definition of the same name; a routine must not.
            if let Some((definer, symbol)) = plan.find(name) {
                self.defined_elsewhere(id, name, (definer as usize, symbol as usize));
                continue;
            }
            if name.contains('\0') {
                let module = plan.module_of(id);
                self.errors.push(LinkError::NameWithZero { module, name: name.into() });
            }
            let number = match known.get(name) {
                Some(&number) => number,
                None => {
                    let info = symbol_info(elf::STB_GLOBAL, elf::STT_NOTYPE);
                    let other = if plan.is_bound(id) { elf::STV_HIDDEN } else { elf::STV_DEFAULT };
                    let number = self.push(name, info, other, None, 0);
                    known.insert(name, number);
                    number
                }
            };
            self.numbers[id.index()] = number;
        }
    }

    /// Gives a symbol without definition the number of the definition of its name.
    fn defined_elsewhere(&mut self, id: ResolvedId, name: &str, (definer, symbol): (usize, usize)) {
        if let Some((module, user)) = self.plan.routine(id) {
            self.errors.push(LinkError::RoutineConflict { name: name.into(), module, user, definer });
            return;
        }
        self.numbers[id.index()] = self.numbers[self.plan.resolved(definer)[symbol].index()];
    }
}
