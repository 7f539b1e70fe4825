//! A running program that grows module by module and can be saved at any time.
//!
//! A session refuses a batch that its image would see differently: a second definition of a name,
//! or a definition of a name that running code already took from the host. A weak definition
//! (`Preemptible`) is overridden in both.

mod error;

use std::path::Path;

use kiln_artifact::Artifact;
use kiln_globals::{Bindings, GlobalId, GlobalTable, Resolve, SlotKey};
use kiln_image::{FunctionRef, ImageOptions, save, write_image};
use kiln_ir::{Module, Target, check_program};
use kiln_jit::{Jit, JitOptions};

pub use self::error::{AddLazyError, SessionError};
use crate::compiler::{Compiled, Compiler, Lazy, Stats};

/// Compiles modules into this process, and keeps what an image of the program needs.
///
/// Every batch of modules given to [`Session::add`] is compiled in parallel and linked with all
/// earlier batches. The artifacts are kept, so [`Session::image`] costs a link and no compilation,
/// and the image holds the same machine code that runs.
pub struct Session {
    compiler: Compiler,
    globals: GlobalTable,
    bindings: Bindings,
    jit: Jit,
    artifacts: Vec<Artifact>,
    stats: Stats,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("target", &self.target().triple())
            .field("artifacts", &self.artifacts.len())
            .field("globals", &self.globals.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// An empty session with default settings. `target` must be this machine.
    ///
    /// # Errors
    ///
    /// [`SessionError::Jit`] if no address space can be reserved.
    pub fn new(target: Target) -> Result<Self, SessionError> {
        Self::with_compiler(Compiler::new(target), JitOptions::default())
    }

    /// An empty session that compiles with `compiler` and its settings: thread pool, store, events
    /// and so on. `options` are those of the JIT.
    ///
    /// # Errors
    ///
    /// Those of [`Session::new`].
    pub fn with_compiler(compiler: Compiler, options: JitOptions) -> Result<Self, SessionError> {
        Ok(Self {
            compiler,
            globals: GlobalTable::new(),
            bindings: Bindings::new(),
            jit: Jit::new(options)?,
            artifacts: Vec::new(),
            stats: Stats::default(),
        })
    }

    /// The compiler of the session's modules.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// The target, for reading and building modules.
    pub fn target(&self) -> &Target {
        self.compiler.target()
    }

    /// Numbers the global `key`; its slot in images has this number. Globals that modules use are
    /// numbered when they are added, so this is needed only to fix an order.
    pub fn global(&mut self, key: &str) -> GlobalId {
        self.globals.intern(key)
    }

    /// Sets the address of the run-time object `key` in this process.
    pub fn bind_global(&mut self, key: &str, address: usize) -> GlobalId {
        self.bindings.bind(key, address);
        self.globals.intern(key)
    }

    /// Sets the address of the symbol `name`, a function or data object of the host. Symbols
    /// without an address are looked up among the routines of the C library, then in the process.
    pub fn bind_symbol(&mut self, name: &str, address: usize) {
        self.bindings.bind_symbol(name, address);
    }

    /// Compiles `modules`, links them with each other and with all earlier batches, and makes them
    /// callable.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; then no module is added.
    pub fn add(&mut self, modules: &[Module]) -> Result<(), SessionError> {
        let diagnostics = check_program(&modules.iter().collect::<Vec<_>>());
        if !diagnostics.is_empty() {
            return Err(SessionError::Check(diagnostics));
        }
        // The globals module comes first: every global has its slot number before any function is
        // compiled.
        self.with_globals(modules.iter().flat_map(Module::globals), |session| session.compile(modules))
    }

    /// Adds modules as [`Session::add`] does, but builds their IR only if the store has no code for
    /// them.
    ///
    /// Here the linker finds modules that do not fit together, since not all IR is available to be
    /// checked.
    ///
    /// # Errors
    ///
    /// [`AddLazyError`]; then no module is added.
    pub fn add_lazy<E: Send>(&mut self, modules: Vec<Lazy<'_, E>>) -> Result<(), AddLazyError<E>> {
        let compiled = self.compiler.compile_lazy(modules).map_err(AddLazyError::Modules)?;
        let Compiled { artifacts, stats, samples } = compiled;
        self.add_artifacts(artifacts).map_err(AddLazyError::Session)?;
        self.stats += stats;
        self.compiler.verify_in_background(samples);
        Ok(())
    }

    fn compile(&mut self, modules: &[Module]) -> Result<(), SessionError> {
        let Compiled { artifacts, stats, samples } = self.compiler.compile(modules)?;
        self.link(artifacts)?;
        self.stats += stats;
        self.compiler.verify_in_background(samples);
        Ok(())
    }

    /// Links artifacts that were compiled elsewhere, or came from a cache.
    ///
    /// # Errors
    ///
    /// Those of [`Session::add`], except [`SessionError::Compile`].
    pub fn add_artifacts(&mut self, artifacts: Vec<Artifact>) -> Result<(), SessionError> {
        // Artifacts are shared, so this copies no code.
        let own = artifacts.clone();
        self.with_globals(own.iter().flat_map(Artifact::globals), |session| session.link(artifacts))
    }

    /// Numbers the globals `keys`, does `work`, and takes the numbers back if that fails.
    fn with_globals<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k str>,
        work: impl FnOnce(&mut Self) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let before = self.globals.len();
        for key in keys {
            self.globals.intern(key);
        }
        let result = work(self);
        if result.is_err() {
            self.globals.truncate(before);
        }
        result
    }

    fn link(&mut self, artifacts: Vec<Artifact>) -> Result<(), SessionError> {
        let resolve = |key: &SlotKey| self.bindings.resolve(key).or_else(|| kiln_jit::libcalls::process(key));
        self.compiler.install(|| self.jit.link(&artifacts, &resolve))?;
        self.artifacts.extend(artifacts);
        Ok(())
    }

    /// The function that is exported as `name`.
    pub fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        self.jit.function(name)
    }

    /// The memory of the session's code.
    pub fn jit(&self) -> &Jit {
        &self.jit
    }

    /// Every artifact of the session, in order.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }

    /// The session's globals, in order of their slots.
    pub fn globals(&self) -> &GlobalTable {
        &self.globals
    }

    /// Statistics of what the session compiled and reused so far. Saving an image does not change
    /// them.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Links the whole program to an image in memory.
    ///
    /// # Errors
    ///
    /// [`SessionError::Image`] if the program cannot be one image.
    pub fn image(&self) -> Result<Vec<u8>, SessionError> {
        let write = || write_image(&self.artifacts, &self.globals, &ImageOptions::default());
        self.compiler.install(write).map_err(SessionError::Image)
    }

    /// Writes the whole program to an image file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`SessionError::Image`] and [`SessionError::Write`].
    pub fn save_image(&self, path: &Path) -> Result<(), SessionError> {
        let image = self.image()?;
        save(path, &image)
            .map_err(|source| SessionError::Write { path: path.display().to_string().into(), source })
    }
}
