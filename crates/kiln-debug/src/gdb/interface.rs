//! The interface of gdb and lldb for JITs: a list of ELF files in memory, and a function at which
//! a debugger stops when the list changes (the chapter "JIT Compilation Interface" of gdb's
//! manual).
//!
//! # Other JITs in the process
//!
//! A debugger looks for the two symbols in each executable and library (gdb since version 11, in
//! all of them; before, in the first), so JITs in different ones do not meet. Those of one
//! executable share the symbols: as here, wasmtime's are weak, and LLVM's then win. But there is no
//! common lock. Ours is a weak symbol too, so all copies of this crate that share a list share the
//! lock, and the list is changed in as few instructions as can be. Whoever uses another JIT of this
//! interface *in one executable, with debugging switched on in both*, must not let both publish at
//! the same moment.
//!
//! The symbols must not be stripped from the executable.

use std::arch::global_asm;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering, fence};

use crate::lock::ForkLock;

/// A file in the list; the layout is the interface's.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Entry {
    next: AtomicPtr<Entry>,
    previous: AtomicPtr<Entry>,
    file: *const u8,
    len: u64,
}

// SAFETY: the list belongs to the process, not to a thread.
unsafe impl Send for Entry {}

/// The list; the layout is the interface's.
#[repr(C)]
struct Descriptor {
    version: u32,
    /// 0: nothing changes; 1: an entry was added; 2: an entry was removed.
    action: AtomicU32,
    relevant: AtomicPtr<Entry>,
    first: AtomicPtr<Entry>,
}

unsafe extern "C" {
    static __jit_debug_descriptor: Descriptor;
    static kiln_debug_gdb_lock_1: AtomicU32;
    fn __jit_debug_register_code();
}

// The lock of this copy of the crate: threads wait in it.
static LOCK: ForkLock<()> = ForkLock::new(());

global_asm!(
    ".pushsection .text.__jit_debug_register_code, \"ax\", %progbits",
    ".balign 16",
    ".weak __jit_debug_register_code",
    ".type __jit_debug_register_code, %function",
    "__jit_debug_register_code:",
    ".cfi_startproc",
    #[cfg(not(target_arch = "s390x"))]
    "ret",
    #[cfg(target_arch = "s390x")]
    "br %r14",
    ".cfi_endproc",
    ".size __jit_debug_register_code, . - __jit_debug_register_code",
    ".popsection",
    ".pushsection .data.__jit_debug_descriptor, \"aw\", %progbits",
    ".balign 8",
    ".weak __jit_debug_descriptor",
    ".type __jit_debug_descriptor, %object",
    ".size __jit_debug_descriptor, 24",
    "__jit_debug_descriptor:",
    ".long 1, 0",
    ".quad 0, 0",
    ".weak kiln_debug_gdb_lock_1",
    ".hidden kiln_debug_gdb_lock_1",
    ".type kiln_debug_gdb_lock_1, %object",
    ".size kiln_debug_gdb_lock_1, 4",
    "kiln_debug_gdb_lock_1:",
    ".long 0",
    ".popsection",
);

/// Whether a debugger has set its breakpoint. It does so as soon as it sees the symbols: before the
/// program starts, or when it attaches.
pub(super) fn is_watching() -> bool {
    let code = (__jit_debug_register_code as *const ()).cast::<u8>();
    // SAFETY: the function has as many bytes as the smallest breakpoint of the architecture. A
    // debugger changes them while the program is stopped.
    unsafe {
        if cfg!(target_arch = "x86_64") {
            code.read_volatile() == 0xcc
        } else if cfg!(target_arch = "aarch64") {
            code.cast::<u32>().read_volatile() & 0xffe0_001f == 0xd420_0000
        } else if cfg!(target_arch = "s390x") {
            code.cast::<u16>().read_volatile() == 0x0001
        } else {
            // `c.ebreak`, and the first half of `ebreak`, which no other instruction has at the
            // start of a function.
            matches!(code.cast::<u16>().read_volatile(), 0x9002 | 0x0073)
        }
    }
}

/// The lock of the list.
pub(super) struct Locked {
    _guard: crate::lock::ForkGuard<()>,
}

impl Locked {
    pub(super) fn new() -> Self {
        let guard = LOCK.lock();
        // SAFETY: the symbol is a word that only copies of this crate use.
        let word = unsafe { &kiln_debug_gdb_lock_1 };
        while word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
        Self { _guard: guard }
    }

    /// Adds an entry, and tells the debugger.
    ///
    /// # Safety
    ///
    /// Entry and file must stay as they are until the entry is removed.
    pub(super) unsafe fn add(&self, entry: &Entry) {
        // SAFETY: the symbol is as the interface says.
        let list = unsafe { &__jit_debug_descriptor };
        let first = list.first.load(Ordering::Acquire);
        entry.next.store(first, Ordering::Relaxed);
        entry.previous.store(ptr::null_mut(), Ordering::Relaxed);
        let entry = ptr::from_ref(entry).cast_mut();
        // SAFETY: entries that are in the list exist.
        if let Some(first) = unsafe { first.as_ref() } {
            first.previous.store(entry, Ordering::Release);
        }
        list.first.store(entry, Ordering::Release);
        tell(list, 1, entry);
    }

    /// Takes an entry out, and tells the debugger.
    ///
    /// # Safety
    ///
    /// The entry was added.
    pub(super) unsafe fn remove(&self, entry: &Entry) {
        // SAFETY: the symbol is as the interface says.
        let list = unsafe { &__jit_debug_descriptor };
        let (next, previous) = (entry.next.load(Ordering::Acquire), entry.previous.load(Ordering::Acquire));
        // SAFETY: entries that are in the list exist.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.store(next, Ordering::Release),
            None => list.first.store(next, Ordering::Release),
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_ref() } {
            next.previous.store(previous, Ordering::Release);
        }
        tell(list, 2, ptr::from_ref(entry).cast_mut());
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: as in `new`.
        unsafe { &kiln_debug_gdb_lock_1 }.store(0, Ordering::Release);
    }
}

/// Tells the debugger what changed. It reads the entry while the program is stopped.
fn tell(list: &Descriptor, action: u32, entry: *mut Entry) {
    list.relevant.store(entry, Ordering::Release);
    list.action.store(action, Ordering::Release);
    fence(Ordering::SeqCst);
    // SAFETY: the function does nothing; a debugger stops at it.
    unsafe { __jit_debug_register_code() };
    list.action.store(0, Ordering::Release);
    list.relevant.store(ptr::null_mut(), Ordering::Release);
}

impl Entry {
    /// Makes an entry for a file in memory.
    pub(super) fn new(file: &[u8]) -> Box<Self> {
        Box::new(Self {
            next: AtomicPtr::default(),
            previous: AtomicPtr::default(),
            file: file.as_ptr(),
            len: file.len() as u64,
        })
    }
}
