//! Collects the tables of one function from Cranelift's buffers: traps, source locations, calls,
//! exception handlers, stack maps, patchable calls.

use cranelift_codegen::{CompiledCode, ExceptionContextLoc, FinalizedMachExceptionHandler, MachTrap};
use kiln_artifact::record::HandlerKind;
use kiln_artifact::stream::{CallSite, SourceRange, StreamWriter, Trap};

use crate::compiled::{CompiledFunction, FunctionHandler, FunctionStackMap};

/// Returns a function with its tables and alignment, but without code, relocations and unwind rows.
/// Source locations become relative to `base`, so that moving a function in its source changes
/// nothing.
pub(crate) fn collect(code: &CompiledCode, base: u32) -> CompiledFunction {
    let buffer = &code.buffer;
    let mut handlers = Vec::new();
    let mut call_sites = StreamWriter::default();
    for site in buffer.call_sites() {
        handlers.extend(site.exception_handlers.iter().map(handler));
        call_sites.call_site(CallSite {
            return_offset: site.ret_addr,
            frame_offset: site.frame_offset,
            handlers: site.exception_handlers.len() as u32,
        });
    }
    let mut traps = StreamWriter::default();
    for MachTrap { offset, code } in buffer.traps() {
        traps.trap(Trap { offset: *offset, code: code.as_raw().get() });
    }
    let mut source_ranges = StreamWriter::default();
    for range in buffer.get_srclocs_sorted().iter().filter(|range| !range.loc.is_default()) {
        let location = range.loc.bits().wrapping_sub(base);
        source_ranges.source_range(SourceRange { start: range.start, end: range.end, location });
    }
    let mut stack_map_entries = Vec::new();
    let stack_maps = buffer
        .user_stack_maps()
        .iter()
        .map(|(offset, span, map)| {
            let before = stack_map_entries.len();
            stack_map_entries.extend(map.entries().map(|(ty, offset)| (offset, ty.bytes())));
            let entries = (stack_map_entries.len() - before) as u32;
            FunctionStackMap { return_offset: *offset, span: *span, entries }
        })
        .collect();
    let patchable_calls: Vec<_> =
        buffer.patchable_call_sites().map(|site| (site.ret_addr, site.len)).collect();
    let nop = match patchable_calls.is_empty() {
        true => Vec::new(),
        false => buffer.nop_units.first().cloned().unwrap_or_default(),
    };
    CompiledFunction {
        align: buffer.alignment,
        traps: traps.finish(),
        source_ranges: source_ranges.finish(),
        call_sites: call_sites.finish(),
        handlers,
        stack_maps,
        stack_map_entries,
        patchable_calls,
        nop,
        ..CompiledFunction::default()
    }
}

fn handler(handler: &FinalizedMachExceptionHandler) -> FunctionHandler {
    let (kind, value, target) = match *handler {
        FinalizedMachExceptionHandler::Tag(tag, target) => (HandlerKind::Tag, tag.as_u32(), Some(target)),
        FinalizedMachExceptionHandler::Default(target) => (HandlerKind::Default, 0, Some(target)),
        FinalizedMachExceptionHandler::Context(ExceptionContextLoc::SPOffset(offset)) => {
            (HandlerKind::ContextStack, offset, None)
        }
        FinalizedMachExceptionHandler::Context(ExceptionContextLoc::GPR(register)) => {
            (HandlerKind::ContextRegister, u32::from(register), None)
        }
    };
    FunctionHandler { kind, value, target }
}
