//! `run`: execute the `; run:` lines of files.
//!
//! Every file is the root of a program of its own: the file, and those other files of the command that define what it imports,
//! and so on. The modules of a file that has several belong together. So a folder of unrelated files can be run at once, and files that belong together find each other.
//!
//! Compiled code may crash the process that runs it. So the work is done by a worker process that reports every step; when it
//! dies, the file at which it died has failed, and a new worker goes on with the next one.

pub(crate) mod image;
mod invocation;
mod objects;
mod program;
mod worker;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use crate::input;
use crate::output::{Failure, Format, Outcome, count, progress};

/// Execute every `; run:` line of `.clif` and `.kir` files on this machine.
///
/// A line `; run: %f(1, 2) == 3` after a function calls it and compares; `; print: %f(1)` calls it and prints. Files named together
/// are linked with each other where one defines what another imports; of several that define it, the one in the same folder counts. All modules of a `.kir` file are linked together, and all their
/// lines executed, in order. A file without such a line is compiled and linked by itself. Each global is bound to 4096 zeroed bytes of its own. A line is printed for each file, for a failure with the
/// invocation, the value expected and the value that came; the last line counts files.
///
/// A file is skipped only if its `target` lines are for other machines or ask for CPU features that this machine lacks; with
/// `--via interpreter` also if its `test` lines do not ask for the interpreter, or the interpreter does not know an instruction. A file
/// whose `test` lines ask for nothing but the interpreter is interpreted.
#[derive(clap::Args, Clone)]
#[command(after_help = "Examples:
  cargo xtask run examples/clif
  cargo xtask run main.clif library.clif --via image
  cargo xtask run tests/clif --split-modules --threads 1")]
pub(crate) struct Args {
    /// `.clif` and `.kir` files, and folders that are searched for them
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// How to execute: in memory; saved as an image and run in another process; or interpreted
    #[arg(long, value_enum, default_value_t = Via::Jit)]
    via: Via,
    /// Run in memory, laid out and filled exactly as the saved image would be
    #[arg(long, conflicts_with = "via")]
    image_codegen: bool,
    /// Put every function and every datum in a module of its own
    #[arg(long)]
    split_modules: bool,
    /// Number of threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// How to print results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Be the worker, and start with this file
    #[arg(long, hide = true)]
    worker: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Via {
    /// In the memory of this process
    Jit,
    /// Saved to a file, loaded and called by another process
    Image,
    /// By Cranelift's interpreter, which shares nothing with the code generator
    Interpreter,
}

/// What a worker reports, a line each. The program under test shares the worker's standard output, so a report is told
/// from the program's own text by [`MARK`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    /// A file begins.
    File(usize),
    /// An invocation is about to be executed: its place and text.
    Invoke(String),
    /// A `print` invocation gave this.
    Printed(String),
    /// A file ended.
    Done(Verdict),
}

/// Stands before every report: the program's text may end without a newline, and may look like a report.
const MARK: &str = "\u{1e}kiln ";

impl Event {
    /// Reports this on standard output.
    fn send(&self) {
        let line = serde_json::to_string(self).expect("plain data");
        let mut out = std::io::stdout().lock();
        // If nobody listens any more there is nothing left to do.
        if writeln!(out, "{MARK}{line}").and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
    }

    /// The program's own text in a line of a worker's output, and the report behind it.
    fn receive(line: &[u8]) -> (Option<String>, Option<Self>) {
        let line = String::from_utf8_lossy(line);
        if let Some((own, report)) = line.rsplit_once(MARK)
            && let Ok(event) = serde_json::from_str(report)
        {
            return ((!own.is_empty()).then(|| own.to_owned()), Some(event));
        }
        (Some(line.into_owned()), None)
    }
}

/// How a file ended.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", tag = "status")]
enum Verdict {
    /// All of this many invocations gave what was expected.
    Passed {
        invocations: usize,
        /// Not compiled: the file's `test` lines ask for the interpreter only.
        interpreted: bool,
    },
    /// Something did not.
    Failed { reason: String },
    /// The file cannot be executed here.
    Skipped { reason: String },
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    #[serde(flatten)]
    verdict: &'a Verdict,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    printed: &'a [String],
}

pub(crate) fn main(args: &Args) -> Outcome {
    input::threads(args.threads.map(usize::from))?;
    let files = input::files(&args.paths)?;
    if let Some(first) = args.worker {
        return worker::work(args, &files, first);
    }

    let mut counts = [0usize; 3];
    let bar = progress("running", files.len() as u64);
    let mut next = 0;
    while next < files.len() {
        let mut worker = spawn(next)?;
        let stdout = worker.stdout.take().expect("piped");
        let mut current = None;
        let mut invocation = None;
        let mut printed = Vec::new();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(|error| Failure::while_doing("cannot read from the worker", error))?;
            let (own, event) = Event::receive(&line);
            if let Some(own) = own {
                bar.suspend(|| println!("{own}"));
            }
            match event {
                Some(Event::File(index)) => {
                    current = Some(index);
                    invocation = None;
                }
                Some(Event::Invoke(place)) => invocation = Some(place),
                Some(Event::Printed(text)) => printed.push(text),
                Some(Event::Done(verdict)) => {
                    if let Some(index) = current.take() {
                        let name = files[index].display().to_string();
                        bar.suspend(|| report(args.format, &name, &verdict, &printed, &mut counts));
                        bar.inc(1);
                        next = index + 1;
                    }
                    printed.clear();
                }
                None => {}
            }
        }
        let status =
            worker.wait().map_err(|error| Failure::while_doing("cannot wait for the worker", error))?;
        match current {
            Some(index) => {
                let place = invocation.as_deref().unwrap_or("before its first invocation");
                let name = files[index].display().to_string();
                let verdict = Verdict::Failed { reason: format!("{}, {place}", ending(status)) };
                bar.suspend(|| report(args.format, &name, &verdict, &printed, &mut counts));
                bar.inc(1);
                next = index + 1;
            }
            None if status.success() => break,
            // The worker has said why.
            None if next == 0 || next < files.len() => return Err(Failure::Reported),
            None => {}
        }
    }
    bar.finish_and_clear();
    let [passed, failed, skipped] = counts;
    match args.format {
        Format::Text => println!("{passed} passed, {failed} failed, {skipped} skipped"),
        Format::Json => {
            println!("{}", serde_json::json!({ "passed": passed, "failed": failed, "skipped": skipped }))
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Reported) }
}

fn report(format: Format, file: &str, verdict: &Verdict, printed: &[String], counts: &mut [usize; 3]) {
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
            let how = if *interpreted { ", interpreted as its `test` lines ask" } else { "" };
            println!("{file}: ok, {}{how}", count(*invocations, "invocation"));
        }
        Verdict::Failed { reason } => println!("{file}: FAILED: {reason}"),
        Verdict::Skipped { reason } => println!("{file}: skipped: {reason}"),
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(4), _) => "the program trapped (signal 4, illegal instruction)".into(),
        (Some(8), _) => "the program trapped (signal 8, arithmetic)".into(),
        (Some(11), _) => "the program crashed (signal 11, bad memory access)".into(),
        (Some(signal), _) => format!("the program was killed by signal {signal}"),
        (None, code) => format!("the program ended its process with exit code {}", code.unwrap_or(0)),
    }
}

/// This very command as a worker that starts with file `first`.
fn spawn(first: usize) -> Result<std::process::Child, Failure> {
    let error = |error| Failure::while_doing("cannot start a worker", error);
    let program = std::env::current_exe().map_err(error)?;
    Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg(format!("--worker={first}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(error)
}
