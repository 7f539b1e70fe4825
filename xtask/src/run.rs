//! `run`: execute the `; run:` lines of files.
//!
//! Every file has a program of its own: all its modules, then the other files of the command that
//! define its imports, then those that define the imports of these, and so on. So a folder of
//! unrelated files can be run at once, and the files of one program find each other.
//!
//! Compiled code may crash the process that runs it, so a worker process does the work and reports
//! every step. If it dies, the file that it was executing has failed, and a new worker continues
//! with the next file.

mod args;
mod execute;
mod image;
mod invocation;
mod objects;
mod program;
mod report;
mod thunks;
mod variants;
mod worker;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

pub(crate) use self::args::RunArgs;
pub(crate) use self::image::{RunImageArgs, main as run_image};
use self::report::{Event, Verdict, ending};
pub(crate) use self::thunks::call;
use crate::input;
use crate::output::{Failure, Format, Outcome, progress};

pub(crate) fn main(args: &RunArgs) -> Outcome {
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
                        bar.suspend(|| report::print(args.format, &name, &verdict, &printed, &mut counts));
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
                bar.suspend(|| report::print(args.format, &name, &verdict, &printed, &mut counts));
                bar.inc(1);
                next = index + 1;
            }
            None if status.success() => break,
            // The worker has printed the reason.
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

/// Starts this command once more, as a worker that begins with file `first`.
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
