//! Modules whose IR is built only if it is needed.
//!
//! A client's key, hashed with an environment, is a second name for an entry and not a second copy
//! of it: it points to the key of the module's IR. Only the client knows whether its key covers
//! everything that the IR is made from.

use kiln_ir::Module;

/// Everything that the IR of a lazy module is made from.
///
/// The module's name, the name of the program (see
/// [`Compiler::program`](crate::Compiler::program)), the target, the settings and the ABI are
/// added.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LazyKey {
    pub(super) compiler_version: Box<str>,
    pub(super) source_hash: Box<[u8]>,
}

impl LazyKey {
    /// The key of a module that this version of your compiler makes from a source with this hash.
    ///
    /// The version must differ whenever your compiler would make other IR from the same source. If
    /// it changes more often than its version number, take the hash of its program. The source is
    /// all that the compiler reads for the module: the files that it includes and the options, too.
    /// Use a hash without known collisions, such as BLAKE3 or SHA-256.
    pub fn new(compiler_version: impl Into<Box<str>>, source_hash: impl Into<Box<[u8]>>) -> Self {
        Self { compiler_version: compiler_version.into(), source_hash: source_hash.into() }
    }
}

/// A module that is built when it is needed.
pub struct Lazy<'m, E> {
    pub(super) name: Box<str>,
    pub(super) key: Option<LazyKey>,
    pub(super) build: Box<dyn FnOnce() -> Result<Module, E> + Send + 'm>,
}

impl<E> std::fmt::Debug for Lazy<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lazy").field("name", &self.name).field("key", &self.key).finish_non_exhaustive()
    }
}

impl<'m, E> Lazy<'m, E> {
    /// A module that `build` makes, unless the store has code for it. `key` must differ whenever
    /// `build` would make a different module of this name in this program.
    ///
    /// `build` is called although the store has code if the module is chosen to be verified: see
    /// [`Verify`](crate::Verify).
    pub fn new(
        name: impl Into<Box<str>>,
        key: LazyKey,
        build: impl FnOnce() -> Result<Module, E> + Send + 'm,
    ) -> Self {
        Self { name: name.into(), key: Some(key), build: Box::new(build) }
    }

    /// A module without a key. It is built in any case, but not before a thread is free to compile
    /// it.
    pub fn without_key(
        name: impl Into<Box<str>>,
        build: impl FnOnce() -> Result<Module, E> + Send + 'm,
    ) -> Self {
        Self { name: name.into(), key: None, build: Box::new(build) }
    }

    /// The module's name. Messages use it, and a changed module's last build is found by it.
    pub fn name(&self) -> &str {
        &self.name
    }
}
