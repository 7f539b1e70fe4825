//! The linker proper: from artifacts to laid out, relocated bytes, for memory and file alike.

mod assign;
mod describe;
mod emit;
mod error;
mod fixups;
mod layout;
mod place;
mod plan;
mod reach;
mod relocate;
mod resolve;
mod scan;
mod sections;
#[cfg(test)]
mod tests;
mod types;
mod unwind;

pub use describe::{Definition, FunctionRange, SlotDetails};
pub use error::LinkError;
pub use fixups::{FixupOutput, Fixups, Pointer, PointerSource, SymbolicPointer};
pub use layout::{Addresses, Area, Extent, Layout, Output};
#[cfg(feature = "write")]
pub(crate) use plan::plan_for;
pub use plan::{Plan, plan};
pub use resolve::ExternalDefinition;
pub use sections::{Bound, NamedSection, section_bound};
