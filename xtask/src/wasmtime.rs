//! `wasmtime`: builds and tests the example that gives Wasmtime a cache of Kiln's.
//!
//! It is not a part of `ci`: compiling Wasmtime takes minutes, and nothing else of the workspace
//! uses it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::develop::{cargo, execute, root};
use crate::output::Outcome;

/// The npm package that has SQLite for WebAssembly, and the file in it.
const PACKAGE: &str = "sql.js@1.16.0";
const ARCHIVE: &str = "sql.js-1.16.0.tgz";
const MODULE: &str = "package/dist/sql-wasm.wasm";

/// Build and test examples/wasmtime: Wasmtime with a cache of Kiln's.
///
/// The first time, this compiles Wasmtime, which takes minutes. Two processes compile SQLite for
/// WebAssembly, which npm gets (package sql.js), or the module that is named. The times of both are
/// printed. Without npm, they compile a generated module.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask wasmtime
  cargo xtask wasmtime --module program.wasm")]
pub(crate) struct WasmtimeArgs {
    /// Compile this module of WebAssembly
    #[arg(long, value_name = "FILE.wasm")]
    module: Option<PathBuf>,
}

/// Gets the module out of the npm package, unless it is there.
fn fetch() -> Option<PathBuf> {
    let folder = root().join("target/wasmtime/module");
    let module = folder.join(MODULE);
    if module.is_file() {
        return Some(module);
    }
    std::fs::create_dir_all(&folder).ok()?;
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let status = command.args(args).current_dir(&folder).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let done = run("npm", &["pack", "--silent", PACKAGE]) && run("tar", &["-xzf", ARCHIVE, MODULE]);
    done.then_some(module)
}

pub(crate) fn main(args: &WasmtimeArgs) -> Outcome {
    let here = std::env::current_dir().unwrap_or_default();
    let module = args.module.as_ref().map(|module| here.join(module)).or_else(fetch);
    let mut command = cargo(&["test", "--manifest-path", "examples/wasmtime/Cargo.toml"]);
    command.args(["--target-dir", "target/wasmtime", "--", "--nocapture"]);
    match module {
        Some(module) => {
            command.env("KILN_WASM_MODULE", module);
        }
        None => eprintln!("warning: cannot get {PACKAGE} with npm: a generated module is compiled"),
    }
    execute(&mut command)
}
