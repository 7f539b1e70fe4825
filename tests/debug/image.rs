//! The program as an image that our own loader maps: `main` runs it in a process of its own, which
//! gdb starts, or to which it attaches.

use std::path::Path;
use std::time::Duration;

use kiln::globals::Bindings;
use kiln::image::{Image, bind_function};
use libtest_mimic::Failed;

use crate::memory::{call, host};

/// The first argument of the process, by the way to open the image; the last one waits for a
/// debugger.
pub(crate) const IMAGES: [&str; 4] =
    ["--file-for-gdb", "--private-file-for-gdb", "--bytes-for-gdb", "--running-for-gdb"];

/// Binds the image `program.so` in `folder`, and calls it.
pub(crate) fn run(folder: &Path, number: usize) -> Result<(), Failed> {
    let path = folder.join("program.so");
    let image = match number {
        1 => Image::open_private(path)?,
        2 => Image::from_bytes(&std::fs::read(path)?)?,
        _ => Image::open(path)?,
    };
    let mut bindings = Bindings::new();
    bind_function(&mut bindings, "host", host as extern "C" fn(i64) -> i64);
    let loaded = image.bind(&bindings)?;
    let work = || loaded.function("work").ok_or("no function");
    if IMAGES[number] != "--running-for-gdb" {
        return call(work()?);
    }
    println!("{}", std::process::id());
    for _ in 0..900 {
        std::thread::sleep(Duration::from_millis(100));
        loaded.tell_debugger();
        call(work()?)?;
    }
    Ok(())
}
