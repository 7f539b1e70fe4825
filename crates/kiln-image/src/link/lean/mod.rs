//! Leaner programs: functions and data that nothing reaches are left out, equal functions become
//! one, and functions are put in the order of a profile.
//!
//! [`lean`] is a function from artifacts to artifacts, so that nothing after it has to know: the
//! linker lays out, relocates and describes what comes out as it does everything else, and so do
//! the tables of unwind rows, lines, traps and roots, which are parts of artifacts.
//!
//! A *node* is what is kept or left out as a whole: a function, a data object (or several that
//! share bytes), or a run of data in a named section.
//!
//! - `nodes` cuts modules into nodes, and finds what each refers to.
//! - `reach` marks what roots reach, and remembers by what.
//! - `fold` finds equal functions.
//! - `order` cuts modules into parts, so that functions of several modules can stand side by side.
//! - `rebuild` makes an artifact of each part.
//!
//! The same parts make a program of several programs: those that one compiler made of the same
//! modules for several levels of a processor. `versions` finds the functions that differ, and
//! `levels` joins them.
//!
//! # Names between parts
//!
//! Parts of a module share private symbols, which have no name that another artifact could use. A
//! private place that another part needs gets one more symbol, hidden, whose name contains a zero
//! byte: no module can have such a name, no table of an ELF file has it, and the symbol's own name
//! stays what debuggers see.
//!
//! # Architecture invariants
//!
//! Everything is in order of module and position; hash maps are looked up only. What is kept whole
//! is the artifact that was given, not a copy. A module whose code has more than functions (veneers
//! of very large modules) is kept whole, and is a root.

mod fold;
mod levels;
mod nodes;
mod options;
mod order;
mod reach;
mod rebuild;
mod result;
mod versions;

pub use self::levels::{Level, LevelTable, Levels, join_levels};
pub use self::options::{LeanOptions, Roots};
pub use self::result::{Kept, Lean, lean};
