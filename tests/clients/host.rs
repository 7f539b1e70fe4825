//! The host's symbols, which programs import: printing, memory, a function that calls back, and a
//! variable.
//!
//! Output and memory belong to the thread that runs a program, so that tests do not disturb each
//! other.

use std::cell::{Cell, RefCell};

use crate::language::Failure;

thread_local! {
    static OUTPUT: RefCell<String> = const { RefCell::new(String::new()) };
    static MEMORY: RefCell<Vec<Box<[u64]>>> = const { RefCell::new(Vec::new()) };
}

/// A text in the language's layout.
#[repr(C)]
pub(crate) struct Text {
    len: u64,
    bytes: *const u8,
    next: *const Text,
}

/// A function as a value, in the language's layout: the captured values follow the code pointer.
#[repr(C)]
pub(crate) struct Closure {
    code: extern "C" fn(*const Closure, i64) -> i64,
}

fn print(line: impl std::fmt::Display) -> i64 {
    OUTPUT.with_borrow_mut(|output| *output += &format!("{line}\n"));
    0
}

extern "C" fn print_int(value: i64) -> i64 {
    print(value)
}

extern "C" fn print_float(value: f64) -> i64 {
    print(format_args!("{value:?}"))
}

unsafe extern "C" fn print_text(text: *const Text) -> i64 {
    // SAFETY: only compiled programs call this, and their texts have this layout; there are `len`
    // bytes.
    let bytes = unsafe {
        let text = &*text;
        std::slice::from_raw_parts(text.bytes, text.len as usize)
    };
    print(String::from_utf8_lossy(bytes))
}

/// Allocates zeros, which are freed when the program has ended.
extern "C" fn allocate(size: i64) -> *mut u64 {
    let mut memory = vec![0; usize::try_from(size).map_or(0, |size| size.div_ceil(8))].into_boxed_slice();
    let address = memory.as_mut_ptr();
    MEMORY.with_borrow_mut(|all| all.push(memory));
    address
}

/// The sum of the results of `closure` for the numbers below `count`.
unsafe extern "C" fn repeat(closure: *const Closure, count: i64) -> i64 {
    // SAFETY: only compiled programs call this, and their functions have this layout.
    let code = unsafe { (*closure).code };
    (0..count).map(|number| code(closure, number)).sum()
}

/// The host of one run of a program.
pub(crate) struct Host {
    /// The variable `tally`.
    tally: Box<Cell<i64>>,
}

impl Host {
    pub(crate) fn new() -> Self {
        OUTPUT.take();
        Self { tally: Box::new(Cell::new(0)) }
    }

    /// Functions in the order of `host.c`'s table, then data.
    pub(crate) fn symbols(&self) -> [(&'static str, *const u8); 6] {
        [
            ("print_int", print_int as *const u8),
            ("print_float", print_float as *const u8),
            ("print_text", print_text as *const u8),
            ("allocate", allocate as *const u8),
            ("repeat", repeat as *const u8),
            ("tally", self.tally.as_ptr().cast_const().cast()),
        ]
    }

    pub(crate) fn tally(&self) -> i64 {
        self.tally.get()
    }
}

/// The outcome of a program.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) result: i64,
    pub(crate) output: String,
    /// The host's variable at the end.
    pub(crate) tally: i64,
    /// The program's variable `state` at the end, if it exports one.
    pub(crate) state: Option<i64>,
}

/// Calls a program. `state` is the address of its variable of that name, `tally` reads the host's.
///
/// # Safety
///
/// `start` is the address of a function of the language that takes nothing and returns an integer.
/// The code imports only [`Host::symbols`] and routines of the types that the language assumes.
/// `state` is null or readable.
pub(crate) unsafe fn call(
    start: *const u8,
    state: *const u8,
    tally: impl FnOnce() -> i64,
) -> Result<Outcome, Failure> {
    if start.is_null() {
        return Err("the program has no `start`".into());
    }
    // SAFETY: the caller promises it.
    let start = unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i64>(start) };
    let result = start();
    // SAFETY: the caller promises it.
    let state = (!state.is_null()).then(|| unsafe { state.cast::<i64>().read() });
    let outcome = Outcome { result, output: OUTPUT.take(), tally: tally(), state };
    MEMORY.take();
    Ok(outcome)
}
