//! A running program that grows module by module and can be saved at any time.
//!
//! The program must behave the same in the process and in its image. So a session refuses a batch
//! that defines a name a second time, or defines a name that running code already uses from the
//! host. A weak definition (`Preemptible`) can be overridden in both.

mod error;

use std::path::Path;

use kiln_artifact::Artifact;
use kiln_globals::{Bindings, GlobalId, GlobalTable, Resolve};
use kiln_image::{FunctionPointer, FunctionRef, ImageOptions, bind_function, save, write_image};
use kiln_ir::{Module, Target, check_program};
use kiln_jit::{Jit, JitOptions};

pub use self::error::{AddLazyError, SessionError};
use crate::compiler::{Compiled, Compiler, Lazy, Stats};

/// Compiles modules, links them into this process, and keeps the artifacts for an image of the
/// program.
///
/// Every batch of modules given to [`Session::add`] is compiled in parallel and linked with all
/// earlier batches. The artifacts are kept, so [`Session::image`] only links and compiles nothing,
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
    /// Creates an empty session with default settings. `target` must be this machine.
    ///
    /// # Errors
    ///
    /// [`SessionError::Jit`] if it is the first of the process and no address space can be reserved.
    pub fn new(target: Target) -> Result<Self, SessionError> {
        Self::with_compiler(Compiler::new(target), JitOptions::default())
    }

    /// Creates an empty session that compiles with `compiler` and its settings: thread pool, store,
    /// events and so on. `options` are the options of the JIT.
    ///
    /// # Errors
    ///
    /// The same errors as [`Session::new`].
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

    /// Returns the compiler of the session's modules.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Returns the target, which is needed to read and build modules.
    pub fn target(&self) -> &Target {
        self.compiler.target()
    }

    /// Returns the number of the global `key`, which is also the number of its slot in images. A
    /// new global gets the next number. The globals of modules are numbered when the modules are
    /// added, so this is needed only to fix their order.
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

    /// Sets the function of the host that the symbol `name` stands for, and its type. Modules that
    /// call it with another type are refused.
    pub fn bind_function<F: FunctionPointer>(&mut self, name: &str, function: F) {
        bind_function(&mut self.bindings, name, function);
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
        // Every global gets its slot number before any function is compiled.
        self.with_globals(modules.iter().flat_map(Module::globals), |session| session.compile(modules))
    }

    /// Adds modules as [`Session::add`] does, but builds their IR only if the store has no code for
    /// them.
    ///
    /// Not all IR is available to be checked, so here it is the linker that finds modules that do
    /// not fit together.
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
    /// The same errors as [`Session::add`], except [`SessionError::Check`] and
    /// [`SessionError::Compile`].
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
        let resolve = self.bindings.or(&kiln_jit::libcalls::process);
        self.compiler.install(|| self.jit.link(&artifacts, &resolve))?;
        self.artifacts.extend(artifacts);
        Ok(())
    }

    /// Returns the function that is exported as `name`.
    pub fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        self.jit.function(name)
    }

    /// Returns the JIT, which holds the session's code in memory.
    pub fn jit(&self) -> &Jit {
        &self.jit
    }

    /// Returns every artifact of the session, in order.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }

    /// Returns the session's globals, in order of their slots.
    pub fn globals(&self) -> &GlobalTable {
        &self.globals
    }

    /// Returns statistics of what the session compiled and reused so far. Saving an image does not
    /// change them.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Links the whole program into an image and returns its bytes.
    ///
    /// # Errors
    ///
    /// [`SessionError::Image`] if the program cannot be one image.
    pub fn image(&self) -> Result<Vec<u8>, SessionError> {
        let write = || write_image(&self.artifacts, &self.globals, &ImageOptions::default());
        self.compiler.install(write).map_err(SessionError::Image)
    }

    /// Writes an image of the whole program to a file. If this fails, no partly written file
    /// remains at `path`.
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
