//! The program in memory: `main` runs it in a process of its own, which gdb starts.

use std::path::Path;

use kiln::image::FunctionRef;
use kiln::ir::{OptLevel, Target};
use kiln::jit::{JitOptions, Mapping, Memory, MemoryOptions};
use kiln::{Compiler, Session};
use libtest_mimic::Failed;

use crate::program::{PROGRAM, module};

/// The first argument of the process, for code that is mapped once and for code that is mapped
/// twice.
pub(crate) const SESSIONS: [&str; 2] = ["--session-for-gdb", "--dual-session-for-gdb"];

#[inline(never)]
pub(crate) extern "C" fn host(number: i64) -> i64 {
    number + 1
}

/// Compiles the program, whose text is in `folder`, in memory, and calls it.
pub(crate) fn run(folder: &Path, is_writable: bool) -> Result<(), Failed> {
    let target = Target::host().opt_level(OptLevel::None);
    // gdb writes its breakpoints into code. It cannot do so in code that is mapped twice.
    let options = MemoryOptions { mapping: Mapping::Protect, ..MemoryOptions::default() };
    let memory = if is_writable { Memory::reserve(options)? } else { Memory::shared()? };
    let options = JitOptions { memory: Some(memory), ..JitOptions::default() };
    let session = Session::with_compiler(Compiler::new(target.clone()), options)?;
    session.bind_function("host", host as extern "C" fn(i64) -> i64)?;
    let unit = session.add(&[module("program.clif", PROGRAM, &folder.to_string_lossy(), &target)?])?;
    call(session.function("work").ok_or("no function")?)?;
    session.remove(&[unit])?;
    Ok(())
}

/// Calls the program.
pub(crate) fn call(work: FunctionRef<'_>) -> Result<(), Failed> {
    // SAFETY: the type is checked, and the function calls only `host`.
    let work = unsafe { work.typed::<extern "C" fn(i64, f64) -> i64>() }?;
    println!("result {}", work(3, 2.5));
    Ok(())
}
