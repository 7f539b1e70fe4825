//! Cuts the output into pieces for each module, and fills the gaps between them.

use kiln_artifact::Artifact;
use kiln_artifact::record::SectionKind;

use super::super::layout::{Area, Output};
use super::super::lists::PerModule;
use super::super::plan::Plan;
use super::super::unwind::HDR_FIXED;
use super::super::unwind_size::HDR_LINE;

/// One module's pieces of the output.
#[derive(Default)]
pub(in super::super) struct ModulePieces<'o> {
    /// The module's code and its own stubs.
    pub(in super::super) text: &'o mut [u8],
    pub(in super::super) read_only: &'o mut [u8],
    pub(in super::super) writable: &'o mut [u8],
    /// Runs of named data, each with its number in the module.
    pub(in super::super) named: Vec<(u32, &'o mut [u8])>,
    pub(in super::super) eh_frame: &'o mut [u8],
    /// The module's entries in the index of unwind rows, `.eh_frame_hdr`; empty if there is none.
    pub(in super::super) eh_index: &'o mut [u8],
    /// The module's piece of the code tables.
    pub(in super::super) code_tables: &'o mut [u8],
}

impl ModulePieces<'_> {
    /// Copies the module's data.
    pub(in super::super) fn copy_data(&mut self, artifact: &Artifact) {
        self.read_only.copy_from_slice(&artifact.read_only()[..self.read_only.len()]);
        self.writable.copy_from_slice(&artifact.writable()[..self.writable.len()]);
        for (run, bytes) in &mut self.named {
            let run = &artifact.named_data()[*run as usize];
            let data = if run.section() == SectionKind::Writable {
                artifact.writable()
            } else {
                artifact.read_only()
            };
            bytes.copy_from_slice(&data[run.start.get() as usize..][..bytes.len()]);
        }
    }
}

/// The whole output in pieces. The gaps between them are already filled.
pub(in super::super) struct Pieces<'o> {
    pub(in super::super) modules: PerModule<ModulePieces<'o>>,
    /// The end of the code area, which holds the shared stubs.
    pub(in super::super) shared_stubs: &'o mut [u8],
    /// The offset of `shared_stubs` in the code area, in bytes.
    pub(in super::super) shared_stubs_start: u64,
    /// The end of `.eh_frame`, after the entries of all modules: that of the shared stubs.
    pub(in super::super) eh_frame_end: &'o mut [u8],
    /// The head of `.eh_frame_hdr`, before the entries of all modules.
    pub(in super::super) eh_frame_hdr_head: &'o mut [u8],
    /// The head of the code tables, before the pieces of all modules.
    pub(in super::super) code_head: &'o mut [u8],
    /// The end of the code tables: the piece of the shared stubs.
    pub(in super::super) code_stubs: &'o mut [u8],
    /// The end of `.eh_frame_hdr`, after the entries of all modules.
    pub(in super::super) eh_frame_hdr_end: &'o mut [u8],
}

impl<'o> Pieces<'o> {
    pub(in super::super) fn cut(plan: &Plan<'_>, out: Output<'o>) -> Self {
        let mut text = Cutter::new(out.text, plan.arch.trap_byte());
        let mut rodata = Cutter::new(out.rodata, 0);
        let mut relro = Cutter::new(out.relro, 0);
        let mut data = Cutter::new(out.data, 0);
        let mut eh_frame = Cutter::new(out.eh_frame, 0);
        let head_len = out.eh_frame_hdr.len().min(HDR_FIXED as usize);
        let (eh_frame_hdr_head, index) = out.eh_frame_hdr.split_at_mut(head_len);
        let mut eh_index = Cutter::new(index, 0);
        let mut code_tables = Cutter::new(out.code_tables, 0);
        let code_head = code_tables.cut(0, plan.code.head);

        // Code, data outside named sections, and unwind information.
        let mut modules = PerModule::with_capacity(plan.artifacts.len());
        let placed = plan.placement.modules.iter().zip(&plan.unwind.modules).zip(&plan.code.modules);
        for (artifact, ((module, entries), (tables, start))) in plan.artifacts.iter().zip(placed) {
            let read_only = if module.read_only_area == Area::Rodata { &mut rodata } else { &mut relro };
            let mut pieces = ModulePieces {
                text: text.cut(module.text.start, module.text.end - module.text.start),
                read_only: read_only.cut(module.read_only, artifact.unnamed_len(SectionKind::ReadOnly)),
                writable: data.cut(module.writable, artifact.unnamed_len(SectionKind::Writable)),
                code_tables: code_tables.cut(*start, tables.len),
                ..ModulePieces::default()
            };
            if let Some(entries) = entries {
                pieces.eh_frame = eh_frame.cut(entries.start, entries.size);
                if plan.unwind.has_index {
                    pieces.eh_index = eh_index.cut(HDR_LINE * entries.first, HDR_LINE * entries.count);
                }
            }
            modules.push(pieces);
        }

        // Named sections.
        for section in &plan.placement.sections {
            let area = match section.info.area {
                Area::Rodata => &mut rodata,
                Area::Relro => &mut relro,
                _ => &mut data,
            };
            for &(piece, offset) in &section.pieces {
                let module = piece.module as usize;
                let run = &plan.artifacts[module].named_data()[piece.run as usize];
                modules[module].named.push((piece.run, area.cut(offset, run.len.get())));
            }
        }
        let rests = [rodata, relro, data].into_iter().map(|area| area.rest);
        rests.filter(|rest| !rest.is_empty()).for_each(|rest| rest.fill(0));
        Self {
            modules,
            shared_stubs_start: text.position,
            shared_stubs: text.rest,
            eh_frame_end: eh_frame.rest,
            eh_frame_hdr_head,
            code_head,
            code_stubs: code_tables.rest,
            eh_frame_hdr_end: eh_index.rest,
        }
    }
}

/// Takes pieces off the front of an area, and fills the gaps between them.
struct Cutter<'o> {
    rest: &'o mut [u8],
    /// The offset of `rest` in the area.
    position: u64,
    fill: u8,
}

impl<'o> Cutter<'o> {
    fn new(bytes: &'o mut [u8], fill: u8) -> Self {
        Self { rest: bytes, position: 0, fill }
    }

    fn cut(&mut self, offset: u64, size: u64) -> &'o mut [u8] {
        if size == 0 {
            return &mut [];
        }
        let rest = std::mem::take(&mut self.rest);
        let (gap, rest) = rest.split_at_mut((offset - self.position) as usize);
        gap.fill(self.fill);
        let (piece, rest) = rest.split_at_mut(size as usize);
        self.rest = rest;
        self.position = offset + size;
        piece
    }
}
