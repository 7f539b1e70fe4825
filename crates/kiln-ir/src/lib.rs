//! The front end: reads, builds, checks and fingerprints modules of Cranelift IR.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod addresses;
mod binary;
mod body;
mod builder;
mod call_through;
mod check;
mod comments;
mod count_calls;
mod data;
mod diagnostic;
mod fingerprint;
mod function;
mod guard;
mod ids;
mod inline;
mod item_order;
mod limits;
mod lines;
mod location;
mod module;
mod names;
mod positions;
mod print;
mod reader_limits;
mod references;
mod relocs;
mod settings;
mod signature;
mod similar;
mod source;
mod split;
mod symbol;
mod target;
mod text;
mod thunk;
mod unverified;
mod variables;
mod wrong_kind;

pub use addresses::{AddressConstant, address_constants};
pub use binary::{BinaryError, Modules, is_binary, spans};
pub use body::{Body, BodyError};
pub use builder::{BuildError, CodeError, DataError, ModuleBuilder};
pub use call_through::{StandIn, call_through};
pub use check::{check_program, undefined};
pub use comments::{Anchor, Comment, Comments, CommentsIter, ModuleAnchor, ModuleComment, RunLine};
pub use count_calls::{CountCalls, count_calls};
pub use data::{DataAddress, DataObject, Init, MAX_ALIGN};
pub use diagnostic::{Diagnostic, DiagnosticKind, Related, sort};
pub use fingerprint::Fingerprint;
pub use function::{Code, CodeReloc, CodeTarget, Function, InlineHint, MachineCode};
pub use ids::ClientIds;
pub use inline::{InlinedModule, Inlining, inline};
pub use lines::{FileId, LineEntries, LineEntry, LineError, LineTable, SourceFile};
pub use location::Location;
pub use module::Module;
pub use print::{PrintError, print};
pub use settings::{ModuleSettings, Setting, TargetLine};
pub use source::Source;
pub use symbol::{Linkage, Symbol, SymbolId, SymbolKind};
pub use target::{OptLevel, Target, TargetError};
pub use text::{parse, parse_unverified};
pub use thunk::{CELL_SIZE, entry_thunk};
pub use unverified::{FunctionError, IrFault, Unverified, VerifyError, verify};
pub use variables::{Encoding, Variable, VariableType};

// `GlobalAccess` and `Signature` are in the interface of this crate.
pub use kiln_globals as globals;

#[doc = include_str!("../docs/porting.md")]
pub mod porting {}
