//! The interface between a build and the machines that compile for it.
//!
//! A build cuts the modules that it has to compile into *shards* ([`cut`]), and writes each as one
//! byte string ([`write_shard`]). A program on another machine reads it ([`read_shard`]), compiles
//! the modules, and writes one byte string of results ([`write_results`]), which the build reads
//! ([`read_results`]). How the bytes get there and back is up to a [`Farm`].
//!
//! ```
//! use std::time::Duration;
//! use kiln_farm::{Item, cut, read_results, read_shard, write_results, write_shard};
//! use kiln_cache::KeyParts;
//!
//! let parts = KeyParts {
//!     fingerprint: &[1; 32], names: b"", target: "x86_64", settings: "opt_level=speed",
//!     producer: "a code generator", revision: 1, abi: b"",
//! };
//! let recipe = parts.recipe();
//! assert_eq!(cut(&[(Duration::from_secs(3), recipe.key())], Duration::from_secs(1)), [0..1]);
//! let shard = write_shard(&[Item { recipe: &recipe, module: b"IR in binary form" }]);
//! // On the other machine:
//! let read = read_shard(&shard)?;
//! assert_eq!((read[0].key, read[0].module), (recipe.key(), &b"IR in binary form"[..]));
//! # let _ = (write_results, read_results);
//! # Ok::<(), kiln_farm::FormatError>(())
//! ```
//!
//! # Should I use this crate?
//!
//! Yes, if you implement a [`Farm`] of your own. `kiln-remote` has one for servers of Bazel's
//! remote execution API, `kiln-worker` is the program on the other machine, and a `kiln::Compiler`
//! takes a farm.
//!
//! # Architecture invariants
//!
//! Both forms are read from untrusted bytes, in time and memory proportional to their length.
//! Equal modules in equal order make equal bytes. A result is an entry of a cache: its key is the
//! hash of everything that its code depends on, so no result is taken for that of another module,
//! of other settings, or of another version of Kiln.

#![forbid(unsafe_code)]

mod cut;
mod farm;
mod results;
mod shard;
mod wire;

pub use cut::cut;
pub use farm::{Answer, Answers, Farm, Run};
pub use results::{Refused, WorkerError, WorkerErrorKind, read_results, write_results};
pub use shard::{Item, ShardItem, read_shard, write_shard};
pub use wire::FormatError;
