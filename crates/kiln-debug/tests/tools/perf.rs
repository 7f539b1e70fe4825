//! Checks the files for perf, and what perf makes of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use libtest_mimic::Failed;

use super::tool::{expect_in_order, in_tool, output, program, this_program};

pub(super) fn a_map_has_a_line_for_each_function() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let text = output(&mut program("map", &[]), Some(folder.path()))?;
    let mut lines = text.lines();
    let (start, _) = header(lines.next().unwrap_or_default())?;
    let expected: Vec<String> = [(0, "one"), (16, "two words?and a line"), (0, "three")]
        .map(|(offset, name)| format!("{:x} 10 {name}", start + offset))
        .into();
    let found: Vec<&str> = lines.take(3).collect();
    if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}").into()) }
}

/// Reads the first line of the program `map`: the address of its code, and its number.
fn header(line: &str) -> Result<(u64, u32), Failed> {
    let (start, process) = line
        .strip_prefix("code at ")
        .and_then(|rest| rest.split_once(", process "))
        .ok_or_else(|| format!("not a header: {line}"))?;
    Ok((u64::from_str_radix(start, 16)?, process.parse()?))
}

/// Reads numbers of a dump.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Failed> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or("the dump is too short")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Failed> {
        Ok(u32::from_ne_bytes(self.bytes(4)?.try_into()?))
    }

    fn u64(&mut self) -> Result<u64, Failed> {
        Ok(u64::from_ne_bytes(self.bytes(8)?.try_into()?))
    }
}

pub(super) fn a_dump_has_a_record_for_each_function() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let text = output(program("map", &[]).env("JITDUMPDIR", folder.path()), None)?;
    let (start, process) = header(text.lines().next().unwrap_or_default())?;
    let bytes = std::fs::read(folder.path().join(format!("jit-{process}.dump")))?;
    let mut dump = Reader(&bytes);
    let machine = u32::from(u16::from_ne_bytes(std::fs::read(this_program())?[18..20].try_into()?));
    for expected in [0x4a69_5444, 1, 40, machine, 0, process] {
        let found = dump.u32()?;
        if found != expected {
            return Err(format!("{found:#x} instead of {expected:#x} in the header").into());
        }
    }
    let mut time = dump.u64()?;
    assert_eq!(dump.u64()?, 0, "flags");
    let expected = [(0, "one"), (16, "two words\nand a line"), (0, "three")];
    for (index, (offset, name)) in (0u64..).zip(expected) {
        assert_eq!(dump.u32()?, 0, "a record of code");
        let size = dump.u32()? as usize;
        let next = dump.u64()?;
        assert!(next >= time && next > 0, "times increase");
        time = next;
        assert_eq!(dump.u32()?, process);
        assert_ne!(dump.u32()?, 0, "the thread");
        let address = start + offset;
        assert_eq!([dump.u64()?, dump.u64()?, dump.u64()?, dump.u64()?], [address, address, 16, index]);
        let text = dump.bytes(name.len() + 1)?;
        assert_eq!(text, format!("{name}\0").as_bytes());
        assert_eq!(dump.bytes(16)?, [0x90; 16], "the code");
        assert_eq!(size, 56 + name.len() + 1 + 16);
    }
    Ok(())
}

pub(super) fn failures_are_counted() -> Result<(), Failed> {
    let expected = [
        ("folder", "0 written, 2 failed: cannot open the profiler's file: is a directory"),
        ("link", "0 written, 2 failed: cannot open the profiler's file: "),
        ("disk", "1 written, 1 failed: cannot write to the profiler's file: file too large"),
        ("files", "0 written, 2 failed: cannot open the profiler's file: "),
    ];
    for (way, expected) in expected {
        expect_in_order(&output(&mut program("broken", &[way]), None)?, &[expected])?;
    }
    Ok(())
}

pub(super) fn a_child_has_its_own_map() -> Result<(), Failed> {
    expect_in_order(&output(&mut program("child", &[]), None)?, &["each has its own"])
}

pub(super) fn an_old_map_is_replaced() -> Result<(), Failed> {
    // The shell's process becomes the program, so its number is known before.
    let script = "echo '1 1 from before' > /tmp/perf-$$.map; touch -d '1 hour ago' /tmp/perf-$$.map; exec \"$0\" program:map";
    let folder = tempfile::tempdir()?;
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(this_program()).stdin(Stdio::null());
        output(&mut command, Some(folder.path()))
    };
    let text = shell(script)?;
    if text.contains("from before") {
        return Err(text.into());
    }
    // What another JIT of this process has written stays.
    let text = shell("echo '1 1 of another' > /tmp/perf-$$.map; exec \"$0\" program:map")?;
    expect_in_order(&text, &["1 1 of another", " one"])
}

/// Records the plain program, and returns what perf reports.
fn record(kind: &str, options: &[&str], inject: bool) -> Result<String, Failed> {
    let folder = tempfile::tempdir()?;
    let mut recording = vec!["record", "-q", "-F", "2000", "-e", "cpu-clock:u"];
    recording.extend(options);
    recording.extend(["-o", "perf.data", "--"]);
    output(&mut in_tool("perf", &recording, "plain", &["30000000", kind]), Some(folder.path()))?;
    if inject {
        let arguments = ["inject", "--jit", "-i", "perf.data", "-o", "perf.jit.data"];
        output(Command::new("perf").args(arguments), Some(folder.path()))?;
    }
    let data = if inject { "perf.jit.data" } else { "perf.data" };
    let report = ["report", "--stdio", "-q", "--sort", "symbol", "-i", data];
    let text = output(Command::new("perf").args(report), Some(folder.path()))?;
    let comm = ["script", "-i", data, "-F", "pid"];
    let pid = output(Command::new("perf").args(comm), Some(folder.path()))?;
    if let Some(pid) = pid.split_ascii_whitespace().next() {
        let _ = std::fs::remove_file(PathBuf::from(format!("/tmp/perf-{pid}.map")));
    }
    Ok(text)
}

fn has_names(report: &str) -> Result<(), Failed> {
    for name in ["outer_square", "middle_triangle", "inner_circle"] {
        expect_in_order(report, &[name])?;
    }
    Ok(())
}

pub(super) fn report_has_names() -> Result<(), Failed> {
    has_names(&record("--map", &[], false)?)
}

pub(super) fn report_of_a_dump_has_names() -> Result<(), Failed> {
    has_names(&record("--dump", &["-k", "mono"], true)?)
}
