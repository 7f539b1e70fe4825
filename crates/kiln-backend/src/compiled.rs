//! A compiled function before its module is assembled.
//!
//! Offsets are relative to the function's first byte. Nothing here refers to Cranelift's large
//! `CompiledCode`, so that the work queue can hold thousands of results.

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::LibCall;
use kiln_artifact::RelocKind;
use kiln_artifact::record::HandlerKind;

/// The target of a relocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RelocTarget {
    /// A symbol of the module, by number.
    Symbol(u32),
    /// A routine of the C library.
    LibCall(LibCall),
    /// An offset in the same function.
    Here(u32),
    /// The two words by which code finds the thread-local symbol with this number.
    ThreadLocal(u32),
    /// The first of all such words of the module.
    ThreadLocals,
}

pub(crate) struct FunctionReloc {
    /// Offset of the patch site.
    pub(crate) offset: u32,
    pub(crate) kind: RelocKind,
    /// The kind in Cranelift's terms, for its text section builder; `None` if the builder must not
    /// try to resolve it.
    pub(crate) call: Option<Reloc>,
    pub(crate) target: RelocTarget,
    pub(crate) addend: i64,
    /// The flags of the artifact's relocation.
    pub(crate) flags: u8,
}

pub(crate) struct FunctionHandler {
    pub(crate) kind: HandlerKind,
    pub(crate) value: u32,
    /// Offset in the function; `None` for context entries.
    pub(crate) target: Option<u32>,
}

pub(crate) struct FunctionStackMap {
    pub(crate) return_offset: u32,
    pub(crate) span: u32,
    /// Number of its entries in [`CompiledFunction::stack_map_entries`].
    pub(crate) entries: u32,
}

/// A compiled function.
#[derive(Default)]
pub(crate) struct CompiledFunction {
    pub(crate) code: Box<[u8]>,
    pub(crate) align: u32,
    /// In ascending order of offset.
    pub(crate) relocs: Vec<FunctionReloc>,
    /// The function's part of the artifact's stream of traps. The next two fields are its parts of
    /// the other streams. None of the three depends on the function's offset in the code.
    pub(crate) traps: Vec<u8>,
    pub(crate) source_ranges: Vec<u8>,
    pub(crate) call_sites: Vec<u8>,
    /// The places of labelled values, in the same way.
    pub(crate) labels: Vec<u8>,
    pub(crate) handlers: Vec<FunctionHandler>,
    pub(crate) stack_maps: Vec<FunctionStackMap>,
    /// Offset from the stack pointer and size, in bytes.
    pub(crate) stack_map_entries: Vec<(u32, u32)>,
    /// End and length of the patchable bytes.
    pub(crate) patchable_calls: Vec<(u32, u32)>,
    /// The target's shortest no-op; empty if no call is patchable.
    pub(crate) nop: Vec<u8>,
    /// The unwind rows, encoded as call frame instructions; empty if there are none.
    pub(crate) unwind: Vec<u8>,
    /// Whether it was taken from an earlier artifact.
    pub(crate) reused: bool,
    /// Whether it was compiled although an earlier artifact was offered, because its code does not
    /// fit.
    pub(crate) unfit: bool,
}
