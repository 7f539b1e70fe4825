//! Modules whose IR is built only if it is needed.
//!
//! The store maps a client's key, hashed with the environment, to the key of the module's IR, under
//! which the entry is stored. So the entry is stored only once. Only the client knows whether its
//! key covers everything that the IR is made from.

use kiln_ir::Module;

/// The client's key of a lazy module: it identifies everything that the module's IR is made from.
///
/// Kiln adds the module's name, the program's name (see
/// [`Compiler::program`](crate::Compiler::program)), the target, the settings and the ABI to the
/// key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LazyKey {
    pub(super) compiler_version: Box<str>,
    pub(super) source_hash: Box<[u8]>,
}

impl LazyKey {
    /// Creates the key of a module that this version of your compiler makes from a source with this
    /// hash.
    ///
    /// The version must differ whenever your compiler would make other IR from the same source. If
    /// your compiler changes more often than its version number, use a hash of the compiler's
    /// executable. The source hash must cover everything that the compiler reads for the module,
    /// including included files and options. Use a hash without known collisions, such as BLAKE3 or
    /// SHA-256.
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
    /// Creates a lazy module, whose IR `build` makes if the store has no code for it. `key` must
    /// differ whenever `build` would make a different module of this name in this program.
    ///
    /// `build` is also called if the module is chosen to be verified, even though the store has
    /// code for it: see [`Verify`](crate::Verify).
    pub fn new(
        name: impl Into<Box<str>>,
        key: LazyKey,
        build: impl FnOnce() -> Result<Module, E> + Send + 'm,
    ) -> Self {
        Self { name: name.into(), key: Some(key), build: Box::new(build) }
    }

    /// Creates a module without a key. Its IR is always built, but only when a thread is free to
    /// compile it.
    pub fn without_key(
        name: impl Into<Box<str>>,
        build: impl FnOnce() -> Result<Module, E> + Send + 'm,
    ) -> Self {
        Self { name: name.into(), key: None, build: Box::new(build) }
    }

    /// Returns the module's name. It appears in messages, and the last build of a changed module is
    /// found by it.
    pub fn name(&self) -> &str {
        &self.name
    }
}
