//! Checks that programs of others do. `.ci/run` names their versions.

use super::published::{Done, run_cargo};
use crate::develop::cargo;
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

/// Compares dependencies with deny.toml, without advisories: their database is a repository of git
/// on a server that a build may not reach.
pub(super) fn deny() -> Result<Done, Failure> {
    run("deny", &["--offline", "--workspace", "--all-features", "check", "bans", "licenses", "sources"])
}
