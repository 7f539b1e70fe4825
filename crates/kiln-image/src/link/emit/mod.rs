//! Copies and relocates all modules in parallel, each into its own pieces of every area.
//!
//! [`Pieces::cut`] splits the areas before the threads start, so no two threads can write the same
//! byte, and the result is the same for any number of threads. The loop over relocations only
//! follows indices.

mod module;
pub(super) mod pieces;
mod targets;

use self::module::ModuleWriter;
use self::pieces::Pieces;
use self::targets::Targets;
use super::assign::{Slot, SlotContent};
use super::error::LinkError;
use super::fixups::{Fixups, Pointer};
use super::layout::{Addresses, Area, Output};
use super::plan::Plan;
use super::unwind::UnwindAddresses;
use super::{threads, unwind};

impl Plan<'_> {
    /// Writes the linked program into `out`, for areas at `addresses`, and returns the fixups,
    /// which the caller must apply.
    ///
    /// # Errors
    ///
    /// [`LinkError::Buffer`] if a buffer of `out` does not have the size that the layout says.
    /// Otherwise the first error, in order of modules, about an address that is out of reach or
    /// misaligned.
    pub fn emit(&self, addresses: &Addresses, out: Output<'_>) -> Result<Fixups, LinkError> {
        #[cfg(feature = "tracing")]
        let _span = tracing::debug_span!("emit").entered();
        self.check_sizes(&out)?;
        let targets = Targets::new(self, addresses);
        let pieces = Pieces::cut(self, out);
        let Pieces { modules, shared_stubs, shared_stubs_start, code_head, code_stubs, .. } = pieces;

        // Modules, in parallel if they are many. Their fixups are joined in order of modules.
        let write = |module, pieces| ModuleWriter::new(&targets, module).write(pieces);
        let mut fixups = Fixups::default();
        for result in threads::map_owned(self.parallel, modules, write) {
            let module = result?;
            fixups.pointers.extend(module.pointers);
            fixups.symbolic.extend(module.symbolic);
            fixups.text.extend(module.text);
            fixups.thread_locals.extend(module.thread_locals);
        }

        // Shared stubs, and the parts of the unwind information that belong to no module.
        shared_stubs.fill(self.arch.trap_byte());
        let numbers = self.assignment.shared_stubs();
        targets.write_stubs(numbers, shared_stubs, shared_stubs_start)?;
        let unwind = UnwindAddresses {
            arch: self.arch,
            text: addresses[Area::Text],
            eh_frame: addresses[Area::EhFrame],
            eh_frame_hdr: addresses[Area::EhFrameHdr],
        };
        let (end, head) = (pieces.eh_frame_end, pieces.eh_frame_hdr_head);
        unwind::write_ends(&self.unwind, unwind, end, head, pieces.eh_frame_hdr_end)
            .ok_or_else(|| unwind::out_of_reach(self.layout()))?;
        self.code.write_head(self.placement.modules.iter().map(|module| module.text.start), code_head);
        code_stubs.copy_from_slice(&self.code.stub_piece.0);
        fixups.internal_slots.extend(self.internal_slots(&targets));
        Ok(fixups)
    }

    fn check_sizes(&self, out: &Output<'_>) -> Result<(), LinkError> {
        let given = [
            (Area::Text, out.text.len()),
            (Area::EhFrame, out.eh_frame.len()),
            (Area::EhFrameHdr, out.eh_frame_hdr.len()),
            (Area::CodeTables, out.code_tables.len()),
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

    /// Returns the contents of the internal slots.
    fn internal_slots(&self, targets: &Targets<'_>) -> impl Iterator<Item = Pointer> {
        self.assignment.internal().iter().enumerate().map(|(number, &content)| {
            let target = match content {
                SlotContent::Address(id) => targets.of(id).symbol,
                SlotContent::Code(function) => targets.code_of(function),
            };
            Pointer {
                area: Area::Slots,
                offset: self.assignment.slot_offset(Slot::Internal(number as u32)),
                target: target.unwrap_or_default(),
            }
        })
    }
}
