//! A running program that grows module by module and can be saved at any time.
//!
//! The program must behave the same in the process and in its image. So a session refuses a batch
//! that defines a name a second time, or defines a name that running code already uses from the
//! host. A weak definition (`Preemptible`) can be overridden in both. A replaceable one can be
//! defined again, and the last is in force in both.
//!
//! What is alive is known to `kiln_jit` alone. A session adds the compiler, the host's addresses,
//! and the order of the image. The files:
//!
//! - `engine`: the parts of a session, and the way from modules to a unit. Hooks share it with the
//!   session, but do not keep it alive.
//! - `claims`: keeps two threads from compiling the same definition.
//! - `partial`: adds modules of which some fail.
//! - `on_demand`: modules that are compiled when they are called; `tiers`: modules that are
//!   compiled again when they are hot. `hooks` has the functions that their code calls,
//!   `turns` lets one thread compile while others wait.
//! - `save`: images, `data`: data of modules as it is now, `names`: what saved pointers lead to.
//! - `error`: the errors.
//!
//! No code of the client (closures, resolvers, compiled code) is called under a lock.

mod claims;
mod data;
mod engine;
mod error;
mod hooks;
mod names;
mod on_demand;
mod partial;
mod save;
mod tiers;
mod turns;

use std::path::Path;
use std::sync::{Arc, PoisonError};

use cranelift_codegen::ir::Signature;
use kiln_artifact::Artifact;
use kiln_globals::{GlobalId, GlobalTable, Resolve, SlotKey};
use kiln_image::{FunctionPointer, FunctionRef, Loaded};
use kiln_ir::{Module, Target};
use kiln_jit::{Export, Guard, InUseError, Jit, JitOptions, Located, Ready, RebindError, Role, Unit};

use self::engine::{Engine, Linking};
pub use self::error::{AddLazyError, SessionError};
pub use self::on_demand::OnDemand;
pub use self::partial::{Failure, FailureReason, Partial};
pub use self::save::{SavedHeap, Saving, WritableData};
pub use self::tiers::{TierPolicy, Tiered};
use crate::compiler::{Compiler, Lazy, Stats};

/// Compiles modules, links them into this process, and keeps the artifacts for an image of the
/// program.
///
/// The modules given to [`Session::add`] are compiled in parallel and linked with all that was
/// added before. The artifacts are kept, so [`Session::image`] only links and compiles nothing, and
/// the image holds the same machine code that runs.
///
/// Any number of threads may use a session at once: looking up takes no lock, and none is held
/// while modules are compiled or linked. What is added at once is a [`Unit`], and is removed at
/// once.
///
/// # Which method do I need?
///
/// - A batch compiler: [`add`](Self::add) with all modules at once, then
///   [`save_image`](Self::save_image).
/// - A REPL: [`replace`](Self::replace) with one module for each definition, which is new or
///   replaces a `replaceable` one; [`add`](Self::add) and [`remove`](Self::remove) for an
///   expression. `examples/repl` is one.
/// - A query engine: [`add`](Self::add) for each query, a [`guard`](Self::guard) around its run,
///   then [`remove`](Self::remove).
/// - A JIT with tiers: [`add_tiered`](Self::add_tiered). With tiers of its own:
///   [`ready_to_replace`](Self::ready_to_replace) on any thread, and
///   [`Ready::publish`](kiln_jit::Ready::publish) where functions may change.
/// - A JIT that compiles what is called: [`add_on_demand`](Self::add_on_demand).
/// - Input of which some modules are wrong: [`add_partly`](Self::add_partly).
/// - Definitions that many threads ask for: [`add_once`](Self::add_once).
pub struct Session {
    engine: Arc<Engine>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("target", &self.target().triple())
            .field("jit", &self.engine.jit)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Creates an empty session with default settings. `target` must be this machine.
    ///
    /// # Errors
    ///
    /// [`SessionError::Jit`] if it is the first of the process and no address space can be
    /// reserved.
    pub fn new(target: Target) -> Result<Self, SessionError> {
        Self::with_compiler(Compiler::new(target), JitOptions::default())
    }

    /// Creates a session that starts on loaded images and their bases, as if they had been added to
    /// it. New modules call their functions, with types compared, read and write their data, and
    /// have the bindings of their globals. Replaceable functions of theirs are defined again with
    /// [`replace`](Self::replace), for all callers, as long as the session lives.
    ///
    /// What is added is in the session's image, and nothing else: [`save_image`](Self::save_image)
    /// writes a *layer*, which names the images by their ids and is loaded on them by
    /// [`Loaded::open`] or [`Image::bind_on`](kiln_image::Image::bind_on). The images stay loaded
    /// as long as the session lives.
    ///
    /// With other settings, the images are in [`JitOptions::bases`].
    ///
    /// # Errors
    ///
    /// As for [`Session::new`]; and if one image is there twice, as two copies.
    pub fn on(images: &[Arc<Loaded>], target: Target) -> Result<Self, SessionError> {
        let options = JitOptions { bases: images.to_vec(), ..JitOptions::default() };
        Self::with_compiler(Compiler::new(target), options)
    }

    /// Creates an empty session that compiles with `compiler` and its settings: thread pool, store,
    /// events and so on. `options` are the options of the JIT.
    ///
    /// # Errors
    ///
    /// The same errors as [`Session::new`].
    pub fn with_compiler(compiler: Compiler, options: JitOptions) -> Result<Self, SessionError> {
        Ok(Self { engine: Arc::new(Engine::new(compiler, Jit::new(options)?)) })
    }

    /// Returns the compiler of the session's modules.
    pub fn compiler(&self) -> &Compiler {
        &self.engine.compiler
    }

    /// Returns the target, which is needed to read and build modules.
    pub fn target(&self) -> &Target {
        self.engine.compiler.target()
    }

    /// Returns the number of the global `key`, which is also the number of its slot in images. A
    /// new global gets the next number. The globals of modules are numbered when an image is made,
    /// after these, so this is needed only to fix their order.
    pub fn global(&self, key: &str) -> GlobalId {
        self.engine.with_host(|host| host.globals.intern(key))
    }

    /// Sets the address of the run-time object `key` in this process. If code uses it already, that
    /// code uses the new address from now on.
    ///
    /// # Errors
    ///
    /// [`RebindError`] if data of the program, or code that reaches globals directly
    /// ([`Target::globals`]), holds a copy of another address. Then the binding is as it was.
    pub fn bind_global(&self, key: &str, address: usize) -> Result<GlobalId, RebindError> {
        self.engine.rebind(SlotKey::Global(key.into()), address, |host| {
            host.bindings.bind(key, address);
            host.globals.intern(key)
        })
    }

    /// Sets the address of the symbol `name`, a function or data object of the host. If code uses
    /// it already, that code uses the new address from now on. Symbols without an address are asked
    /// of the [resolver](Self::set_resolver), then looked up in the process.
    ///
    /// # Errors
    ///
    /// As for [`bind_global`](Self::bind_global).
    pub fn bind_symbol(&self, name: &str, address: usize) -> Result<(), RebindError> {
        self.engine.rebind(SlotKey::Symbol(name.into()), address, |host| {
            host.bindings.bind_symbol(name, address);
        })
    }

    /// Sets the function of the host that the symbol `name` stands for, and its type. Modules that
    /// call it with another type are refused.
    ///
    /// # Errors
    ///
    /// As for [`bind_global`](Self::bind_global), and if code calls it with another type already.
    pub fn bind_function<F: FunctionPointer>(&self, name: &str, function: F) -> Result<(), RebindError> {
        self.engine.rebind_function(name, function.address() as usize, &F::signature())
    }

    /// Sets the function of the host that the symbol `name` stands for, by its address and type.
    /// [`bind_function`](Self::bind_function) is for a type that Rust knows; this is for one that a
    /// client has as data, e.g. of a function that it made itself.
    ///
    /// # Errors
    ///
    /// As for [`bind_function`](Self::bind_function).
    pub fn bind_function_at(
        &self,
        name: &str,
        address: usize,
        signature: &kiln_globals::Signature,
    ) -> Result<(), RebindError> {
        self.engine.rebind_function(name, address, signature)
    }

    /// Sets the resolver, which is asked for addresses that are not bound. It is called without a
    /// lock, and may use the session.
    pub fn set_resolver(&self, resolver: Arc<dyn Resolve + Send + Sync>) {
        self.engine.with_host(|host| host.resolver = Some(resolver));
    }

    /// Compiles `modules`, links them with each other and with all that was added before, and makes
    /// them callable. They form one [`Unit`], which can be removed.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; then no module is added.
    pub fn add(&self, modules: &[Module]) -> Result<Unit, SessionError> {
        self.engine.build(modules, Linking::Add)
    }

    /// Adds `modules` as [`add`](Self::add) does, and lets them define replaceable functions again:
    /// see [`Jit::replace`].
    ///
    /// # Errors
    ///
    /// [`SessionError`]; then nothing is replaced.
    pub fn replace(&self, modules: &[Module]) -> Result<Unit, SessionError> {
        self.engine.build(modules, Linking::Replace)
    }

    /// Adds those of `modules` that do not fail and need no module that fails, as one unit. Each
    /// failure names the module, and the function that needs what is missing.
    pub fn add_partly(&self, modules: &[Module]) -> Partial {
        self.engine.build_partly(modules)
    }

    /// Adds `modules`, unless all their definitions are there already or are being added by another
    /// thread. Then this waits for the other thread, and returns the unit that has the definitions.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; then no module is added. If the other thread fails, this one tries.
    pub fn add_once(&self, modules: &[Module]) -> Result<Unit, SessionError> {
        self.engine.build_once(modules)
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
    pub fn add_lazy<E: Send>(&self, modules: Vec<Lazy<'_, E>>) -> Result<Unit, AddLazyError<E>> {
        let names: Vec<Box<str>> = modules.iter().map(|module| module.name().into()).collect();
        let compiled = self.engine.compiler.compile_lazy(modules).map_err(AddLazyError::Modules)?;
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        self.engine.link_compiled(compiled, &names, Linking::Add).map_err(AddLazyError::Session)
    }

    /// Registers a module that is compiled when one of its functions is first called. `functions`
    /// are the names and types of the functions that others may call. They can be called and linked
    /// with at once. `build` makes the module. It defines the functions, as exports or as
    /// replaceable functions; the latter is what they become.
    ///
    /// The first call of a function waits while the module is built and compiled; so do other
    /// threads that call it meanwhile. If that fails, what [`set_rescue`](Self::set_rescue) set is
    /// asked; without it, the call panics. [`OnDemand::compile`] compiles the module earlier.
    /// [`image`](Self::image) compiles every registered module.
    ///
    /// If the module's unit is removed, the next call builds the module again. `build` must not
    /// call the functions.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if a name is defined already, or a type cannot be called. Then nothing is
    /// registered.
    pub fn add_on_demand(
        &self,
        functions: &[(&str, Signature)],
        build: impl Fn() -> Result<Module, Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
    ) -> Result<OnDemand, SessionError> {
        on_demand::Shared::register(&self.engine, functions, Box::new(build)).map(OnDemand)
    }

    /// Sets what happens when a function cannot be compiled that was called: `rescue` gets its name
    /// and the error, and returns the address of a function of the same type, which is called
    /// instead, this time. It may also panic, if the callers can unwind.
    pub fn set_rescue(&self, rescue: impl Fn(&str, &SessionError) -> usize + Send + Sync + 'static) {
        self.engine.with_host(|host| host.rescue = Some(Arc::new(rescue)));
    }

    /// Adds modules that are compiled at `opt_level=none` first, and again at `speed` when they are
    /// hot, which `policy` defines. Compiling again is done by a thread of the pool that has
    /// nothing else to do; then all callers of the module's functions call the new code. Returns a
    /// handle for each module.
    ///
    /// All exported functions become replaceable. Code of the first tier is freed as replaced code
    /// is, so hold a [`guard`](Self::guard) where it may be called. An image has the last tier of
    /// every module: [`image`](Self::image) compiles those that were not hot.
    ///
    /// # Errors
    ///
    /// [`SessionError`], and [`SessionError::TieredData`] if a module has data that both tiers
    /// would have to share. Then no module is added.
    pub fn add_tiered(&self, modules: &[Module], policy: TierPolicy) -> Result<Vec<Tiered>, SessionError> {
        let shared = tiers::Shared::add(&self.engine, modules, policy)?;
        Ok(shared.into_iter().map(Tiered::new).collect())
    }

    /// Links artifacts that were compiled elsewhere, or came from a cache.
    ///
    /// # Errors
    ///
    /// The same errors as [`Session::add`], except [`SessionError::Check`] and
    /// [`SessionError::Compile`].
    pub fn add_artifacts(&self, artifacts: &[Artifact]) -> Result<Unit, SessionError> {
        self.engine.link(artifacts, &[], Linking::Add)
    }

    /// Links artifacts, and lets them define replaceable functions again.
    ///
    /// # Errors
    ///
    /// As for [`add_artifacts`](Self::add_artifacts).
    pub fn replace_artifacts(&self, artifacts: &[Artifact]) -> Result<Unit, SessionError> {
        self.engine.link(artifacts, &[], Linking::Replace)
    }

    /// Does all work of [`replace_artifacts`](Self::replace_artifacts) but the last step. To
    /// publish the result then takes less than a microsecond, when the program is at a point where
    /// its functions may change: see [`Jit::ready`]. [`compiler`](Self::compiler) compiles the
    /// artifacts.
    ///
    /// # Errors
    ///
    /// As for [`add_artifacts`](Self::add_artifacts).
    pub fn ready_to_replace<'a>(&'a self, artifacts: &'a [Artifact]) -> Result<Ready<'a, 'a>, SessionError> {
        self.engine.ready(artifacts, Linking::Replace)
    }

    /// Removes units: see [`Jit::remove`].
    ///
    /// # Errors
    ///
    /// [`InUseError`] names what uses them; then nothing is removed.
    pub fn remove(&self, units: &[Unit]) -> Result<(), InUseError> {
        self.engine.jit.remove(units)
    }

    /// Removes units, and all units that use them, and so on. Returns how many were removed.
    pub fn remove_with_users(&self, units: &[Unit]) -> usize {
        self.engine.jit.remove_with_users(units)
    }

    /// Makes a guard. Code that is removed or replaced from now on stays in memory until it is
    /// dropped, so hold one while you look up and call functions that may be removed.
    pub fn guard(&self) -> Guard<'_> {
        self.engine.jit.guard()
    }

    /// Returns the function that is exported as `name`.
    pub fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        self.engine.jit.function(name)
    }

    /// Returns the address of the function or data object that is exported as `name`.
    pub fn address(&self, name: &str) -> Option<*const u8> {
        self.engine.jit.address(name)
    }

    /// Returns the address of this thread's copy of the thread-local data `name`, as
    /// [`Jit::thread_local_address`] does.
    pub fn thread_local_address(&self, name: &str) -> Option<*mut u8> {
        self.engine.jit.thread_local_address(name)
    }

    /// Tells debuggers about all code that they do not know yet, as [`Jit::tell_debugger`] does.
    pub fn tell_debugger(&self) -> usize {
        self.engine.jit.tell_debugger()
    }

    /// Finds the instruction at an address: its function, module, source location, and what else is
    /// known about it, as [`Jit::locate`] does. It is safe in a signal handler.
    pub fn locate(&self, address: *const u8) -> Option<Located<'_>> {
        self.engine.jit.locate(address)
    }

    /// Finds the call that returns to an address, as [`Jit::locate_call`] does.
    pub fn locate_call(&self, return_address: *const u8) -> Option<Located<'_>> {
        self.engine.jit.locate_call(return_address)
    }

    /// Registers the code with `kiln-trap`, the first time: what is there now and what will be
    /// added. So it catches traps in it, throws exceptions to its handlers, and names its functions
    /// in backtraces. Sessions that share their memory are registered together.
    ///
    /// # Errors
    ///
    /// [`RegisterError`](kiln_trap::RegisterError) if too many ranges are registered.
    #[cfg(feature = "trap")]
    pub fn catch_traps(&self) -> Result<(), kiln_trap::RegisterError> {
        self.bases().iter().try_for_each(|image| image.catch_traps())?;
        self.engine.jit.memory().catch_traps()
    }

    /// Returns the images that the session started on, each after its own bases.
    pub fn bases(&self) -> &[Arc<Loaded>] {
        self.engine.jit.bases()
    }

    /// Returns everything that is exported, also by the images that the session started on, in
    /// order of names.
    pub fn exports(&self) -> Vec<Export> {
        self.engine.jit.exports()
    }

    /// Returns the JIT, which holds the session's code in memory.
    pub fn jit(&self) -> &Jit {
        &self.engine.jit
    }

    /// Returns the artifacts of the program, in order of linking.
    pub fn artifacts(&self) -> Vec<Artifact> {
        self.program().iter().flat_map(|unit| unit.artifacts().iter().cloned()).collect()
    }

    /// Returns the units that an image has, in order of linking.
    fn program(&self) -> Vec<Unit> {
        let mut units = self.engine.jit.units();
        units.retain(|unit| unit.role() == Role::Program);
        units
    }

    /// Returns the globals of the program, in order of their slots in an image: first those that
    /// [`global`](Self::global) and [`bind_global`](Self::bind_global) numbered, then those of the
    /// units.
    pub fn globals(&self) -> GlobalTable {
        self.engine.globals_of(&self.artifacts())
    }

    /// Returns statistics of what the session compiled and reused so far. Saving an image does not
    /// change them.
    pub fn stats(&self) -> Stats {
        *self.engine.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Links the whole program into an image and returns its bytes. Nothing is compiled, except
    /// modules that were to be compiled when they are called, and modules in their first tier.
    ///
    /// # Errors
    ///
    /// [`SessionError::Image`] if the program cannot be one image, and any error of a module that
    /// was to be compiled when it is called.
    ///
    /// Of a session that started [on images](Self::on), it is the layer that was added.
    pub fn image(&self) -> Result<Vec<u8>, SessionError> {
        self.image_with(Saving::default())
    }

    /// Does the same as [`image`](Self::image), with objects that the program has made, and with
    /// other options.
    ///
    /// # Errors
    ///
    /// As for [`image`](Self::image), and [`SessionError::Snapshot`] with the way to an object that
    /// cannot be saved.
    pub fn image_with(&self, saving: Saving<'_>) -> Result<Vec<u8>, SessionError> {
        save::image(&self.engine, saving)
    }

    /// Writes an image of the whole program to a file. If this fails, no partly written file
    /// remains at `path`.
    ///
    /// # Errors
    ///
    /// [`SessionError::Image`] and [`SessionError::Write`].
    pub fn save_image(&self, path: &Path) -> Result<(), SessionError> {
        self.save_image_with(path, Saving::default())
    }

    /// Writes an image to a file, as [`save_image`](Self::save_image) does, with objects that the
    /// program has made, and with other options.
    ///
    /// # Errors
    ///
    /// As for [`image_with`](Self::image_with), and [`SessionError::Write`].
    pub fn save_image_with(&self, path: &Path, saving: Saving<'_>) -> Result<(), SessionError> {
        save::write_file(path, &self.image_with(saving)?)
    }
}
