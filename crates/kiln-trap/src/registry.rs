//! The ranges of addresses that this process has code in, and who knows about them.
//!
//! Readers are signal handlers and unwinders, so a lookup takes no lock, never waits and allocates
//! nothing. All ranges are in one sorted array, which is never changed: a writer makes another
//! array and swaps the pointer. What a writer replaced, it frees when no reader can have it.
//!
//! Readers are counted in one of two sets of counters, and a writer waits for both in turn, as
//! sleepable RCU in Linux does. New readers use the other set, so they do not make a writer wait.
//! Two waits are needed because a reader may choose a set, be delayed, and count itself in it when
//! the writer has seen it empty; such a reader is met by the second wait of the *next* writer.
//!
//! In a child of `fork` the readers of other threads are gone, so the counters are cleared.

use std::ops::Range;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crate::arch;
use crate::code::CodeLookup;

/// The most ranges that can be registered at once.
pub const MAX_RANGES: usize = 8192;

/// A registered range; dropping it takes the range back.
///
/// Dropping waits until no thread is in a method of the [`CodeLookup`]. So it must not be dropped
/// by such a method.
#[derive(Debug)]
pub struct Registration {
    start: usize,
}

/// Says why a range was not registered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The range is empty.
    Empty {
        /// Its start.
        start: usize,
    },
    /// A part of the range is registered already.
    Overlap {
        /// The range that was given.
        new: Range<usize>,
        /// The range that is registered.
        registered: Range<usize>,
    },
    /// [`MAX_RANGES`] are registered.
    Full,
    /// This machine is not one that [is supported](crate::SUPPORTED).
    Unsupported {
        /// Its architecture.
        arch: &'static str,
    },
}

impl std::fmt::Display for RegisterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty { start } => write!(f, "the range at {start:#x} is empty"),
            Self::Overlap { new, registered } => write!(
                f,
                "the range {:#x}..{:#x} overlaps {:#x}..{:#x}, which is registered",
                new.start, new.end, registered.start, registered.end
            ),
            Self::Unsupported { arch } => arch::refuse(f, arch),
            Self::Full => write!(f, "{MAX_RANGES} ranges are registered, and there can be no more"),
        }
    }
}

impl std::error::Error for RegisterError {}

#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    end: usize,
    lookup: *const dyn CodeLookup,
}

struct Ranges(Vec<Entry>);

/// The current array; null if there is no range.
static CURRENT: AtomicPtr<Ranges> = AtomicPtr::new(ptr::null_mut());
/// Its lowest bit says in which set new readers count themselves.
static SET: AtomicUsize = AtomicUsize::new(0);
static READERS: [Counters; 2] = [const { Counters::new() }; 2];
/// Whether a writer is at work.
static WRITING: AtomicBool = AtomicBool::new(false);

const STRIPES: usize = 16;

/// A counter of readers for each of a few groups of threads, on cache lines of their own.
struct Counters([Stripe; STRIPES]);

#[repr(align(128))]
struct Stripe(AtomicUsize);

impl Counters {
    const fn new() -> Self {
        Self([const { Stripe(AtomicUsize::new(0)) }; STRIPES])
    }
}

/// Registers the code in `range`, about which `lookup` answers.
///
/// # Errors
///
/// [`RegisterError`] if the range is empty, overlaps another, or is one too many, or if this
/// machine is not [supported](crate::SUPPORTED).
///
/// # Safety
///
/// `lookup` must answer for `range` as [`CodeLookup`] demands, until the [`Registration`] is
/// dropped. Both the code and `lookup` must live until then.
pub unsafe fn register(
    range: Range<usize>,
    lookup: *const dyn CodeLookup,
) -> Result<Registration, RegisterError> {
    if !arch::SUPPORTED {
        return Err(RegisterError::Unsupported { arch: std::env::consts::ARCH });
    }
    if range.start >= range.end {
        return Err(RegisterError::Empty { start: range.start });
    }
    forget_readers_in_children();
    let writer = Writer::lock();
    let mut ranges = writer.ranges();
    let place = ranges.partition_point(|entry| entry.start < range.start);
    let neighbours = place.checked_sub(1).into_iter().chain([place]);
    for entry in neighbours.filter_map(|index| ranges.get(index)) {
        if entry.start < range.end && range.start < entry.end {
            return Err(RegisterError::Overlap { new: range, registered: entry.start..entry.end });
        }
    }
    if ranges.len() >= MAX_RANGES {
        return Err(RegisterError::Full);
    }
    ranges.insert(place, Entry { start: range.start, end: range.end, lookup });
    writer.publish(ranges);
    Ok(Registration { start: range.start })
}

impl Drop for Registration {
    fn drop(&mut self) {
        let writer = Writer::lock();
        let mut ranges = writer.ranges();
        if let Ok(place) = ranges.binary_search_by_key(&self.start, |entry| entry.start) {
            ranges.remove(place);
        }
        writer.publish(ranges);
    }
}

/// Calls `ask` with the lookup of the range that contains `pc`. Returns `None` if there is none.
pub(crate) fn at<T>(pc: usize, ask: impl FnOnce(&dyn CodeLookup) -> T) -> Option<T> {
    let _reader = Reader::new();
    // SAFETY: the array was published whole, and is freed only when this reader is gone.
    let ranges = unsafe { CURRENT.load(Ordering::SeqCst).as_ref()? };
    let place = ranges.0.partition_point(|entry| entry.start <= pc);
    let entry = ranges.0.get(place.checked_sub(1)?)?;
    // SAFETY: who registered the range promised that the lookup lives until its registration is
    // dropped, and that waits for this reader.
    (pc < entry.end).then(|| ask(unsafe { &*entry.lookup }))
}

/// Whether `return_pc` is behind a call in registered code.
pub(crate) fn returns_to_code(return_pc: usize) -> bool {
    return_pc.checked_sub(1).is_some_and(|pc| at(pc, |_| ()).is_some())
}

/// A promise to be counted while the current array may be in use.
struct Reader {
    counter: &'static AtomicUsize,
}

impl Reader {
    fn new() -> Self {
        // Threads are told apart by their stacks: a thread-local value may not be touched in a
        // signal handler, because the first access may allocate.
        let here = 0u8;
        let stripe = (ptr::from_ref(&here).addr() >> 16).wrapping_mul(0x9e37_79b9) >> 8;
        let set = SET.load(Ordering::SeqCst) & 1;
        let counter = &READERS[set].0[stripe % STRIPES].0;
        counter.fetch_add(1, Ordering::SeqCst);
        Self { counter }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Release);
    }
}

/// The one thread that may change the array.
struct Writer;

impl Writer {
    fn lock() -> Self {
        let (unlocked, locked) = (Ordering::Relaxed, Ordering::Acquire);
        while WRITING.compare_exchange_weak(false, true, locked, unlocked).is_err() {
            std::thread::yield_now();
        }
        Self
    }

    fn ranges(&self) -> Vec<Entry> {
        // SAFETY: only the writer frees an array, and this is the writer.
        unsafe { CURRENT.load(Ordering::SeqCst).as_ref() }.map(|ranges| ranges.0.clone()).unwrap_or_default()
    }

    fn publish(&self, ranges: Vec<Entry>) {
        let new = match ranges.is_empty() {
            true => ptr::null_mut(),
            false => Box::into_raw(Box::new(Ranges(ranges))),
        };
        let old = CURRENT.swap(new, Ordering::SeqCst);
        for _ in 0..2 {
            let set = SET.fetch_xor(1, Ordering::SeqCst) & 1;
            for stripe in &READERS[set].0 {
                while stripe.0.load(Ordering::SeqCst) != 0 {
                    std::thread::yield_now();
                }
            }
        }
        if !old.is_null() {
            // SAFETY: `old` came from `Box::into_raw`, no new reader can get it, and the readers
            // that had it are gone.
            drop(unsafe { Box::from_raw(old) });
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        WRITING.store(false, Ordering::Release);
    }
}

/// Makes children of `fork` forget the readers that only their parent has. No writer is at work
/// while the process forks.
fn forget_readers_in_children() {
    static ONCE: Once = Once::new();
    extern "C" fn prepare() {
        std::mem::forget(Writer::lock());
    }
    extern "C" fn parent() {
        drop(Writer);
    }
    extern "C" fn child() {
        for stripe in READERS.iter().flat_map(|counters| &counters.0) {
            stripe.0.store(0, Ordering::SeqCst);
        }
        drop(Writer);
    }
    ONCE.call_once(|| {
        // SAFETY: the functions live as long as the process. Should it fail, because memory is
        // full, only the removal of a range in a child that forked during a lookup would wait.
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    });
}
