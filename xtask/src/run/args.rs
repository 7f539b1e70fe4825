//! The command line of `run`.

use std::path::PathBuf;
use std::time::Duration;

use crate::input::{Globals, InlineArgs, Profiler};
use crate::output::Format;

/// Execute every `; run:` line of `.clif` and `.kir` files on this machine.
///
/// A line `; run: %f(1, 2) == 3` after a function calls it and compares the result;
/// `; print: %f(1)` calls it and prints the result. Files named together are linked with each other
/// where one defines a name that another imports; if several define it, the one in the same folder
/// is taken. All modules of a `.kir` file are linked together, and all their lines are executed, in
/// order. A file without such a line is compiled and linked by itself, and counted apart. Each
/// global is bound to 4096 zeroed bytes of its own. A line is printed for each file; after a
/// failure it shows the invocation, the value expected and the value returned. The last line counts
/// files.
///
/// An invocation that traps is a failure, which names the trap, the function and, with `-g`, the
/// line. One that has no result after `--timeout` seconds is a failure, too. The next file follows.
///
/// A file is skipped only if its `target` lines name other machines or CPU features that this
/// machine lacks. With `--via interpreter` it is also skipped if its `test` lines do not name the
/// interpreter, or the interpreter does not know an instruction. A file whose `test` lines name
/// only the interpreter is interpreted.
#[derive(clap::Args, Clone)]
#[command(after_help = "Examples:
  cargo xtask run examples/clif
  cargo xtask run main.clif library.clif --via image
  cargo xtask run examples/clif --inline
  cargo xtask run tests/clif --split-modules --threads 1
  compiler | cargo xtask run - --timeout 5
  perf record -g target/release/kiln run main.clif --profiler perf && perf report
  gdb -ex 'set follow-fork-mode child' -ex 'set breakpoint pending on' -ex 'break main.clif:12' \\
      -ex run --args target/release/kiln run -g main.clif")]
pub(crate) struct RunArgs {
    /// `.clif` and `.kir` files, folders that are searched for them, and `-`, which is standard
    /// input
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(super) paths: Vec<PathBuf>,
    /// How to execute: in memory; saved as an image and run in another process; or interpreted
    #[arg(long, value_enum, default_value_t = Via::Jit)]
    pub(super) via: Via,
    /// Run in memory, laid out and filled exactly like the saved image
    #[arg(long, conflicts_with = "via")]
    pub(super) image_codegen: bool,
    /// How code reaches globals, functions of the host and other modules
    #[arg(long, value_enum, default_value_t = Globals::Slots, value_name = "HOW")]
    pub(super) globals: Globals,
    #[command(flatten)]
    pub(super) inline: InlineArgs,
    /// Put every function and every data object in a module of its own
    #[arg(long)]
    pub(super) split_modules: bool,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) threads: Option<u16>,
    /// The longest time of an invocation; 0 is no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) timeout: u32,
    /// Let gdb show the lines and values of `.clif` files that run in memory: see the examples. An
    /// invocation may take any time
    #[arg(short = 'g', long = "debug")]
    pub(super) debug: bool,
    /// Write the names of functions for a profiler
    #[arg(long, value_enum, value_name = "FILE")]
    pub(super) profiler: Option<Profiler>,
    /// How to print results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
    /// Be the worker, and begin with this file
    #[arg(long, hide = true)]
    pub(super) worker: Option<usize>,
    /// The list of the worker's files
    #[arg(long, hide = true, requires = "worker")]
    pub(super) list: Option<PathBuf>,
}

impl RunArgs {
    /// The longest time of an invocation.
    pub(super) fn limit(&self) -> Option<Duration> {
        (self.timeout > 0 && !self.debug).then(|| Duration::from_secs(self.timeout.into()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
/// A way to execute a program.
pub(super) enum Via {
    /// In the memory of this process
    Jit,
    /// Saved to a file, loaded and called by another process
    Image,
    /// By Cranelift's interpreter, which shares nothing with the code generator
    Interpreter,
}
