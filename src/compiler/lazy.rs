//! Modules whose IR is built only if it is needed.
//!
//! A client's key, hashed with an environment, is a second name for an entry and not a second copy
//! of it: it points to the key of the module's IR. Only the client knows whether its key covers
//! everything that the IR is made from.

use kiln_ir::Module;

/// A module that is built when it is needed.
pub struct Lazy<'m, E> {
    pub(super) name: Box<str>,
    pub(super) key: Option<Box<[u8]>>,
    pub(super) build: Box<dyn FnOnce() -> Result<Module, E> + Send + 'm>,
}

impl<E> std::fmt::Debug for Lazy<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lazy").field("name", &self.name).field("key", &self.key).finish_non_exhaustive()
    }
}

impl<'m, E> Lazy<'m, E> {
    /// A module that `build` makes. `key` must differ whenever `build` would make a different
    /// module: it is a hash of what the module is made from, and of the compiler that makes it.
    pub fn new(
        name: impl Into<Box<str>>,
        key: impl Into<Box<[u8]>>,
        build: impl FnOnce() -> Result<Module, E> + Send + 'm,
    ) -> Self {
        Self { name: name.into(), key: Some(key.into()), build: Box::new(build) }
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
