//! Front end: modules of Cranelift IR, read, built, checked and fingerprinted.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod builder;
mod check;
mod diagnostic;
mod fingerprint;
mod module;
mod names;
mod settings;
mod source;
mod split;
mod text;
mod thunk;

pub use builder::{BuildError, DataFault, ModuleBuilder};
pub use check::{check_program, undefined};
pub use diagnostic::{Diagnostic, DiagnosticKind, Place, Related, sort};
pub use fingerprint::Fingerprint;
pub use module::{
    Data, DataAddress, Function, Init, Linkage, MAX_ALIGN, Module, RunLine, Symbol, SymbolId, SymbolKind,
};
pub use settings::{ModuleSettings, OptLevel, Setting, Target, TargetError, TargetLine};
pub use source::Source;
pub use text::parse;
pub use thunk::{CELL, entry_thunk};
