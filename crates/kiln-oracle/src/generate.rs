//! Random valid programs of several modules.
//!
//! A program is a function of a seed and [`ProgramOptions`], the same on every machine. It is valid by construction: nothing is
//! tried and thrown away. It ends, does not trap, reads no memory that it did not write, and its results do not depend on
//! addresses or on the bits of a NaN, so every correct engine gives the same ones.
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
mod memory;
mod plan;
mod scalar;
mod vector;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;
use cranelift_module::{DataId, Module, ModuleResult};
use kiln_ir::{ModuleBuilder, Target};

use self::plan::Plan;

/// How large a program is, and what it may contain.
#[derive(Clone, Debug)]
pub struct ProgramOptions {
    /// Modules, at most.
    pub modules: u32,
    /// Functions of a module, at most, on average.
    pub functions: u32,
    /// Data of a module, at most, on average.
    pub data: u32,
    /// Run-time objects, at most.
    pub globals: u32,
    /// Statements of a function, at most. A statement is some instructions.
    pub statements: u32,
    /// Instructions that a call of an entry executes, at most, more or less.
    pub steps: u32,
    /// Whether there are floats.
    pub floats: bool,
    /// Whether there are vectors of 128 bits. For machines that have them.
    pub vectors: bool,
    /// Whether there is integer arithmetic that tells of overflow, which riscv64 has not.
    pub overflow: bool,
    /// Whether there are functions with the calling convention `tail`, and tail calls between them.
    pub tail_calls: bool,
    /// Whether there are atomic accesses.
    pub atomics: bool,
    /// Whether there are functions and data without a name.
    pub anonymous: bool,
}

impl Default for ProgramOptions {
    fn default() -> Self {
        Self {
            modules: 4,
            functions: 5,
            data: 4,
            globals: 3,
            statements: 40,
            steps: 20_000,
            floats: true,
            vectors: true,
            overflow: true,
            tail_calls: true,
            atomics: true,
            anonymous: true,
        }
    }
}

/// A call of an exported function. Entries are called in order, and see what those before them wrote.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The function.
    pub name: Box<str>,
    /// Its type.
    pub signature: Signature,
    /// What it is called with.
    pub arguments: Vec<DataValue>,
}

/// A program as Kiln's modules.
#[derive(Clone, Debug)]
pub struct RandomProgram {
    /// Its modules.
    pub modules: Vec<kiln_ir::Module>,
    /// What to call. The last ones, one for each module, read all of the module's data and give a checksum.
    pub entries: Vec<Entry>,
    /// Run-time objects: keys, and initial bytes, which the host must align to 16 bytes. There may be some that no module uses.
    pub globals: Vec<(Box<str>, Vec<u8>)>,
}

impl RandomProgram {
    /// Initial bytes of a run-time object.
    pub fn global(&self, key: &str) -> Option<&[u8]> {
        self.globals.iter().find(|(other, _)| **other == *key).map(|(_, bytes)| &**bytes)
    }
}

/// The program of `seed` for this machine.
///
/// # Panics
///
/// When a module is refused: a fault in the generator or in the checks.
pub fn program(seed: u64, options: &ProgramOptions) -> RandomProgram {
    program_for(seed, options, &Target::host())
}

/// The program of `seed` for another machine of 64 bits.
///
/// # Panics
///
/// As for [`program`], and when there is no code generator for the target.
pub fn program_for(seed: u64, options: &ProgramOptions, target: &Target) -> RandomProgram {
    let draft = Draft::new(seed, options);
    let modules = (0..draft.modules())
        .map(|number| {
            let mut builder = ModuleBuilder::new(format!("module{number}"), target)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let defined = draft.define(number, &mut builder, &mut |builder, key| builder.global(key));
            defined.unwrap_or_else(|error| panic!("seed {seed}, module {number}: {error:#?}"));
            builder.finish().unwrap_or_else(|error| panic!("seed {seed}, module {number}: {error}"))
        })
        .collect();
    RandomProgram { modules, entries: draft.entries().to_vec(), globals: draft.globals() }
}

/// A program that can be built into anything that is a [`cranelift_module::Module`], any number of times.
#[derive(Clone, Debug)]
pub struct Draft {
    plan: Plan,
    options: ProgramOptions,
}

impl Draft {
    /// The program of `seed`.
    pub fn new(seed: u64, options: &ProgramOptions) -> Self {
        Self { plan: Plan::new(seed, options), options: options.clone() }
    }

    /// Number of modules.
    pub fn modules(&self) -> usize {
        self.plan.modules
    }

    /// What to call.
    pub fn entries(&self) -> &[Entry] {
        &self.plan.entries
    }

    /// Keys and initial bytes of run-time objects, which the host must align to 16 bytes.
    pub fn globals(&self) -> Vec<(Box<str>, Vec<u8>)> {
        self.plan.globals.iter().map(|global| (global.key.as_str().into(), global.bytes.clone())).collect()
    }

    /// Defines everything of module `number` in `host`; `global` names a run-time object of `host` by key.
    ///
    /// # Errors
    ///
    /// What `host` has against it.
    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub fn define<M: Module>(
        &self,
        number: usize,
        host: &mut M,
        global: &mut dyn FnMut(&mut M, &str) -> DataId,
    ) -> ModuleResult<()> {
        build::modules(&self.plan, &self.options, Some(number), host, global)
    }

    /// Defines everything of all modules in one `host`: local names get the number of their module, and of two definitions of a
    /// name only the one that counts is built.
    ///
    /// # Errors
    ///
    /// What `host` has against it.
    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub fn define_all<M: Module>(
        &self,
        host: &mut M,
        global: &mut dyn FnMut(&mut M, &str) -> DataId,
    ) -> ModuleResult<()> {
        build::modules(&self.plan, &self.options, None, host, global)
    }
}
