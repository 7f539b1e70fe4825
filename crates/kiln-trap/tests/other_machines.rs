//! On machines without support the crate can be built and says that it refuses: a program for
//! aarch64 runs in an emulator.
//!
//! The test is reported as ignored where something for that is missing, in CI too: the standard
//! library for another machine is not part of every installation of Rust.

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";

const PROGRAM: &str = r#"
use kiln_trap::{Backtrace, CodeTable, Exception, call, register, roots, throw};

extern "C" fn never() {
    println!("called");
}

fn main() {
    kiln_trap::install();
    let table = CodeTable::new(Vec::new());
    println!("{}", kiln_trap::SUPPORTED);
    // SAFETY: the table lives, and nothing runs there.
    println!("{}", unsafe { register(16..32, &raw const table) }.unwrap_err());
    // SAFETY: a function of this type.
    println!("{}", unsafe { call(never as extern "C" fn(), ()) }.unwrap_err());
    // SAFETY: there is no handler.
    println!("{}", unsafe { throw(Exception { tag: 1, payload: [0; 2] }) });
    println!("{}", Backtrace::capture().frames().len() > 1);
    let mut count = 0;
    println!("{:?} {count}", roots(&mut |_| count += 1).is_ok());
}
"#;

const EXPECTED: &str = "false
kiln-trap has no entry thunk for aarch64, only for x86_64
kiln-trap has no entry thunk for aarch64, only for x86_64
no frame has a handler for the exception
true
true 0
";

/// Returns what is missing.
fn missing() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&&str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    if let Some(tool) = [&LINKER, &EMULATOR].iter().find(|tool| !is_there(tool)) {
        return Some(tool);
    }
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    (!root.join("lib/rustlib").join(TARGET).is_dir()).then_some("the standard library for aarch64")
}

fn refused() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir(folder.path().join("src"))?;
    std::fs::write(folder.path().join("src/main.rs"), PROGRAM)?;
    std::fs::copy(own.join("../../Cargo.lock"), folder.path().join("Cargo.lock"))?;
    let manifest = format!(
        "[package]\nname = \"program\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nkiln-trap = {{ path = {own:?} }}\n"
    );
    std::fs::write(folder.path().join("Cargo.toml"), manifest)?;
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--offline", "--quiet", "--target", TARGET]).current_dir(&folder);
    build.env("CARGO_TARGET_DIR", folder.path().join("target"));
    let output = build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let program = folder.path().join("target").join(TARGET).join("debug/program");
    let output = Command::new(EMULATOR).args(["-L", "/usr/aarch64-linux-gnu"]).arg(program).output()?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match said == EXPECTED && output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: it said\n{said}{errors}", output.status).into()),
    }
}

fn main() {
    let trial = match missing() {
        None => Trial::test("aarch64_is_refused_by_name", refused),
        Some(missing) => {
            let needs = format!("needs {missing}");
            let kind = needs.clone();
            Trial::test("aarch64_is_refused_by_name", move || Err(needs.into()))
                .with_kind(kind)
                .with_ignored_flag(true)
        }
    };
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}
