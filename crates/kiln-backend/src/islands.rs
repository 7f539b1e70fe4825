//! The layout of a module whose code is larger than a call reaches: 128 MiB on aarch64.
//!
//! Functions are laid out in order of definition, and after every segment of them there is an
//! island of veneers. A call inside the module that is sure to reach is direct. Every other call of
//! the segment, to a function that is further away or of another module, goes to the veneer of its
//! target in the island of its segment:
//!
//! ```text
//! adrp x16, slot of the target
//! ldr  x16, [x16, slot of the target]
//! br   x16
//! ```
//!
//! The linker relocates a veneer as any slot access, so it reaches everything; if the target is in
//! the same program, no slot remains. The stubs that a linker places after a module's code would
//! not be reached from its start.
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
    /// The functions of the segment before it.
    functions: Range<usize>,
    /// The targets of its veneers, in order.
    pub(crate) targets: IndexSet<RelocTarget>,
}

/// The places of functions and islands.
pub(crate) struct IslandLayout {
    /// The offset of each function in the module's code.
    pub(crate) starts: Vec<u32>,
    /// At least one for all functions, in order.
    islands: Vec<Island>,
}

/// The largest size that the code can have without veneers, in bytes.
pub(crate) fn size_bound(functions: &[CompiledFunction]) -> u64 {
    functions.iter().map(|function| function.code.len() as u64 + u64::from(function.align)).sum()
}

fn is_call(reloc: &FunctionReloc) -> bool {
    reloc.kind == RelocKind::A64Call26 && reloc.addend == 0
}

/// Returns the function of the module that a call is to, if `labels` says that it is final.
fn callee(reloc: &FunctionReloc, labels: &[Option<usize>]) -> Option<usize> {
    match reloc.target {
        RelocTarget::Symbol(symbol) => labels[symbol as usize],
        RelocTarget::LibCall(_) | RelocTarget::Here(_) => None,
    }
}

impl IslandLayout {
    /// Lays out `functions`, where calls reach `reach` bytes. `labels` has the function of each
    /// symbol that is a final definition.
    ///
    /// # Errors
    ///
    /// The first function that is so large that calls do not reach its end, or ends beyond
    /// [`MAX_CODE`].
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
            // The next function must not make the segment too large.
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

        // The calls that need a veneer.
        for island in &mut islands {
            for index in island.functions.clone() {
                for reloc in functions[index].relocs.iter().filter(|reloc| is_call(reloc)) {
                    // The real distance is at most that of the bounds.
                    let site = bounds[index] + u64::from(reloc.offset);
                    let reaches = |callee: usize| site.abs_diff(bounds[callee]) < u64::from(reach);
                    if !callee(reloc, labels).is_some_and(reaches) {
                        island.targets.insert(reloc.target);
                    }
                }
            }
        }

        // Offsets.
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

    /// Returns the number of the island after the segment of a function.
    fn segment(&self, function: usize) -> usize {
        self.islands.partition_point(|island| island.functions.end <= function)
    }

    /// Returns the offset that a relocation of function `index` is to be patched to; `None` if it
    /// is for the linker.
    pub(crate) fn call(&self, index: usize, reloc: &FunctionReloc, labels: &[Option<usize>]) -> Option<u32> {
        if !is_call(reloc) {
            return None;
        }
        let island = &self.islands[self.segment(index)];
        // What has a veneer in the segment is reached through it from everywhere in the segment.
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
