//! The layout of a module whose code is larger than a call reaches: 128 MiB on aarch64.
//!
//! Functions are laid out in order of definition. They are divided into segments, and an island of
//! veneers follows each segment. A call to a function of the module is direct if it is certain to
//! reach. Every other call (to a function that is further away, or to a symbol whose definition is
//! not final or is elsewhere) goes to the veneer for its target in the island after the caller's
//! segment:
//!
//! ```text
//! adrp x16, slot of the target
//! ldr  x16, [x16, slot of the target]
//! br   x16
//! ```
//!
//! The linker relocates a veneer like any access to a slot, so a veneer reaches every address. If
//! the target is in the same program, the linked program needs no slot for it. The stubs that a
//! linker places after a module's code would not help, because the module's first functions could
//! not reach them.
//!
//! Cranelift's text section builder is not used, because it does not count the gaps that alignment
//! causes, so it may find too late that a call does not reach.

use std::ops::Range;

use indexmap::IndexSet;
use kiln_artifact::RelocKind;

use crate::compiled::{CompiledFunction, FunctionReloc, RelocTarget};
use crate::error::{CompileErrorKind, MAX_CODE, too_much_code};

/// The distance that a call of aarch64 reaches in both directions, in bytes.
pub(crate) const AARCH64_CALL_REACH: u32 = 1 << 27;

/// `adrp x16, 0; ldr x16, [x16]; br x16`.
pub(crate) const VENEER: [u32; 3] = [0x9000_0010, 0xf940_0210, 0xd61f_0200];
/// The relocations of a veneer, with their offsets.
pub(crate) const VENEER_RELOCS: [(u32, RelocKind); 2] =
    [(0, RelocKind::A64AdrGotPage21), (4, RelocKind::A64Ld64GotLo12)];
const VENEER_SIZE: u32 = 4 * VENEER.len() as u32;

/// The veneers after a segment.
pub(crate) struct Island {
    /// Offset in the module's code.
    pub(crate) start: u32,
    /// The functions of the segment that the island follows, by index.
    functions: Range<usize>,
    /// The targets of its veneers, in order.
    pub(crate) targets: IndexSet<RelocTarget>,
}

/// The offsets of functions and islands in the module's code.
pub(crate) struct IslandLayout {
    /// The offset of each function in the module's code.
    pub(crate) starts: Vec<u32>,
    /// The islands, in order. Their segments together contain every function.
    islands: Vec<Island>,
}

/// Returns an upper bound of the code's size without veneers, in bytes.
pub(crate) fn size_bound(functions: &[CompiledFunction]) -> u64 {
    functions.iter().map(|function| function.code.len() as u64 + u64::from(function.align)).sum()
}

fn is_call(reloc: &FunctionReloc) -> bool {
    reloc.kind == RelocKind::A64Call26 && reloc.addend == 0
}

/// Returns the index of the function that a call goes to, or `None` if `labels` does not have it:
/// if it is not defined in this module, or another definition can override it.
fn callee(reloc: &FunctionReloc, labels: &[Option<usize>]) -> Option<usize> {
    match reloc.target {
        RelocTarget::Symbol(symbol) => labels[symbol as usize],
        _ => None,
    }
}

impl IslandLayout {
    /// Lays out `functions`, where a call reaches `reach` bytes. `labels` has, for each symbol with
    /// a final definition, the index of its function.
    ///
    /// # Errors
    ///
    /// An error for the first function that is so large that its calls may not reach the island
    /// after it, or that ends beyond [`MAX_CODE`].
    pub(crate) fn new(
        functions: &[CompiledFunction],
        labels: &[Option<usize>],
        reach: u32,
    ) -> Result<Self, (usize, CompileErrorKind)> {
        // Upper bounds of offsets, as if every call had a veneer and every gap were the largest.
        let mut bounds = Vec::with_capacity(functions.len());
        let mut islands = Vec::new();
        let (mut first, mut start, mut end, mut veneers) = (0, 0u64, 0u64, 0u64);
        for (index, function) in functions.iter().enumerate() {
            end += u64::from(function.align);
            bounds.push(end);
            end += function.code.len() as u64;
            veneers += function.relocs.iter().filter(|reloc| is_call(reloc)).count() as u64;
            let island = u64::from(VENEER_SIZE) * veneers + 4;
            let span = end - start + island;
            if veneers > 0 && span > u64::from(reach) {
                let kind = CompileErrorKind::CallReach { distance: span, limit: reach.into() };
                return Err((index, kind));
            }
            // End the segment here if the next function would make it too large.
            let next = functions.get(index + 1).map_or(u64::MAX, |next| {
                let calls = next.relocs.iter().filter(|reloc| is_call(reloc)).count() as u64;
                u64::from(next.align) + next.code.len() as u64 + u64::from(VENEER_SIZE) * calls
            });
            if span.saturating_add(next) > u64::from(reach / 4) {
                let functions = first..index + 1;
                islands.push(Island { start: 0, functions, targets: IndexSet::new() });
                end += island;
                (first, start, veneers) = (index + 1, end, 0);
            }
        }

        // Find the calls that need a veneer.
        for island in &mut islands {
            for index in island.functions.clone() {
                for reloc in functions[index].relocs.iter().filter(|reloc| is_call(reloc)) {
                    // The real distance is at most the distance between the bounds.
                    let site = bounds[index] + u64::from(reloc.offset);
                    let reaches = |callee: usize| site.abs_diff(bounds[callee]) < u64::from(reach);
                    if !callee(reloc, labels).is_some_and(reaches) {
                        island.targets.insert(reloc.target);
                    }
                }
            }
        }

        // Assign offsets.
        let mut starts = Vec::with_capacity(functions.len());
        let mut end = 0u64;
        for island in &mut islands {
            for index in island.functions.clone() {
                let function = &functions[index];
                let start = end.next_multiple_of(function.align.max(1).into());
                end = start + function.code.len() as u64;
                if end > u64::from(MAX_CODE) {
                    return Err((index, too_much_code(end)));
                }
                starts.push(start as u32);
            }
            let start = end.next_multiple_of(4);
            island.start = start as u32;
            end = start + u64::from(VENEER_SIZE) * island.targets.len() as u64;
        }
        Ok(Self { starts, islands })
    }

    /// Returns the index of the island after the segment that contains a function.
    fn segment(&self, function: usize) -> usize {
        self.islands.partition_point(|island| island.functions.end <= function)
    }

    /// Returns the offset that a call of function `index` must be patched to go to; `None` if the
    /// relocation is left for the linker.
    pub(crate) fn call(&self, index: usize, reloc: &FunctionReloc, labels: &[Option<usize>]) -> Option<u32> {
        if !is_call(reloc) {
            return None;
        }
        let island = &self.islands[self.segment(index)];
        // If any call of the segment needs a veneer for a target, all its calls to it use the
        // veneer.
        match island.targets.get_index_of(&reloc.target) {
            Some(number) => Some(island.start + VENEER_SIZE * number as u32),
            None => Some(self.starts[callee(reloc, labels)?]),
        }
    }

    /// Returns the island right after a function, if there is one.
    pub(crate) fn island_after(&self, function: usize) -> Option<&Island> {
        Some(&self.islands[self.segment(function)]).filter(|island| island.functions.end == function + 1)
    }
}

/// Patches the call at `offset` of `text` to go to `target`.
pub(crate) fn patch_call(text: &mut [u8], offset: u32, target: u32) {
    let site = &mut text[offset as usize..offset as usize + 4];
    let word = u32::from_le_bytes([site[0], site[1], site[2], site[3]]);
    let distance = target.wrapping_sub(offset) as i32 >> 2;
    site.copy_from_slice(&(word & 0xfc00_0000 | distance as u32 & 0x03ff_ffff).to_le_bytes());
}
