//! A cache of Wasmtime's compiled functions in a store of Kiln's.
//!
//! Wasmtime can keep each function that Cranelift compiles ([`CacheStore`]), and leaves it to its
//! client where. Here it is any [`kiln_cache::Store`]: a folder that many processes use, memory in
//! front of it, or a server that machines share. So what Kiln promises of entries holds: they
//! appear whole or not at all, each is checked before it is used, and a folder has a limit.
//!
//! Wasmtime's key is a hash of the function's IR and of the settings for the target. It does not
//! include the version of Cranelift: its `VersionMarker` hashes nothing. An entry of another
//! version is found only when it is read, which fails, and two versions that share a folder replace
//! each other's entries for ever. So the version is in the keys here.
//!
//! Cranelift 0.135 has a fault that makes keys depend on what was compiled before, so that a second
//! process misses a few functions: see [`keep_keys_apart`], which every client should call.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kiln_artifact::Contents;
use kiln_cache::{Entry, KeyParts, Lookup, Recipe, Store};
use wasmtime::{CacheStore, Config, Inlining};

/// The form in which a value is in an artifact. Another form needs another number.
const FORM: u32 = 1;

/// A store of Kiln's, for Wasmtime.
///
/// ```no_run
/// use std::sync::Arc;
/// use function_cache::FunctionCache;
/// use kiln_cache::{DiskStore, WriteBehind};
///
/// let cache = Arc::new(FunctionCache::new(WriteBehind::new(DiskStore::new("cache"))));
/// let mut config = wasmtime::Config::new();
/// function_cache::keep_keys_apart(&mut config);
/// config.enable_incremental_compilation(cache.clone())?;
/// # Ok::<(), wasmtime::Error>(())
/// ```
#[derive(Debug)]
pub struct FunctionCache<S> {
    store: S,
    version: String,
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    failed_writes: AtomicU64,
}

/// Makes Wasmtime's key of a function independent of the functions before it.
///
/// Wasmtime compiles one function after the other in the same context, and clears it in between.
/// But in Cranelift 0.135.8 `DataFlowGraph::clear` leaves the table of exception handlers, which is
/// a part of the key, and which compiling changes. So the functions after a trampoline had one key
/// if the trampoline was compiled, and another one if it was found in the cache: of SQLite's
/// functions, 3 in 100 were compiled again in a second process, though their code is the same.
///
/// If inlining is on, Wasmtime translates all functions before it compiles the first, so each has a
/// context of its own. With [`Inlining::Intrinsics`], no WebAssembly function is inlined: the code
/// is the same as without. The IR of the whole module is in memory at once.
pub fn keep_keys_apart(config: &mut Config) {
    config.compiler_inlining(Inlining::Intrinsics);
}

/// The numbers of functions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Functions that were found.
    pub hits: u64,
    /// Functions that were not found.
    pub misses: u64,
    /// Functions that were found, and that could not be used: they were compiled.
    pub damaged: u64,
    /// Functions that were compiled and could not be stored.
    pub failed_writes: u64,
}

impl<S: Store> FunctionCache<S> {
    /// Keeps functions in `store`.
    pub fn new(store: S) -> Self {
        Self::with_version(store, cranelift_codegen::VERSION)
    }

    /// Keeps functions of another version of Cranelift in `store`, for tests.
    #[doc(hidden)]
    pub fn with_version(store: S, version: &str) -> Self {
        let [hits, misses, damaged, failed_writes] = [const { AtomicU64::new(0) }; 4];
        let version = format!("cranelift {version}");
        Self { store, version, hits, misses, damaged, failed_writes }
    }

    /// Returns the store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Returns what happened so far.
    pub fn counts(&self) -> Counts {
        Counts {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
            failed_writes: self.failed_writes.load(Relaxed),
        }
    }

    /// Returns the recipe for a key of Wasmtime's, which is a SHA-256 hash.
    fn recipe(&self, key: &[u8]) -> Option<Recipe> {
        let parts = KeyParts {
            fingerprint: key.try_into().ok()?,
            names: b"",
            // Both are in Wasmtime's key.
            target: "",
            settings: "",
            producer: &self.version,
            revision: FORM,
            abi: b"wasmtime",
        };
        Some(parts.recipe())
    }
}

impl<S: Store + Send + std::fmt::Debug> CacheStore for FunctionCache<S> {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let recipe = self.recipe(key)?;
        match self.store.get(&recipe.key()) {
            Lookup::Hit(entry, _) => {
                self.hits.fetch_add(1, Relaxed);
                Some(entry.artifact.read_only().to_vec().into())
            }
            Lookup::Miss => {
                self.misses.fetch_add(1, Relaxed);
                None
            }
            // It is compiled, and replaced by what is compiled.
            Lookup::Corrupt(_) => {
                self.damaged.fetch_add(1, Relaxed);
                None
            }
        }
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let Some(recipe) = self.recipe(key) else { return false };
        // Only Wasmtime knows what is in a value. So the artifact has no symbol, and nothing of
        // Kiln's links it.
        let mut contents = Contents::default();
        contents.read_only = value;
        let entry = Entry { recipe, functions: [].into(), artifact: contents.finish() };
        let stored = self.store.put(&entry.recipe.key(), &entry).is_ok();
        if !stored {
            self.failed_writes.fetch_add(1, Relaxed);
        }
        stored
    }
}
