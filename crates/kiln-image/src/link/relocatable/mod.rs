//! Relocatable objects: the same modules and the same phases, for another linker to finish.
//!
//! An object has the areas of a program, and no addresses yet. What depends on an address becomes a
//! relocation: [`ObjectPlan`] lays the object out, [`ObjectPlan::data_relocs`] lists the
//! relocations of data, and [`ObjectPlan::emit`] copies all modules in parallel, and tells a
//! [`RelocSink`] the relocations of code. The format of relocations and symbols is the caller's.
//!
//! What can be decided is decided here, as in a program: a call of code in the same object is
//! patched, an access to the slot of a private symbol is relaxed, and names of several modules are
//! resolved by the rules of `resolve`. The other linker decides only about what it may know better:
//! symbols that no module defines, weak definitions, which a strong one elsewhere overrides, and
//! addresses of exported symbols, because an address must be the same everywhere.
//!
//! - `relocs`: the relocations as the caller gets them.
//! - `decide`: what becomes of each relocation of code.
//! - `scan`: counts relocations, and finds the symbols that they name and the slots they need.
//! - `plan`: the layout, and the pointers in data.
//! - `emit`: copies and relocates.

mod decide;
mod emit;
mod plan;
mod relocs;
mod scan;

pub(crate) use self::plan::{ObjectPlan, plan_object};
pub(crate) use self::relocs::{DataReloc, RelocSink, RelocTarget, TextReloc, Via};
