//! `--counts`: how many instructions each phase takes, compared with `benches/counts.json`.
//!
//! Instruction counts do not depend on the load of a machine, so unlike times they can fail a
//! build. callgrind counts them, while a child process does a phase once, on one thread. The
//! numbers still depend on the processor: hash functions, `memchr` and the C library choose their
//! code by its features. So the baseline has a table for each [`processor`].

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use clap::ValueEnum as _;
use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::cache::MemoryStore;
use kiln::ir::{Module, Modules, parse};
use rayon::ThreadPool;
use serde_json::json;

use crate::image;
use crate::setup::{Failure, Setup, pool};
use crate::workload::Workload;

/// The functions of the workload: few, because callgrind takes fifty times as long.
const FUNCTIONS: u32 = 120;

/// How much more a phase may take than the baseline, in per cent. The seeds of hash tables differ
/// from run to run, which is a tenth of that.
const TOLERANCE: f64 = 3.0;

/// A phase of a build. Loading is none of them: it is a few system calls, and the crate that makes
/// them does not find its way below valgrind.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Phase {
    ReadText,
    ReadBinary,
    Compile,
    BuildFromCache,
    LinkImage,
}

/// Calls `work`, whose instructions are the ones that are counted.
#[inline(never)]
fn counted(work: &mut dyn FnMut() -> Result<usize, Failure>) -> Result<usize, Failure> {
    work()
}

/// Does a phase once, under callgrind, on the thread of a pool. Prints the processor.
pub(crate) fn child(phase: Phase) -> Result<(), Failure> {
    let one: Arc<ThreadPool> = Arc::new(pool(1)?);
    let setup = Setup { rounds: 1, threads: 1, pool: one.clone() };
    let done = one.install(|| {
        let workload = Workload::generated(FUNCTIONS)?;
        let compiler = Compiler::new(workload.target.clone()).pool(one.clone());
        let compile = |compiler: &Compiler| -> Result<Vec<Artifact>, Failure> {
            Ok(compiler.compile(&workload.modules)?.artifacts)
        };
        let functions = |artifacts: &[Artifact]| artifacts.iter().map(|made| made.functions().len()).sum();
        let count = match phase {
            Phase::ReadText => counted(&mut || {
                let read =
                    |source| parse(source, &workload.target).map_or(0, |module| module.functions.len());
                Ok(workload.sources.iter().cloned().map(read).sum())
            })?,
            Phase::ReadBinary => {
                let bytes: Vec<u8> = workload.modules.iter().flat_map(Module::to_bytes).collect();
                counted(&mut || {
                    let read = Modules::new(&bytes[..]).map(|module| Ok(module?.module().functions.len()));
                    read.sum()
                })?
            }
            Phase::Compile => counted(&mut || Ok(functions(&compile(&compiler)?)))?,
            Phase::BuildFromCache => {
                let cached = compiler.clone().store(Arc::new(MemoryStore::new()));
                compile(&cached)?;
                counted(&mut || Ok(functions(&compile(&cached)?)))?
            }
            Phase::LinkImage => {
                let artifacts = compile(&compiler)?;
                let mut linked = Vec::new();
                counted(&mut || {
                    linked = image::link(&workload, &artifacts, &setup)?;
                    Ok(functions(&artifacts))
                })?;
                if linked.is_empty() {
                    return Err("the image is empty".into());
                }
                functions(&artifacts)
            }
        };
        Ok::<usize, Failure>(count)
    })?;
    if done != FUNCTIONS as usize {
        return Err(format!("{done} functions instead of {FUNCTIONS}").into());
    }
    println!("{}", processor());
    Ok(())
}

/// Names what the counts depend on, as callgrind's processor is.
fn processor() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    return match () {
        () if std::is_x86_feature_detected!("avx2") => "x86-64 with AVX2",
        () if std::is_x86_feature_detected!("avx") => "x86-64 with AVX",
        () => "x86-64",
    };
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH
}

/// Counts, and compares with the baseline or, with `bless`, writes it. Returns whether no phase
/// takes too many instructions.
pub(crate) fn run(bless: bool) -> Result<bool, Failure> {
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        if std::env::var_os("CI").is_some() {
            return Err(format!("valgrind, which counts instructions, cannot be started: {error}").into());
        }
        println!("skipped: valgrind, which counts instructions, cannot be started ({error})");
        return Ok(true);
    }
    let (processor, counts) = count()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/counts.json");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|_| "{}".into());
    let mut baseline: BTreeMap<String, BTreeMap<String, u64>> =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    if bless {
        baseline.insert(processor, counts.into_iter().collect());
        std::fs::write(&file, format!("{}\n", serde_json::to_string_pretty(&json!(baseline))?))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        println!("{} has new counts", file.display());
        return Ok(true);
    }
    let Some(known) = baseline.get(&processor) else {
        for (phase, count) in counts {
            println!("  {phase:18} {count:>12}");
        }
        println!(
            "skipped: {} has no counts for {processor}; `cargo xtask bench --counts --bless` adds them",
            file.display()
        );
        return Ok(true);
    };
    println!("instructions of {FUNCTIONS} functions on one thread, {processor}");
    let (mut fine, mut fewer) = (true, false);
    for (phase, count) in counts {
        let Some(&before) = known.get(&phase) else {
            println!("  {phase:18} {count:>12}  NOT in the baseline");
            fine = false;
            continue;
        };
        let more = 100.0 * (count as f64 / before as f64 - 1.0);
        let verdict = if more > TOLERANCE { "TOO MANY" } else { "" };
        println!("  {phase:18} {count:>12}  {before:>12}  {more:>+6.2} %  {verdict}");
        fine &= more <= TOLERANCE;
        fewer |= more < -TOLERANCE;
    }
    let advice = "`cargo xtask bench --counts --bless` writes the baseline again";
    if !fine {
        println!(
            "a phase takes over {TOLERANCE} % more instructions than in {}. If that is the price of something, {advice}: say in the commit what it is",
            file.display()
        );
    } else if fewer {
        println!("a phase takes fewer instructions, which the baseline should keep: {advice}");
    }
    Ok(fine)
}

/// The processor, and the instructions of every phase by its name.
type Counts = (String, Vec<(String, u64)>);

/// Runs a child for every phase under callgrind.
fn count() -> Result<Counts, Failure> {
    let folder = tempfile::tempdir()?;
    let (mut processor, mut counts) = (String::new(), Vec::new());
    for phase in Phase::value_variants() {
        let name = phase.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let file = folder.path().join(&name);
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
        command.arg(format!("--toggle-collect={}::counted", module_path!()));
        command.arg(format!("--callgrind-out-file={}", file.display())).arg(std::env::current_exe()?);
        let output = command.args(["--counts-child", &name]).output()?;
        if !output.status.success() {
            return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let text = std::fs::read_to_string(&file)?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
        let total = total.filter(|total| *total > 0).ok_or_else(|| format!("{name} was not counted"))?;
        processor = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        counts.push((name, total));
    }
    Ok((processor, counts))
}
