//! Opens the image, gives it what it needs by name, and calls it.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use kiln_globals::Bindings;
use kiln_image::Image;

extern "C" fn report(total: i64) {
    println!("the total is {total}");
}

/// Adds 2 to a total of 40.
pub(crate) fn add(image: &Path) -> Result<i64, Box<dyn Error>> {
    let total = AtomicI64::new(40);
    let mut bindings = Bindings::new();
    bindings.bind("app:total", total.as_ptr() as usize);
    bindings.bind("app:report", report as extern "C" fn(i64) as usize);
    let loaded = Image::open(image)?.bind(&bindings)?;
    let add = loaded.function("add").ok_or("there is no `add`")?;
    // SAFETY: the image was compiled from sound IR, and outlives the call. So does the total.
    let add = unsafe { add.typed::<extern "C" fn(i64) -> i64>() }?;
    assert_eq!(add(2), total.load(Ordering::Relaxed));
    Ok(total.into_inner())
}
