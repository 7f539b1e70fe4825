//! Copying and relocating: all modules at once, each into its own pieces of every area.
//!
//! [`Pieces::cut`] splits the areas before the threads start, so no two threads can touch one byte, and
//! the result is the same for any number of them. The loop over relocations only follows indices.

mod module;
mod pieces;
mod riscv_pairs;

use kiln_artifact::RelocKind;
use rayon::prelude::*;

use self::module::ModuleWriter;
use self::pieces::Pieces;
use super::assign::Slot;
use super::error::LinkError;
use super::fixups::{Fixups, Pointer};
use super::layout::{Addresses, Area, MAX_SIZE, Output};
use super::plan::Plan;
use super::relocate::{self, PatchAddresses, PatchSite};
use super::resolve::{Resolution, ResolvedId};
use super::sections::Bound;
use super::unwind;

impl Plan<'_> {
    /// Writes the linked program into `out`, as it must be for areas at `addresses`.
    ///
    /// # Errors
    ///
    /// [`LinkError::Buffer`] if `out` is not as large as the layout says; else the first error in order
    /// of modules: an address out of reach.
    pub fn emit(&self, addresses: &Addresses, out: Output<'_>) -> Result<Fixups, LinkError> {
        self.check_sizes(&out)?;
        let emitter = Emitter { plan: self, addresses, targets: &self.targets(addresses) };
        let Pieces { modules, shared_stubs, shared_stubs_start, eh_frame_end, eh_frame_hdr_head } =
            Pieces::cut(self, out);

        // Modules, in parallel. Their fixups are put together in order.
        let results: Vec<Result<Fixups, LinkError>> = modules
            .into_par_iter()
            .enumerate()
            .map(|(module, pieces)| ModuleWriter::new(&emitter, module).write(pieces))
            .collect();
        let mut fixups = Fixups::default();
        for result in results {
            let module = result?;
            fixups.pointers.extend(module.pointers);
            fixups.symbolic.extend(module.symbolic);
        }

        // What belongs to no module.
        shared_stubs.fill(self.arch.trap_byte());
        let numbers = self.assignment.shared_stubs();
        emitter.write_stubs(numbers, shared_stubs, shared_stubs_start)?;
        let (eh_frame, eh_frame_hdr) = (addresses[Area::EhFrame], addresses[Area::EhFrameHdr]);
        unwind::write_ends(self.arch, &self.unwind, eh_frame, eh_frame_hdr, eh_frame_end, eh_frame_hdr_head)
            .ok_or_else(|| self.unwind_out_of_reach())?;
        fixups.internal_slots.extend(self.internal_slots(emitter.targets));
        Ok(fixups)
    }

    fn check_sizes(&self, out: &Output<'_>) -> Result<(), LinkError> {
        let given = [
            (Area::Text, out.text.len()),
            (Area::EhFrame, out.eh_frame.len()),
            (Area::EhFrameHdr, out.eh_frame_hdr.len()),
            (Area::Rodata, out.rodata.len()),
            (Area::Relro, out.relro.len()),
            (Area::Data, out.data.len()),
        ];
        for (area, given) in given {
            let (given, expected) = (given as u64, self.layout()[area].size);
            if given != expected {
                return Err(LinkError::Buffer { area: area.name(), given, expected });
            }
        }
        Ok(())
    }

    /// The addresses of every resolved symbol.
    fn targets(&self, addresses: &Addresses) -> Vec<PatchAddresses> {
        (0..self.symbols.len())
            .into_par_iter()
            .map(|index| self.target(ResolvedId::at(index), addresses))
            .collect()
    }

    fn target(&self, id: ResolvedId, addresses: &Addresses) -> PatchAddresses {
        let resolution = self.symbols.resolution(id);
        let symbol = match resolution {
            Resolution::Defined { module, symbol } => {
                let record = &self.artifacts[module as usize].symbols()[symbol as usize];
                self.placement
                    .locate(module as usize, record.section(), record.offset.get())
                    .map(|(area, offset)| addresses[area] + offset)
            }
            Resolution::SectionBound { section, bound } => {
                let section = &self.placement.sections[section as usize].info;
                let size = if bound == Bound::Stop { section.size } else { 0 };
                Some(addresses[section.area] + section.offset + size)
            }
            Resolution::KnownAddress(address) => Some(address),
            Resolution::KnownSlot(_) | Resolution::Undefined => None,
        };
        let own_slot = |slot| addresses[Area::Slots] + self.assignment.slot_offset(slot);
        let slot = match resolution {
            Resolution::KnownSlot(address) => Some(address),
            _ => self.assignment.slot(id).map(own_slot),
        };
        let stub_address = |stub: u32| addresses[Area::Text] + self.placement.stubs[stub as usize];
        PatchAddresses { symbol, slot, stub: self.assignment.shared_stub(id).map(stub_address) }
    }

    /// The contents of the internal slots.
    fn internal_slots(&self, targets: &[PatchAddresses]) -> impl Iterator<Item = Pointer> {
        self.assignment.internal().iter().enumerate().map(|(number, &id)| Pointer {
            area: Area::Slots,
            offset: self.assignment.slot_offset(Slot::Internal(number as u32)),
            target: targets[id.index()].symbol.unwrap_or_default(),
        })
    }

    fn unwind_out_of_reach(&self) -> LinkError {
        let what = "the distance between code and unwind rows";
        LinkError::TooLarge { what, size: self.layout().total(), limit: MAX_SIZE }
    }
}

/// What all threads read.
struct Emitter<'e> {
    plan: &'e Plan<'e>,
    addresses: &'e Addresses,
    /// The addresses of every resolved symbol.
    targets: &'e [PatchAddresses],
}

impl Emitter<'_> {
    /// Writes the stubs with these numbers into `text`, which starts at offset `start` of the code.
    fn write_stubs(
        &self,
        numbers: std::ops::Range<usize>,
        text: &mut [u8],
        start: u64,
    ) -> Result<(), LinkError> {
        let Plan { arch, artifacts, ref symbols, ref assignment, ref placement, .. } = *self.plan;
        let stubs = assignment.stubs()[numbers.clone()].iter().zip(&placement.stubs[numbers]);
        for (&id, &offset) in stubs {
            let address = self.addresses[Area::Text] + offset;
            let site = PatchSite { text: &mut *text, offset: (offset - start) as usize, address, addend: 0 };
            relocate::write_stub(arch, site, self.targets[id.index()]).map_err(|fault| {
                let module = symbols.symbols()[id.index()].module as usize;
                let name = symbols.name(artifacts, id).into();
                fault.into_error(module, name, offset, RelocKind::Abs64)
            })?;
        }
        Ok(())
    }
}
