//! Scripts for examples that read lines: what they print in processes of their own.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::language::Failure;

/// Runs this program as the example that `variable` stands for. Returns what it prints, with a `#`
/// for the size of code.
fn run(variable: &str, folder: &Path, args: &[&str], input: &str) -> Result<String, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args).current_dir(folder).env(variable, "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().expect("it is piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !errors.is_empty() {
        return Err(format!("{}: {errors}", output.status).into());
    }
    let mut printed = String::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        match line.strip_suffix(" bytes").and_then(|line| line.rsplit_once(' ')) {
            Some((name, size)) if size.parse::<usize>()? > 0 => printed += &format!("{name} #\n"),
            _ => printed += &format!("{line}\n"),
        }
    }
    Ok(printed)
}

/// Compares what the example that `variable` stands for prints after each line of `script` with
/// what the script says: the lines that begin with `=`.
pub(crate) fn check(variable: &str, folder: &Path, args: &[&str], script: &str) -> Result<(), Failure> {
    let lines = || script.lines().map(str::trim);
    let input: String =
        lines().filter(|line| !line.starts_with('=')).map(|line| format!("{line}\n")).collect();
    let expected: String =
        lines().filter_map(|line| line.strip_prefix("= ")).map(|line| format!("{line}\n")).collect();
    let printed = run(variable, folder, args, &input)?;
    if printed == expected { Ok(()) } else { Err(format!("printed:\n{printed}expected:\n{expected}").into()) }
}
