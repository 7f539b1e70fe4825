//! Uses an image from Rust. No Cranelift is linked into this program: a crate that only loads
//! images has `kiln-image = { default-features = false, features = ["load"] }`. `host.c` and
//! `host.py` do the same in other languages.
//!
//! ```text
//! cargo xtask build crates/kiln-image/examples/hosts/counter.clif -o counter.so
//! cargo run -p kiln-image --no-default-features --features load --example hosts -- counter.so
//! ```

mod host;

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args_os().nth(1).ok_or("which image?")?;
    println!("{}", host::add(Path::new(&image))?);
    Ok(())
}
