//! The command `kiln-worker SHARD RESULTS`: reads a shard, compiles its modules, writes the
//! results.
//!
//! The results are written completely or not at all. Exit code 0 means that they are there, 1 that
//! the shard cannot be read or the results cannot be written, 2 that the arguments are wrong.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "Compile a shard of modules: the command that a farm runs for `build --farm`.

Usage: kiln-worker SHARD RESULTS

  SHARD    the file with the modules
  RESULTS  the file to write: an artifact, or an error, for each module
";

fn main() -> ExitCode {
    kiln_backend::silence_code_generator();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match &args[..] {
        [one] if one == "--help" || one == "-h" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        [one] if one == "--version" => {
            println!("kiln-worker {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        [shard, results] => match work(Path::new(shard), Path::new(results)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}

fn work(shard: &Path, results: &Path) -> Result<(), String> {
    let bytes = std::fs::read(shard).map_err(|error| format!("cannot read {}: {error}", shard.display()))?;
    let bytes =
        kiln_worker::compile_shard(&bytes).map_err(|error| format!("{}: {error}", shard.display()))?;
    let mut part: PathBuf = results.into();
    part.as_mut_os_string().push(".part");
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, results));
    written.map_err(|error| format!("cannot write {}: {error}", results.display()))
}
