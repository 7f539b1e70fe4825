//! An implementation of `Files` on real files in which the n-th operation fails, or the "process"
//! dies at it.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::files::{Admit, Files, Meta, RealFiles};

/// The way in which an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The operation fails with this error number of the system; the next one works again.
    Error(i32),
    /// This operation and all later ones fail with this error number.
    ErrorFrom(i32),
    /// The process "dies": neither this operation nor any later one happens.
    Kill,
}

pub(super) const EIO: i32 = 5;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EROFS: i32 = 30;

/// Every operation that changes something fails with `EROFS`; the others work.
pub(super) const READ_ONLY: Plan =
    Plan { at: 0, fault: Fault::ErrorFrom(EROFS), partial: 0, only_writes: true };

/// A failure, and the operation at which it happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Number of the operation, from 0.
    pub(super) at: usize,
    pub(super) fault: Fault,
    /// If the operation writes a file, this many bytes are written before it fails.
    pub(super) partial: usize,
    /// Operations that only read are not counted and do not fail.
    pub(super) only_writes: bool,
}

#[derive(Debug, Default)]
struct State {
    calls: usize,
    plan: Option<Plan>,
    fired: bool,
    ahead: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Shim(Mutex<State>);

impl Shim {
    /// Sets the plan, and counts operations from 0 again.
    pub(super) fn plan(&self, plan: Option<Plan>) {
        let mut state = self.0.lock().unwrap();
        (state.calls, state.plan, state.fired) = (0, plan, false);
    }

    /// Returns whether an operation failed since the plan was set.
    pub(super) fn fired(&self) -> bool {
        self.0.lock().unwrap().fired
    }

    /// Sets how far the clock is ahead of the file system's.
    pub(super) fn set_ahead(&self, ahead: Duration) {
        self.0.lock().unwrap().ahead = ahead;
    }

    /// Counts an operation. If it is to fail, returns the error and the number of bytes that a
    /// write still writes.
    fn call(&self, writes: bool) -> Result<(), (io::Error, usize)> {
        let mut state = self.0.lock().unwrap();
        let Some(plan) = state.plan.filter(|plan| writes || !plan.only_writes) else { return Ok(()) };
        let call = state.calls;
        state.calls += 1;
        let (fails, code) = match plan.fault {
            Fault::Error(code) => (call == plan.at, code),
            Fault::ErrorFrom(code) => (call >= plan.at, code),
            Fault::Kill => (call >= plan.at, EIO),
        };
        if !fails {
            return Ok(());
        }
        state.fired = true;
        Err((io::Error::from_raw_os_error(code), if call == plan.at { plan.partial } else { 0 }))
    }

    fn reads(&self) -> io::Result<()> {
        self.call(false).map_err(|(error, _)| error)
    }

    fn writes(&self) -> io::Result<()> {
        self.call(true).map_err(|(error, _)| error)
    }
}

impl Files for Shim {
    fn now(&self) -> SystemTime {
        SystemTime::now() + self.0.lock().unwrap().ahead
    }

    fn read(&self, path: &Path, admit: Admit) -> io::Result<(Vec<u8>, Meta)> {
        self.reads()?;
        RealFiles.read(path, admit)
    }

    fn read_head(&self, path: &Path, head: &mut [u8]) -> io::Result<usize> {
        self.reads()?;
        RealFiles.read_head(path, head)
    }

    fn write_new(&self, path: &Path, parts: &[&[u8]], _: bool) -> io::Result<()> {
        match self.call(true) {
            Ok(()) => RealFiles.write_new(path, parts, false),
            Err((error, partial)) => {
                if partial > 0 {
                    let bytes = parts.concat();
                    RealFiles.write_new(path, &[&bytes[..partial.min(bytes.len())]], false)?;
                }
                Err(error)
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.writes()?;
        RealFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.writes()?;
        RealFiles.remove(path)
    }

    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        self.writes()?;
        RealFiles.touch(path, time)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.writes()?;
        RealFiles.create_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.reads()?;
        RealFiles.list(folder)
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        self.reads()?;
        RealFiles.meta(path)
    }
}
