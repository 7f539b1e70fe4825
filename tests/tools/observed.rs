//! Checks what profilers and valgrind see of a session.

use std::collections::HashSet;
use std::process::Command;

use libtest_mimic::Failed;

use super::tool::{expect_in_order, in_tool, output, program};

pub(super) fn report_has_names() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let options = ["record", "-q", "-e", "cpu-clock:u", "-o", "perf.data", "--"];
    output(&mut in_tool("perf", &options, "spin", &[]), Some(folder.path()))?;
    let report = ["report", "--stdio", "-q", "--sort", "symbol", "-i", "perf.data"];
    let text = output(Command::new("perf").args(report), Some(folder.path()))?;
    let pid = ["script", "-i", "perf.data", "-F", "pid"];
    let pid = output(Command::new("perf").args(pid), Some(folder.path()))?;
    let pid = pid.split_ascii_whitespace().next().ok_or("no sample")?;
    std::fs::remove_file(format!("/tmp/perf-{pid}.map"))?;
    expect_in_order(&text, &["hot_spot"])
}

/// Returns how many of the 100 addresses of a program are different.
fn addresses(name: &str) -> Result<usize, Failed> {
    let folder = tempfile::tempdir()?;
    let text = output(program(name, &[]).env("JITDUMPDIR", folder.path()), None)?;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("0x")).collect();
    if lines.len() != 100 {
        return Err(text.into());
    }
    Ok(lines.iter().collect::<HashSet<_>>().len())
}

pub(super) fn a_map_uses_no_address_twice() -> Result<(), Failed> {
    match addresses("map")? {
        100 => Ok(()),
        other => Err(format!("100 functions have {other} addresses").into()),
    }
}

pub(super) fn a_dump_uses_addresses_again() -> Result<(), Failed> {
    match addresses("dump")? {
        0..10 => Ok(()),
        other => Err(format!("100 functions, one after the other, have {other} addresses").into()),
    }
}

pub(super) fn a_profiler_samples_meanwhile() -> Result<(), Failed> {
    let seconds = std::env::var("KILN_SOAK_SECONDS").unwrap_or_else(|_| "3".into());
    let text = output(&mut program("sampler", &[&seconds]), None)?;
    expect_in_order(&text, &["samples saw the code"])
}

pub(super) fn valgrind_has_no_complaints() -> Result<(), Failed> {
    let options = ["--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"];
    let text = output(&mut in_tool("valgrind", &options, "life", &[]), None)?;
    expect_in_order(&text, &["ERROR SUMMARY: 0 errors"])
}
