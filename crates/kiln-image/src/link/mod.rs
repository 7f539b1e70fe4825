//! The linker proper: from artifacts to laid out, relocated bytes, for memory and file alike.
//!
//! [`plan`] resolves symbols, lays out slots and areas and decides about stubs, before a byte is copied. Then
//! [`Plan::emit`] copies and relocates all modules in parallel, into whatever memory the caller has, for whatever
//! addresses the caller says. What is left to do at load is in [`Fixups`]: pointers in data and slots, never in code.
//!
//! # Architecture invariants
//!
//! One path for zero, one and many modules. The result depends on the artifacts and their order, not on threads.
//! No name is hashed, and nothing is allocated per relocation, once the plan is made.

mod emit;
mod error;
mod fixups;
mod layout;
mod needs;
mod plan;
mod relocate;
mod resolve;
mod sections;
#[cfg(test)]
mod tests;
mod unwind;

pub use error::LinkError;
pub use fixups::{FixupOutput, Fixups, Pointer, PointerSource, SymbolicPointer};
pub use layout::{Addresses, Area, Extent, Layout, Output};
#[cfg(feature = "write")]
pub(crate) use plan::plan_for;
pub use plan::{Definition, FunctionRange, Plan, SlotDetails, plan};
pub use sections::{Bound, NamedSection, section_bound};

/// The definition that a symbol or a global already has outside this link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalDefinition {
    /// The symbol's absolute address.
    Address(u64),
    /// The address of an existing slot, which holds the symbol's address or will hold it before the code runs.
    Slot(u64),
}
