//! Checks what profilers and valgrind see of a session.

use std::collections::HashSet;
use std::process::Command;

use libtest_mimic::Failed;

use super::tool::{expect_in_order, in_tool, output, program};

pub(super) fn report_has_names() -> Result<(), Failed> {
    report("spin", false)
}

/// perf knows the functions of an image's file, and by a map those of an image without one.
pub(super) fn report_has_names_of_an_image() -> Result<(), Failed> {
    report("spin_file", false)?;
    report("spin_map", false)?;
    report("spin_dump", true)
}

/// Samples a program, and fails unless its hot spot is reported by name.
fn report(name: &str, has_dump: bool) -> Result<(), Failed> {
    expect_in_order(&reported(name, has_dump)?.1, &["hot_spot"])
}

/// perf gives the samples of two functions, of which the second was published where the first was
/// removed, the names of both, each about half of them.
pub(super) fn code_at_one_address() -> Result<(), Failed> {
    let (said, text) = reported("reuse", true)?;
    let addresses: Vec<&str> = said.lines().filter(|line| line.starts_with("0x")).collect();
    if addresses.len() != 2 || addresses[0] != addresses[1] {
        return Err(format!("not one address:\n{said}").into());
    }
    for name in ["first_spot", "second_spot"] {
        let line = text.lines().find(|line| line.contains(name)).unwrap_or_default();
        let share = line.split('%').next().and_then(|share| share.trim().parse::<f64>().ok());
        if share.is_none_or(|share| share < 20.0) {
            return Err(format!("{name} has too few samples in:\n{text}").into());
        }
    }
    Ok(())
}

/// Samples a program, and returns what it printed, and what perf reports. The samples of a program
/// that writes a dump are joined with it first.
fn reported(name: &str, has_dump: bool) -> Result<(String, String), Failed> {
    let folder = tempfile::tempdir()?;
    let folder = Some(folder.path());
    let perf = |arguments: &[&str]| output(Command::new("perf").args(arguments), folder);
    let options = ["record", "-q", "-k", "mono", "-e", "cpu-clock:u", "-o", "perf.data", "--"];
    let said = output(&mut in_tool("perf", &options, name, &[]), folder)?;
    let mut data = "perf.data";
    if has_dump {
        data = "joined.data";
        perf(&["inject", "--jit", "-i", "perf.data", "-o", data])?;
    }
    let text = perf(&["report", "--stdio", "-q", "--sort", "symbol", "-i", data])?;
    let pid = perf(&["script", "-i", "perf.data", "-F", "pid"])?;
    let pid = pid.split_ascii_whitespace().next().ok_or("no sample")?;
    let map = format!("/tmp/perf-{pid}.map");
    let _ = std::fs::remove_file(map);
    Ok((said, text))
}

/// A map has a line for each stub, each entry that counts, and the code.
pub(super) fn stubs_have_names() -> Result<(), Failed> {
    let text = output(&mut program("stubs_map", &[]), None)?;
    let said = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.ok_or_else(|| format!("nothing about {name} in:\n{text}"))
    };
    let path = format!("/tmp/perf-{}.map", said("process")?);
    let map = std::fs::read_to_string(&path)?;
    std::fs::remove_file(path)?;
    for (name, count) in [("swapped", 2), ("warm", 3)] {
        let lines: Vec<&str> = map.lines().filter(|line| line.ends_with(&format!(" {name}"))).collect();
        let stub = format!("{} ", said(name)?);
        if lines.len() != count || !lines.iter().any(|line| line.starts_with(&stub)) {
            return Err(format!("{count} lines, one of them for {stub}, are expected in:\n{map}").into());
        }
    }
    Ok(())
}

/// A map has the stubs that the linker made, in memory and of an image.
pub(super) fn linked_stubs_have_names() -> Result<(), Failed> {
    for name in ["linked_stubs_map", "linked_stubs_of_image_map"] {
        let text = output(&mut program(name, &[]), None)?;
        let number = text.lines().find_map(|line| line.strip_prefix("process ")).ok_or("no number")?;
        let path = format!("/tmp/perf-{number}.map");
        let map = std::fs::read_to_string(&path)?;
        std::fs::remove_file(path)?;
        let named = |name: &str| map.lines().filter(|line| line.ends_with(&format!(" {name}"))).count();
        if [named("host@plt"), named("swapped"), named("far")] != [1, 2, 1] {
            return Err(format!("{name}: not all that is expected in:\n{map}").into());
        }
    }
    Ok(())
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
    let seconds = std::env::var("KILN_SECONDS").unwrap_or_else(|_| "3".into());
    for name in ["sampler", "sampler_of_image"] {
        let text = output(&mut program(name, &[&seconds]), None)?;
        println!("{name}: {}", text.trim());
        expect_in_order(&text, &["samples saw the code"])?;
    }
    Ok(())
}

pub(super) fn valgrind_has_no_complaints() -> Result<(), Failed> {
    let options = ["--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"];
    let text = output(&mut in_tool("valgrind", &options, "life", &[]), None)?;
    expect_in_order(&text, &["ERROR SUMMARY: 0 errors"])
}
