//! Tells perf about code: a map of names, or a dump with the code.
//!
//! | | [`Kind::Map`] | [`Kind::Dump`] |
//! |---|---|---|
//! | file | `/tmp/perf-PID.map` | `jit-PID.dump` in `$JITDUMPDIR`, or the current directory |
//! | has | addresses, sizes and names | that, the code, and the time of each publication |
//! | to use it | `perf record`, `perf report` | `perf record -k mono`, `perf inject --jit` first |
//! | addresses used again | names of samples are wrong | right |
//!
//! The map is the default, since `perf inject` writes a file for each function. A map has no word
//! for removal, and perf reads it when it reports: if an address is used again, samples of the
//! code that was there first get the name of the code that came last. So while a map is written,
//! the client should not use addresses again, or use a dump.
//!
//! The file is opened once for each process, when the first code is published, and written with one
//! call a batch. A child of `fork` opens its own. Nothing that goes wrong is an error of the
//! program: what cannot be written is counted, see [`status`].

mod dump;
mod file;
mod map;
mod writer;

use self::dump::Dump;
use self::map::Map;
use self::writer::Writer;
pub use self::writer::{Failure, Status};
use crate::describe::Code;
use crate::lock::ForkLock;

/// A kind of file for perf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A map of names.
    Map,
    /// A dump with the code.
    Dump,
}

impl Kind {
    /// Whether names of samples are wrong if addresses of removed code are used again.
    pub fn confuses_reuse(self) -> bool {
        self == Self::Map
    }
}

/// The files of this process.
static FILES: ForkLock<Files> = ForkLock::new(Files { map: Output::new(), dump: Output::new() });

struct Files {
    map: Output<Map>,
    dump: Output<Dump>,
}

/// One file, for the process that opened it.
struct Output<T> {
    process: u32,
    /// `None` if it could not be opened; that is not tried again.
    file: Option<T>,
    status: Status,
}

impl<T: Writer> Output<T> {
    const fn new() -> Self {
        Self { process: 0, file: None, status: Status { functions: 0, failures: 0, error: None } }
    }

    /// Forgets the file of the parent.
    fn own(&mut self) -> &mut Self {
        let process = std::process::id();
        if self.process != process {
            *self = Self::new();
            self.process = process;
            let opened = T::open(process);
            self.file = opened.map_err(|failure| self.status.error = Some(failure)).ok();
        }
        self
    }

    fn add(&mut self, code: &Code<'_>) {
        let Self { file, status, .. } = self.own();
        match file.as_mut().map(|file| file.add(code)) {
            Some(Ok(())) => status.functions += code.functions.len() as u64,
            Some(Err(failure)) => {
                status.failures += 1;
                status.error.get_or_insert(failure);
            }
            None => status.failures += 1,
        }
    }
}

/// Writes a batch of functions into the file of this process.
///
/// # Safety
///
/// For a dump, the functions are in memory: their bytes are read.
pub unsafe fn add(kind: Kind, code: &Code<'_>) {
    let mut files = FILES.lock();
    match kind {
        Kind::Map => files.map.add(code),
        Kind::Dump => files.dump.add(code),
    }
}

/// Returns what this process has written.
pub fn status(kind: Kind) -> Status {
    let files = FILES.lock();
    let (process, status) = match kind {
        Kind::Map => (files.map.process, &files.map.status),
        Kind::Dump => (files.dump.process, &files.dump.status),
    };
    if process == std::process::id() { status.clone() } else { Status::default() }
}
