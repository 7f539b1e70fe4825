//! Runs a program with a garbage collector from an image. No Cranelift is linked into it.
//!
//! The image is written by the example `collector` of `kiln`, which says how it is run:
//!
//! ```text
//! cargo run --features trap --example collector -- program.so
//! cargo run -p kiln-image --features trap --example collector_image -- program.so
//! ```

mod heap;

use std::error::Error;

use kiln_globals::Bindings;
use kiln_image::{Image, bind_function};

use self::heap::Heap;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which image?")?;
    let mut bindings = Bindings::new();
    bind_function(&mut bindings, "allocate", heap::allocate as extern "C" fn() -> i64);
    let loaded = Image::open(path)?.bind(&bindings)?;
    loaded.catch_traps()?;

    let program = loaded.function("program").ok_or("there is no `program`")?;
    // SAFETY: the image was compiled from sound IR, and outlives the calls.
    let program = unsafe { program.typed::<extern "C" fn(i64) -> i64>() }?;
    for capacity in [3000, 600] {
        Heap::install(capacity);
        // SAFETY: the function has this signature.
        match unsafe { kiln_trap::call(program, (200,)) } {
            Ok(result) => {
                let heap = Heap::install(0);
                println!("{result} ({} collections moved {} objects)", heap.collections, heap.moved);
            }
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
