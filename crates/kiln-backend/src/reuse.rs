//! Extracts a function from an artifact, as it was before its module was assembled.
//!
//! When one function of a module changes, the others are not compiled again: the module is
//! assembled from the one new function and the code of the last build. [`extract`] undoes what
//! assembling did to one function, so that assembling it again gives the same bytes as compiling
//! everything.
//!
//! - Code: the bytes that resolving a call overwrote are put back, and the call is a relocation
//!   again.
//! - Relocations: a symbol's number in the old module becomes its number in the new one. A
//!   reference to the function itself stays a reference to itself, its n-th reference is the new
//!   function's n-th reference (the canonical form numbers references in order of first use), and a
//!   routine of the C library is found by name. A reference to the words of a thread-local symbol
//!   is one to that symbol. On s390x their distance is in the code, so such a function is compiled.
//! - Offsets in the module's code become offsets in the function. Streams need no change: they are
//!   relative to their function already. Lines and names of variables are those of the new module.
//!
//! Example: an x86-64 module has functions `a` in bytes 0..16 and `b` in 16..32, with symbol
//! numbers 0 and 1, and `b` calls `a` at byte 20. Its artifact has the distance -24 there, and the
//! resolved call `{ offset: 20, symbol: 0, addend: -4, original: 00 00 00 00 }`; the references of
//! `b` are `[0]`. In the new module a function is added in front, so `a` and `b` have the numbers 1
//! and 2, and the references of `b` are `[1]`. Extracting `b` gives its 16 bytes with zeros at 4,
//! and the relocation `{ offset: 4, target: Symbol(1), addend: -4 }`. Assembling places `b`
//! wherever it is now, and resolves the call again.
//!
//! The caller must make sure, by comparing keys, that the function is the same. Invariant: nothing
//! is assumed about the artifact beyond the checks of [`Artifact::from_bytes`]. If its tables do
//! not fit together, the result is `None`, and the caller compiles the function: no artifact makes
//! a function or a module fail. Code that fits is used without further checks, so whoever can alter
//! artifacts chooses the code that runs.

use std::collections::HashMap;

use kiln_artifact::record::{FunctionRecord, Handler, HandlerKind};
use kiln_artifact::{Artifact, Table};
use kiln_ir::{Body, Function};

use crate::compiled::{CompiledFunction, FunctionHandler, FunctionReloc, FunctionStackMap, RelocTarget};
use crate::{reloc, thread_locals};

/// The largest number of references of a function that are searched one by one.
const FEW: usize = 32;

/// A compiled function of an earlier artifact, to be used instead of compiling a function.
#[derive(Clone, Copy, Debug)]
pub struct Reuse<'a> {
    /// The artifact that has the function.
    pub artifact: &'a Artifact,
    /// The function's index in `artifact`.
    pub function: usize,
}

/// Returns the entries of a sorted table that belong to a function: those with an offset in
/// `start..end`.
fn within<T>(table: &[T], offset: impl Fn(&T) -> u64, start: u64, end: u64) -> &[T] {
    let from = table.partition_point(|entry| offset(entry) < start);
    let to = table.partition_point(|entry| offset(entry) < end);
    table.get(from..to).unwrap_or_default()
}

/// Returns the function that `reuse` offers, converted for use as `new`, whose body is `body`;
/// `None` if it does not fit.
pub(crate) fn extract(reuse: Reuse<'_>, new: &Function, body: &Body) -> Option<CompiledFunction> {
    let Reuse { artifact, function } = reuse;
    let old = artifact.functions().get(function)?;
    let (start, len) = (old.start.get(), old.len.get());
    let mut code: Box<[u8]> = artifact.text()[start as usize..][..len as usize].into();
    let relocs = relocs(artifact, old, new, body, &mut code)?;
    let handlers = artifact.handlers_of(function).iter().map(|handler| self::handler(handler, start, len));
    let handlers = handlers.collect::<Option<Vec<_>>>()?;

    // A return address or an end may be the offset just after the function's last byte, but not
    // that of its first byte.
    let (from, to) = (u64::from(start), u64::from(start) + u64::from(len));
    let before = |offset: u32| u64::from(offset).saturating_sub(1);
    let maps = within(artifact.stack_maps(), |map| before(map.return_offset.get()), from, to);
    let patchable = within(artifact.patchable_calls(), |call| before(call.end.get()), from, to);
    let patchable_calls = patchable.iter().map(|call| {
        let end = call.end.get().checked_sub(start)?;
        (call.len.get() <= end).then_some((end, call.len.get()))
    });
    let patchable_calls = patchable_calls.collect::<Option<Vec<_>>>()?;
    let mut stack_map_entries = Vec::new();
    let mut stack_maps = Vec::with_capacity(maps.len());
    for map in maps {
        let entries = artifact.stack_map_entries().get(map.entries_start.get() as usize..)?;
        let entries = entries.get(..map.entries_len.get() as usize)?;
        stack_map_entries.extend(entries.iter().map(|entry| (entry.offset.get(), entry.size.get())));
        stack_maps.push(FunctionStackMap {
            return_offset: map.return_offset.get().checked_sub(start)?,
            span: map.span.get(),
            entries: map.entries_len.get(),
        });
    }

    let rows = &artifact.unwind()[old.unwind_start.get() as usize..][..old.unwind_len.get() as usize];
    Some(CompiledFunction {
        code,
        align: old.align.get(),
        relocs,
        traps: artifact.stream_of(function, Table::Traps).to_vec(),
        source_ranges: artifact.stream_of(function, Table::SourceRanges).to_vec(),
        call_sites: artifact.stream_of(function, Table::CallSites).to_vec(),
        labels: artifact.labels_stream_of(function).to_vec(),
        handlers,
        stack_maps,
        stack_map_entries,
        nop: if patchable_calls.is_empty() { Vec::new() } else { artifact.nops().to_vec() },
        patchable_calls,
        unwind: rows.to_vec(),
        reused: true,
        unfit: false,
    })
}

/// Returns the function's relocations, resolved calls among them, and puts back into `code` the
/// bytes that resolving overwrote.
fn relocs(
    artifact: &Artifact,
    old: &FunctionRecord,
    new: &Function,
    body: &Body,
    code: &mut [u8],
) -> Option<Vec<FunctionReloc>> {
    let references = &artifact.references()[old.references_start.get() as usize..];
    let references = references.get(..old.references_len.get() as usize)?;
    if references.len() != body.references().len() {
        return None;
    }
    // If there are many references, make a hash table, so that the time is linear for any artifact.
    let positions: Option<HashMap<u32, usize>> = (references.len() > FEW).then(|| {
        let positions = references.iter().enumerate().rev();
        positions.map(|(position, reference)| (reference.get(), position)).collect()
    });
    let position = |symbol: u32| match &positions {
        Some(positions) => positions.get(&symbol).copied(),
        None => references.iter().position(|reference| reference.get() == symbol),
    };
    // From the old module's symbol number to the thing that the new function refers to.
    let target = |symbol: u32| {
        if symbol == old.symbol.get() {
            return Some(RelocTarget::Symbol(new.symbol.as_u32()));
        }
        if let Some(position) = position(symbol) {
            return Some(RelocTarget::Symbol(body.references()[position].as_u32()));
        }
        let symbol = artifact.symbols().get(symbol as usize).filter(|symbol| symbol.libcall == 1)?;
        reloc::libcall(artifact.name(symbol)).map(RelocTarget::LibCall)
    };
    let (from, to) = (u64::from(old.start.get()), u64::from(old.start.get()) + u64::from(old.len.get()));
    let mut relocs = Vec::new();
    for reloc in within(artifact.text_relocs(), |reloc| reloc.offset.get(), from, to) {
        let (offset, kind) = (reloc.offset.get().checked_sub(from)?, reloc.kind());
        // Refuse a patch site that reaches into the next function: it belongs to neither.
        code.get(offset as usize..)?.get(..kind.width())?;
        let (target, addend) = match thread_locals::referred(artifact, reloc) {
            Some((symbol, addend)) => match target(symbol)? {
                RelocTarget::Symbol(symbol) => (RelocTarget::ThreadLocal(symbol), addend),
                _ => return None,
            },
            None => (target(reloc.symbol.get())?, reloc.addend.get()),
        };
        relocs.push(FunctionReloc {
            offset: offset as u32,
            kind,
            // Cranelift's builder could not resolve it before, and cannot now.
            call: None,
            target,
            addend,
            flags: reloc.flags,
        });
    }
    for call in within(artifact.resolved_calls(), |call| u64::from(call.offset.get()), from, to) {
        let offset = call.offset.get().checked_sub(old.start.get())?;
        let kind = call.kind();
        let site = code.get_mut(offset as usize..)?.get_mut(..kind.width())?;
        site.copy_from_slice(call.original.get(..site.len())?);
        relocs.push(FunctionReloc {
            offset,
            kind,
            call: Some(reloc::call(kind)?),
            target: target(call.symbol.get())?,
            addend: call.addend.get(),
            flags: 0,
        });
    }
    // The compiler's order: a relocation and a resolved call never share a patch site.
    relocs.sort_by_key(|reloc| reloc.offset);
    Some(relocs)
}

/// Returns the handler with its target as an offset in the function, which starts at `start` and
/// has `len` bytes; `None` if the target is outside the function.
fn handler(handler: &Handler, start: u32, len: u32) -> Option<FunctionHandler> {
    let kind = HandlerKind::from_code(handler.kind)?;
    let target = match kind {
        HandlerKind::Tag | HandlerKind::Default => {
            let target = handler.target.get().checked_sub(start)?;
            Some(Some(target).filter(|target| *target <= len)?)
        }
        HandlerKind::ContextStack | HandlerKind::ContextRegister => None,
    };
    Some(FunctionHandler { kind, value: handler.value.get(), target })
}
