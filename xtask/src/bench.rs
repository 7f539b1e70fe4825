//! `bench`: measures Kiln and its peers side by side.

use std::path::PathBuf;

use crate::develop::{cargo, execute};
use crate::output::Outcome;

/// Measure Kiln and its peers in one run.
///
/// The workloads are a generated program and, if one is given, a folder of `.clif` files.
/// Compilation is compared with raw Cranelift in a rayon loop and in a serial loop, and with
/// cranelift-jit; writing an image with cranelift-object followed by every linker that is
/// installed; opening an image with `dlopen`; reading text with cranelift-reader; canonical form,
/// fingerprint and binary form with compilation and text; building again with a cache with building
/// everything; sessions that get one small function at a time with cranelift-jit.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench
  cargo xtask bench --corpus path/to/clif --threads 2 --json bench.json
  cargo xtask bench --slice")]
pub(crate) struct BenchArgs {
    /// Also measure on the modules in this folder
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Functions of the generated workload
    #[arg(long, default_value_t = 2000, value_name = "N")]
    functions: u32,
    /// Rounds of measurements, whose medians are shown
    #[arg(long, default_value_t = 7, value_name = "N")]
    rounds: u32,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<u16>,
    /// Functions that comparison G adds to a session one by one; its other sizes are in proportion
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    adds: u32,
    /// Only these comparisons: A compile, B write an image, C open it, D read text, E forms, F
    /// build again, G sessions, H code tables, L thread-local data, M levels of the processor, O
    /// objects, P order of functions, T traps, V signed images [default: all]
    #[arg(long, value_name = "LETTERS")]
    only: Option<String>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
    /// Run a small fixed part, to see that everything works
    #[arg(long, conflicts_with_all = ["functions", "rounds", "adds", "corpus"])]
    slice: bool,
}

pub(crate) fn main(args: &BenchArgs) -> Outcome {
    let mut command = cargo(&["bench", "--bench", "peers", "--"]);
    let here = std::env::current_dir().unwrap_or_default();
    let (functions, rounds, adds) =
        if args.slice { (200, 3, 2000) } else { (args.functions, args.rounds, args.adds) };
    command.args([
        format!("--functions={functions}"),
        format!("--rounds={rounds}"),
        format!("--adds={adds}"),
    ]);
    if let Some(corpus) = &args.corpus {
        command.arg("--corpus").arg(here.join(corpus));
    }
    if let Some(threads) = args.threads {
        command.arg(format!("--threads={threads}"));
    }
    if let Some(only) = &args.only {
        command.arg(format!("--only={only}"));
    }
    if let Some(json) = &args.json {
        command.arg("--json").arg(here.join(json));
    }
    execute(&mut command)
}
