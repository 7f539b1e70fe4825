//! Prepares a thread in which compiled code may trap: an alternate stack for signal handlers, and
//! the bounds of its own stack.
//!
//! The standard library gives a thread an alternate stack of 8 KiB on many machines, which the
//! registers of a signal fill by half, so it is replaced by one of [`ALTERNATE_SIZE`] with a guard
//! page. An alternate stack of at least [`ENOUGH`] bytes is left alone.

use std::cell::Cell;
use std::io;
use std::ptr;

/// The size of the alternate stacks that are made here, in bytes, without the guard page.
const ALTERNATE_SIZE: usize = 128 << 10;
/// An alternate stack of this size is large enough, in bytes.
const ENOUGH: usize = 64 << 10;
/// How far from the end of the main thread's stack an access counts as an overflow, in bytes. The
/// kernel keeps a gap of 1 MiB below a stack that grows, and rounds its limit.
const MAIN_REACH: usize = 1 << 20;

/// The bounds of a thread's stack that a signal handler needs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Addresses from here on that are below `high` are in the guard of the stack.
    low: usize,
    high: usize,
}

/// Contains no address.
static UNKNOWN: Bounds = Bounds { low: 0, high: 0 };

impl Bounds {
    /// Whether an access to `address` fails because the stack is full.
    pub(crate) fn is_overflow(&self, address: usize) -> bool {
        (self.low..self.high).contains(&address)
    }
}

/// An alternate stack that this module made.
struct Alternate {
    mapping: *mut libc::c_void,
    len: usize,
}

impl Drop for Alternate {
    fn drop(&mut self) {
        // SAFETY: the first call fills in `current`. The second ends the use of the stack, if it
        // is still this one: the standard library may have removed it before. The third unmaps
        // what `Alternate::new` mapped, once, and nothing runs on it: this is no signal handler.
        unsafe {
            let mut current: libc::stack_t = std::mem::zeroed();
            let known = libc::sigaltstack(ptr::null(), &raw mut current) == 0;
            let ours = self.mapping.addr()..self.mapping.addr() + self.len;
            if known && ours.contains(&current.ss_sp.addr()) {
                current.ss_flags = libc::SS_DISABLE;
                libc::sigaltstack(&raw const current, ptr::null_mut());
            }
            libc::munmap(self.mapping, self.len);
        }
    }
}

impl Alternate {
    /// Gives this thread an alternate stack, unless it has one that is large enough.
    fn new() -> io::Result<Option<Self>> {
        // SAFETY: the calls take pointers to what they fill in or read. The memory that becomes
        // the stack is fresh, and is unmapped by `drop` only.
        unsafe {
            let mut old: libc::stack_t = std::mem::zeroed();
            check(libc::sigaltstack(ptr::null(), &raw mut old))?;
            if old.ss_flags & libc::SS_DISABLE == 0 && old.ss_size >= ENOUGH {
                return Ok(None);
            }
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
            let len = page + ALTERNATE_SIZE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
            let mapping = libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
            if mapping == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let this = Self { mapping, len };
            let stack = mapping.byte_add(page);
            check(libc::mprotect(stack, ALTERNATE_SIZE, libc::PROT_READ | libc::PROT_WRITE))?;
            let new = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: ALTERNATE_SIZE };
            check(libc::sigaltstack(&raw const new, ptr::null_mut()))?;
            Ok(Some(this))
        }
    }
}

thread_local! {
    /// The bounds; `None` before the first use.
    static BOUNDS: Cell<Option<Bounds>> = const { Cell::new(None) };
    /// Frees the alternate stack when the thread ends.
    static ALTERNATE: Cell<Option<Alternate>> = const { Cell::new(None) };
}

/// Prepares this thread, the first time, and calls `first` then. Returns the bounds of its stack,
/// which stay where they are until the thread ends.
///
/// # Errors
///
/// If the system refuses the memory of an alternate stack.
#[inline]
pub(crate) fn prepare(first: fn()) -> io::Result<*const Bounds> {
    BOUNDS.with(|bounds| {
        if bounds.get().is_none() {
            prepare_first(first)?;
        }
        // SAFETY: it is written once, above, and no exclusive reference to it exists.
        let place = unsafe { &*bounds.as_ptr() };
        Ok(place.as_ref().map_or(&raw const UNKNOWN, ptr::from_ref))
    })
}

#[cold]
fn prepare_first(first: fn()) -> io::Result<()> {
    first();
    let alternate = Alternate::new()?;
    // A thread that is ending has no place for it any more, so its values stay for the process.
    if let Some(alternate) = alternate {
        let mut alternate = Some(alternate);
        let _ = ALTERNATE.try_with(|place| place.set(alternate.take()));
        std::mem::forget(alternate);
    }
    BOUNDS.set(Some(bounds()));
    Ok(())
}

fn bounds() -> Bounds {
    // SAFETY: `attributes` is initialized by the first call, read by the others, and destroyed.
    // The pointers are to local values.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return UNKNOWN;
        }
        let (mut start, mut size, mut guard) = (ptr::null_mut(), 0, 0);
        let known = libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size) == 0
            && libc::pthread_attr_getguardsize(&raw const attributes, &raw mut guard) == 0;
        libc::pthread_attr_destroy(&raw mut attributes);
        if !known {
            return UNKNOWN;
        }
        let start = start.addr();
        let main = libc::gettid() == libc::getpid();
        match main {
            true => Bounds { low: start.saturating_sub(MAIN_REACH), high: start + MAIN_REACH },
            // The guard of glibc is below the start, that of musl and older glibc inside.
            false => Bounds { low: start.saturating_sub(guard), high: start + guard },
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
