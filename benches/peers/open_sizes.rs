//! Comparison C, for images of 1, 10 and 100 MB of code: the time should not depend on it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln::image::Image;

use crate::measure::{Contender, interleave};
use crate::open::functions::save_functions;
use crate::open::{Library, dlsym, map_file, open_and_close};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// The type of the functions.
type Function = extern "C" fn();

/// Numbers of functions, and names of the images.
const IMAGES: [(usize, &str); 3] =
    [(2_500, "1 MB of code"), (25_000, "10 MB of code"), (250_000, "100 MB of code")];

/// Measures the opening of generated images.
pub(crate) fn compare(setup: &Setup, folder: &Path) -> Result<Vec<Comparison>, Failure> {
    IMAGES.into_iter().map(|(count, name)| compare_one(setup, folder, count, name)).collect()
}

fn compare_one(setup: &Setup, folder: &Path, count: usize, name: &str) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(name, "C. opening a generated image (median of 200 in each round)");
    let path = folder.join(format!("functions-{count}.kiln"));
    save_functions(count, &path)?;
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let parts: &[&str] = &["open", "close"];
    let bound = || Ok(Image::open(&path)?.bind_array(&[])?);
    let called = || {
        let loaded = Image::open(&path)?.bind_array(&[])?;
        // SAFETY: the file was just written by Kiln, and the function is not called.
        unsafe { loaded.function("function_1").ok_or("no function")?.typed::<Function>() }?;
        Ok(loaded)
    };
    let unchecked = || {
        let loaded = Image::open(&path)?.bind_array(&[])?;
        loaded.address("function_1").ok_or("no function")?;
        Ok(loaded)
    };
    let looked_up = || {
        let library = Library::open(&c_path)?;
        // SAFETY: the handle is open, and the name is a C string.
        let found = unsafe { dlsym(library.handle(), c"function_1".as_ptr()) };
        if found.is_null() { Err("no function".into()) } else { Ok(library) }
    };
    let (kiln, first) = ("kiln: open, bind, drop", "kiln: the same, and a function by name and type");
    let address = "kiln: the same, and an address by name";
    let (peer, peer_first) = ("dlopen(RTLD_NOW), dlclose", "dlopen, dlsym, dlclose");
    let nothing = "nothing: open, mmap, munmap";
    comparison.add(interleave(
        setup.rounds,
        vec![
            Contender::in_parts(kiln, parts, || open_and_close(bound)),
            Contender::in_parts(first, parts, || open_and_close(called)),
            Contender::in_parts(address, parts, || open_and_close(unchecked)),
            Contender::in_parts(peer, parts, || open_and_close(|| Library::open(&c_path))),
            Contender::in_parts(peer_first, parts, || open_and_close(looked_up)),
            Contender::in_parts(nothing, parts, || open_and_close(|| map_file(&path))),
        ],
    )?);
    comparison.ratio(kiln, peer, Goal::AtMost(0.5));
    comparison.ratio(kiln, nothing, Goal::AtMost(2.5));
    comparison.ratio(first, peer_first, Goal::AtMost(1.0));
    comparison.ratio(address, peer_first, Goal::None);
    comparison.note(
        "the first look-up registers unwind rows; libgcc up to 12 reads them all at any panic, so they \
         are checked first for who takes a bare address, and does not say that the file is trusted"
            .to_owned(),
    );
    comparison.check(format!("{count} functions; both loaders find one by its name"));
    Ok(comparison)
}
