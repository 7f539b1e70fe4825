//! Checks what gdb shows.

use libtest_mimic::Failed;

use super::{expect_in_order, in_tool, output, program};

/// Runs a program in gdb with these commands, and returns what gdb prints.
fn gdb(commands: &[&str], name: &str, arguments: &[&str]) -> Result<String, Failed> {
    let mut options = vec!["-q", "-batch", "-nx"];
    let before = ["set debuginfod enabled off", "set breakpoint pending on", "set width 0"];
    for command in before.into_iter().chain(commands.iter().copied()) {
        options.extend(["-ex", command]);
    }
    options.push("--args");
    output(&mut in_tool("gdb", &options, name, arguments), None)
}

pub(super) fn names_and_removal() -> Result<(), Failed> {
    let commands = [
        "break middle_triangle",
        "break tools::plain_cranelift::host",
        "break tools::plain_cranelift::removed",
        "run",
        "echo [published]\\n",
        "backtrace 3",
        "info functions inner_circle",
        "continue",
        "echo [in host]\\n",
        "backtrace 5",
        "continue",
        "echo [removed]\\n",
        "info functions inner_circle",
        "continue",
    ];
    let text = gdb(&commands, "plain", &[])?;
    expect_in_order(
        &text,
        &[
            "[published]",
            "in middle_triangle ()",
            "in outer_square ()",
            "in tools::plain_cranelift::main",
            "  inner_circle\n",
            "[in host]",
            "tools::plain_cranelift::host (number=3)",
            "in inner_circle ()",
            "in middle_triangle ()",
            "in outer_square ()",
            "in tools::plain_cranelift::main",
            "[removed]",
            "exited normally",
        ],
    )?;
    is_unknown(&text, "[removed]", "  inner_circle\n")
}

/// Fails if gdb lists a function after `mark`.
fn is_unknown(text: &str, mark: &str, function: &str) -> Result<(), Failed> {
    let (_, after) = text.split_once(mark).unwrap_or_default();
    if after.contains(function) {
        return Err(format!("{function} is known after its removal:\n{text}").into());
    }
    Ok(())
}

pub(super) fn a_part_is_forgotten() -> Result<(), Failed> {
    let commands = [
        "break tools::programs::stop",
        "run",
        "echo [all]\\n",
        "info functions first_function",
        "info functions second_function",
        "continue",
        "echo [one]\\n",
        "info functions second_function",
        "info functions first_function",
        "continue",
    ];
    let text = gdb(&commands, "parts", &[])?;
    let [first, second] = ["  first_function\n", "  second_function\n"];
    expect_in_order(&text, &["[all]", first, second, "[one]", second])?;
    is_unknown(&text, "[one]", first)
}

pub(super) fn twenty_thousand_functions() -> Result<(), Failed> {
    // In one registration: gdb stops the program once.
    let text = gdb(&["run"], "measure", &["20000", "1"])?;
    let time = text.lines().find_map(|line| line.strip_prefix("debugger: ")?.split_once(", "));
    let (time, _) = time.ok_or_else(|| format!("no debugger was told:\n{text}"))?;
    let number: f64 = time.trim_end_matches(|c: char| c.is_alphabetic() || c == 'µ').parse()?;
    let unit = time.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    if (unit == "s" && number > 1.0) || !["s", "ms", "µs"].contains(&unit) {
        return Err(format!("gdb took {time}").into());
    }
    Ok(())
}

pub(super) fn nothing_is_kept_if_nobody_looks() -> Result<(), Failed> {
    let text = output(&mut program("measure", &["1000", "1000"]), None)?;
    if text.contains("debugger:") { Err(text.into()) } else { Ok(()) }
}

pub(super) fn other_jits_share_the_list() -> Result<(), Failed> {
    let text = output(&mut program("list", &[]), None)?;
    expect_in_order(&text, &["the list is right"])
}
