//! Random valid modules of Cranelift IR, and an interpreter that computes their right results.
//!
//! | you want to | use |
//! |---|---|
//! | test code that takes modules with many modules | [`generate::program`] |
//! | build the same program for Kiln and for another engine | [`generate::Draft`] |
//! | know the right results of a program | [`interpret::Process`] |
//! | know whether a module is the same after writing and reading | [`forms`] |
//! | fuzz code that reads bytes | [`fuzz`], seeds from [`mutate`]; [`greedy`] texts |
//!
//! A test that only compares two ways to run the same machine code passes even if the code is
//! wrong. An interpreter that shares nothing with the code generator tells which results are right.
//!
//! # Should I use this crate?
//!
//! In tests, fuzz targets and tools. No crate that compiles or links depends on it.
//!
//! # Example
//!
//! ```
//! use kiln_oracle::generate::{ProgramOptions, program};
//! use kiln_oracle::interpret::{LinkedProgram, Process};
//!
//! // The same program for seed 7, always.
//! let random = program(7, &ProgramOptions::default());
//! let linked = LinkedProgram::new(&random.modules.iter().collect::<Vec<_>>());
//! let objects = |key: &str| random.global(key).expect("the program has its objects").to_vec();
//! let mut process = Process::new(&linked, &mut { objects });
//! for entry in &random.entries {
//!     // What compiled code must return, too.
//!     let results = process.call(&entry.name, &entry.arguments)?;
//!     assert_eq!(results.len(), entry.signature.returns.len());
//! }
//! # Ok::<(), kiln_oracle::interpret::InterpretError>(())
//! ```
//!
//! # Architecture invariants
//!
//! - The interpreter shares nothing with the code generator but the IR.
//! - A program is a function of its seed and options: no hash map is iterated, no clock is read.

#![forbid(unsafe_code)]

pub mod forms;
pub mod fuzz;
pub mod generate;
pub mod greedy;
pub mod interpret;
pub mod mutate;
pub mod random;
