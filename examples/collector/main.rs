//! A program with a garbage collector that moves objects: run in memory, saved as an image, and run
//! again from the image.
//!
//! The collector is in `crates/kiln-image/examples/collector_image/heap.rs`. It finds the
//! references in compiled frames with `kiln_trap::roots`. The other program in that folder runs the
//! image without Cranelift.
//!
//! ```text
//! cargo run --features trap --example collector -- program.so
//! ```

#[path = "../../crates/kiln-image/examples/collector_image/heap.rs"]
mod heap;

use std::error::Error;
use std::path::{Path, PathBuf};

use kiln::Session;
use kiln::ir::{Source, Target, parse};
use kiln::trap::call;

use self::heap::Heap;

const PROGRAM: &str = include_str!("program.clif");

fn main() -> Result<(), Box<dyn Error>> {
    let target = Target::host();
    let source = Source::new("program.clif", PROGRAM.to_owned());
    let module = parse(source.into(), &target).map_err(|faults| format!("{faults:?}"))?;
    let session = Session::new(target)?;
    session.bind_function("allocate", heap::allocate as extern "C" fn() -> i64)?;
    session.add(&[module])?;
    session.catch_traps()?;
    let program = session.function("program").ok_or("there is no `program`")?;
    // SAFETY: the IR is sound, and the session outlives the calls.
    let program = unsafe { program.typed::<extern "C" fn(i64) -> i64>() }?;
    // The second heap is too small.
    for capacity in [3000, 600] {
        Heap::install(capacity);
        // SAFETY: the function has this signature.
        match unsafe { call(program, (200,)) } {
            Ok(result) => {
                let Heap { collections, moved, .. } = Heap::install(0);
                println!("{result} ({collections} collections moved {moved} objects)");
            }
            Err(error) => println!("{error}"),
        }
    }
    let path = std::env::args().nth(1).map(PathBuf::from);
    session.save_image(path.as_deref().unwrap_or(Path::new("program.so")))?;
    Ok(())
}
