//! A running program that grows module by module and can be saved at any time.

use std::path::Path;
use std::sync::Arc;

use kiln_artifact::Artifact;
use kiln_cache::{Events, Store};
use kiln_globals::{Bindings, GlobalId, GlobalTable, Resolve, SlotKey};
use kiln_image::link::LinkError;
use kiln_image::{FunctionRef, ImageOptions, save, write_image};
use kiln_ir::{Diagnostic, Module, Target, check_program};
use kiln_jit::{Jit, JitError, Options};
use rayon::ThreadPool;

use crate::{Compiled, Compiler, CompilerError, Lazy, LazyError, Samples, Stats, Verify};

/// Compiles modules into this process, and remembers what an image of the program needs.
///
/// Every batch of modules given to [`Session::add`] is compiled in parallel and linked with everything before it. The artifacts are
/// kept, so [`Session::image`] costs a link and no compilation, and the image holds the very machine code that runs.
pub struct Session {
    target: Target,
    pool: Option<Arc<ThreadPool>>,
    store: Option<Arc<dyn Store + Send + Sync>>,
    events: Option<Arc<dyn Events>>,
    verify: Verify,
    abi: Vec<u8>,
    program: Arc<str>,
    globals: GlobalTable,
    bindings: Bindings,
    jit: Jit,
    artifacts: Vec<Artifact>,
    stats: Stats,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("target", &self.target.triple())
            .field("artifacts", &self.artifacts.len())
            .field("globals", &self.globals.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Why a session could not do what it was asked. It is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The modules do not fit together.
    #[error("{}", .0.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n"))]
    Check(Vec<Diagnostic>),
    /// A module could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompilerError),
    /// The code could not be linked into memory.
    #[error(transparent)]
    Jit(#[from] JitError),
    /// The artifacts could not be linked into an image.
    #[error("{}", .0.iter().map(LinkError::to_string).collect::<Vec<_>>().join("\n"))]
    Image(Vec<LinkError>),
    /// The image could not be written.
    #[error("cannot write {path}: {error}")]
    Write {
        /// Where to.
        path: Box<str>,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
}

/// Why modules that are built on demand were not added. The session is as it was before.
#[derive(Debug)]
#[non_exhaustive]
pub enum AddLazyError<E> {
    /// What went wrong with each module, in order.
    Modules(Vec<LazyError<E>>),
    /// They could not be linked.
    Session(SessionError),
}

impl<E: std::fmt::Display> std::fmt::Display for AddLazyError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Modules(failures) => {
                let lines: Vec<_> = failures.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Session(error) => error.fmt(f),
        }
    }
}

impl<E: std::fmt::Debug + std::fmt::Display> std::error::Error for AddLazyError<E> {}

/// A compiler of a session.
fn compiler<'a>(
    target: &Target,
    pool: Option<&Arc<ThreadPool>>,
    store: Option<&'a dyn Store>,
    events: Option<&'a dyn Events>,
    verify: Verify,
    abi: &[u8],
) -> Compiler<'a> {
    let mut compiler = Compiler::new(target.clone()).verify(verify).abi(abi);
    if let Some(pool) = pool {
        compiler = compiler.pool(pool.clone());
    }
    if let Some(store) = store {
        compiler = compiler.store(store);
    }
    if let Some(events) = events {
        compiler = compiler.events(events);
    }
    compiler
}

impl Session {
    /// An empty session for `target`, which must be this machine.
    ///
    /// # Errors
    ///
    /// [`SessionError::Jit`] if no address space can be reserved.
    pub fn new(target: Target) -> Result<Self, SessionError> {
        Self::with_options(target, Options::default())
    }

    /// The same, with options for the memory.
    ///
    /// # Errors
    ///
    /// As for [`Session::new`].
    pub fn with_options(target: Target, options: Options) -> Result<Self, SessionError> {
        Ok(Self {
            target,
            pool: None,
            store: None,
            events: None,
            verify: Verify::default(),
            abi: Vec::new(),
            program: Arc::default(),
            globals: GlobalTable::new(),
            bindings: Bindings::new(),
            jit: Jit::new(options)?,
            artifacts: Vec::new(),
            stats: Stats::default(),
        })
    }

    /// Asks `store` before compiling a module from now on, and keeps there what is compiled.
    pub fn set_store(&mut self, store: Arc<dyn Store + Send + Sync>) {
        self.store = Some(store);
    }

    /// Tells `events` from now on what was found in the store and what was not, from many threads.
    pub fn set_events(&mut self, events: Arc<dyn Events>) {
        self.events = Some(events);
    }

    /// How much of what comes from the store is compiled again. What is compiled again to be compared is compiled behind everything else that waits for
    /// the pool.
    pub fn set_verify(&mut self, verify: Verify) {
        self.verify = verify;
    }

    /// A hash of whatever else the code assumes, such as the layout of run-time objects: a part of every cache key.
    pub fn set_abi(&mut self, abi: impl Into<Vec<u8>>) {
        self.abi = abi.into();
    }

    /// Names the program for a store that several share, as [`Compiler::program`] does.
    pub fn set_program(&mut self, name: impl Into<Arc<str>>) {
        self.program = name.into();
    }

    /// Compiles and links in `pool` from now on instead of rayon's global pool.
    pub fn set_pool(&mut self, pool: Arc<ThreadPool>) {
        self.pool = Some(pool);
    }

    /// The target, for reading and building modules.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Numbers the global `key`; its slot in images has this number. Globals that modules use are numbered when they
    /// are added, so this is needed only to fix an order.
    pub fn global(&mut self, key: &str) -> GlobalId {
        self.globals.intern(key)
    }

    /// Says where the run-time object `key` lies in this process.
    pub fn bind_global(&mut self, key: &str, address: usize) -> GlobalId {
        self.bindings.bind(key, address);
        self.globals.intern(key)
    }

    /// Says where the symbol `name`, a function or datum of the host, lies. Symbols that were not bound are looked up among the
    /// routines of the C library, then in the process.
    pub fn bind_symbol(&mut self, name: &str, address: usize) {
        self.bindings.bind_symbol(name, address);
    }

    /// Compiles `modules`, links them with each other and with what was added before, and makes them callable.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; no module is added then.
    pub fn add(&mut self, modules: &[Module]) -> Result<(), SessionError> {
        let diagnostics = check_program(&modules.iter().collect::<Vec<_>>());
        if !diagnostics.is_empty() {
            return Err(SessionError::Check(diagnostics));
        }
        // The globals module comes first: every global has its slot number before any function is compiled.
        self.with_globals(modules.iter().flat_map(Module::globals), |session| session.compile(modules))
    }

    /// The same with modules that are built only if the store has no code for them.
    ///
    /// What is wrong between modules is found by the linker here, since not all of them are there to be checked.
    ///
    /// # Errors
    ///
    /// What went wrong with each module, or with all of them together; no module is added then.
    pub fn add_lazy<E: Send>(&mut self, modules: Vec<Lazy<'_, E>>) -> Result<(), AddLazyError<E>> {
        let compiled = self.compiler().compile_lazy(modules).map_err(AddLazyError::Modules)?;
        let Compiled { artifacts, stats, samples } = compiled;
        self.add_artifacts(artifacts).map_err(AddLazyError::Session)?;
        self.stats += stats;
        self.doubt(samples);
        Ok(())
    }

    fn compiler(&self) -> Compiler<'_> {
        compiler(
            &self.target,
            self.pool.as_ref(),
            self.store.as_deref().map(|store| store as &dyn Store),
            self.events.as_deref(),
            self.verify,
            &self.abi,
        )
        .program(self.program.clone())
    }

    fn compile(&mut self, modules: &[Module]) -> Result<(), SessionError> {
        let Compiled { artifacts, stats, samples } = self.compiler().compile(modules)?;
        self.link(artifacts)?;
        self.stats += stats;
        self.doubt(samples);
        Ok(())
    }

    /// Compiles `samples` again when the pool has nothing else to do.
    fn doubt(&self, samples: Samples) {
        let Some(store) = self.store.clone().filter(|_| !samples.is_empty()) else { return };
        let (target, events, verify, abi) =
            (self.target.clone(), self.events.clone(), self.verify, self.abi.clone());
        let work = move || {
            let store: &dyn Store = &*store;
            samples.verify(&compiler(&target, None, Some(store), events.as_deref(), verify, &abi));
        };
        match &self.pool {
            Some(pool) => pool.spawn_fifo(work),
            None => rayon::spawn_fifo(work),
        }
    }

    /// Links artifacts that were compiled elsewhere, or came from a cache.
    ///
    /// # Errors
    ///
    /// As for [`Session::add`].
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
        let mut link = || self.jit.link(&artifacts, &resolve);
        match &self.pool {
            Some(pool) => pool.install(link)?,
            None => link()?,
        }
        self.artifacts.extend(artifacts);
        Ok(())
    }

    /// The function that is exported as `name`.
    pub fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        self.jit.function(name)
    }

    /// The memory the session's code lies in.
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

    /// What the session compiled and reused so far. Saving an image does not change it.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The whole program as an image, in memory.
    ///
    /// # Errors
    ///
    /// [`SessionError::Image`] if the program cannot be one image.
    pub fn image(&self) -> Result<Vec<u8>, SessionError> {
        let write = || write_image(&self.artifacts, &self.globals, &ImageOptions::default());
        let image = match &self.pool {
            Some(pool) => pool.install(write),
            None => write(),
        };
        image.map_err(SessionError::Image)
    }

    /// Writes the whole program to an image file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`SessionError::Image`] and [`SessionError::Write`].
    pub fn save_image(&self, path: &Path) -> Result<(), SessionError> {
        let image = self.image()?;
        save(path, &image)
            .map_err(|error| SessionError::Write { path: path.display().to_string().into(), error })
    }
}
