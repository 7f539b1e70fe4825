//! `test` and `ci`: the commands of developers and of CI.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::output::{Failure, Outcome, time};

/// Run all tests: unit, integration, property, file and documentation tests.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test
  cargo xtask test -p kiln-image
  cargo xtask test --bless")]
pub(crate) struct TestArgs {
    /// Accept the current output of the tests as the expected output
    #[arg(long)]
    bless: bool,
    /// Run only the tests of this crate
    #[arg(short, long, value_name = "CRATE")]
    package: Option<String>,
}

/// Run all checks of CI, those that fail soonest first.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask ci")]
pub(crate) struct CiArgs {}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// A cargo command in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Returns what cargo says about the workspace and its dependencies.
pub(crate) fn metadata(args: &[&str]) -> Result<serde_json::Value, Failure> {
    let mut command = cargo(&["metadata", "--format-version=1", "--locked"]);
    let output = command.args(args).output().map_err(Failure::of)?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(Failure::of)
}

/// Runs a command that reports its own failure.
pub(crate) fn execute(command: &mut Command) -> Outcome {
    let status =
        command.status().map_err(|error| Failure::while_doing(format!("cannot start {command:?}"), error))?;
    if status.success() { Ok(()) } else { Err(Failure::Reported) }
}

pub(crate) fn test(args: &TestArgs) -> Outcome {
    let mut command = cargo(&["test"]);
    match &args.package {
        Some(package) => command.args(["--package", package]),
        None => command.args(["--workspace", "--no-fail-fast"]),
    };
    if args.bless {
        command.env("UPDATE_EXPECT", "1");
    }
    execute(&mut command)
}

/// The features of tests that need clients of servers, and servers.
const TEST_FEATURES: &str = "xtask/remote,kiln-remote/test-servers";

pub(crate) fn ci(_: &CiArgs) -> Outcome {
    let program = std::env::current_exe().map_err(Failure::of)?;
    let files = root().join("tests/clif");
    let examples = root().join("examples/clif");
    // They need a host that throws, so they are not among the files that other hosts run.
    let throw = root().join("tests/throw");
    let own = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(root()).args(args);
        command
    };
    let run = |args: &[&str]| {
        let mut command = own(&["run"]);
        command.arg(&files).arg(&examples).arg(&throw).args(args);
        command
    };
    let mut steps: Vec<(&str, Command)> = vec![
        ("lint", own(&["lint"])),
        (
            "tests and doctests",
            cargo(&["test", "--workspace", "--no-fail-fast", "--features", TEST_FEATURES]),
        ),
        ("packages", own(&["packages"])),
        ("run in memory", run(&[])),
        ("run from an image", run(&["--via", "image"])),
        ("run as an image in memory", run(&["--image-codegen"])),
        ("run interpreted", run(&["--via", "interpreter"])),
        ("run split", run(&["--split-modules"])),
        ("run inlined", run(&["--inline=100"])),
        ("run split and inlined from an image", run(&["--inline=100", "--split-modules", "--via", "image"])),
        ("run direct", run(&["--globals", "direct", "--split-modules"])),
        ("run direct from an image", run(&["--globals", "direct", "--split-modules", "--via", "image"])),
        // The fuzz targets are a workspace of their own, which shares the target folder.
        ("fuzz targets", cargo(&["check", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"])),
        // Everything else is compiled with all features.
        (
            "loading alone",
            cargo(&[
                "check",
                "-p",
                "kiln-image",
                "--no-default-features",
                "--features",
                "load",
                "--example",
                "hosts",
            ]),
        ),
        ("example", cargo(&["run", "--quiet", "--release", "--example", "expressions"])),
        ("bench, a small slice", own(&["bench", "--slice"])),
        ("instruction counts", own(&["bench", "--counts"])),
    ];
    let mut failed = Vec::new();
    let mut lines = Vec::new();
    for (name, command) in &mut steps {
        println!("== {name}");
        let start = Instant::now();
        let outcome = execute(command);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        lines.push(format!("{word:>6}  {:>9}  {name}", time(start.elapsed())));
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    println!("== ci");
    lines.iter().for_each(|line| println!("{line}"));
    println!("{} passed, {} failed", lines.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("failed: {}", failed.join(", ")))) }
}
