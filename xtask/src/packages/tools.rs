//! Checks that programs of others do. `.ci/run` names their versions.

use std::process::Command;

use super::published::{Done, PUBLISHED, run_cargo};
use crate::develop::{cargo, root};
use crate::output::Failure;

/// Whether cargo has the subcommand `name`.
fn has(name: &str) -> bool {
    cargo(&[name, "--version"]).output().is_ok_and(|output| output.status.success())
}

/// Runs a subcommand of cargo that is not a part of it.
fn run(name: &str, args: &[&str]) -> Result<Done, Failure> {
    if !has(name) {
        let advice = format!("cargo-{name} is not installed: cargo install --locked cargo-{name}");
        return Ok(Done::Skipped(advice));
    }
    run_cargo(&[&[name], args].concat())?;
    Ok(Done::Passed)
}

/// Finds dependencies that no source file names.
pub(super) fn unused() -> Result<Done, Failure> {
    run("machete", &["--skip-target-dir", "."])
}

/// Options of cargo-deny: all crates that any feature needs.
const ALL: [&str; 2] = ["--workspace", "--all-features"];

/// Compares dependencies with deny.toml, without advisories.
pub(super) fn deny() -> Result<Done, Failure> {
    run("deny", &[&["--offline"], &ALL[..], &["check", "bans", "licenses", "sources"]].concat())
}

/// Looks dependencies up in the database of RustSec. It is a repository of git on a server that a
/// build may not reach; then a copy from an earlier time is used, if there is one.
pub(super) fn advisories() -> Result<Done, Failure> {
    const NONE: &str = "advisory database";
    let check = |options: &[&str]| -> Result<String, Failure> {
        let mut command = cargo(&["deny"]);
        let output = command.args(options).args(ALL).args(["check", "advisories"]).output();
        let output = output.map_err(Failure::of)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(String::new()),
            false if text.contains(NONE) && !text.contains("advisories FAILED") => Ok(text),
            false => Err(Failure::new(text)),
        }
    };
    if !has("deny") {
        return run("deny", &[]);
    }
    if check(&[])?.is_empty() {
        return Ok(Done::Passed);
    }
    println!("advisories: the database cannot be fetched, so a copy of it is used, if there is one");
    match check(&["--offline"])? {
        none if none.is_empty() => Ok(Done::Passed),
        reason => Ok(Done::Skipped(reason.lines().next().unwrap_or_default().to_owned())),
    }
}

/// Compares public items with those of the last release.
pub(super) fn semver() -> Result<Done, Failure> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["describe", "--tags", "--abbrev=0", "--match", "v*"]);
    let last = git.output().map_err(Failure::of)?;
    if !last.status.success() {
        return Ok(Done::Skipped("there is no release to compare with: no tag `v..`".to_owned()));
    }
    let release = String::from_utf8_lossy(&last.stdout).trim().to_owned();
    let packages = PUBLISHED.iter().flat_map(|name| ["--package", name]);
    let args: Vec<&str> = ["--baseline-rev", &release].into_iter().chain(packages).collect();
    run("semver-checks", &args)
}
