//! The commands for servers, in a program that was built without their clients.

use std::path::Path;

use kiln::cache::DiskStore;

use crate::command_line::program;
use crate::output::{Failure, Format, Outcome};

/// Returns the failure that says how to build the program with them.
pub(crate) fn without_servers() -> Failure {
    let advice = match program() {
        "kiln" => "install it with `cargo install --path xtask --features remote`",
        _ => "use `cargo xtask-remote`",
    };
    Failure::new(format!("this program was built without clients of servers: {advice}"))
}

pub(super) fn stat(_: &str, _: Format) -> Outcome {
    Err(without_servers())
}

pub(super) fn push_folder(_: &DiskStore, _: &str, _: Option<&Path>, _: Format) -> Outcome {
    Err(without_servers())
}

pub(super) fn pull_list(_: &Path, _: &str, _: &Path, _: Format) -> Outcome {
    Err(without_servers())
}
