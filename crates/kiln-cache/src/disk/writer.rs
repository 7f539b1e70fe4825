//! Identifies the process that writes a temporary file. The file's name contains this identity, so
//! that other processes can tell whether the writer still runs.
//!
//! A process is identified by its PID and start time, the boot of its machine, and its PID
//! namespace. If these cannot be determined, or if the boot or the namespace is not that of this
//! process, only the file's age shows that it is no longer being written.

use std::hash::BuildHasher;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A process that writes files of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writer {
    /// A hash of the machine, its boot and the PID namespace; 0 if not known.
    place: u64,
    process: u32,
    /// Clock ticks from the boot to the start of the process; 0 if not known.
    started: u64,
}

impl Writer {
    /// Returns the identity of this process.
    pub(crate) fn this() -> Self {
        static THIS: OnceLock<Writer> = OnceLock::new();
        let process = std::process::id();
        let find = || Self { place: place().unwrap_or(0), process, started: started(process).unwrap_or(0) };
        let known = *THIS.get_or_init(find);
        // In a forked child, `known` is still the parent.
        if known.process == process { known } else { find() }
    }

    /// Returns a part of a file name that no other file has, and that identifies this process.
    pub(crate) fn unique_name(self) -> String {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        // The standard library's hash tables are seeded at random for each process.
        let random = std::hash::RandomState::new().hash_one(COUNTER.fetch_add(1, Relaxed));
        let Self { place, process, started } = self;
        format!("{place:016x}-{process}-{started}-{random:016x}")
    }

    /// Reads the process from a part of a file name that [`Writer::unique_name`] made.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let hex = |part: &str| if part.len() == 16 { u64::from_str_radix(part, 16).ok() } else { None };
        let place = hex(parts.next()?)?;
        let (process, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        hex(parts.next()?)?;
        parts.next().is_none().then_some(Self { place, process, started })
    }

    /// Returns whether the process has ended; `None` if this process cannot tell.
    pub(crate) fn has_ended(self) -> Option<bool> {
        let this = Self::this();
        if self.place == 0 || this.place != self.place || self.started == 0 || this.started == 0 {
            return None;
        }
        // With another start time, it is a different process that was given the same PID.
        Some(started(self.process) != Some(self.started))
    }
}

/// Returns a hash of the machine, its boot and the PID namespace.
fn place() -> Option<u64> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let space = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let mut hasher = blake3::Hasher::new_derive_key("kiln-cache place of a process");
    hasher.update(&boot);
    hasher.update(space.as_os_str().as_encoded_bytes());
    Some(u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk()?))
}

/// Returns when a process started, in clock ticks since boot; `None` if it is not running.
fn started(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may contain anything. The third
    // is the state: a zombie has ended. The start time is the 22nd.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let runs = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_writes() {
        let this = Writer::this();
        assert_ne!((this.place, this.started), (0, 0));
        assert_eq!(this.has_ended(), Some(false));
        let name = this.unique_name();
        assert_eq!(Writer::of_name(&name), Some(this));
        assert_ne!(this.unique_name(), name);
        let later = Writer { started: this.started + 1, ..this };
        assert_eq!(later.has_ended(), Some(true), "the number was used again");
        assert_eq!(Writer { process: u32::MAX, ..this }.has_ended(), Some(true));
        assert_eq!(Writer { place: this.place ^ 1, ..this }.has_ended(), None, "another machine");
        for wrong in ["", "1-0", &name[1..], &format!("{name}-"), &name.replace('-', "_")] {
            assert_eq!(Writer::of_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_ended_process_has_ended_even_while_nobody_waited_for_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let writer = Writer { process: child.id(), started: started(child.id()).unwrap(), ..Writer::this() };
        assert_eq!(writer.has_ended(), Some(false));
        child.kill().unwrap();
        while writer.has_ended() == Some(false) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(writer.has_ended(), Some(true));
    }
}
