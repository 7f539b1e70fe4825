//! Checks what gdb shows.

use libtest_mimic::Failed;

use super::tool::{expect_in_order, gdb, is_unknown, output, program};

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
