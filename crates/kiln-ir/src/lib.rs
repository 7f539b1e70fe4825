//! Front end: modules of Cranelift IR, read, built, checked and fingerprinted.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod binary;
mod body;
mod builder;
mod check;
mod comments;
mod diagnostic;
mod fingerprint;
mod guard;
mod module;
mod names;
mod print;
mod relocs;
mod settings;
mod source;
mod split;
mod text;
mod thunk;

pub use binary::{BinaryError, FunctionError, Modules, Unverified, VerifyError, is_binary, spans};
pub use body::{Body, BodyError};
pub use builder::{BuildError, CodeError, DataError, ModuleBuilder};
pub use check::{check_program, undefined};
pub use comments::{Anchor, Comment, Comments, CommentsIter};
pub use diagnostic::{Diagnostic, DiagnosticKind, Location, Related, sort};
pub use fingerprint::Fingerprint;
pub use module::{
    Code, CodeReloc, CodeTarget, DataAddress, DataObject, Function, Init, Linkage, MAX_ALIGN, MachineCode,
    Module, ModuleAnchor, ModuleComment, RunLine, Symbol, SymbolId, SymbolKind,
};
pub use print::{PrintError, print};
pub use settings::{ModuleSettings, OptLevel, Setting, Target, TargetError, TargetLine};
pub use source::Source;
pub use text::{parse, parse_unverified};
pub use thunk::{CELL_SIZE, entry_thunk};

#[doc = include_str!("../docs/porting.md")]
pub mod porting {}
