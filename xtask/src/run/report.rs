//! The reports of a worker: its steps as it takes them, and how each file ended.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use crate::output::{Format, count};

/// A report of a worker, which is one line.
///
/// The program under test writes to the same standard output; [`MARK`] tells reports from its text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// The worker begins with a file.
    File(usize),
    /// The worker is about to execute an invocation: its place and text.
    Invoke(String),
    /// The result of a `print` invocation.
    Printed(String),
    /// The worker is done with a file.
    Done(Verdict),
}

/// The text before every report. The program's own text may end without a newline, and may look
/// like a report.
const MARK: &str = "\u{1e}kiln ";

impl Event {
    /// Writes the report to standard output.
    pub(super) fn send(&self) {
        let line = serde_json::to_string(self).expect("plain data");
        let mut out = std::io::stdout().lock();
        // Without a reader the worker has nothing left to do.
        if writeln!(out, "{MARK}{line}").and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
    }

    /// Splits a line of a worker's output into the program's own text and the report after it.
    pub(super) fn receive(line: &[u8]) -> (Option<String>, Option<Self>) {
        let line = String::from_utf8_lossy(line);
        if let Some((own, report)) = line.rsplit_once(MARK)
            && let Ok(event) = serde_json::from_str(report)
        {
            return ((!own.is_empty()).then(|| own.to_owned()), Some(event));
        }
        (Some(line.into_owned()), None)
    }
}

/// The result of a file.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", tag = "status")]
pub(super) enum Verdict {
    /// All invocations returned the expected values.
    Passed {
        invocations: usize,
        /// Whether the file was interpreted because its `test` lines name only the interpreter.
        interpreted: bool,
    },
    /// An invocation failed, or there was none to execute because of an error.
    Failed { reason: String },
    /// The file cannot be executed here.
    Skipped { reason: String },
}

/// The reason why a process ended without reporting a verdict.
pub(super) fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(4), _) => "the program trapped (signal 4, illegal instruction)".into(),
        (Some(8), _) => "the program trapped (signal 8, arithmetic)".into(),
        (Some(11), _) => "the program crashed (signal 11, bad memory access)".into(),
        (Some(signal), _) => format!("the program was killed by signal {signal}"),
        (None, code) => format!("the program ended its process with exit code {}", code.unwrap_or(0)),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    #[serde(flatten)]
    verdict: &'a Verdict,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    printed: &'a [String],
}

/// Prints the result of a file, and adds it to the counts of passed, failed and skipped files.
pub(super) fn print(
    format: Format,
    file: &str,
    verdict: &Verdict,
    printed: &[String],
    counts: &mut [usize; 3],
) {
    counts[match verdict {
        Verdict::Passed { .. } => 0,
        Verdict::Failed { .. } => 1,
        Verdict::Skipped { .. } => 2,
    }] += 1;
    if format == Format::Json {
        println!("{}", serde_json::to_string(&Line { file, verdict, printed }).expect("plain data"));
        return;
    }
    printed.iter().for_each(|text| println!("{text}"));
    match verdict {
        Verdict::Passed { invocations: 0, .. } => println!("{file}: ok, compiled and linked, no invocation"),
        Verdict::Passed { invocations, interpreted } => {
            let how = if *interpreted { ", interpreted, as its `test` lines say" } else { "" };
            println!("{file}: ok, {}{how}", count(*invocations, "invocation"));
        }
        Verdict::Failed { reason } => println!("{file}: FAILED: {reason}"),
        Verdict::Skipped { reason } => println!("{file}: skipped: {reason}"),
    }
}
