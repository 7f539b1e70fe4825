//! `bench`: measures Kiln and its peers side by side.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::develop::{cargo, execute};
use crate::output::{Failure, Outcome};
use crate::page::page;

/// The page of a run without its data.
const PAGE: &str = include_str!("bench/page.html");

/// Measure Kiln and its peers in one run.
///
/// The workloads are a generated program and, if one is given, a folder of `.clif` files.
/// Compilation is compared with raw Cranelift in a rayon loop and in a serial loop, and with
/// cranelift-jit; writing an image with cranelift-object followed by every linker that is
/// installed; opening an image with `dlopen`; reading text with cranelift-reader; canonical form,
/// fingerprint and binary form with compilation and text; building again with a cache with building
/// everything; sessions that get one small function at a time with cranelift-jit; and compiling and
/// linking up to a million functions with ten thousand.
///
/// Times depend on the machine and its load. Instruction counts do not, so that they can fail a
/// build: `--counts` compares them with those in benches/counts.json.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench
  cargo xtask bench --corpus path/to/clif --threads 2 --json bench.json
  cargo xtask bench --html bench.html
  cargo xtask bench --from bench.json --html bench.html
  cargo xtask bench --only N --scale 1000000
  cargo xtask bench --counts
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
    /// build again, G sessions, H code tables, L thread-local data, M levels of the processor, N
    /// numbers of functions, O objects, P order of functions, S saved heaps, T traps, V signed
    /// images, Y layers [default: all]
    #[arg(long, value_name = "LETTERS")]
    only: Option<String>,
    /// The largest number of functions of comparison N; each smaller one is a tenth, down to 10,000
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    scale: u32,
    /// Write the results to this file
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
    /// Write the results to this file, as a page with plots
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Measure nothing: make the page of the results in this file, which `--json` has written
    #[arg(long, value_name = "FILE.json", requires = "html", conflicts_with_all = ["json", "slice", "only"])]
    from: Option<PathBuf>,
    /// Count the instructions of every phase with callgrind, and compare them with
    /// benches/counts.json
    #[arg(long, conflicts_with_all = ["json", "html", "slice", "only", "corpus"])]
    counts: bool,
    /// Write the counts to benches/counts.json
    #[arg(long, requires = "counts")]
    bless: bool,
    /// Run a small fixed part, to see that everything works
    #[arg(long, conflicts_with_all = ["functions", "rounds", "adds", "scale", "corpus"])]
    slice: bool,
}

pub(crate) fn main(args: &BenchArgs) -> Outcome {
    let here = std::env::current_dir().unwrap_or_default();
    if let (Some(results), Some(html)) = (&args.from, &args.html) {
        return write_page(results, html);
    }
    let mut command = cargo(&["bench", "--bench", "peers", "--"]);
    if args.counts {
        command.arg("--counts").args(args.bless.then_some("--bless"));
        return execute(&mut command);
    }
    let (functions, rounds, adds, scale) = match args.slice {
        true => (200, 3, 2000, 2000),
        false => (args.functions, args.rounds, args.adds, args.scale),
    };
    command.args([
        format!("--functions={functions}"),
        format!("--rounds={rounds}"),
        format!("--adds={adds}"),
        format!("--scale={scale}"),
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
    let folder = tempfile::tempdir().map_err(Failure::of)?;
    let results = args.json.as_ref().map_or_else(|| folder.path().join("bench.json"), |json| here.join(json));
    command.arg("--json").arg(&results);
    execute(&mut command)?;
    args.html.as_ref().map_or(Ok(()), |html| write_page(&results, html))
}

/// Makes a page of results in JSON.
fn write_page(results: &Path, html: &Path) -> Outcome {
    let reading = || format!("cannot read {}", results.display());
    let text = std::fs::read(results).map_err(|error| Failure::while_doing(reading(), error))?;
    let data: Value =
        serde_json::from_slice(&text).map_err(|error| Failure::while_doing(reading(), error))?;
    if !data["sections"].is_array() {
        return Err(Failure::new(format!("{} has no results of `bench --json`", results.display())));
    }
    kiln::image::save(html, page(PAGE, &data).as_bytes())
        .map_err(|error| Failure::while_doing(format!("cannot write {}", html.display()), error))
}
