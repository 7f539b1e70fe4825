//! The reports of a worker: each step as it happens, and the verdict on each file.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::output::{Format, count, name, print_bytes, print_json_line};

/// A report of a worker, written as one line.
///
/// The program under test writes to the same standard output; [`MARK`] distinguishes reports from
/// its text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// The worker begins with a file.
    File(usize),
    /// The worker is about to execute an invocation: its place and text.
    Invoke(String),
    /// The result of a `print` invocation.
    Printed(String),
    /// A remark on an invocation that is not a failure.
    Note(String),
    /// The worker is done with a file.
    Done(Verdict),
}

/// The text before every report. The program's own text may end without a newline, and may look
/// much like a report.
const MARK: &str = "\u{1e}kiln ";

impl Event {
    /// Writes the report to standard output.
    pub(super) fn send(&self) {
        let line = serde_json::to_string(self).expect("plain data");
        // If nobody reads the reports, the worker has nothing left to do, and this ends it.
        print_bytes(format!("{MARK}{line}\n").as_bytes());
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

/// The verdict on a file.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", tag = "status")]
pub(super) enum Verdict {
    /// All invocations returned the expected values.
    Passed {
        invocations: usize,
        /// Whether the file was interpreted because its `test` lines name only the interpreter.
        interpreted: bool,
    },
    /// The file was compiled and linked. It has no run line, so nothing was executed.
    Compiled,
    /// An invocation failed, or there was none to execute because of an error.
    Failed { reason: String },
    /// The file cannot be executed here.
    Skipped { reason: String },
}

/// The way in which a process ended without a verdict.
pub(super) enum Ending {
    Exited(ExitStatus),
    /// The process was killed, because an invocation took longer than this.
    TimedOut(Duration),
}

impl Ending {
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Exited(status) if status.success())
    }

    /// Returns the reason why there is no verdict.
    pub(super) fn reason(&self) -> String {
        let status = match self {
            Self::Exited(status) => status,
            Self::TimedOut(limit) => return format!("no result after {} s (`--timeout`)", limit.as_secs()),
        };
        match (status.signal(), status.code()) {
            (Some(4), _) => "the program trapped (signal 4, illegal instruction)".into(),
            (Some(8), _) => "the program trapped (signal 8, arithmetic)".into(),
            (Some(11), _) => "the program crashed (signal 11, bad memory access)".into(),
            (Some(signal), _) => format!("the program was killed by signal {signal}"),
            (None, code) => format!("the program ended its process with exit code {}", code.unwrap_or(0)),
        }
    }
}

/// The output of a file that is executed.
#[derive(Default, Serialize)]
pub(super) struct Output {
    /// The results of the file's `print` lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) printed: Vec<String>,
    /// Notes on the file's run lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
    /// The program's own lines. They are collected only for JSON; in text form they are printed at
    /// once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) output: Vec<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    #[serde(flatten)]
    verdict: &'a Verdict,
    #[serde(flatten)]
    output: &'a Output,
}

/// The number of files by their verdicts.
#[derive(Default, Serialize)]
pub(super) struct Totals {
    passed: usize,
    pub(super) failed: usize,
    skipped: usize,
    /// The number of files without a run line.
    compiled: usize,
}

impl Totals {
    /// Prints the last line.
    pub(super) fn print(&self, format: Format) {
        let Self { passed, failed, skipped, compiled } = self;
        match (format, compiled) {
            (Format::Json, _) => print_json_line(self),
            (Format::Text, 0) => println!("{passed} passed, {failed} failed, {skipped} skipped"),
            (Format::Text, _) => {
                println!(
                    "{passed} passed, {failed} failed, {skipped} skipped, {compiled} without a run line"
                );
            }
        }
    }

    /// Prints the result of a file, and counts it.
    pub(super) fn file(&mut self, format: Format, file: &str, verdict: &Verdict, output: &Output) {
        *match verdict {
            Verdict::Passed { .. } => &mut self.passed,
            Verdict::Failed { .. } => &mut self.failed,
            Verdict::Skipped { .. } => &mut self.skipped,
            Verdict::Compiled => &mut self.compiled,
        } += 1;
        if format == Format::Json {
            print_json_line(&Line { file, verdict, output });
            return;
        }
        output.printed.iter().for_each(|text| println!("{}", name(text)));
        let file = name(file);
        output.notes.iter().for_each(|note| println!("{file}: note: {}", name(note)));
        match verdict {
            Verdict::Compiled => println!("{file}: ok, compiled and linked, no invocation"),
            Verdict::Passed { invocations, interpreted } => {
                let how = if *interpreted { ", interpreted, as its `test` lines say" } else { "" };
                println!("{file}: ok, {}{how}", count(*invocations, "invocation"));
            }
            Verdict::Failed { reason } => println!("{file}: FAILED: {reason}"),
            Verdict::Skipped { reason } => println!("{file}: skipped: {reason}"),
        }
    }
}
