//! Random valid programs of several modules.
//!
//! A program is a function of a seed and [`ProgramOptions`], the same on every machine. It is valid
//! by construction: nothing is tried and discarded. It terminates, does not trap, reads no memory
//! that it did not write, and its results do not depend on addresses or on the bits of a NaN. So
//! every correct engine gives the same results.
//!
//! `planner` decides what a program consists of, as a `plan`; `build` defines it in modules. For
//! each function, `body` makes a body from a seed of its own, with a file for each kind of
//! statement: `control`, `calls`, `memory`, `integers`, `floats`, `vectors`.
//!
//! # Example
//!
//! ```
//! use kiln_oracle::generate::{ProgramOptions, program};
//! use kiln_oracle::interpret::{LinkedProgram, Process};
//!
//! let random = program(7, &ProgramOptions::default());
//! let linked = LinkedProgram::new(&random.modules.iter().collect::<Vec<_>>());
//! let mut process = Process::new(&linked, &mut |key| random.global(key).unwrap().to_vec());
//! for entry in &random.entries {
//!     let results = process.call(&entry.name, &entry.arguments).unwrap();
//!     assert_eq!(results.len(), entry.signature.returns.len());
//! }
//! ```

mod body;
mod build;
mod calls;
mod constants;
mod control;
mod floats;
mod integers;
mod memory;
mod objects;
mod plan;
mod planner;
mod program;
mod vectors;

use cranelift_module::{DataId, FuncOrDataId, Module, ModuleResult};
use kiln_ir::{ModuleBuilder, Target};

use self::plan::{Plan, PlannedFunction};
pub use self::program::{Entry, ProgramOptions, RandomProgram};

/// Generates the program of `seed` for this machine.
///
/// # Panics
///
/// If a module is refused, which is a bug in the generator or in the checks.
pub fn program(seed: u64, options: &ProgramOptions) -> RandomProgram {
    program_for(seed, options, &Target::host())
}

/// Generates the program of `seed` for another 64-bit machine.
///
/// # Panics
///
/// If a module is refused, like [`program`], and if there is no code generator for the target.
pub fn program_for(seed: u64, options: &ProgramOptions, target: &Target) -> RandomProgram {
    let draft = Draft::new(seed, options);
    let modules = (0..draft.modules())
        .map(|number| {
            let mut builder = ModuleBuilder::new(format!("module{number}"), target)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let defined = draft.define(number, &mut builder, &mut |builder, key| builder.global(key));
            defined.unwrap_or_else(|error| panic!("seed {seed}, module {number}: {error:#?}"));
            for name in draft.replaceable(number) {
                let Some(FuncOrDataId::Func(function)) = builder.get_name(name) else { continue };
                let set = builder.set_replaceable(function);
                set.unwrap_or_else(|error| panic!("seed {seed}, module {number}: {error}"));
            }
            builder.finish().unwrap_or_else(|error| panic!("seed {seed}, module {number}: {error}"))
        })
        .collect();
    RandomProgram { modules, entries: draft.entries().to_vec(), globals: draft.globals() }
}

/// A program that can be built into any [`cranelift_module::Module`], any number of times.
#[derive(Clone, Debug)]
pub struct Draft {
    plan: Plan,
    options: ProgramOptions,
}

impl Draft {
    /// Plans the program of `seed`.
    pub fn new(seed: u64, options: &ProgramOptions) -> Self {
        Self { plan: planner::plan(seed, options), options: options.clone() }
    }

    /// Returns the number of modules.
    pub fn modules(&self) -> usize {
        self.plan.modules
    }

    /// Returns the calls to make, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.plan.entries
    }

    /// Returns the names of the replaceable functions that module `number` defines. `define` gives
    /// them Cranelift's linkage `Export`.
    pub fn replaceable(&self, number: usize) -> impl Iterator<Item = &str> {
        let own = move |function: &&PlannedFunction| function.replaceable && function.module == number;
        self.plan.functions.iter().filter(own).filter_map(|function| function.name.as_deref())
    }

    /// Returns the keys and the initial bytes of the run-time objects, which the host must align to
    /// 16 bytes.
    pub fn globals(&self) -> Vec<(Box<str>, Vec<u8>)> {
        self.plan.globals.iter().map(|global| (global.key.as_str().into(), global.bytes.clone())).collect()
    }

    /// Defines everything of module `number` in `host`; `global` returns the id of a run-time
    /// object by its key.
    ///
    /// # Errors
    ///
    /// Returns the errors of `host`.
    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub fn define<M: Module>(
        &self,
        number: usize,
        host: &mut M,
        global: &mut dyn FnMut(&mut M, &str) -> DataId,
    ) -> ModuleResult<()> {
        build::modules(&self.plan, &self.options, Some(number), host, global)
    }

    /// Defines everything of all modules in one `host`. The number of the module is added to a
    /// local name. If a name has two definitions, only the definition that the program uses is
    /// built.
    ///
    /// # Errors
    ///
    /// Returns the errors of `host`.
    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub fn define_all<M: Module>(
        &self,
        host: &mut M,
        global: &mut dyn FnMut(&mut M, &str) -> DataId,
    ) -> ModuleResult<()> {
        build::modules(&self.plan, &self.options, None, host, global)
    }
}
