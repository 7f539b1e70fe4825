//! Parallel, pure code generation for Cranelift IR: one compiled artifact, run in the process,
//! saved as an image, kept in a cache.
//!
//! Kiln compiles many modules of IR at once, without merging them, against a globals module that is
//! laid out first. The machine code that results depends on the IR and the target only, so the
//! same bytes serve three uses.
//!
//! | you want to | use |
//! |---|---|
//! | compile modules and call them, then save everything without compiling again | [`Session`] |
//! | compile modules into artifacts, with a cache or without | [`Compiler`] |
//! | not even build the IR of what was compiled before | [`Lazy`] |
//! | read `.clif` text or build IR through `cranelift_module::Module` | [`ir`] |
//! | write an image from artifacts, or load one in a program without Cranelift | [`image`] |
//! | find pointers in code, which make it wrong in another process | [`find_addresses`] |
//! | call a function whose signature is known only at run time | [`Thunk`] |
//!
//! # Example
//!
//! ```
//! use kiln::ir::{Source, Target, parse};
//! use kiln::Session;
//!
//! let session = Session::new(Target::host())?;
//! session.bind_global("answer", &raw const ANSWER as usize).unwrap();
//! let text = r#"
//!     global %answer = "answer"
//!     function %get() -> i64 system_v {
//!         gv0 = symbol %answer
//!     block0:
//!         v0 = symbol_value.i64 gv0
//!         v1 = load.i64 v0
//!         return v1
//!     }
//! "#;
//! static ANSWER: i64 = 42;
//! let module = parse(Source::new("get.clif", text).into(), session.target()).unwrap();
//! session.add(&[module])?;
//!
//! let get = session.function("get").unwrap();
//! // SAFETY: the signature is checked by `typed`, and the IR above reads only the bound global.
//! let get = unsafe { get.typed::<extern "C" fn() -> i64>()? };
//! assert_eq!(get(), 42);
//!
//! // No compilation: the same machine code, linked as a shared object.
//! let image: Vec<u8> = session.image()?;
//! assert!(image.starts_with(b"\x7fELF"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Architecture invariants
//!
//! This crate combines the other crates. Its only algorithm of its own is the policy of reuse; a
//! client can write every other step with the public interfaces of those crates.

#![forbid(unsafe_code)]

mod compiler;
mod process;
mod session;
mod thunk;

pub use compiler::{Compiled, Compiler, CompilerError, Lazy, LazyError, LazyKey, Samples, Stats, Verify};
pub use process::find_addresses;
pub use session::{
    AddLazyError, Failure, FailureReason, OnDemand, Partial, SavedHeap, Saving, Session, SessionError,
    TierPolicy, Tiered, WritableData,
};
pub use thunk::Thunk;

pub use kiln_artifact as artifact;
pub use kiln_backend as backend;
pub use kiln_cache as cache;
pub use kiln_farm as farm;
pub use kiln_globals as globals;
pub use kiln_heap as heap;
pub use kiln_image as image;
pub use kiln_ir as ir;
pub use kiln_jit as jit;
#[cfg(feature = "trap")]
pub use kiln_trap as trap;

/// The code of the pages in `docs`, as tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../docs/batch.md")]
    mod batch {}
    #[doc = include_str!("../docs/debugging.md")]
    mod debugging {}
    #[doc = include_str!("../docs/heaps.md")]
    mod heaps {}
    #[doc = include_str!("../docs/images.md")]
    mod images {}
    #[doc = include_str!("../docs/jit.md")]
    mod jit {}
}
