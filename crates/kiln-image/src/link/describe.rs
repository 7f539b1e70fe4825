//! Descriptions of a planned program: its definitions, functions, slots and pointers.

#[cfg(feature = "write")]
use kiln_artifact::record::SectionKind;
use kiln_artifact::record::{Linkage, SymbolKind};
#[cfg(feature = "write")]
use kiln_globals::SlotKey;
use kiln_globals::{Resolve, UnboundError};

use super::agreement::{Agreement, Agreements};
use super::assign::Slot;
use super::code;
use super::layout::Area;
use super::plan::Plan;
use super::resolve::Resolution;
use super::stubs::StubRange;

/// Something that a module defines under a visible name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition<'a> {
    /// The name.
    pub name: &'a str,
    /// Whether it is a function or data.
    pub kind: SymbolKind,
    /// The linkage: `Export`, `Preemptible`, `Replaceable` or `Hidden`.
    pub linkage: Linkage,
    /// A function's type, as `kiln_artifact::Signature` prints it.
    pub signature: Option<&'a str>,
    /// The number of the module that defines it.
    pub module: usize,
    /// The area it is in.
    pub area: Area,
    /// Offset in the area, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// The places of the slot and the stub of a replaceable function, of which `area` and `offset`
    /// are the place of the code. `None` for everything else.
    pub indirection: Option<Indirection>,
}

/// The parts of a replaceable function that remain when its code is replaced. A part is `None` if
/// it was there before the link, as [`ExternalDefinition`](super::ExternalDefinition) said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indirection {
    /// The slot, through which all callers go: its offset in [`Area::Slots`], in bytes, a multiple
    /// of 8. Once the [`Fixups`](super::Fixups) are applied it holds the address of the code; a
    /// known slot does not.
    pub slot: Option<u64>,
    /// The stub, whose address is that of the function: its offset in [`Area::Text`], in bytes.
    pub stub: Option<u64>,
}

/// New code for a replaceable function of an image that the program is linked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement<'a> {
    /// The name.
    pub name: &'a str,
    /// The function's type, as `kiln_artifact::Signature` prints it.
    pub signature: Option<&'a str>,
    /// The number of the module that defines it.
    pub module: usize,
    /// Offset of the code in the area [`Area::Text`], in bytes.
    pub offset: u64,
}

/// The code of one function, visible or local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionRange<'a> {
    /// The number of its module.
    pub module: usize,
    /// Its name; empty for an anonymous function.
    pub name: &'a str,
    /// Its linkage.
    pub linkage: Linkage,
    /// Offset in the area [`Area::Text`], in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// Facts about an external slot, from the modules that use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotDetails<'a> {
    /// The signature, if the slot holds the address of a function and all modules agree on it.
    pub signature: Option<&'a str>,
}

/// The numbers of pointers in data, by what they point at.
#[cfg(feature = "write")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PointerCounts {
    /// Pointers at the program itself.
    pub(crate) relative: usize,
    /// Pointers that hold the value of an external slot plus an addend.
    pub(crate) symbolic: usize,
    /// The symbolic pointers (counted in `symbolic` too) whose slot belongs to a symbol or
    /// routine, not to a global.
    pub(crate) symbols: usize,
    /// Pairs of words by which code finds thread-local data.
    pub(crate) thread_locals: usize,
}

impl<'a> Plan<'a> {
    /// Returns everything that is defined under a visible name, hidden definitions included, in
    /// order of module and symbol. Overridden definitions are left out.
    pub fn definitions(&self) -> impl Iterator<Item = Definition<'a>> {
        self.artifacts.iter().enumerate().flat_map(move |(module, artifact)| {
            artifact.symbols().iter().enumerate().filter_map(move |(number, symbol)| {
                if symbol.linkage() == Linkage::Local || !self.is_definition(module, number) {
                    return None;
                }
                let (area, offset) = self.placement.locate(module, symbol.section(), symbol.offset.get())?;
                Some(Definition {
                    name: artifact.name(symbol),
                    kind: symbol.kind(),
                    linkage: symbol.linkage(),
                    signature: symbol.signature().and_then(|index| artifact.signature(index)),
                    module,
                    area,
                    offset,
                    size: symbol.size.get(),
                    indirection: self.indirection(module, number),
                })
            })
        })
    }

    /// Returns the slot and the stub of a symbol that is a replaceable function.
    fn indirection(&self, module: usize, symbol: usize) -> Option<Indirection> {
        match self.symbols.resolution(self.symbols.of_module(module)[symbol]) {
            Resolution::Replaceable(number) => {
                let (slot, stub) = self.assignment.replaceable(number);
                let slot = slot.map(|slot| self.assignment.slot_offset(slot));
                let stub = stub.map(|stub| self.placement.stubs[stub as usize]);
                Some(Indirection { slot, stub })
            }
            _ => None,
        }
    }

    /// Returns the new code for functions of bases, in order of the first module and symbol that
    /// knows the name. Of several definitions, the last is in force.
    pub fn replacements(&self) -> impl Iterator<Item = Replacement<'a>> {
        self.symbols.replacements().iter().filter_map(move |&(_, (module, symbol))| {
            let (module, artifact) = (module as usize, &self.artifacts[module as usize]);
            let symbol = &artifact.symbols()[symbol as usize];
            let (_, offset) = self.placement.locate(module, symbol.section(), symbol.offset.get())?;
            let signature = symbol.signature().and_then(|index| artifact.signature(index));
            Some(Replacement { name: artifact.name(symbol), signature, module, offset })
        })
    }

    /// Returns every function, local functions included, in order of address.
    pub fn functions(&self) -> impl Iterator<Item = FunctionRange<'a>> {
        let modules = self.artifacts.iter().zip(&self.placement.modules).enumerate();
        modules.flat_map(|(number, (artifact, placed))| {
            artifact.functions().iter().map(move |function| {
                let symbol = &artifact.symbols()[function.symbol.get() as usize];
                FunctionRange {
                    module: number,
                    name: artifact.name(symbol),
                    linkage: symbol.linkage(),
                    offset: placed.text.start + u64::from(function.start.get()),
                    size: function.len.get().into(),
                }
            })
        })
    }

    /// Returns all stubs and veneers, those of modules first, in order of address.
    pub fn stubs(&self) -> impl Iterator<Item = StubRange<'a>> {
        let rows = &self.code.stubs;
        let own = self.placement.modules.iter().enumerate().flat_map(|(module, placed)| {
            rows.of_module(module).iter().map(move |row| (placed.text.start, row, false))
        });
        let shared = rows
            .shared
            .iter()
            .enumerate()
            .map(|(number, row)| (rows.shared_start, row, number < self.assignment.replaceable_stubs()));
        own.chain(shared).map(|(start, row, is_function)| StubRange {
            name: row.name,
            offset: start + u64::from(row.start),
            size: row.len.into(),
            is_function,
        })
    }

    /// Makes the code tables of the program again, from their sizes on, without anything else and
    /// on this thread: to read them before the program is written, or to measure what they cost.
    pub fn code_tables(&self) -> Vec<u8> {
        let text = self.placement.modules.iter().map(|module| module.text.start);
        code::lay_out(self.artifacts, self.code.names, self.code.stubs.clone(), false)
            .write(self.artifacts, text)
    }

    /// Returns facts about each external slot, in order of slots.
    pub fn slot_details(&self) -> Vec<SlotDetails<'a>> {
        let count = self.slots().len();
        let mut details = vec![SlotDetails::default(); count];
        let mut agree = vec![true; count];
        let mut agreements = Agreements::default();
        for (module, artifact) in self.artifacts.iter().enumerate() {
            for (symbol, &id) in artifact.symbols().iter().zip(self.symbols.of_module(module)) {
                let Some(Slot::External(slot)) = self.assignment.slot(id) else { continue };
                let detail = &mut details[slot as usize];
                let signature = symbol.signature().and_then(|index| artifact.signature(index));
                match (detail.signature, signature) {
                    (Some(old), Some(new)) => {
                        agree[slot as usize] &= agreements.compare(old, new) == Agreement::Agree;
                    }
                    (None, new) => detail.signature = new,
                    (Some(_), None) => {}
                }
            }
        }
        for (detail, agree) in details.iter_mut().zip(agree) {
            detail.signature = detail.signature.filter(|_| agree);
        }
        details
    }

    /// Returns the values of the external slots, in order of slots. `resolver` is told the type of
    /// each function that all modules call with one type.
    ///
    /// # Errors
    ///
    /// [`UnboundError`] names every slot without an address.
    pub fn slot_addresses(&self, resolver: &dyn Resolve) -> Result<Vec<usize>, UnboundError> {
        let keys = self.slots().keys();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let types = self.slot_details().into_iter().map(|detail| detail.signature);
        kiln_globals::addresses(keys.iter().zip(types), resolver)
    }

    /// Returns the first place in the code that uses each external slot, in order of slots: an
    /// offset in [`Area::Text`], or `None` if only data does.
    #[cfg(feature = "write")]
    pub(crate) fn slot_users(&self) -> Vec<Option<u64>> {
        let mut users = vec![None; self.slots().len()];
        let mut unknown = users.len();
        for (module, artifact) in self.artifacts.iter().enumerate() {
            let resolved = self.symbols.of_module(module);
            for reloc in artifact.text_relocs() {
                if unknown == 0 {
                    return users;
                }
                let Some(Slot::External(slot)) = self.assignment.slot(resolved[reloc.symbol.get() as usize])
                else {
                    continue;
                };
                let user = &mut users[slot as usize];
                if user.is_none() {
                    let place = self.placement.locate(module, SectionKind::Text, reloc.offset.get());
                    *user = place.map(|(_, offset)| offset);
                    unknown -= 1;
                }
            }
        }
        users
    }

    /// Counts the pointers that data will hold, and passes the place of each one at the program
    /// itself to `visit`: an area and an offset in it.
    #[cfg(feature = "write")]
    pub(crate) fn pointer_counts(&self, mut visit: impl FnMut(Area, u64)) -> PointerCounts {
        let mut counts = PointerCounts::default();
        for (module, artifact) in self.artifacts.iter().enumerate() {
            let resolved = self.symbols.of_module(module);
            let read_only = artifact.read_only_relocs().iter().map(|reloc| (SectionKind::ReadOnly, reloc));
            let writable = artifact.writable_relocs().iter().map(|reloc| (SectionKind::Writable, reloc));
            for (section, reloc) in read_only.chain(writable) {
                if reloc.kind() == kiln_artifact::RelocKind::ThreadLocal {
                    counts.thread_locals += 1;
                    continue;
                }
                let id = resolved[reloc.symbol.get() as usize];
                match self.symbols.resolution(id) {
                    Resolution::Defined { .. }
                    | Resolution::SectionBound { .. }
                    | Resolution::KnownAddress(_)
                    | Resolution::Replaceable(_) => {
                        counts.relative += 1;
                        if let Some((area, offset)) =
                            self.placement.locate(module, section, reloc.offset.get())
                        {
                            visit(area, offset);
                        }
                    }
                    Resolution::KnownSlot(_) => {}
                    Resolution::Undefined => {
                        counts.symbolic += 1;
                        if let Some(Slot::External(slot)) = self.assignment.slot(id) {
                            let key = &self.slots().keys()[slot as usize];
                            counts.symbols += usize::from(!matches!(key, SlotKey::Global(_)));
                        }
                    }
                }
            }
        }
        counts
    }

    /// Counts the external slots of symbols and routines that are in memory.
    #[cfg(feature = "write")]
    pub(crate) fn symbol_slot_count(&self) -> usize {
        if self.stored_slots() == 0 {
            return 0;
        }
        self.slots().keys().iter().filter(|key| !matches!(key, SlotKey::Global(_))).count()
    }
}
