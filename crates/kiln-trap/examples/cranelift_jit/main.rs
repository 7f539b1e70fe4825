//! Traps, an interrupted loop and exceptions with plain cranelift-jit: `cargo run -p kiln-trap
//! --example cranelift_jit`.

mod program;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_trap::{Backtrace, Caught, Exception, call, call_and_catch, throw};

use self::program::{Options, Program};

const TEXT: &str = "
function %divide(i64, i64) -> i64 {
block0(v0: i64, v1: i64):
@000c    v2 = udiv v0, v1
    return v2
}
function %average(i64, i64) -> i64 {
    fn0 = %divide(i64, i64) -> i64
block0(v0: i64, v1: i64):
@0007    v2 = call fn0(v0, v1)
    return v2
}
function %endless(i64) -> i64 {
    fn0 = %endless(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = iadd v1, v0
    return v2
}
;; Counts until the epoch at this address is not the one that it began in.
function %count(i64) -> i64 {
block0(v0: i64):
    v1 = load.i64 notrap aligned v0
    v2 = iconst.i64 0
    jump block1(v2)
block1(v3: i64):
    v4 = load.i64 notrap aligned v0
    v5 = icmp ne v4, v1
    trapnz v5, user1
    v6 = iconst.i64 1
    v7 = iadd v3, v6
    jump block1(v7)
}
;; Calls `%find` and returns 0 if it throws 404.
function %find_or_zero(i64) -> i64 {
    sig0 = (i64) -> i64 tail
    fn0 = %find(i64) -> i64 tail
block0(v0: i64):
    try_call fn0(v0), sig0, block1(ret0), [ tag404: block2(exn0, exn1) ]
block1(v1: i64):
    return v1
block2(v2: i64, v3: i64):
    v4 = iconst.i64 0
    return v4
}
function %find(i64) -> i64 tail {
    fn0 = %look_up(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    return v1
}
function %shown(i64) -> i64 {
    fn0 = %print_backtrace(i64) -> i64
block0(v0: i64):
@0030    v1 = call fn0(v0)
    return v1
}
";

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        println!("  (the host's destructor runs)");
    }
}

/// Finds even keys. Throws 404 for odd keys, and 500 for 7.
extern "C-unwind" fn look_up(key: i64) -> i64 {
    let _guard = Guard;
    if key % 2 == 0 {
        return key * 10;
    }
    let tag = if key == 7 { 500 } else { 404 };
    // SAFETY: the handlers expect any payload.
    let error = unsafe { throw(Exception { tag, payload: [key as usize, 0] }) };
    println!("  not thrown: {error}");
    -1
}

extern "C-unwind" fn print_backtrace(value: i64) -> i64 {
    print!("{}", Backtrace::capture());
    value
}

fn main() {
    let host = [("look_up", look_up as *const u8), ("print_backtrace", print_backtrace as *const u8)];
    let program = Program::new(TEXT, &Options { host: &host, ..Options::default() });
    // SAFETY: the functions have these signatures, and their code is sound.
    unsafe {
        let average: extern "C" fn(u64, u64) -> u64 = program.function("average");
        println!("10 / 4 = {}", call(average, (10, 4)).unwrap());
        report("10 / 0", call(average, (10, 0)));

        let endless: extern "C" fn(u64) -> u64 = program.function("endless");
        report("endless", call(endless, (1,)));

        // Another thread stops the loop.
        let epoch = AtomicU64::new(0);
        let count: extern "C" fn(*const AtomicU64) -> u64 = program.function("count");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                epoch.store(1, Ordering::Relaxed);
            });
            report("count", call(count, (&raw const epoch,)));
        });

        let find: extern "C-unwind" fn(i64) -> i64 = program.function("find_or_zero");
        for key in [8, 9, 7] {
            println!("find {key} = {}", call(find, (key,)).unwrap());
        }
        // A caller of the host catches what no handler does.
        match call_and_catch(find, (7,)) {
            Err(Caught::Exception(exception)) => println!("find 7 threw {}", exception.tag),
            other => println!("find 7: {other:?}"),
        }

        let shown: extern "C-unwind" fn(i64) -> i64 = program.function("shown");
        call(shown, (0,)).unwrap();
    }
}

fn report(what: &str, result: Result<u64, Caught>) {
    match result {
        Ok(value) => println!("{what} = {value}"),
        Err(Caught::Trap(trap)) => print!("{what}: {trap}\n{}", first_lines(&trap.backtrace().to_string())),
        Err(error) => println!("{what}: {error}"),
    }
}

fn first_lines(text: &str) -> String {
    text.lines().take(4).map(|line| format!("{line}\n")).collect()
}
