//! `run`: executes the `; run:` lines of files.
//!
//! Every file has a program of its own: all its modules, the other files of the command that define
//! its imports, the files that define the imports of those files, and so on. So one command can run
//! a folder of unrelated files as well as the files of one program.
//!
//! A trap of compiled code is caught. It may still crash the process that runs it, so a worker
//! process does the work and reports every step. If it dies, the file that it was executing has
//! failed, and a new worker continues with the next file.

mod args;
mod execute;
mod host;
mod image;
mod invocation;
mod list;
mod objects;
mod program;
mod report;
mod supervise;
mod thunks;
mod variants;
mod worker;

use std::path::Path;
use std::process::Command;

pub(crate) use self::args::RunArgs;
pub(crate) use self::image::{RunImageArgs, main as run_image};
use self::list::List;
use self::report::{Event, Output, Totals, Verdict};
pub(crate) use self::thunks::{call, call_uncaught, thunk};
use crate::input::{self, InputFile};
use crate::output::{Failure, Format, Outcome, print_bytes, progress};

pub(crate) fn main(args: &RunArgs) -> Outcome {
    input::threads(args.threads.map(usize::from))?;
    if let (Some(first), Some(list)) = (args.worker, &args.list) {
        let files = list::read(list).map_err(|error| Failure::while_doing("cannot read the list", error))?;
        supervise::end_with_parent();
        let files = if args.debug { input::debugged(files) } else { files };
        return worker::work(args, &files, first);
    }

    let files = input::files(&args.paths)?;
    let list = List::new(&files).map_err(|error| Failure::while_doing("cannot list the files", error))?;
    let mut totals = Totals::default();
    let bar = progress("running", files.len() as u64);
    let mut next = 0;
    while next < files.len() {
        next = execute_from(next, args, &files, &list.path(), &mut |file, verdict, output| {
            let name = files[file].name.display().to_string();
            bar.suspend(|| totals.file(args.format, &name, verdict, output));
            bar.inc(1);
        })?;
    }
    bar.finish_and_clear();
    totals.print(args.format);
    if totals.failed == 0 { Ok(()) } else { Err(Failure::Reported) }
}

/// Executes files from number `first` on, until all are executed or one has ended its worker.
/// Passes each file's verdict to `each`. Returns the number of the next file.
fn execute_from(
    first: usize,
    args: &RunArgs,
    files: &[InputFile],
    list: &Path,
    each: &mut dyn FnMut(usize, &Verdict, &Output),
) -> Result<usize, Failure> {
    let mut next = first;
    let mut current = None;
    let mut invocation = None;
    let mut output = Output::default();
    let ending = supervise::watch(&mut worker(first, list)?, args.limit(), &mut |own, event| {
        if let Some(own) = own {
            match (args.format, current) {
                (Format::Text, _) => print_bytes(format!("{own}\n").as_bytes()),
                (Format::Json, Some(_)) => output.output.push(own),
                // The C library writes its buffers when the process ends. This text belongs to no
                // file.
                (Format::Json, None) => eprintln!("{own}"),
            }
        }
        match event {
            Some(Event::File(index)) => {
                current = Some(index);
                invocation = None;
            }
            Some(Event::Invoke(place)) => invocation = Some(place),
            Some(Event::Printed(text)) => output.printed.push(text),
            // A file with several `target` lines is executed several times, but each note is kept
            // only once.
            Some(Event::Note(text)) if output.notes.contains(&text) => {}
            Some(Event::Note(text)) => output.notes.push(text),
            Some(Event::Done(verdict)) => {
                let output = std::mem::take(&mut output);
                if let Some(index) = current.take() {
                    each(index, &verdict, &output);
                    next = index + 1;
                }
            }
            None => {}
        }
    });
    let ending = ending.map_err(|error| Failure::while_doing("cannot start a worker", error))?;
    if let Some(index) = current {
        let place = invocation.as_deref().unwrap_or("before its first invocation");
        let reason = format!("{}, {}", ending.reason(), crate::output::name(place));
        each(index, &Verdict::Failed { reason }, &output);
        next = index + 1;
    } else if next < files.len() && ending.is_success() {
        let reason = "it was not executed".into();
        each(next, &Verdict::Failed { reason }, &output);
        next += 1;
    } else if next == first && next < files.len() {
        // The worker has printed the reason.
        return Err(Failure::Reported);
    }
    Ok(next)
}

/// Returns this command once more, as a worker that begins with file `first`.
fn worker(first: usize, list: &Path) -> Result<Command, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::while_doing("cannot start a worker", error))?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg(format!("--worker={first}")).arg("--list").arg(list);
    Ok(command)
}
