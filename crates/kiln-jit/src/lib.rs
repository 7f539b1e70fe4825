//! Links artifacts into executable memory of this process.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! [`Jit::link`] takes the same artifacts that images are written from, and links them with the
//! same linker (`kiln_image::link`). This crate adds executable memory, the addresses of symbols
//! that were linked before, and the routines of the C library that Cranelift calls ([`libcalls`]).
//! A function that is looked up by name is a [`FunctionRef`](kiln_image::FunctionRef), as in an
//! image.
//!
//! # Why not `JITModule`?
//!
//! `cranelift_jit::JITModule` refuses position-independent code, panics on unresolved symbols, and
//! cannot free a part of its memory. It is the reference engine of tests and benches. It can use
//! the memory of this crate: see [`MemoryProvider`].
//!
//! # What can be done with code that is linked?
//!
//! - Each call of [`Jit::link`] makes a [`Unit`], the handle of all functions and data that were
//!   linked at once, with addresses and sizes. A unit is removed as a whole ([`Jit::remove`]),
//!   unless others use it.
//! - [`Jit::replace`] defines functions again whose linkage is `Replaceable`. Such a function is
//!   called through its slot, and its address is that of a stub that jumps through the slot.
//! - A thread that may be in code that others remove or replace holds a [`Guard`]. The memory of
//!   such code is used again when every guard from before is gone.
//! - [`Jit::locate`] finds function, module, source location, trap, handlers and live roots by an
//!   address in the code, also in a signal handler.
//! - [`Jit::rebind`] changes the address that a slot of the host holds, for code that runs.
//!
//! Any number of threads may use a [`Jit`] at once. Looking up a name takes no lock, and no lock is
//! held while code is copied or a resolver runs. In a child of `fork`, all code is there; what
//! parent and child link from then on is their own.
//!
//! # Where is what?
//!
//! `jit` takes a link through its steps: `batch` collects what the modules define, `program`
//! decides what each symbol refers to, `blocks` takes memory, `unit` is the result. `program` is
//! the one owner of what is alive, and consists of `names`, `slots`, `sections` and the units;
//! `indirection` has slot and stub of a replaceable function, `symbol` what is found by name.
//! `epoch` has the guards, `observers` tells unwinder, debugger and profiler, `users` has the names
//! in errors. `memory/` knows nothing of all this.
//!
//! # Safety
//!
//! Compiled code can do anything that its IR says. So the functions that return or call machine
//! code are `unsafe`: the caller promises that the IR is sound, that the signature is right, and
//! that no code is called once its [`Jit`] is dropped, or once it was removed and no [`Guard`] from
//! before is left.
//!
//! # Architecture invariants
//!
//! This crate has no relocation code. All memory of a [`Jit`] is in one reservation of at most 2
//! GiB, a [`Memory`], so every reference inside it is in range. No address is writable and
//! executable at once. Removal is in this order: names are
//! taken back, the code can no longer be found by its addresses, it waits until every guard from
//! before is gone, then the unwinder and debuggers forget it and its memory is free. Memory is
//! freed when the [`Jit`] is dropped.

mod bases;
mod batch;
mod blocks;
mod counters;
mod data;
mod epoch;
mod error;
mod hashed;
mod indirection;
mod invoke;
mod jit;
mod jump;
mod large;
mod memory;
mod names;
mod observed;
mod observers;
mod options;
mod program;
mod ready;
mod sections;
mod slots;
mod state;
mod symbol;
mod symbols;
mod sync;
mod unit;
mod users;

pub use counters::{CountedEntries, Hook};
pub use data::ModuleData;
pub use epoch::Guard;
pub use error::{InUseError, JitError, ModuleName, RebindError, UseOf};
pub use invoke::{Cell, invoke};
pub use jit::{Export, Jit, LinkOptions};
/// A process whose signal handlers unwind needs this, whatever made its code.
pub use kiln_debug::unwind::{lookups_allocate, prepare_for_signals};
pub use kiln_image::libcalls; // images need them too
pub use memory::{
    Located, Mapping, Memory, MemoryError, MemoryOptions, MemoryProvider, MemoryUsage, Refused, Region,
    RegionUsage,
};
pub use options::{Debugger, JitOptions, Profiler};
pub use ready::Ready;
pub use unit::{Defined, Role, Unit};

// Bindings, tables of globals and resolvers are in the interface of this crate.
pub use kiln_globals as globals;
