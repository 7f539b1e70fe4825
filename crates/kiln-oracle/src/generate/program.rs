//! A random program as clients of the generator see it: options, entries, modules.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;

/// The size of a program, and what it may contain.
#[derive(Clone, Debug)]
pub struct ProgramOptions {
    /// The maximum number of modules.
    pub modules: u32,
    /// The maximum number of functions for each module, on average.
    pub functions: u32,
    /// The maximum number of data objects for each module, on average.
    pub data: u32,
    /// The maximum number of run-time objects.
    pub globals: u32,
    /// The maximum number of statements of a function. A statement becomes a few instructions.
    pub statements: u32,
    /// The approximate maximum number of instructions that a call of an entry executes.
    pub steps: u32,
    /// Whether there are floats.
    pub floats: bool,
    /// Whether there are 128-bit vectors, which not every machine has.
    pub vectors: bool,
    /// Whether there is integer arithmetic that reports overflow, which riscv64 lacks.
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

/// A call of an exported function. Entries are called in order, and see what earlier entries wrote.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The function's name.
    pub name: Box<str>,
    /// Its type.
    pub signature: Signature,
    /// The arguments of the call.
    pub arguments: Vec<DataValue>,
}

/// A program, as modules of Kiln.
#[derive(Clone, Debug)]
pub struct RandomProgram {
    /// Its modules.
    pub modules: Vec<kiln_ir::Module>,
    /// The calls to make. The last calls, one for each module, return a checksum of the plain bytes
    /// of the module's data. Of a large object, only every 61st byte is read.
    pub entries: Vec<Entry>,
    /// The keys and the initial bytes of the run-time objects, which the host must align to 16
    /// bytes. The program may leave some of them unused.
    pub globals: Vec<(Box<str>, Vec<u8>)>,
}

impl RandomProgram {
    /// Returns the initial bytes of a run-time object.
    pub fn global(&self, key: &str) -> Option<&[u8]> {
        self.globals.iter().find(|(other, _)| **other == *key).map(|(_, bytes)| &**bytes)
    }
}
