//! One function at a time: a session of its own, an add to a living session, publishing alone.

use std::time::{Duration, Instant};

use cranelift_codegen::Context;
use cranelift_jit::JITModule;
use cranelift_module::{Linkage, Module as _};
use kiln::artifact::Artifact;
use kiln::jit::JitOptions;
use kiln::{Compiler, Session};

use super::function::{Peer, Small};
use super::scale::Scale;
use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// A session with the bench's settings.
pub(super) fn session(compiler: &Compiler) -> Result<Session, Failure> {
    Ok(Session::with_compiler(compiler.clone(), JitOptions::default())?)
}

/// Frees the memory of a `JITModule`.
pub(super) fn free(module: JITModule) {
    // SAFETY: no code of the module is running, and its addresses are not used any more.
    unsafe { module.free_memory() };
}

/// Divides the time of a turn by the number of functions.
fn each(start: Instant, functions: &[Small]) -> Vec<Duration> {
    vec![start.elapsed() / functions.len() as u32]
}

/// Ends a turn whose functions were added to a session, and calls each.
fn checked(session: &Session, start: Instant, functions: &[Small]) -> Result<Vec<Duration>, Failure> {
    let time = each(start, functions);
    functions.iter().try_for_each(|function| function.check(session.address(&function.name)))?;
    Ok(time)
}

/// A session for each function, with compiling, and dropped at the end.
pub(super) fn own_session(
    peer: &Peer,
    setup: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let functions = peer.functions(0, scale.repeats());
    let modules = peer.modules(&functions)?;
    let (kiln, cranelift) = ("session of its own, kiln", "module of its own, cranelift-jit");
    let mut context = Context::new();
    let contenders = vec![
        Contender::in_parts(kiln, &[""], || {
            let start = Instant::now();
            for (module, function) in modules.iter().zip(&functions) {
                let session = session(&peer.compiler)?;
                session.add(std::slice::from_ref(module))?;
                function.check(session.jit().address(&function.name))?;
            }
            Ok(each(start, &functions))
        }),
        Contender::in_parts(cranelift, &[""], || {
            let start = Instant::now();
            for function in &functions {
                let mut module = peer.module();
                let id = function.define(&mut module, &mut context)?;
                module.finalize_definitions()?;
                function.check(Some(module.get_finalized_function(id)))?;
                free(module);
            }
            Ok(each(start, &functions))
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    comparison.ratio(kiln, cranelift, Goal::AtMost(1.0));
    comparison.note("of its own: compiled, linked, called once, dropped, with free_memory");
    Ok(())
}

/// Adds to a session that lives as long as the comparison, from IR that is ready.
pub(super) fn add(
    peer: &Peer,
    setup: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let (kiln, cranelift) = ("one add, kiln", "one define and finalize, cranelift-jit");
    let (mut ours, mut theirs) = (0, 0);
    let session = session(&peer.compiler)?;
    let mut living = peer.module();
    let mut context = Context::new();
    let contenders = vec![
        Contender::in_parts(kiln, &[""], || {
            let functions = next(peer, scale, &mut ours);
            let modules = peer.modules(&functions)?;
            let start = Instant::now();
            for module in &modules {
                session.add(std::slice::from_ref(module))?;
            }
            checked(&session, start, &functions)
        }),
        Contender::in_parts(cranelift, &[""], || {
            let functions = next(peer, scale, &mut theirs);
            define_all(&mut living, &functions, &mut context)
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    free(living);
    comparison.ratio(kiln, cranelift, Goal::AtMost(1.0));
    comparison.note("one add: the IR is ready; for kiln as a module, for cranelift-jit in Cranelift's form");
    Ok(())
}

/// The same, where the module is built too.
pub(super) fn build_and_add(
    peer: &Peer,
    setup: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let kiln = "one add with ModuleBuilder, kiln";
    let cranelift = "one define and finalize, again, cranelift-jit";
    let (mut ours, mut theirs) = (0, 0);
    let session = session(&peer.compiler)?;
    let mut living = peer.module();
    let (mut context, mut other) = (Context::new(), Context::new());
    let contenders = vec![
        Contender::in_parts(kiln, &[""], || {
            let functions = next(peer, scale, &mut ours);
            let start = Instant::now();
            for function in &functions {
                session.add(&[function.module(&peer.target, &mut context)?])?;
            }
            checked(&session, start, &functions)
        }),
        Contender::in_parts(cranelift, &[""], || {
            let functions = next(peer, scale, &mut theirs);
            define_all(&mut living, &functions, &mut other)
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    free(living);
    comparison.ratio(kiln, cranelift, Goal::None);
    comparison.note("with ModuleBuilder: a builder for each function");
    Ok(())
}

/// Publishes code that is compiled already in a living session.
pub(super) fn publish(
    peer: &Peer,
    setup: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let (kiln, cranelift) = ("publish one, kiln", "define one's bytes and finalize, cranelift-jit");
    let (mut ours, mut theirs) = (0, 0);
    let session = session(&peer.compiler)?;
    let mut living = peer.module();
    let contenders = vec![
        Contender::in_parts(kiln, &[""], || {
            let functions = next(peer, scale, &mut ours);
            let artifacts = artifacts(peer, &functions)?;
            let start = Instant::now();
            for artifact in artifacts {
                session.add_artifacts(&[artifact])?;
            }
            checked(&session, start, &functions)
        }),
        Contender::in_parts(cranelift, &[""], || {
            let functions = next(peer, scale, &mut theirs);
            let code = peer.bytes(&functions)?;
            let mut ids = Vec::with_capacity(functions.len());
            let start = Instant::now();
            for (function, bytes) in functions.iter().zip(&code) {
                let id = living.declare_function(&function.name, Linkage::Export, &function.ir.signature)?;
                living.define_function_bytes(id, 16, bytes, &[])?;
                living.finalize_definitions()?;
                ids.push(id);
            }
            let time = each(start, &functions);
            for (function, id) in functions.iter().zip(ids) {
                function.check(Some(living.get_finalized_function(id)))?;
            }
            Ok(time)
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    free(living);
    comparison.ratio(kiln, cranelift, Goal::AtMost(0.33));
    Ok(())
}

/// Returns functions with numbers that were not used before.
fn next(peer: &Peer, scale: Scale, used: &mut usize) -> Vec<Small> {
    let functions = peer.functions(*used, scale.repeats());
    *used += functions.len();
    functions
}

/// Compiles functions, each as a module of its own.
pub(super) fn artifacts(peer: &Peer, functions: &[Small]) -> Result<Vec<Artifact>, Failure> {
    Ok(peer.compiler.compile(&peer.modules(functions)?)?.artifacts)
}

/// Defines and finalizes functions one by one, and returns the time for each.
fn define_all(
    living: &mut JITModule,
    functions: &[Small],
    context: &mut Context,
) -> Result<Vec<Duration>, Failure> {
    let mut ids = Vec::with_capacity(functions.len());
    let start = Instant::now();
    for function in functions {
        ids.push(function.define(living, context)?);
        living.finalize_definitions()?;
    }
    let time = each(start, functions);
    for (function, id) in functions.iter().zip(ids) {
        function.check(Some(living.get_finalized_function(id)))?;
    }
    Ok(time)
}
