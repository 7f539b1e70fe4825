//! Kiln compared with its peers in one run: `cargo xtask bench`, or
//! `cargo bench --bench peers -- --help`.
//!
//! The workloads are a generated program and, if one is given, a folder of `.clif` files. The
//! comparisons:
//!
//! - A: compilation with raw Cranelift and cranelift-jit;
//! - B: writing an image with cranelift-object followed by every linker that is installed;
//! - C: opening an image with `dlopen`, also images of 1, 10 and 100 MB of code;
//! - D: reading text with cranelift-reader;
//! - E: canonical form, fingerprint and binary form with compilation and text;
//! - F: building again with a cache, when nothing or one function has changed, with building
//!   everything;
//! - G: small functions, one at a time, in a session and in `JITModule`s (the same for every
//!   workload, so it is run once);
//! - H: code tables: their size, building them with compiling, and looking places up;
//! - I: code that reaches globals through slots, and code that contains their addresses;
//! - J: a loop that calls small functions of other modules, inlined (once), and compiling with
//!   inlining;
//! - L: access to thread-local data with that of a library of gcc (once, too);
//! - M: images with code for several levels of the processor, with images for one;
//! - N: 10,000 to 1,000,000 functions: time and memory of each;
//! - O: relocatable objects with those of cranelift-object, and linking them;
//! - P: the pages of code that a start needs, with functions in the order of a profile;
//! - S: loading a saved heap of 2,000,000 objects with deserialising it (once, too);
//! - Y: linking a layer of a hundredth of a program with linking the whole (once, too);
//! - T: calls that catch traps with plain calls, and unwinding compiled frames with frames of gcc
//!   (once, too);
//! - V: opening signed images with hashing their bytes (once, too).
//!
//! Contenders take turns in every round, ratios are computed for each round, and medians are
//! reported with their ranges, so noise of the machine affects all contenders equally. Every result
//! is checked before its time is used, and a wrong result ends the run. A goal that is not met does
//! not end it: wall-clock times depend on the machine.

mod compile;
mod counts;
mod emit;
mod forms;
mod generate;
mod globals;
mod image;
mod incremental;
mod inlined;
mod jit;
mod layers;
mod levels;
mod linker;
mod locate;
mod measure;
mod numbering;
mod object;
mod open;
mod open_sizes;
mod order;
mod parse;
mod report;
mod scale;
mod sessions;
mod setup;
mod snapshots;
mod thread_local;
mod traps;
mod verify;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use kiln::Compiler;
use kiln::image::save;
use serde_json::json;

use self::report::Report;
use self::setup::{Failure, Setup, pool};
use self::workload::Workload;

/// Kiln compared with its peers
#[derive(clap::Parser)]
#[command(name = "peers")]
struct PeersArgs {
    /// Also measure on the `.clif` files in this folder
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Functions of the generated program
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    functions: u32,
    /// Number of rounds that are measured
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Only these comparisons [default: all]
    #[arg(long, value_name = "LETTERS")]
    only: Option<String>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Functions that comparison G adds to a session one by one; its other sizes are in proportion
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..))]
    adds: u32,
    /// Be a child process of comparison G
    #[arg(long, hide = true)]
    child: Option<sessions::Child>,
    /// Be a child process that compiles the last workload
    #[arg(long, hide = true)]
    peak_child: Option<sessions::PeakChild>,
    /// The largest number of functions of comparison N; each smaller one is a tenth, down to 10,000
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(10..))]
    scale: u32,
    /// Count the instructions of every phase with callgrind, compare them with
    /// `benches/counts.json`, and do nothing else
    #[arg(long)]
    counts: bool,
    /// Write these counts to `benches/counts.json`
    #[arg(long, requires = "counts")]
    bless: bool,
    /// Be the child process whose instructions are counted
    #[arg(long, hide = true)]
    counts_child: Option<counts::Phase>,
    /// Be a child process of comparison N
    #[arg(long, hide = true)]
    scale_child: Option<scale::ScaleChild>,
    /// Ignored; cargo adds it
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&PeersArgs::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // An error does not print its sources.
            let sources = std::iter::successors(error.source(), |&error| error.source());
            eprintln!("error: {error}{}", sources.map(|source| format!(": {source}")).collect::<String>());
            ExitCode::FAILURE
        }
    }
}

/// Does what the arguments say. Returns false if a check has failed, and has said so.
fn run(args: &PeersArgs) -> Result<bool, Failure> {
    let scale = sessions::Scale { adds: args.adds as usize };
    if let Some(engine) = args.child {
        return sessions::child(engine, scale).map(|()| true);
    }
    if let Some(phase) = args.counts_child {
        return counts::child(phase).map(|()| true);
    }
    if args.counts {
        return counts::run(args.bless);
    }
    let cores = std::thread::available_parallelism()?.get();
    let threads = args.threads.unwrap_or(cores).max(1);
    let setup = Setup { rounds: args.rounds, threads, pool: Arc::new(pool(threads)?) };
    if let Some(compiler) = args.scale_child {
        return scale::child(compiler, args.scale as usize, &setup).map(|()| true);
    }
    // The corpus is read first, so that a wrong path fails at once.
    let corpus = args.corpus.as_deref().map(Workload::corpus).transpose()?;
    let workloads: Vec<Workload> = [Workload::generated(args.functions)?].into_iter().chain(corpus).collect();
    if let (Some(compiler), Some(workload)) = (args.peak_child, workloads.last()) {
        return sessions::peak_child(compiler, workload, &setup).map(|()| true);
    }
    let wanted =
        |letter: char| args.only.as_ref().is_none_or(|only| only.to_ascii_uppercase().contains(letter));

    println!(
        "Kiln and its peers: {} rounds, {threads} threads on {cores} cores, cranelift {}, {}",
        args.rounds,
        cranelift_codegen::VERSION,
        workloads[0].target.triple(),
    );
    let linkers: Vec<_> = linker::known().iter().map(|linker| (linker.name, linker.version())).collect();
    for (name, version) in &linkers {
        println!("  {name}: {version}");
    }
    let folder = tempfile::tempdir()?;
    let mut report = Report::default();
    // First, while the process is small.
    if wanted('G') {
        let mut workload =
            vec![format!("--functions={}", args.functions).into(), format!("--threads={threads}").into()];
        if let Some(corpus) = &args.corpus {
            workload.extend(["--corpus".into(), corpus.clone().into_os_string()]);
        }
        report.add(sessions::compare(&setup, scale, &workload)?);
    }
    for workload in workloads.iter().filter(|_| "ABCDEFHJMOP".chars().any(&wanted)) {
        compare_workload(workload, &setup, folder.path(), &wanted, &mut report)?;
    }
    compare_others(args, &setup, folder.path(), &wanted, &mut report)?;
    let (met, targets) = report.met();
    println!("\n{met} of {targets} targets are met");

    if let Some(path) = &args.json {
        let run = json!({
            "rounds": args.rounds, "threads": threads, "cores": cores, "functions": args.functions, "adds": args.adds, "scale": args.scale,
            "cranelift": cranelift_codegen::VERSION, "target": workloads[0].target.triple().to_string(),
            "linkers": linkers.iter().map(|(name, version)| json!({ "name": name, "version": version })).collect::<Vec<_>>(),
            "workloads": workloads.iter().map(|workload| {
                json!({ "name": workload.name, "size": workload.describe() })
            }).collect::<Vec<_>>(),
        });
        let text = serde_json::to_string_pretty(&report.json(run))?;
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(true)
}

/// Makes the comparisons that are wanted on a workload.
fn compare_workload(
    workload: &Workload,
    setup: &Setup,
    folder: &Path,
    wanted: &dyn Fn(char) -> bool,
    report: &mut Report,
) -> Result<(), Failure> {
    println!("\n{}: {}", workload.name, workload.describe());
    let artifacts =
        Compiler::new(workload.target.clone()).pool(setup.pool.clone()).compile(&workload.modules)?.artifacts;
    if wanted('A') {
        report.add(compile::compare(workload, setup, &artifacts)?);
    }
    let path = folder.join("program.kiln");
    save(&path, &image::link(workload, &artifacts, setup)?)?;
    if wanted('H') {
        report.add(locate::compare(workload, setup, &artifacts, &path)?);
    }
    if wanted('B') {
        report.add(image::compare(workload, setup, &artifacts, &path)?);
    }
    if wanted('O') {
        report.add(emit::compare(workload, setup, &artifacts, folder)?);
    }
    if wanted('P') {
        report.add(order::compare(workload, setup, &artifacts, folder)?);
    }
    if wanted('M') {
        report.add(levels::compare(workload, setup)?);
    }
    if wanted('C') {
        report.add(open::compare(workload, setup, &path)?);
    }
    if wanted('D') {
        report.add(parse::compare(workload, setup)?);
    }
    if wanted('E') {
        report.add(forms::compare(workload, setup)?);
    }
    if wanted('F') {
        report.add(incremental::compare(workload, setup, &artifacts)?);
    }
    if wanted('J') {
        report.add(inlined::compiling(workload, setup)?);
    }
    Ok(())
}

/// Makes those that have workloads of their own.
fn compare_others(
    args: &PeersArgs,
    setup: &Setup,
    folder: &Path,
    wanted: &dyn Fn(char) -> bool,
    report: &mut Report,
) -> Result<(), Failure> {
    if wanted('C') {
        report.add(open::slots(setup, folder)?);
        open_sizes::compare(setup, folder)?.into_iter().for_each(|comparison| report.add(comparison));
    }
    if wanted('I') {
        globals::compare(setup, folder)?.into_iter().for_each(|comparison| report.add(comparison));
    }
    if wanted('J') {
        report.add(inlined::compare(setup)?);
    }
    if wanted('H') {
        report.add(locate::long(setup)?);
    }
    if wanted('L') {
        report.add(thread_local::compare(setup, folder)?);
    }
    if wanted('M') {
        report.add(levels::vectors(setup)?);
    }
    if wanted('S') {
        report.add(snapshots::compare(setup, folder)?);
    }
    if wanted('Y') {
        report.add(layers::compare(setup, folder)?);
    }
    if wanted('T') {
        report.add(traps::compare(setup, folder)?);
    }
    if wanted('V') {
        verify::compare(setup, folder)?.into_iter().for_each(|comparison| report.add(comparison));
    }
    if wanted('N') {
        report.add(scale::compare(setup, args.scale as usize)?);
    }
    Ok(())
}
