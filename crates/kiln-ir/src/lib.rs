//! Front end: modules of Cranelift IR, read, built, checked and fingerprinted.

#![forbid(unsafe_code)]

mod module;
mod settings;
mod source;
mod split;

pub use module::{Data, DataAddress, Function, Init, Linkage, Module, RunLine, Symbol, SymbolId, SymbolKind};
pub use settings::{ModuleSettings, OptLevel, Setting, Target, TargetError, TargetLine};
pub use source::Source;
