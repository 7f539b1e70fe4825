//! From IR to artifact.
//!
//! [`compile`] is one pure function: the artifact's bytes depend on the module and on the code
//! generator's settings, and on nothing else. [`compile_all`] is the work queue: it runs the
//! *functions* of all modules in parallel on rayon's current pool, so that one large module does
//! not keep one thread busy while the others wait, and then assembles every module, in parallel
//! again. Both give the same bytes, whatever the number of threads.
//!
//! A worker *pre-links* its module: functions are laid out one after the other, and calls between
//! them are resolved at once (veneers included), so to link many modules later is to copy bytes and
//! to apply a few relocations.
//!
//! A function whose code is in an earlier artifact need not be compiled: see [`Reuse`].
//!
//! # Should I use this crate?
//!
//! If you have `kiln_ir::Module`s and want artifacts. `kiln::Session` and `kiln::Compiler` add a
//! cache and a linker.
//!
//! ```
//! use kiln_backend::{Job, compile};
//! use kiln_ir::{Source, Target, parse};
//!
//! let target = Target::host();
//! let text = "function %three() -> i32 { block0: v0 = iconst.i32 3 return v0 }";
//! let module = parse(Source::new("three.clif", text).into(), &target).unwrap();
//! let isa = target.isa(&module.settings)?;
//! let artifact = compile(&Job::new(&module, &*isa)).unwrap().artifact;
//! assert_eq!(artifact.functions().len(), 1);
//! # Ok::<(), kiln_ir::TargetError>(())
//! ```
//!
//! # Architecture invariants
//!
//! No files, no clocks, no process-wide counters, no hash map is iterated. The verifier does not
//! run here: modules are verified by the front end, once.

#![forbid(unsafe_code)]

mod assemble;
mod colocate;
mod compiled;
mod data;
mod error;
mod function;
mod queue;
mod reloc;
mod reuse;
mod s390x;
mod symbols;
mod tables;
mod unwind;

pub use colocate::reference_classes;
pub use error::{CompileError, CompileErrorKind};
pub use queue::{Built, Job, compile, compile_all};
pub use reuse::Reuse;

/// The producer that artifacts name, and that cache keys must contain: the code generator and its
/// register allocator, with the exact version of each, since code depends on both.
pub const PRODUCER: &str = "cranelift 0.135.8, regalloc2 0.15.2";

/// The number of changes of this crate that gave other artifacts for the same IR; a part of cache
/// keys.
pub const REVISION: u32 = 2;

#[cfg(test)]
mod tests {
    /// Versions of `name` in the lock file, which is what is linked.
    fn locked(name: &str) -> Vec<&'static str> {
        let lock = include_str!("../../../Cargo.lock");
        let packages =
            lock.split("[[package]]").filter(|package| package.contains(&format!("name = \"{name}\"\n")));
        packages.filter_map(|package| package.split("version = \"").nth(1)?.split('"').next()).collect()
    }

    #[test]
    fn the_producer_names_the_linked_versions() {
        assert_eq!(locked("cranelift-codegen"), [cranelift_codegen::VERSION]);
        let [regalloc] = locked("regalloc2")[..] else {
            panic!("more than one register allocator is linked")
        };
        assert_eq!(
            super::PRODUCER,
            format!("cranelift {}, regalloc2 {regalloc}", cranelift_codegen::VERSION)
        );
    }
}
