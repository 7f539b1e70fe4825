//! Options that several commands have: target, level of optimization, threads, profiler.

use std::path::Path;

use kiln::Compiler;
use kiln::globals::GlobalAccess;
use kiln::image::{Image, LoadError, Profiler as Kind};
use kiln::ir::{Inlining, OptLevel, Target};

use crate::output::Failure;

/// How much a build optimizes.
#[derive(Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Level {
    /// Compile quickly
    None,
    /// Make code fast
    Speed,
    /// Make code fast, then small
    SpeedAndSize,
}

impl From<Level> for OptLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Speed => Self::Speed,
            Level::SpeedAndSize => Self::SpeedAndSize,
        }
    }
}

/// How code reaches what is outside of its module.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Globals {
    /// Through slots, which are filled at load
    Slots,
    /// By addresses in code, which are written at load
    Direct,
}

impl From<Globals> for GlobalAccess {
    fn from(globals: Globals) -> Self {
        match globals {
            Globals::Slots => Self::Slots,
            Globals::Direct => Self::Direct,
        }
    }
}

/// Which calls are inlined.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct InlineArgs {
    /// Inline calls of functions with up to N instructions, also of other files, and those with the
    /// hint `inline` [N if left out: 20]
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "20")]
    inline: Option<u32>,
}

impl InlineArgs {
    /// Tells the compiler what to inline.
    pub(crate) fn apply(self, compiler: Compiler) -> Compiler {
        match self.inline {
            Some(size) => compiler.inline(Inlining::of_size(size)),
            None => compiler,
        }
    }
}

/// A file with the names of functions, for a profiler.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Profiler {
    /// A map for `perf report`, `/tmp/perf-PID.map`
    Perf,
    /// A dump with the code, `jit-PID.dump` in `$JITDUMPDIR` or the current folder, for `perf
    /// record -k mono` and `perf inject --jit`
    Jitdump,
}

impl From<Profiler> for Kind {
    fn from(profiler: Profiler) -> Self {
        match profiler {
            Profiler::Perf => Self::Map,
            Profiler::Jitdump => Self::Dump,
        }
    }
}

impl Profiler {
    /// Opens an image whose functions are to be written.
    pub(crate) fn open(self, path: &Path) -> Result<Image, LoadError> {
        Ok(Image::open(path)?.profiler(Some(self.into())))
    }
}

/// Returns the target that `--target` names, or the host.
pub(crate) fn target(triple: Option<&str>) -> Result<Target, Failure> {
    triple.map_or_else(|| Ok(Target::host()), |text| Target::parse(text).map_err(Failure::of))
}

/// Sets the number of threads of rayon's global pool to `--threads`, and returns the number that
/// the pool has.
pub(crate) fn threads(threads: Option<usize>) -> Result<usize, Failure> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| Failure::while_doing(format!("cannot start {threads} threads"), error))?;
    }
    Ok(rayon::current_num_threads())
}
