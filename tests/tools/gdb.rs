//! Checks what gdb shows of a session.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use libtest_mimic::Failed;

use super::tool::{expect_in_order, gdb, is_unknown, output, program};

pub(super) fn names_lines_and_removal() -> Result<(), Failed> {
    let commands = [
        "break tools::programs::host",
        "break tools::programs::stop",
        // The call in `inner`: not published yet.
        "break chain.clif:6",
        "break late",
        "run",
        "continue",
        "echo [line]\n",
        "backtrace 3",
        "info locals",
        "continue",
        "echo [host]\n",
        "backtrace 4",
        "continue",
        "continue",
        "echo [late]\n",
        "backtrace 1",
        "continue",
        "echo [removed]\n",
        "info functions ^late",
        "info functions ^outer",
        "continue",
    ];
    let text = gdb(&commands, "chain", &[])?;
    let order = [
        "[line]",
        "inner (",
        "chain.clif:6",
        "outer (",
        "chain.clif:13",
        "v2 = 6",
        "[host]",
        "tools::programs::host (number=6)",
        "inner (",
        "outer (",
        "tools::programs::call",
        "[late]",
        "in late (",
        "[removed]",
        "void outer(",
        "exited normally",
    ];
    expect_in_order(&text, &order)?;
    is_unknown(&text, "[removed]", "  late\n")
}

pub(super) fn one_that_attaches_is_told() -> Result<(), Failed> {
    let mut running = program("ticks", &[]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(running.stdout.take().ok_or("no output")?).lines();
    let process = lines.next().ok_or("the program said nothing")??;
    let mut command = Command::new("timeout");
    command.args(["300", "gdb", "-q", "-batch", "-nx", "-p", &process]);
    let commands = [
        "set debuginfod enabled off",
        "echo [attached]\n",
        "info functions ^early_",
        "break tools::programs::tick",
        "continue",
        // Code may have been published before gdb was there.
        "continue",
        "echo [told]\n",
        "info functions ^early_",
        "info functions ^tick_",
        "kill",
    ];
    for line in commands {
        command.args(["-ex", line]);
    }
    let text = output(&mut command, None);
    running.kill()?;
    running.wait()?;
    let text = text?;
    let (before, after) = text.split_once("[told]").ok_or_else(|| format!("nothing was told:\n{text}"))?;
    let (_, attached) = before.split_once("[attached]").unwrap_or_default();
    if attached.contains("  early_") {
        return Err(format!("a description was kept, although nobody was there:\n{text}").into());
    }
    // The program removes one of the early functions before each stop.
    let number = before.rsplit_once("tick (number=").and_then(|(_, rest)| rest.split_once(')'));
    let number: u32 = number.ok_or_else(|| format!("no stop:\n{text}"))?.0.parse()?;
    for (name, is_known) in [
        (format!("early_{number}\n"), false),
        (format!("early_{}\n", number + 1), true),
        ("early_999\n".into(), true),
        (format!("tick_{number}\n"), true),
    ] {
        let name = name.trim_end();
        let listed = after
            .lines()
            .any(|line| line.ends_with(&format!(" {name}")) || line.contains(&format!(" {name}(")));
        if listed != is_known {
            return Err(format!("{name} is known: {listed}\n{text}").into());
        }
    }
    Ok(())
}

/// Starts a program that prints its number, and runs gdb with these commands for it.
fn attached(name: &str, before: &[&str], after: &[&str]) -> Result<String, Failed> {
    let mut running = program(name, &[]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(running.stdout.take().ok_or("no output")?).lines();
    let process = lines.next().ok_or("the program said nothing")??;
    let mut command = Command::new("timeout");
    command.args(["300", "gdb", "-q", "-batch", "-nx", "-p", &process]);
    command.args(["-ex", "set debuginfod enabled off"]);
    for line in before.iter().chain(after) {
        command.args(["-ex", line]);
    }
    let text = output(&mut command, None);
    running.kill()?;
    running.wait()?;
    text
}

/// A stub, and an entry that counts, have the names of their functions, and gdb unwinds in them.
pub(super) fn stubs_have_names() -> Result<(), Failed> {
    let commands = [
        "break tools::programs::stop",
        "run",
        "delete",
        "break swapped",
        "break warm",
        "continue",
        "echo [stub]\n",
        "backtrace 2",
        "continue",
        "echo [code]\n",
        "backtrace 2",
        "continue",
        "echo [stub of warm]\n",
        "backtrace 2",
        "continue",
        "echo [entry]\n",
        "backtrace 2",
        // In the middle of it.
        "stepi",
        "backtrace 2",
        "continue",
        "echo [code of warm]\n",
        "backtrace 2",
        "continue",
    ];
    let text = gdb(&commands, "stubs", &[])?;
    let (swapped, warm) =
        (["in swapped (", "in tools::programs::call"], ["in warm (", "in tools::programs::call"]);
    let mut order = vec!["(2 locations)", "(3 locations)"];
    for mark in ["[stub]", "[code]"] {
        order.push(mark);
        order.extend(swapped);
    }
    for mark in ["[stub of warm]", "[entry]", "[code of warm]"] {
        order.push(mark);
        order.extend(warm);
        if mark == "[entry]" {
            order.extend(warm);
        }
    }
    order.push("exited normally");
    expect_in_order(&text, &order)
}

/// The stubs that the linker made have the names of what they lead to, in memory and in an image
/// that has no symbols, and gdb unwinds in them.
pub(super) fn linked_stubs_have_names() -> Result<(), Failed> {
    for name in ["linked_stubs", "linked_stubs_of_image"] {
        let commands = [
            "break tools::programs::stop",
            "run",
            "delete",
            "break host@plt",
            "break swapped",
            "continue",
            "echo [of the host]\n",
            "backtrace 2",
            "continue",
            "echo [replaceable]\n",
            "backtrace 2",
            "continue",
            "echo [code]\n",
            "backtrace 2",
            "continue",
        ];
        let order = [
            "(2 locations)",
            "[of the host]",
            "in host@plt (",
            "in far (",
            "[replaceable]",
            "in swapped (",
            "in far (",
            "[code]",
            "in swapped (",
            "in far (",
            "exited normally",
        ];
        expect_in_order(&gdb(&commands, name, &[])?, &order)?;
    }
    Ok(())
}

/// One that attaches later is told about them, too.
pub(super) fn linked_stubs_are_told_later() -> Result<(), Failed> {
    // The memory was mapped twice before gdb came, so the breakpoint is the processor's.
    let commands = ["delete", "hbreak host@plt", "continue", "echo [stub]\n", "backtrace 2", "kill"];
    let text = attached("late_stubs", &["break tools::programs::tick", "continue", "continue"], &commands)?;
    expect_in_order(&text, &["[stub]", "in host@plt (", "in far ("])
}
