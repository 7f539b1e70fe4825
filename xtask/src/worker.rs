//! `worker`: makes the program that the machines of a farm run.

use std::path::{Path, PathBuf};

use crate::develop::{cargo, execute, root};
use crate::output::{Failure, Outcome, bytes};

/// Make the program that the machines of a farm run, for `build --farm`.
///
/// It is linked statically, because a farm runs it where there is nothing else. It belongs to one
/// version of Kiln: a farm with that of another version compiles nothing.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask worker -o kiln-worker
  cargo xtask worker --target aarch64-unknown-linux-gnu -o kiln-worker")]
pub(crate) struct WorkerArgs {
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "kiln-worker")]
    output: PathBuf,
    /// The target of rustc for the machines, whose standard library and linker are installed
    #[arg(long, value_name = "TRIPLE", default_value_t = default_target())]
    target: String,
}

/// The target of this machine.
pub(crate) fn default_target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Makes the worker for a target, and returns its file.
pub(crate) fn make(target: &str) -> Result<PathBuf, Failure> {
    let select = ["--package", "kiln-worker", "--bin", "kiln-worker", "--target", target];
    // Symbols would be five times as long as the code.
    let args = [&["rustc", "--quiet", "--release"], &select[..], &["--", "-C", "strip=symbols"]].concat();
    let mut command = cargo(&args);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    execute(&mut command)?;
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(folder.join(target).join("release/kiln-worker"))
}

pub(crate) fn main(args: &WorkerArgs) -> Outcome {
    let made = make(&args.target)?;
    let cannot = |path: &Path, error| Failure::while_doing(format!("cannot copy {}", path.display()), error);
    let len = std::fs::copy(&made, &args.output).map_err(|error| cannot(&args.output, error))?;
    println!("{}: {}", args.output.display(), bytes(len));
    Ok(())
}
