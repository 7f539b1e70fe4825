//! The linker proper: from artifacts to a laid-out, relocated program, for memory and for files.
//!
//! [`plan()`] runs the phases below, one after the other. Each reads the results of earlier phases
//! and never changes them. [`Plan::emit`] then copies and relocates all modules in parallel, into
//! any memory and for any addresses. The caller then applies the [`Fixups`]: pointers in data and
//! in slots, never in code, that can be filled only when the bytes are in place.
//!
//! # A worked example
//!
//! On x86-64, module 0 defines `main`, which calls `twice` and reads the global `stdout` through a
//! GOT slot. Module 1 defines `twice`, which calls `puts`, a function of the host.
//!
//! - `resolve`: there are four symbols. `main` and `twice` are defined; `stdout` and `puts` are
//!   undefined.
//! - `types`: no error, because module 0 imports `twice` with the signature of its definition.
//! - `reach`: the program is smaller than 600 kB, so pc-relative calls and addresses reach all of
//!   it.
//! - `scan`: module 0 needs a slot for `stdout`, and nothing for the call of `twice`. Module 1
//!   needs a stub for `puts`.
//! - `assign`: external slot 0 is for `stdout`, and slot 1 for `puts`; stub 0 jumps to `puts`.
//! - `place`: `.text` holds the code of module 0, the code of module 1, and stub 0, in this order.
//! - `unwind`: `.eh_frame` has one CIE, which both modules share, and two FDEs.
//! - `code`: `.kiln.code` has what is known about the instructions of both functions.
//! - `emit`: the call of `twice` becomes direct. The call of `puts` becomes a call of stub 0, which
//!   is `jmp [rip + slot 1]`. The load of `stdout` reads slot 0. The loader or the JIT fills both
//!   slots.
//!
//! If module 0 read the address of `twice` through a slot, `emit` would relax the access: `mov`
//! becomes `lea`, and no slot is needed. An access that cannot be relaxed gets an internal slot,
//! after the external slots; a fixup fills it.
//!
//! # Why there are slots
//!
//! The GOT serves as the table of globals. Code is position independent (`is_pic`), so Cranelift
//! reaches every symbol that is not marked `colocated` through a slot relative to the instruction.
//! When the definition turns out to be in the same program, the linker relaxes the access, as ELF
//! linkers do. So a client need not know which modules will be linked together, no IR is rewritten
//! for a link, and no code contains an absolute address. A symbol that is marked `colocated` and
//! defined elsewhere gets a stub, so a call that was meant to be direct still works.
//!
//! # Why there are also addresses in code
//!
//! The other answer is code that contains addresses, which whoever loads it writes. It was built to
//! be measured, and stays, because each is better at something: see ARCHITECTURE.md, and comparison
//! I of `benches/peers` for figures. Reads of globals whose addresses are in no register are
//! faster, by a load each; calls take the same time. A load has to write every place that uses
//! something of the host, on as many pages as have one, where slots take 8 bytes for each thing
//! that is used. `direct` has the decisions about such addresses.
//!
//! # Architecture invariants
//!
//! The same code links zero, one and many modules. The result depends on the artifacts and their
//! order, not on the number of threads or their timing. After `resolve` no name is hashed, and
//! `emit` allocates nothing per relocation.

mod agreement;
mod assign;
mod bases;
mod code;
mod code_size;
mod definitions;
mod describe;
mod direct;
mod emit;
mod error;
mod fixups;
mod layout;
#[cfg(feature = "write")]
mod lean;
mod lists;
mod meaning;
mod patches;
mod place;
mod plan;
mod reach;
#[cfg(feature = "write")]
mod relocatable;
mod relocate;
mod resolve;
mod riscv_pairs;
mod scan;
mod sections;
mod stubs;
#[cfg(test)]
mod tests;
mod threads;
mod types;
mod unwind;
mod unwind_size;
mod users;

pub use bases::{OfBase, OfBases};
pub use definitions::{Definitions, Place, SymbolNumbers, is_shared_definition};
pub use describe::{Definition, FunctionRange, Indirection, Replacement, SlotDetails};
pub use direct::{PatchSource, TextPatch};
pub use error::LinkError;
pub use fixups::{FixupOutput, Fixups, Pointer, PointerSource, SymbolicPointer};
pub use layout::{Addresses, Area, Extent, Layout, Output};
#[cfg(feature = "write")]
pub use lean::{Kept, Lean, LeanOptions, Level, LevelTable, Levels, Roots, join_levels, lean};
pub use plan::{Plan, plan, plan_in_memory};
#[cfg(feature = "write")]
pub(crate) use plan::{default_arch, plan_for};
#[cfg(feature = "write")]
pub(crate) use relocatable::{DataReloc, ObjectPlan, RelocSink, RelocTarget, TextReloc, Via, plan_object};
pub use relocate::{stub_size, write_stub_to_slot};
pub use resolve::ExternalDefinition;
#[cfg(feature = "write")]
pub(crate) use resolve::ResolvedId;
pub use sections::{Bound, MAX_SECTIONS, NamedSection, section_bound};
pub use stubs::StubRange;
pub use threads::is_small;
