//! A function taken out of an artifact, as it was when it was compiled.
//!
//! A module of which one function has changed is assembled anew from the code of the others. What comes out of an artifact here is
//! exactly what went into it, with symbols numbered as the new module has them; so an artifact that is put together from
//! old functions is the one that compiling would have made. The caller has made sure, by a key, that the function is the same.
//!
//! Invariant: nothing is assumed of the artifact but what [`Artifact::from_bytes`] has checked. Where it does not hold
//! together, there is no function, and the caller compiles.

use kiln_artifact::record::{self, HandlerKind};
use kiln_artifact::{Artifact, Table};
use kiln_ir::{Code, Function};

use crate::function::{Compiled, FunctionHandler, FunctionReloc, FunctionStackMap, Target};
use crate::reloc;
use crate::unwind::Rows;

/// A compiled function that may stand for one that is to be compiled.
#[derive(Clone, Copy, Debug)]
pub struct Reuse<'a> {
    /// Where it lies.
    pub artifact: &'a Artifact,
    /// Its position there.
    pub function: usize,
}

/// The entries of a table that belong to a function: those from the first whose offset is at least `start` up to the first
/// whose offset is at least `end`.
fn within<T>(table: &[T], offset: impl Fn(&T) -> u64, start: u64, end: u64) -> &[T] {
    let from = table.partition_point(|entry| offset(entry) < start);
    let to = table.partition_point(|entry| offset(entry) < end);
    table.get(from..to).unwrap_or_default()
}

/// The function, to take the place of `new`.
pub(crate) fn extract(reuse: Reuse<'_>, new: &Function) -> Option<Compiled> {
    let Reuse { artifact, function } = reuse;
    let old = artifact.functions().get(function)?;
    let Code::Ir(body) = &new.code else { return None };
    let (start, len) = (old.start.get(), old.len.get());
    let (from, to) = (u64::from(start), u64::from(start) + u64::from(len));
    let references = &artifact.references()[old.references_start.get() as usize..];
    let references = references.get(..old.references_len.get() as usize)?;
    if references.len() != body.references().len() {
        return None;
    }
    // What a reloc of the old function refers to, in terms of the new one.
    let target = |symbol: u32| {
        if symbol == old.symbol.get() {
            return Some(Target::Symbol(new.symbol.as_u32()));
        }
        if let Some(position) = references.iter().position(|reference| reference.get() == symbol) {
            return Some(Target::Symbol(body.references()[position].as_u32()));
        }
        let symbol = artifact.symbols().get(symbol as usize).filter(|symbol| symbol.libcall == 1)?;
        reloc::libcall(artifact.name(symbol)).map(Target::LibCall)
    };

    let mut code: Box<[u8]> = artifact.text()[start as usize..][..len as usize].into();
    let mut relocs = Vec::new();
    for reloc in within(artifact.text_relocs(), |reloc| reloc.offset.get(), from, to) {
        relocs.push(FunctionReloc {
            offset: (reloc.offset.get() - from) as u32,
            kind: reloc.kind(),
            // It was tried, and stays as it is.
            call: None,
            target: target(reloc.symbol.get())?,
            addend: reloc.addend.get(),
        });
    }
    for call in within(artifact.resolved_calls(), |call| u64::from(call.offset.get()), from, to) {
        let offset = call.offset.get() - start;
        let kind = call.kind();
        let place = code.get_mut(offset as usize..offset as usize + kind.width())?;
        place.copy_from_slice(call.original.get(..place.len())?);
        relocs.push(FunctionReloc {
            offset,
            kind,
            call: Some(reloc::call(kind)?),
            target: target(call.symbol.get())?,
            addend: call.addend.get(),
        });
    }
    // As the compiler had them: a relocation and a call never share a place.
    relocs.sort_by_key(|reloc| reloc.offset);

    // Return addresses and ends lie behind what they belong to.
    let behind = |offset: u32| u64::from(offset).saturating_sub(1);
    let maps = within(artifact.stack_maps(), |map| behind(map.return_offset.get()), from, to);
    let patchable = within(artifact.patchable_calls(), |call| behind(call.end.get()), from, to);
    let handlers = artifact.handlers_of(function).iter().map(|handler| self::handler(handler, start));
    let handlers = handlers.collect::<Option<Vec<_>>>()?;
    let mut stack_map_entries = Vec::new();
    let mut stack_maps = Vec::with_capacity(maps.len());
    for map in maps {
        let entries = artifact.stack_map_entries().get(map.entries_start.get() as usize..)?;
        let entries = entries.get(..map.entries_len.get() as usize)?;
        stack_map_entries.extend(entries.iter().map(|entry| (entry.offset.get(), entry.size.get())));
        stack_maps.push(FunctionStackMap {
            return_offset: map.return_offset.get() - start,
            span: map.span.get(),
            entries: map.entries_len.get(),
        });
    }
    let rows = &artifact.unwind()[old.unwind_start.get() as usize..][..old.unwind_len.get() as usize];
    Some(Compiled {
        code,
        align: old.align.get(),
        relocs,
        // Neither where the function lies nor the base of its locations is in these.
        traps: artifact.stream_of(function, Table::Traps).to_vec(),
        source_ranges: artifact.stream_of(function, Table::SourceRanges).to_vec(),
        call_sites: artifact.stream_of(function, Table::CallSites).to_vec(),
        handlers,
        stack_maps,
        stack_map_entries,
        patchable_calls: patchable.iter().map(|call| (call.end.get() - start, call.len.get())).collect(),
        nop: if patchable.is_empty() { Vec::new() } else { artifact.nops().to_vec() },
        unwind: match rows.is_empty() {
            true => Rows::default(),
            false => Rows { cie: artifact.cie().to_vec(), rows: rows.to_vec() },
        },
        reused: true,
    })
}

fn handler(handler: &record::Handler, start: u32) -> Option<FunctionHandler> {
    let kind = HandlerKind::from_code(handler.kind)?;
    let target = match kind {
        HandlerKind::Tag | HandlerKind::Default => Some(handler.target.get().checked_sub(start)?),
        HandlerKind::ContextStack | HandlerKind::ContextRegister => None,
    };
    Some(FunctionHandler { kind, value: handler.value.get(), target })
}
