//! Opens files in folders that others can write to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Opens a file for appending, and makes it if it is not there. A link is not followed, and a file
/// of somebody else or with other names is refused. A file from before this process began, of a
/// process that had its number, is emptied.
pub(super) fn append(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    // SAFETY: it only returns a number.
    let user = unsafe { libc::geteuid() };
    if !metadata.is_file() || metadata.uid() != user || metadata.nlink() != 1 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let began = process_began();
    if metadata.len() > 0 && began.is_none_or(|began| metadata.modified().is_ok_and(|time| time < began)) {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Returns when this process began, or a little earlier.
fn process_began() -> Option<SystemTime> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain anything. The time is field 22.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    // SAFETY: it only returns a number.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|&n| n > 0)?;
    let after_boot = Duration::from_millis(ticks * 1000 / per_second);
    let age = clock(libc::CLOCK_BOOTTIME)?.checked_sub(after_boot)?;
    SystemTime::now().checked_sub(age + Duration::from_millis(20))
}

/// Returns the time of a clock.
pub(super) fn clock(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it fills `time`.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    (result == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}
