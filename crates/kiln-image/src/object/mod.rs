//! Writes compiled modules as one relocatable ELF object (`ET_REL`), for a linker that puts it
//! together with the objects of other compilers.
//!
//! An image needs no linker, and is the better form wherever nothing else is linked in. An object
//! is for the others: a program in C or Rust whose build calls `cc`, with some code from Kiln. It
//! has the same modules, in the same order, with the same code; see `link::relocatable` for what is
//! decided here, and what is left to the linker. [`write_object`] says what an object has.
//!
//! There are no code tables and no note: an object does not know where its code will be. Traps and
//! roots are for images.
//!
//! - `section` lists the sections, `symbols` numbers the symbols.
//! - `reloc` has the relocations of ELF for those of artifacts.
//! - `debug` has the debug information, with the feature `dwarf`.
//! - `write` has the steps.

#[cfg_attr(not(feature = "dwarf"), path = "no_debug.rs")]
mod debug;
mod options;
mod reloc;
mod section;
mod symbols;
mod write;

pub use options::{GlobalSymbols, ObjectOptions};
pub use write::write_object;
