//! Checks what gdb, perf, valgrind and the unwinder make of what they are told.
//!
//! Each test runs this program again as one of its programs (`programs.rs`), alone or in a tool. A
//! test that needs a tool that is not installed is reported as ignored, with the name of the tool.
//! If the environment variable `CI` is set, it fails.

mod gdb;
#[path = "../../examples/measure.rs"]
mod measure;
mod perf;
#[path = "../../examples/plain_cranelift.rs"]
mod plain_cranelift;
mod programs;
mod unwinder;

use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Failed, Trial};

/// A test: its name, the tool that it needs, and what it does.
type Test = (&'static str, Option<&'static str>, fn() -> Result<(), Failed>);

const TESTS: [Test; 14] = [
    ("gdb::names_and_removal", Some("gdb"), gdb::names_and_removal),
    ("gdb::a_part_is_forgotten", Some("gdb"), gdb::a_part_is_forgotten),
    ("gdb::twenty_thousand_functions", Some("gdb"), gdb::twenty_thousand_functions),
    ("gdb::nothing_is_kept_if_nobody_looks", None, gdb::nothing_is_kept_if_nobody_looks),
    ("gdb::other_jits_share_the_list", None, gdb::other_jits_share_the_list),
    ("perf::a_map_has_a_line_for_each_function", None, perf::a_map_has_a_line_for_each_function),
    ("perf::a_dump_has_a_record_for_each_function", None, perf::a_dump_has_a_record_for_each_function),
    ("perf::failures_are_counted", None, perf::failures_are_counted),
    ("perf::a_child_has_its_own_map", None, perf::a_child_has_its_own_map),
    ("perf::an_old_map_is_replaced", None, perf::an_old_map_is_replaced),
    ("perf::report_has_names", Some("perf"), perf::report_has_names),
    ("perf::report_of_a_dump_has_names", Some("perf"), perf::report_of_a_dump_has_names),
    ("unwinder::a_profiler_samples_meanwhile", None, unwinder::a_profiler_samples_meanwhile),
    ("unwinder::valgrind_has_no_complaints", Some("valgrind"), unwinder::valgrind_has_no_complaints),
];

fn main() {
    if let Some(program) =
        std::env::args().nth(1).and_then(|name| name.strip_prefix("program:").map(String::from))
    {
        return programs::run(&program);
    }
    let in_ci = std::env::var_os("CI").is_some();
    let trials = TESTS.map(|(name, tool, test)| match tool.filter(|tool| !is_installed(tool)) {
        None => Trial::test(name, test),
        Some(tool) => {
            let needs = format!("needs {tool}");
            Trial::test(name, move || Err(needs.into())).with_kind(tool).with_ignored_flag(!in_ci)
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

fn is_installed(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Returns this program.
fn this_program() -> std::path::PathBuf {
    std::env::current_exe().expect("a program knows its file")
}

/// Returns a command that runs one of our programs.
fn program(name: &str, arguments: &[&str]) -> Command {
    in_tool("env", &[], name, arguments)
}

/// Returns a command that runs one of our programs in a tool, and ends it after two minutes.
fn in_tool(tool: &str, options: &[&str], name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["120", tool])
        .args(options)
        .arg(this_program())
        .arg(format!("program:{name}"))
        .args(arguments);
    command
}

/// Runs a command in a folder, and returns what it printed. It must succeed.
fn output(command: &mut Command, folder: Option<&Path>) -> Result<String, Failed> {
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let Output { status, stdout, stderr } = command.output()?;
    let text = format!("{}\n{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() { Ok(text) } else { Err(format!("{command:?}: {status}\n{text}").into()) }
}

/// Fails unless `text` contains all `parts`, in this order.
fn expect_in_order(text: &str, parts: &[&str]) -> Result<(), Failed> {
    let mut rest = text;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return Err(format!("no {part:?} where it should be in:\n{text}").into());
        };
        rest = after;
    }
    Ok(())
}
