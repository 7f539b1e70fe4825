//! The implementations of the trait, and how each runs a client's program.
//!
//! Everything that a client's author has to change for a port is in this file: the module is made
//! before the client runs, and finished after it.

use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable as _};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncOrDataId, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use kiln::globals::{Bindings, GlobalTable, Resolve as _};
use kiln::image::{Image, ObjectOptions, write_object};
use kiln::ir::{ModuleBuilder, Target};
use kiln::{Compiler, Session};

use crate::host::{Host, Outcome, call};
use crate::language::Failure;
use crate::library;

/// Defines a program: `start`, which takes nothing and returns an integer, and perhaps the variable
/// `state`.
pub(crate) trait Client {
    fn build<M: Module>(&self, module: &mut M) -> Result<(), Failure>;
}

pub(crate) fn jit_module(host: &Host) -> Result<JITModule, Failure> {
    let mut builder = JITBuilder::new(default_libcall_names())?;
    builder.symbols(host.symbols());
    Ok(JITModule::new(builder))
}

pub(crate) fn object_module() -> Result<ObjectModule, Failure> {
    let builder = ObjectBuilder::new(isa()?, "program", default_libcall_names())?;
    Ok(ObjectModule::new(builder))
}

pub(crate) fn kiln_module() -> Result<ModuleBuilder, Failure> {
    Ok(ModuleBuilder::new("program", &Target::host())?)
}

/// No CPU features are enabled, so that some instructions are calls of the C library.
fn isa() -> Result<OwnedTargetIsa, Failure> {
    let mut flags = settings::builder();
    flags.set("is_pic", "true")?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(isa::lookup_by_name(&triple)?.finish(settings::Flags::new(flags))?)
}

/// The target of the client's own code generator.
pub(crate) fn own_target() -> Result<Target, Failure> {
    Ok(Target::of_isa(&*isa()?)?)
}

pub(crate) fn jit(client: &impl Client) -> Result<Outcome, Failure> {
    let host = Host::new();
    let mut module = jit_module(&host)?;
    client.build(&mut module)?;
    module.finalize_definitions()?;
    let Some(FuncOrDataId::Func(start)) = module.get_name("start") else { return Err("no `start`".into()) };
    let state = match module.get_name("state") {
        Some(FuncOrDataId::Data(state)) => module.get_finalized_data(state).0,
        _ => std::ptr::null(),
    };
    let start = module.get_finalized_function(start);
    // SAFETY: `Client` promises the type; the module lives until after the call, and no address is
    // kept.
    unsafe {
        let outcome = call(start, state, || host.tally());
        module.free_memory();
        outcome
    }
}

pub(crate) fn object(client: &impl Client) -> Result<Outcome, Failure> {
    let mut module = object_module()?;
    client.build(&mut module)?;
    linked(&module.finish().emit()?)
}

/// The same through an object file of Kiln's.
pub(crate) fn kiln_object(client: &impl Client) -> Result<Outcome, Failure> {
    let mut module = kiln_module()?;
    client.build(&mut module)?;
    let compiled = Compiler::new(Target::host()).compile(&[module.finish()?])?;
    let object = write_object(&compiled.artifacts, &GlobalTable::new(), &ObjectOptions::default());
    linked(&object.map_err(|errors| errors[0].to_string())?)
}

/// Links an object file with the host's part, and runs it.
fn linked(object: &[u8]) -> Result<Outcome, Failure> {
    let host = Host::new();
    let folder = tempfile::tempdir()?;
    let library = library::link(object, folder.path())?;
    let (table, tally) = (library.symbol(c"host"), library.symbol(c"tally"));
    if table.is_null() || tally.is_null() {
        return Err("the host's part is missing".into());
    }
    let functions = host.symbols().into_iter().filter(|(name, _)| *name != "tally");
    for (index, (_, function)) in functions.enumerate() {
        // SAFETY: `host.c` has a table of as many pointers, which only this test uses.
        unsafe { table.cast::<*const u8>().add(index).write(function) };
    }
    // SAFETY: `Client` promises the type; the library stays open during the call; `tally` is a
    // variable of `host.c`.
    unsafe { call(library.symbol(c"start"), library.symbol(c"state"), || tally.cast::<i64>().read()) }
}

/// A session that holds the client's program.
fn session(client: &impl Client, host: &Host) -> Result<Session, Failure> {
    let session = Session::new(Target::host())?;
    for (name, address) in host.symbols() {
        session.bind_symbol(name, address as usize).unwrap();
    }
    let mut module = kiln_module()?;
    client.build(&mut module)?;
    session.add(&[module.finish()?])?;
    Ok(session)
}

pub(crate) fn in_memory(client: &impl Client) -> Result<Outcome, Failure> {
    let host = Host::new();
    let session = session(client, &host)?;
    let start = session.function("start").ok_or("no `start`")?;
    let state = session.jit().address("state").unwrap_or(std::ptr::null());
    // SAFETY: only the type is read here.
    unsafe { start.typed::<extern "C" fn() -> i64>()? };
    // SAFETY: the type was compared; the session lives until after the call.
    unsafe { call(start.address(), state, || host.tally()) }
}

pub(crate) fn image(client: &impl Client) -> Result<Outcome, Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("program.so");
    session(client, &Host::new())?.save_image(&path)?;

    // The session is gone, and this host has its variables at other addresses.
    let host = Host::new();
    let mut bindings = Bindings::new();
    for (name, address) in host.symbols() {
        bindings.bind_symbol(name, address as usize);
    }
    let image = Image::open(&path)?;
    image.verify()?;
    let resolve = bindings.or(&kiln::jit::libcalls::process);
    let loaded = image.bind(&resolve)?;
    let start = loaded.function("start").ok_or("no `start`")?;
    let state = loaded.address("state").unwrap_or(std::ptr::null());
    // SAFETY: only the type is read here.
    unsafe { start.typed::<extern "C" fn() -> i64>()? };
    // SAFETY: the type was compared; the image stays loaded until after the call.
    unsafe { call(start.address(), state, || host.tally()) }
}
