//! Comparison L: access to thread-local data.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kiln::image::{Image, ImageOptions, libcalls, save, write_image};
use kiln::ir::{Source, Target, parse};
use kiln::{Compiler, Session, globals::GlobalTable};

use crate::measure::{Contender, interleave};
use crate::open::{Library, dlsym};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// Calls in each turn.
const CALLS: i64 = 1_000_000;

const TEXT: &str = "
data %counter tls { i64 0 }
data %plain writable { i64 0 }
function %bump() -> i64 system_v {
    gv0 = symbol tls %counter
block0:
    v0 = tls_value.i64 gv0
    v1 = load.i64 v0
    v2 = iconst.i64 1
    v3 = iadd v1, v2
    store v3, v0
    return v3
}
function %bump_plain() -> i64 system_v {
    gv0 = symbol colocated %plain
block0:
    v0 = symbol_value.i64 gv0
    v1 = load.i64 v0
    v2 = iconst.i64 1
    v3 = iadd v1, v2
    store v3, v0
    return v3
}
";

/// The same as `%bump`.
const C_TEXT: &str = "__thread long counter; long bump(void) { return ++counter; }";

type Bump = extern "C" fn() -> i64;

/// Calls a function that counts in thread-local data, in each way that it can be loaded.
pub(crate) fn compare(setup: &Setup, folder: &Path) -> Result<Comparison, Failure> {
    let mut comparison =
        Comparison::new("a counter", "L. thread-local data (a million calls that count, one thread)");
    let target = Target::host();
    let module =
        parse(Source::new("counter.clif", TEXT).into(), &target).map_err(|all| all[0].to_string())?;
    let modules = [module];
    let session = Session::new(target.clone())?;
    session.add(&modules)?;
    let artifacts = Compiler::new(target).compile(&modules)?.artifacts;
    let image = write_image(&artifacts, &GlobalTable::new(), &ImageOptions::default());
    let path = folder.join("counter.kiln");
    save(&path, &image.map_err(|errors| errors[0].to_string())?)?;
    let loaded = Image::open(&path)?.bind(&libcalls::process)?;
    let opened = Library::open(&CString::new(path.as_os_str().as_bytes())?)?;

    // SAFETY: the loaders check the type, and all lives until the end of this function.
    let (plain, in_session, in_image) = unsafe {
        let function = |name| session.function(name).ok_or("no function");
        let own = loaded.function("bump").ok_or("no function")?.typed::<Bump>()?;
        (function("bump_plain")?.typed::<Bump>()?, function("bump")?.typed::<Bump>()?, own)
    };
    let by_dlopen = find(&opened)?;
    let (ours, image) = ("kiln: in a session", "kiln: image, its loader");
    let (linked, nothing) = ("kiln: image, dlopen", "nothing: data of all threads");
    let gcc = "gcc: __thread of a library, dlopen";
    let mut contenders = vec![
        Contender::new(ours, || Ok(run(in_session))),
        Contender::new(image, || Ok(run(in_image))),
        Contender::new(linked, || Ok(run(by_dlopen))),
        Contender::new(nothing, || Ok(run(plain))),
    ];
    let library = Library::of_gcc(folder, "counter", C_TEXT);
    let by_gcc = library.as_ref().ok().map(find).transpose()?;
    match (&by_gcc, &library) {
        (&Some(by_gcc), _) => contenders.push(Contender::new(gcc, move || Ok(run(by_gcc)))),
        (None, Err(reason)) => comparison.note(format!("gcc is left out: {reason}")),
        (None, Ok(_)) => {}
    }
    comparison.add(interleave(setup.rounds, contenders)?);
    if by_gcc.is_some() {
        comparison.ratio(ours, gcc, Goal::AtMost(1.0));
        comparison.ratio(image, gcc, Goal::AtMost(1.0));
        comparison.ratio(linked, gcc, Goal::None);
    }
    comparison.ratio(ours, nothing, Goal::None);
    let expected = CALLS * (i64::from(setup.rounds) + 1) + 1;
    for bump in [in_session, in_image, by_dlopen, plain].into_iter().chain(by_gcc) {
        if bump() != expected {
            return Err("a counter does not count".into());
        }
    }
    comparison.check("each has a counter of its own, which has counted all calls".to_owned());
    Ok(comparison)
}

fn run(bump: Bump) -> i64 {
    (0..CALLS).fold(0, |_, _| std::hint::black_box(bump)())
}

/// Finds the function that counts.
fn find(library: &Library) -> Result<Bump, Failure> {
    // SAFETY: the handle is open, and the name is a C string.
    let found = unsafe { dlsym(library.handle(), c"bump".as_ptr()) };
    if found.is_null() {
        return Err("no function".into());
    }
    // SAFETY: both libraries have a function of this type under the name.
    Ok(unsafe { std::mem::transmute::<*mut std::ffi::c_void, Bump>(found) })
}
