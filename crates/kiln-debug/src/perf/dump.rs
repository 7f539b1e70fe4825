//! The dump: a record for each function, with its code and the time
//! (`tools/perf/Documentation/jitdump-specification.txt` of Linux).
//!
//! perf learns of the file from a mapping of its first page, which is executable and stays. Code
//! that is published at an address that was used before is a new record with a later time, and
//! `perf inject` gives each sample the newest record from before it. So removal needs no record.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr;

use super::file;
use super::writer::{Failure, Writer, failure};
use crate::describe::Code;
use crate::machine::MACHINE;

pub(super) struct Dump {
    file: File,
    process: u32,
    /// The length of what was written completely.
    len: u64,
    /// The number of the next record of code.
    index: u64,
    /// Kept, so that a batch allocates nothing.
    records: Vec<u8>,
    mapping: *mut c_void,
}

// SAFETY: the mapping belongs to no thread, and is never read.
unsafe impl Send for Dump {}

/// The most bytes of memory that are kept between batches.
const KEPT: usize = 64 << 10;
/// `JiTD`.
const MAGIC: u32 = 0x4a69_5444;
const HEADER: u32 = 40;
const CODE_LOAD: u32 = 0;
const CODE_CLOSE: u32 = 3;

impl Writer for Dump {
    fn open(process: u32) -> Result<Self, Failure> {
        let folder = std::env::var_os("JITDUMPDIR").map(PathBuf::from);
        let path = folder.unwrap_or_default().join(format!("jit-{process}.dump"));
        let mut file = file::append(&path, OpenOptions::new().read(true)).map_err(failure("open"))?;
        // A dump has one header, so one that another JIT of this process has begun cannot be used.
        if file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            return Err(failure("have two JITs write to")(std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut header = Vec::with_capacity(HEADER as usize);
        let fields = [MAGIC, 1, HEADER, u32::from(MACHINE), 0, process];
        header.extend(fields.into_iter().flat_map(u32::to_ne_bytes));
        header.extend([now(), 0].into_iter().flat_map(u64::to_ne_bytes));
        file.write_all(&header).map_err(failure("write to"))?;
        // SAFETY: it only returns a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let access = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: a new mapping, which nobody reads.
        let mapping =
            unsafe { libc::mmap(ptr::null_mut(), page, access, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        if mapping == libc::MAP_FAILED {
            return Err(failure("map")(std::io::Error::last_os_error()));
        }
        Ok(Self { file, process, len: u64::from(HEADER), index: 0, records: Vec::new(), mapping })
    }

    fn add(&mut self, code: &Code<'_>) -> Result<(), Failure> {
        self.records.clear();
        // SAFETY: it only returns a number.
        let thread = unsafe { libc::gettid() } as u32;
        for function in code.functions {
            // SAFETY: who calls `perf::add` promises that the functions are in memory.
            let bytes = unsafe { std::slice::from_raw_parts(function.address as *const u8, function.size) };
            let size = 16 + 40 + function.name.len() + 1 + bytes.len();
            self.records.extend([CODE_LOAD, size as u32].into_iter().flat_map(u32::to_ne_bytes));
            self.records.extend(now().to_ne_bytes());
            self.records.extend([self.process, thread].into_iter().flat_map(u32::to_ne_bytes));
            let address = function.address as u64;
            let fields = [address, address, function.size as u64, self.index];
            self.records.extend(fields.into_iter().flat_map(u64::to_ne_bytes));
            self.records.extend(function.name.bytes().map(|byte| if byte == 0 { b'?' } else { byte }));
            self.records.push(0);
            self.records.extend(bytes);
            self.index += 1;
        }
        let result = self.file.write_all(&self.records).map_err(failure("write to"));
        match result {
            Ok(()) => self.len += self.records.len() as u64,
            // perf stops at half a record, so it must not stay.
            Err(_) => drop(self.file.set_len(self.len)),
        }
        self.records.shrink_to(KEPT);
        result
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        // Also in a child, which forgets its parent's dump: it must not end that.
        if self.process == std::process::id() {
            let mut record = Vec::with_capacity(16);
            record.extend([CODE_CLOSE, 16].into_iter().flat_map(u32::to_ne_bytes));
            record.extend(now().to_ne_bytes());
            let _ = self.file.write_all(&record);
        }
        // SAFETY: it was mapped by `open`.
        unsafe { libc::munmap(self.mapping, 1) };
    }
}

/// Returns the time that perf uses with `-k mono`, in nanoseconds.
fn now() -> u64 {
    file::clock(libc::CLOCK_MONOTONIC).map_or(0, |time| time.as_nanos() as u64)
}
