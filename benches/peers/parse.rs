//! Comparison D: from text to IR.

use std::sync::Arc;

use cranelift_codegen::ir::Function;
use cranelift_codegen::verify_function;
use kiln::ir::{Diagnostic, Module, Source, parse, parse_unverified};
use rayon::prelude::*;

use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup, pool};
use crate::workload::Workload;

pub(crate) fn compare(workload: &Workload, setup: &Setup) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(&workload.name, "D. from text to IR");
    let files: Vec<usize> = (0..workload.sources.len()).collect();
    let first = |faults: Vec<Diagnostic>| faults.first().map_or_else(String::new, ToString::to_string);
    let kiln = |&file: &usize| -> Result<usize, Failure> {
        let module = parse(workload.sources[file].clone(), &workload.target).map_err(first)?;
        Ok(std::hint::black_box(&module).functions.len())
    };
    let unverified = |&file: &usize| -> Result<usize, Failure> {
        let module = parse_unverified(workload.sources[file].clone(), &workload.target).map_err(first)?;
        Ok(std::hint::black_box(&module).module().functions.len())
    };
    let read =
        |&file: &usize| Ok::<_, Failure>(std::hint::black_box(reader(workload.sources[file].text())?).len());
    let verify = |&file: &usize| -> Result<usize, Failure> {
        let functions = reader(workload.sources[file].text())?;
        let isa = &*workload.isas[file];
        functions.iter().try_for_each(|function| verify_function(function, isa))?;
        Ok(functions.len())
    };
    let everything = workload.functions().count();
    let counts = [
        ("kiln", files.iter().map(kiln).sum::<Result<usize, _>>()),
        ("kiln without verifying", files.iter().map(unverified).sum()),
        ("cranelift-reader", files.iter().map(read).sum()),
        ("cranelift-reader and verifier", files.iter().map(verify).sum()),
    ];
    for (name, count) in counts {
        match count {
            Ok(count) if count == everything => {}
            Ok(count) => return Err(format!("{name} read {count} functions instead of {everything}").into()),
            Err(error) => {
                comparison.note(format!("left out, since {name} cannot read the files: {error}"));
                return Ok(comparison);
            }
        }
    }
    comparison.check(format!("each of them reads {everything} functions"));

    // All contenders run on threads of a pool, because the allocator treats the main thread
    // differently.
    let single = pool(1)?;
    let many = &*setup.pool;
    let run = |pool: &rayon::ThreadPool, work: &(dyn Fn(&usize) -> Result<usize, Failure> + Sync)| {
        pool.install(|| files.par_iter().map(work).sum::<Result<usize, _>>())
    };
    let threads = setup.threads;
    let (one, one_unverified) = ("kiln (verifies), 1 thread", "kiln, not verifying, 1 thread");
    let (peer, verified) = ("cranelift-reader, 1 thread", "cranelift-reader and verifier, 1 thread");
    let many_kiln = format!("kiln (verifies), {threads} threads");
    let many_unverified = format!("kiln, not verifying, {threads} threads");
    let many_peer = format!("cranelift-reader, {threads} threads");
    let many_verified = format!("cranelift-reader and verifier, {threads} threads");
    // One file holds all functions, under distinct names.
    let joined = Arc::new(Source::new("joined.clif", joined(workload)));
    let whole = format!("kiln (verifies), one file, {threads} threads");
    let whole_peer = "cranelift-reader, one file, which it reads on 1 thread";
    let count = |module: Module| std::hint::black_box(module).functions.len();
    let mut contenders = vec![
        Contender::new(one, || run(&single, &kiln)),
        Contender::new(one_unverified, || run(&single, &unverified)),
        Contender::new(peer, || run(&single, &read)),
        Contender::new(verified, || run(&single, &verify)),
        Contender::new(&many_kiln, || run(many, &kiln)),
        Contender::new(&many_unverified, || run(many, &unverified)),
        Contender::new(&many_peer, || run(many, &read)),
        Contender::new(&many_verified, || run(many, &verify)),
    ];
    contenders.push(Contender::new(&whole, || {
        many.install(|| {
            parse(joined.clone(), &workload.target).map(count).map_err(|faults| first(faults).into())
        })
    }));
    contenders.push(Contender::new(whole_peer, || {
        many.install(|| reader(joined.text()).map(|functions| std::hint::black_box(functions).len()))
    }));
    comparison.add(interleave(setup.rounds, contenders)?);
    comparison.ratio(one, verified, Goal::AtMost(1.00));
    comparison.ratio(one_unverified, peer, Goal::AtMost(1.00));
    comparison.ratio(&many_kiln, &many_verified, Goal::AtMost(1.00));
    // Kiln verifies, and its peer does not.
    comparison.ratio(one, peer, Goal::None);
    comparison.ratio(&many_kiln, &many_peer, Goal::None);
    comparison.ratio(&many_unverified, &many_peer, Goal::AtMost(1.00));
    comparison.ratio(&many_unverified, peer, Goal::AtMost(1.00));
    comparison.ratio(&whole, whole_peer, Goal::None);
    let bytes: usize = workload.sources.iter().map(|source| source.text().len()).sum();
    comparison
        .note(format!("{} KB of text; kiln verifies what it reads, and numbers it densely", bytes / 1024));
    Ok(comparison)
}

/// Joins the functions of all files in one text, under distinct names.
fn joined(workload: &Workload) -> String {
    let mut text = String::new();
    for (number, source) in workload.sources.iter().enumerate() {
        // A header line may not follow a function. Other names need no change, because each
        // function declares the names that it uses.
        for line in source.text().lines().filter(|line| !line.starts_with("target ")) {
            match line.strip_prefix("function ").and_then(|rest| rest.split_once('(')) {
                Some((_, rest)) => {
                    text.push_str(&format!("function %joined{number}_{}({rest}", text.len()));
                }
                None => text.push_str(line),
            }
            text.push('\n');
        }
    }
    text
}

fn reader(text: &str) -> Result<Vec<Function>, Failure> {
    Ok(cranelift_reader::parse_functions(text)?)
}
