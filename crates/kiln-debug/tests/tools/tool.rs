//! Runs programs of a test in tools, and reads what the tools print.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Failed, Trial};

/// A test: its name, the tool that it needs, and what it does.
pub(crate) type Test = (&'static str, Option<&'static str>, fn() -> Result<(), Failed>);

/// Returns the name of the program that this process is to be, instead of the tests.
pub(crate) fn wanted_program() -> Option<String> {
    std::env::args().nth(1)?.strip_prefix("program:").map(String::from)
}

/// Runs the tests that the command line wants. A test whose tool is missing is ignored; with `CI`
/// it fails, unless the tool is a folder from elsewhere, which nobody promises to CI.
pub(crate) fn run(tests: &[Test]) {
    let in_ci = std::env::var_os("CI").is_some();
    let trials = tests.iter().map(|&(name, tool, test)| match tool.filter(|tool| !is_installed(tool)) {
        None => Trial::test(name, test),
        Some(tool) => {
            let needs = format!("needs {tool}");
            let may_be_ignored = !in_ci || tool.starts_with('$');
            Trial::test(name, move || Err(needs.into())).with_kind(tool).with_ignored_flag(may_be_ignored)
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn is_installed(tool: &str) -> bool {
    // A folder that an environment variable names.
    if let Some(variable) = tool.strip_prefix('$') {
        return std::env::var_os(variable).is_some_and(|folder| Path::new(&folder).is_dir());
    }
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Returns this program.
pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().expect("a program knows its file")
}

/// Returns a command that runs one of our programs.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Command {
    in_tool("env", &[], name, arguments)
}

/// Returns a command that runs one of our programs in a tool, and ends it after five minutes: a
/// loaded machine runs valgrind slowly.
pub(crate) fn in_tool(tool: &str, options: &[&str], name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["300", tool])
        .args(options)
        .arg(this_program())
        .arg(format!("program:{name}"))
        .args(arguments);
    command
}

/// Runs a command in a folder, and returns what it printed. It must succeed.
pub(crate) fn output(command: &mut Command, folder: Option<&Path>) -> Result<String, Failed> {
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let Output { status, stdout, stderr } = command.output()?;
    let text = format!("{}\n{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() { Ok(text) } else { Err(format!("{command:?}: {status}\n{text}").into()) }
}

/// Fails unless `text` contains all `parts`, in this order.
pub(crate) fn expect_in_order(text: &str, parts: &[&str]) -> Result<(), Failed> {
    let mut rest = text;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return Err(format!("no {part:?} where it should be in:\n{text}").into());
        };
        rest = after;
    }
    Ok(())
}
/// Runs a program in gdb with these commands, and returns what gdb prints.
pub(crate) fn gdb(commands: &[&str], name: &str, arguments: &[&str]) -> Result<String, Failed> {
    let mut options = vec!["-q", "-batch", "-nx"];
    let before = ["set debuginfod enabled off", "set breakpoint pending on", "set width 0"];
    for command in before.into_iter().chain(commands.iter().copied()) {
        options.extend(["-ex", command]);
    }
    options.push("--args");
    output(&mut in_tool("gdb", &options, name, arguments), None)
}

/// Fails if gdb lists a function after `mark`.
pub(crate) fn is_unknown(text: &str, mark: &str, function: &str) -> Result<(), Failed> {
    let (_, after) = text.split_once(mark).unwrap_or_default();
    if after.contains(function) {
        return Err(format!("{function} is known after its removal:\n{text}").into());
    }
    Ok(())
}
