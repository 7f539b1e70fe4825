//! The crates that are published, and what the checks of them share.

use std::path::PathBuf;

use crate::develop::{cargo, execute, root};
use crate::output::Outcome;

/// The folder of everything that these checks make.
pub(super) fn folder() -> PathBuf {
    root().join("target/packages")
}

/// The crates that are published, in an order in which each comes after those that it needs.
pub(super) const PUBLISHED: [&str; 15] = [
    "kiln-globals",
    "kiln-keys",
    "kiln-artifact",
    "kiln-debug",
    "kiln-trap",
    "kiln-ir",
    "kiln-backend",
    "kiln-cache",
    "kiln-farm",
    "kiln-worker",
    "kiln-heap",
    "kiln-image",
    "kiln-jit",
    "kiln",
    "kiln-remote",
];

/// The way in which a check ended that did not fail.
pub(super) enum Done {
    Passed,
    /// Nothing was checked, for this reason.
    Skipped(String),
}

/// Runs cargo in the workspace, and fails if it does.
pub(super) fn run_cargo(args: &[&str]) -> Outcome {
    execute(&mut cargo(args))
}
