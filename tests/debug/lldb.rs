//! Scripted sessions of lldb: lines, backtraces and variables, as gdb shows them. lldb is large, so
//! these tests are ignored where it is not installed, in CI too.

use std::path::Path;

use kiln::image::{DebugInfo, save};
use libtest_mimic::Failed;

use crate::gdb::{contains_in_order, host};
use crate::program::{PROGRAM, linked, program, with_debug};
use crate::tools::run;
use crate::{image, memory};

/// Runs a program in lldb, with a breakpoint at line 14 of the text and one in the host.
fn session(folder: &Path, host: &str, program: &str, arguments: &[&str]) -> Result<String, Failed> {
    let at_host = format!("breakpoint set -n {host}");
    let commands = [
        "settings set plugin.jit-loader.gdb.enable on",
        "breakpoint set -f program.clif -l 14",
        &at_host,
        "run",
        "bt",
        "frame variable",
        "continue",
        "bt",
        "continue",
    ];
    let mut all = vec!["--no-lldbinit", "--batch"];
    commands.iter().for_each(|command| all.extend(["-o", command]));
    all.extend(["--", program]);
    all.extend(arguments);
    run("lldb", &all, folder)
}

/// Fails unless lldb shows the program, which `caller` calls.
fn check(text: &str, host: &str, caller: &str) {
    let at_host = format!("{host}(number=12)");
    let parts = [
        "stop reason = breakpoint",
        "`work(v0=3, v1=2.5) at program.clif:14",
        caller,
        "v2 = 9",
        &at_host,
        "`work(",
        "at program.clif:16",
        caller,
        "exited with status = 0",
    ];
    // Names of Rust functions have a hash.
    contains_in_order(&without_hashes(text), &parts);
}

/// Takes `::h` and 16 digits out of a text.
fn without_hashes(text: &str) -> String {
    let mut parts = text.split("::h");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..16).filter(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            Some(_) => result += &part[16..],
            None => {
                result += "::h";
                result += part;
            }
        }
    }
    result
}

fn in_own_program(arguments: &[&str], folder: &Path) -> Result<(), Failed> {
    let own = std::env::current_exe()?;
    let folder_name = folder.to_string_lossy();
    let arguments: Vec<_> = arguments.iter().copied().chain([&*folder_name]).collect();
    let text = session(folder, "debug::memory::host", &own.to_string_lossy(), &arguments)?;
    check(&text, "debug::memory::host", "debug::memory::call(");
    Ok(())
}

pub(crate) fn memory() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("program.clif"), PROGRAM)?;
    in_own_program(&[memory::SESSIONS[0]], folder.path())
}

pub(crate) fn loaded_image() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    std::fs::write(folder.join("program.clif"), PROGRAM)?;
    save(folder.join("program.so"), &linked(&program(folder)?, &with_debug(DebugInfo::InImage))?.image)?;
    in_own_program(&[image::IMAGES[0]], folder)
}

pub(crate) fn dlopened() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    host(folder)?;
    std::fs::write(folder.join("program.clif"), PROGRAM)?;
    save(folder.join("program.so"), &linked(&program(folder)?, &with_debug(DebugInfo::InImage))?.image)?;
    let text = session(folder, "host", "./host", &["./program.so"])?;
    check(&text, "host", "main");
    Ok(())
}
