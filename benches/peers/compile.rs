//! Comparison A: from IR to machine code.

use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir;
use cranelift_codegen::isa::TargetIsa;
use kiln::artifact::Artifact;
use kiln::{Compiled, Compiler};
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::jit;
use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup, pool};
use crate::workload::Workload;

/// Measures compilation, and checks `artifacts`, which Kiln compiled from the workload.
pub(crate) fn compare(
    workload: &Workload,
    setup: &Setup,
    artifacts: &[Artifact],
) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(&workload.name, "A. from IR to machine code");
    let threads = setup.threads;
    let many = Compiler::new(workload.target.clone()).pool(setup.pool.clone());
    let one = Compiler::new(workload.target.clone()).pool(Arc::new(pool(1)?));
    let compile =
        |compiler: &Compiler| -> Result<Compiled, Failure> { Ok(compiler.compile(&workload.modules)?) };
    let queue: Vec<(&ir::Function, &dyn TargetIsa)> =
        workload.functions().map(|(number, _, ir)| (ir, &*workload.isas[number])).collect();

    let kiln_many = format!("kiln, {threads} threads");
    let raw_many = format!("raw Cranelift, {threads} threads");
    let (kiln_one, raw_one) = ("kiln, 1 thread", "raw Cranelift, 1 thread");
    let peer = jit::CraneliftJit::new(workload);
    let mut contenders = vec![
        Contender::new(&kiln_many, || compile(&many)),
        Contender::new(&raw_many, || raw_parallel(&queue, &setup.pool)),
        Contender::new(kiln_one, || compile(&one)),
        Contender::new(raw_one, || raw_serial(&queue)),
    ];
    let (kiln_jit, cranelift_jit) =
        (format!("kiln into memory, {threads} threads"), "cranelift-jit, 1 thread");
    match &peer {
        Ok(peer) => {
            contenders.push(Contender::new(&kiln_jit, || jit::kiln(workload, &many)));
            contenders.push(Contender::new(cranelift_jit, || peer.build()));
        }
        Err(reason) => comparison.note(format!("cranelift-jit is left out: {reason}")),
    }
    comparison.add(interleave(setup.rounds, contenders)?);

    comparison.ratio(&kiln_many, &raw_many, Goal::AtMost(1.10));
    comparison.ratio(kiln_one, raw_one, Goal::AtMost(1.10));
    comparison.named_ratio(
        format!("speed-up of kiln, 1 to {threads} threads"),
        kiln_one,
        &kiln_many,
        Goal::None,
    );
    comparison.named_ratio(
        format!("speed-up of raw Cranelift, 1 to {threads} threads"),
        raw_one,
        &raw_many,
        Goal::None,
    );
    comparison.note("raw Cranelift: Context::compile of a copy of each function, with the same settings; the code is thrown away");
    comparison.note(
        "kiln: the same, and unwind rows, tables and calls resolved inside each module; everything is kept",
    );
    if let Ok(peer) = &peer {
        comparison.ratio(&kiln_jit, cranelift_jit, Goal::None);
        comparison.note("cranelift-jit refuses position-independent code: same settings, but is_pic = false; no unwind registration");
        comparison.check(peer.check()?);
        if workload.runs {
            comparison.check(jit::same_results(workload, artifacts, peer)?);
        }
    }
    comparison.check(same_code(&queue, workload, artifacts)?);
    Ok(comparison)
}

/// Compiles a copy of the function, and returns the size of the code.
fn raw_compile(
    context: &mut Context,
    function: &ir::Function,
    isa: &dyn TargetIsa,
) -> Result<usize, Failure> {
    context.clear();
    context.func = function.clone();
    let code =
        context.compile(isa, &mut ControlPlane::default()).map_err(|error| format!("{:?}", error.inner))?;
    Ok(code.buffer.data().len())
}

fn raw_serial(queue: &[(&ir::Function, &dyn TargetIsa)]) -> Result<usize, Failure> {
    let mut context = Context::new();
    queue.iter().map(|(function, isa)| raw_compile(&mut context, function, *isa)).sum()
}

fn raw_parallel(queue: &[(&ir::Function, &dyn TargetIsa)], pool: &ThreadPool) -> Result<usize, Failure> {
    pool.install(|| {
        queue
            .par_iter()
            .map_init(Context::new, |context, (function, isa)| raw_compile(context, function, *isa))
            .sum()
    })
}

/// Checks that Kiln and raw Cranelift made the same number of functions, of the same sizes.
fn same_code(
    queue: &[(&ir::Function, &dyn TargetIsa)],
    workload: &Workload,
    artifacts: &[Artifact],
) -> Result<String, Failure> {
    let mut sizes = artifacts
        .iter()
        .flat_map(|artifact| artifact.functions())
        .map(|function| function.len.get() as usize);
    let mut context = Context::new();
    let mut total = 0;
    for (index, (function, isa)) in queue.iter().enumerate() {
        let expected = raw_compile(&mut context, function, *isa)?;
        let found = sizes.next();
        if found != Some(expected) {
            let name = &workload.functions().nth(index).expect("as many as in the queue").2.name;
            return Err(
                format!("function {name}: {found:?} bytes from kiln, {expected} from Cranelift").into()
            );
        }
        total += expected;
    }
    if sizes.next().is_some() {
        return Err("kiln made functions that are not in the modules".into());
    }
    Ok(format!("kiln's {} functions have the sizes of raw Cranelift's, {total} bytes of code", queue.len()))
}
