//! Copying and relocating: all modules at once, each into its own part of every area.
//!
//! The parts are split off before the threads start, so no two threads can touch one byte, and the result is the same
//! for any number of them. The loop over relocations only follows indices.

use kiln_artifact::record::{Reloc, SectionKind};
use kiln_artifact::{Artifact, RelocKind};
use rayon::prelude::*;

use super::plan::{ModulePlan, Plan};
use super::relocate::riscv64::{self, High};
use super::relocate::{self, Ends, Fault, Site, stub_size};
use super::resolve::{Home, NONE};
use super::sections::Bound;
use super::{Addresses, Area, Fixups, LinkError, Output, Pointer, PointerSource, SymbolicPointer, unwind};

/// One module's parts of the output.
struct Part<'o> {
    text: &'o mut [u8],
    read_only: &'o mut [u8],
    writable: &'o mut [u8],
    /// Runs of named data, by their numbers.
    named: Vec<(u32, &'o mut [u8])>,
    eh_frame: &'o mut [u8],
    eh_index: &'o mut [u8],
}

/// Takes pieces off the front of an area; what lies between pieces is filled.
struct Cutter<'o> {
    rest: &'o mut [u8],
    at: u64,
    fill: u8,
}

impl<'o> Cutter<'o> {
    fn new(bytes: &'o mut [u8], fill: u8) -> Self {
        Self { rest: bytes, at: 0, fill }
    }

    fn cut(&mut self, offset: u64, size: u64) -> &'o mut [u8] {
        if size == 0 {
            return &mut [];
        }
        let rest = std::mem::take(&mut self.rest);
        let (gap, rest) = rest.split_at_mut((offset - self.at) as usize);
        gap.fill(self.fill);
        let (piece, rest) = rest.split_at_mut(size as usize);
        self.rest = rest;
        self.at = offset + size;
        piece
    }

    fn finish(self) -> &'o mut [u8] {
        self.rest
    }
}

impl Plan<'_> {
    /// Writes the linked program into `out`, as it must be for areas at the addresses `at`.
    ///
    /// # Errors
    ///
    /// [`LinkError::Buffer`] if `out` is not as large as the layout says; else the first error in order of modules: an
    /// address out of reach.
    pub fn emit(&self, at: &Addresses, out: Output<'_>) -> Result<Fixups, LinkError> {
        self.check_sizes(&out)?;
        let ends = self.ends(at);
        let fill = self.arch.trap_byte();
        let size_of_stub = stub_size(self.arch);
        let mut text = Cutter::new(out.text, fill);
        let mut rodata = Cutter::new(out.rodata, 0);
        let mut relro = Cutter::new(out.relro, 0);
        let mut data = Cutter::new(out.data, 0);
        let mut eh_frame = Cutter::new(out.eh_frame, 0);
        let hdr_len = out.eh_frame_hdr.len();
        let (hdr, index) = out.eh_frame_hdr.split_at_mut(hdr_len.min(12));
        let mut eh_index = Cutter::new(index, 0);

        let mut work = Vec::with_capacity(self.modules.len());
        for (artifact, module) in self.artifacts.iter().zip(&self.modules) {
            let own = &self.stubs[module.stubs.start as usize..module.stubs.end as usize];
            let text_end =
                own.last().map_or(module.text + artifact.text().len() as u64, |s| s.offset + size_of_stub);
            let read_only = if module.read_only_area == Area::Rodata { &mut rodata } else { &mut relro };
            work.push(Part {
                text: text.cut(module.text, text_end - module.text),
                read_only: read_only.cut(module.read_only, artifact.unnamed_len(SectionKind::ReadOnly)),
                writable: data.cut(module.writable, artifact.unnamed_len(SectionKind::Writable)),
                named: Vec::new(),
                eh_frame: eh_frame.cut(module.eh.start, module.eh.size),
                eh_index: eh_index.cut(8 * module.eh.first, 8 * module.eh.count),
            });
        }
        for section in &self.sections.list {
            let area = match section.info.area {
                Area::Rodata => &mut rodata,
                Area::Relro => &mut relro,
                _ => &mut data,
            };
            for part in &section.parts {
                let run = &self.artifacts[part.module as usize].named_data()[part.run as usize];
                work[part.module as usize].named.push((part.run, area.cut(part.offset, run.len.get())));
            }
        }
        let stubs_start = text.at;
        let stubs = text.finish();
        [rodata.finish(), relro.finish(), data.finish()].into_iter().for_each(|rest| rest.fill(0));

        let results: Vec<Result<Fixups, LinkError>> = work
            .into_par_iter()
            .enumerate()
            .map(|(number, part)| Module { plan: self, number, at, ends: &ends }.emit(part))
            .collect();
        let mut fixups = Fixups::default();
        for result in results {
            let module = result?;
            fixups.pointers.extend(module.pointers);
            fixups.symbolic.extend(module.symbolic);
        }
        stubs.fill(fill);
        self.emit_stubs(self.shared_stubs..self.stubs.len() as u32, stubs, stubs_start, at, &ends)?;
        unwind::emit_frame(
            self.arch,
            &self.eh,
            at[Area::EhFrame],
            at[Area::EhFrameHdr],
            eh_frame.finish(),
            hdr,
        )
        .ok_or_else(|| self.unwind_out_of_reach())?;
        for &entity in &self.internal_slots {
            let slot = u64::from(self.entities[entity as usize].slot);
            let target = ends[entity as usize].symbol.unwrap_or_default();
            fixups.internal_slots.push(Pointer { area: Area::Slots, offset: slot * 8, target });
        }
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

    /// The virtual addresses of every entity.
    fn ends(&self, at: &Addresses) -> Vec<Ends> {
        let own_slot = |slot: u32| (slot != NONE).then(|| at[Area::Slots] + 8 * u64::from(slot));
        let stub = |stub: u32| self.stubs.get(stub as usize).map(|stub| at[Area::Text] + stub.offset);
        self.entities
            .par_iter()
            .map(|entity| {
                let symbol = match entity.home {
                    Home::Defined { module, symbol } => {
                        let record = &self.artifacts[module as usize].symbols()[symbol as usize];
                        self.modules[module as usize]
                            .locate(record.section(), record.offset.get())
                            .map(|(area, offset)| at[area] + offset)
                    }
                    Home::Section { section, bound } => {
                        let section = &self.sections.list[section as usize].info;
                        let size = if bound == Bound::Stop { section.size } else { 0 };
                        Some(at[section.area] + section.offset + size)
                    }
                    Home::Address(address) => Some(address),
                    Home::KnownSlot(_) | Home::Outside => None,
                };
                let slot = match entity.home {
                    Home::KnownSlot(address) => Some(address),
                    _ => own_slot(entity.slot),
                };
                Ends { symbol, slot, stub: stub(entity.stub) }
            })
            .collect()
    }

    fn emit_stubs(
        &self,
        numbers: std::ops::Range<u32>,
        text: &mut [u8],
        start: u64,
        at: &Addresses,
        ends: &[Ends],
    ) -> Result<(), LinkError> {
        for stub in &self.stubs[numbers.start as usize..numbers.end as usize] {
            let entity = &self.entities[stub.entity as usize];
            let place = at[Area::Text] + stub.offset;
            let site = Site { text: &mut *text, at: (stub.offset - start) as usize, place, addend: 0 };
            relocate::write_stub(self.arch, site, ends[stub.entity as usize]).map_err(|fault| {
                let artifact = &self.artifacts[entity.module as usize];
                let name = artifact.name(&artifact.symbols()[entity.symbol as usize]);
                fault.into_error(entity.module as usize, name.into(), stub.offset, RelocKind::Abs64)
            })?;
        }
        Ok(())
    }

    fn unwind_out_of_reach(&self) -> LinkError {
        let what = "the distance between code and unwind rows";
        LinkError::TooLarge { what, size: self.layout().total(), limit: 1 << 31 }
    }
}

/// One module on its way into the output.
struct Module<'m> {
    plan: &'m Plan<'m>,
    number: usize,
    at: &'m Addresses,
    ends: &'m [Ends],
}

impl Module<'_> {
    fn artifact(&self) -> &Artifact {
        &self.plan.artifacts[self.number]
    }

    fn module(&self) -> &ModulePlan {
        &self.plan.modules[self.number]
    }

    fn emit(&self, part: Part<'_>) -> Result<Fixups, LinkError> {
        let (artifact, module, at) = (self.artifact(), self.module(), self.at);
        self.emit_text(part.text)?;
        part.read_only.copy_from_slice(&artifact.read_only()[..part.read_only.len()]);
        part.writable.copy_from_slice(&artifact.writable()[..part.writable.len()]);
        for (run, bytes) in part.named {
            let run = &artifact.named_data()[run as usize];
            let place = if run.section() == SectionKind::Writable {
                artifact.writable()
            } else {
                artifact.read_only()
            };
            bytes.copy_from_slice(&place[run.start.get() as usize..][..bytes.len()]);
        }
        let base = unwind::Base {
            arch: self.plan.arch,
            text: at[Area::Text] + module.text,
            eh_frame: at[Area::EhFrame],
            eh_frame_hdr: at[Area::EhFrameHdr],
        };
        unwind::emit(artifact, &module.eh, base, part.eh_frame, part.eh_index)
            .ok_or_else(|| self.plan.unwind_out_of_reach())?;
        let mut fixups = Fixups::default();
        self.pointers(artifact.read_only_relocs(), SectionKind::ReadOnly, &mut fixups);
        self.pointers(artifact.writable_relocs(), SectionKind::Writable, &mut fixups);
        Ok(fixups)
    }

    fn ends_of(&self, symbol: u32) -> Ends {
        let module = self.module();
        let mut ends = self.ends[module.entity_of[symbol as usize] as usize];
        if let Some(&stub) = module.stub_of.get(symbol as usize) {
            ends.stub = self.plan.stubs.get(stub as usize).map(|stub| self.at[Area::Text] + stub.offset);
        }
        ends
    }

    fn emit_text(&self, text: &mut [u8]) -> Result<(), LinkError> {
        let (artifact, module, arch) = (self.artifact(), self.module(), self.plan.arch);
        let (code, stubs) = text.split_at_mut(artifact.text().len());
        code.copy_from_slice(artifact.text());
        let start = self.at[Area::Text] + module.text;
        let relocs = artifact.text_relocs();
        let mut auipcs = Auipcs::default();
        for (index, reloc) in relocs.iter().enumerate() {
            let offset = reloc.offset.get();
            let result = if reloc.kind() == RelocKind::RvPcrelLo12I {
                self.patch_low(code, start, relocs, index, &mut auipcs)
            } else {
                let site = Site {
                    text: &mut *code,
                    at: offset as usize,
                    place: start + offset,
                    addend: reloc.addend.get(),
                };
                relocate::patch(arch, reloc.kind(), site, self.ends_of(reloc.symbol.get()))
            };
            result.map_err(|fault| {
                let symbol = artifact.name(&artifact.symbols()[reloc.symbol.get() as usize]).into();
                fault.into_error(self.number, symbol, offset, reloc.kind())
            })?;
        }
        stubs.fill(arch.trap_byte());
        let stubs_start = module.text + artifact.text().len() as u64;
        self.plan.emit_stubs(module.stubs.clone(), stubs, stubs_start, self.at, self.ends)
    }

    /// riscv64: the symbol and addend name an `auipc` of this module.
    fn patch_low(
        &self,
        code: &mut [u8],
        start: u64,
        relocs: &[Reloc],
        index: usize,
        auipcs: &mut Auipcs,
    ) -> Result<(), Fault> {
        let reloc = &relocs[index];
        let symbol = &self.artifact().symbols()[reloc.symbol.get() as usize];
        let place = symbol.offset.get().checked_add_signed(reloc.addend.get()).ok_or(Fault::Instruction)?;
        let auipc = auipcs.find(relocs, index, place).ok_or(Fault::Instruction)?;
        let high = High { kind: auipc.kind(), place: start + place, addend: auipc.addend.get() };
        riscv64::patch_low(code, reloc.offset.get() as usize, high, self.ends_of(auipc.symbol.get()))
    }

    fn pointers(&self, relocs: &[Reloc], place: SectionKind, fixups: &mut Fixups) {
        let module = self.module();
        for reloc in relocs {
            let number = module.entity_of[reloc.symbol.get() as usize] as usize;
            let Some((area, offset)) = module.locate(place, reloc.offset.get()) else { continue };
            let addend = reloc.addend.get();
            let source = match (self.ends[number].symbol, self.plan.entities[number].home) {
                (Some(symbol), _) => {
                    fixups.pointers.push(Pointer {
                        area,
                        offset,
                        target: symbol.wrapping_add_signed(addend),
                    });
                    continue;
                }
                (None, Home::KnownSlot(address)) => PointerSource::KnownSlot(address),
                (None, _) => PointerSource::Slot(self.plan.entities[number].slot),
            };
            fixups.symbolic.push(SymbolicPointer { area, offset, source, addend });
        }
    }
}

/// Finds the relocation of an `auipc` by its place. Usually it is one of the relocations just before; the index is made
/// only when it is not.
#[derive(Default)]
struct Auipcs {
    by_place: Option<Vec<(u64, u32)>>,
}

impl Auipcs {
    fn find<'r>(&mut self, relocs: &'r [Reloc], index: usize, place: u64) -> Option<&'r Reloc> {
        let is_high = |reloc: &Reloc| matches!(reloc.kind(), RelocKind::RvGotHi20 | RelocKind::RvPcrelHi20);
        let near = relocs[index.saturating_sub(8)..index].iter().rev();
        if let Some(found) = near.into_iter().find(|reloc| reloc.offset.get() == place && is_high(reloc)) {
            return Some(found);
        }
        let by_place = self.by_place.get_or_insert_with(|| {
            let highs = relocs.iter().enumerate().filter(|(_, reloc)| is_high(reloc));
            let mut places: Vec<_> = highs.map(|(index, reloc)| (reloc.offset.get(), index as u32)).collect();
            places.sort_unstable();
            places
        });
        let at = by_place.binary_search_by_key(&place, |&(offset, _)| offset).ok()?;
        relocs.get(by_place[at].1 as usize)
    }
}
