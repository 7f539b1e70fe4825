//! Comparison C: opening the image.

pub(crate) mod functions;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kiln::Compiler;
use kiln::globals::{Bindings, GlobalTable, SlotKey};
use kiln::image::{Image, ImageOptions, Loaded, save, write_image};
use kiln::ir::{Source, Target, parse};
use kiln_oracle::random::Random;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::jit;
use crate::measure::{Contender, interleave, median, timed};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

/// The number of times that an image is opened in each round.
const TIMES: usize = 200;
const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    pub(crate) fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlclose(handle: *mut c_void) -> c_int;
    fn dlerror() -> *const c_char;
}

/// A library that the dynamic linker has loaded; dropping it unloads it.
pub(crate) struct Library(*mut c_void);

impl Library {
    pub(crate) fn open(path: &CStr) -> Result<Self, Failure> {
        Self::open_with(path, RTLD_NOW)
    }

    /// Opens a library whose symbols are found by libraries that are opened later.
    pub(crate) fn open_global(path: &CStr) -> Result<Self, Failure> {
        Self::open_with(path, RTLD_NOW | RTLD_GLOBAL)
    }

    fn open_with(path: &CStr, flags: c_int) -> Result<Self, Failure> {
        // SAFETY: the path is a C string; images and libm run no code when they are loaded.
        let handle = unsafe { dlopen(path.as_ptr(), flags) };
        if !handle.is_null() {
            return Ok(Self(handle));
        }
        // SAFETY: `dlerror` gives the reason for the failure above as a C string that lives until
        // the next call.
        let reason = unsafe { CStr::from_ptr(dlerror()) };
        Err(format!("dlopen: {}", reason.to_string_lossy()).into())
    }
}

impl Library {
    /// Compiles `text` in C as the library `name` in `folder`, and opens it.
    pub(crate) fn of_gcc(folder: &Path, name: &str, text: &str) -> Result<Self, Failure> {
        let (source, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
        std::fs::write(&source, text)?;
        let mut compiler = Command::new("gcc");
        compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        if !compiler.status().map_err(|error| format!("gcc: {error}"))?.success() {
            return Err("gcc failed".into());
        }
        Self::open(&CString::new(library.as_os_str().as_bytes())?)
    }

    /// Returns the handle, for `dlsym`.
    pub(crate) fn handle(&self) -> *mut c_void {
        self.0
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle is from `dlopen` and is closed once; nothing in the library is used
        // any more.
        unsafe { dlclose(self.0) };
    }
}

/// Opens and closes many times, and returns the median times of both steps.
pub(crate) fn open_and_close<T>(
    mut open: impl FnMut() -> Result<T, Failure>,
) -> Result<Vec<Duration>, Failure> {
    let mut times = [(); 2].map(|()| Vec::with_capacity(TIMES));
    for _ in 0..TIMES {
        let (time, opened) = timed(&mut open);
        let opened = opened?;
        times[0].push(time);
        times[1].push(timed(|| drop(opened)).0);
    }
    Ok(times.map(median).to_vec())
}

/// A mapping of a whole file.
pub(crate) struct Mapping(*mut c_void, usize);

impl Mapping {
    /// Returns the bytes of the file, which must not change.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable and lives as long as `self`; nobody writes the file.
        unsafe { std::slice::from_raw_parts(self.0.cast(), self.1) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map_file` and is unmapped once; no reference into it
        // exists.
        let _ = unsafe { munmap(self.0, self.1) };
    }
}

pub(crate) fn map_file(path: &Path) -> Result<Mapping, Failure> {
    let file = File::open(path)?;
    let len = file.metadata()?.len() as usize;
    // SAFETY: the kernel chooses an unused range.
    let at = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) }?;
    Ok(Mapping(at, len))
}

/// Measures the opening of the image at `path`.
pub(crate) fn compare(workload: &Workload, setup: &Setup, path: &Path) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(
        &workload.name,
        "C. opening the image (median of 200 in each round, file in the page cache)",
    );
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    // Images may need libm, which stays loaded here, so that `dlopen` does not load it every time.
    let mathematics = Library::open(c"libm.so.6");
    let parts: &[&str] = &["open", "close"];
    let (kiln, peer, nothing) =
        ("kiln: open, bind, drop", "dlopen(RTLD_NOW), dlclose", "nothing: open, mmap, munmap");
    let array = "kiln: open, bind_array, drop";
    let private = "kiln: open_private, bind_array, drop";
    let image = Image::open(path)?;
    let addresses = image.slots().iter().map(|key| jit::resolve(key).ok_or_else(|| format!("no {key}")));
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    let mut contenders = vec![
        Contender::in_parts(array, parts, || {
            open_and_close(|| Ok(Image::open(path)?.bind_array(&addresses)?))
        }),
        Contender::in_parts(private, parts, || {
            open_and_close(|| Ok(Image::open_private(path)?.bind_array(&addresses)?))
        }),
        Contender::in_parts(kiln, parts, || open_and_close(|| Ok(Image::open(path)?.bind(&jit::resolve)?))),
        Contender::in_parts(nothing, parts, || open_and_close(|| map_file(path))),
    ];
    let works = Library::open(&c_path).map(drop);
    match &works {
        Ok(()) => {
            contenders.push(Contender::in_parts(peer, parts, || open_and_close(|| Library::open(&c_path))))
        }
        Err(reason) => comparison.note(format!("dlopen is left out: {reason}")),
    }
    comparison.add(interleave(setup.rounds, contenders)?);
    drop(mathematics);
    if works.is_ok() {
        comparison.ratio(kiln, peer, Goal::AtMost(1.0));
        comparison.ratio(array, peer, Goal::AtMost(1.0));
    }
    comparison.ratio(kiln, nothing, Goal::None);
    // The ratio is the cost of a private copy, which later changes of the file do not reach.
    comparison.ratio(private, array, Goal::None);
    let slots = addresses.len();
    comparison.note(format!(
        "the image has {slots} slots, which kiln fills, by a resolver or from an array; dlopen only finds symbols"
    ));
    Ok(comparison)
}

/// Measures the filling of slots.
pub(crate) fn slots(setup: &Setup, folder: &Path) -> Result<Comparison, Failure> {
    const SLOTS: usize = 10_000;
    let mut comparison =
        Comparison::new("generated image", "C. filling 10,000 slots (median of 200 in each round)");
    let (full, empty) = (folder.join("slots-10000.kiln"), folder.join("slots-1.kiln"));
    // As many names for the dynamic linker.
    let functions = folder.join("slots-functions.so");
    functions::save_functions(SLOTS, &functions)?;
    let library = Library::open(&CString::new(functions.as_os_str().as_bytes())?)?;
    let names: Vec<CString> =
        (0..SLOTS).map(|number| CString::new(format!("function_{number}"))).collect::<Result<_, _>>()?;
    let keys: Vec<String> = (0..SLOTS).map(|number| format!("object:number:{number}")).collect();
    slots_image(&keys, &full)?;
    slots_image(&keys[..1], &empty)?;
    let (mut bindings, mut shuffled) = (Bindings::new(), Bindings::new());
    for (number, key) in keys.iter().enumerate() {
        bindings.bind(key, 0x1000 + 8 * number);
    }
    let mut order: Vec<usize> = (0..SLOTS).collect();
    let mut random = Random::new(1);
    (1..SLOTS).for_each(|at| order.swap(at, random.below(at as u32 + 1) as usize));
    for number in order {
        shuffled.bind(&keys[number], 0x1000 + 8 * number);
    }
    let addresses: Vec<usize> = (0..SLOTS).map(|number| 0x1000 + 8 * number).collect();
    let bind = |path: &Path, bind: &dyn Fn(Image) -> Result<Loaded, Failure>| {
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let image = Image::open(path)?;
            let (time, loaded) = timed(|| bind(image));
            drop(std::hint::black_box(loaded?));
            times.push(time);
        }
        Ok(vec![median(times)])
    };
    let by_name = |image: Image| Ok(image.bind(&bindings)?);
    let in_disorder = |image: Image| Ok(image.bind(&shuffled)?);
    let by_array = |image: Image| Ok(image.bind_array(&addresses)?);
    let one = |image: Image| Ok(image.bind_array(&addresses[..1])?);
    let disorder = "bind 10,000 slots by a resolver with another order";
    let (name, array, nothing) =
        ("bind 10,000 slots by a resolver", "bind 10,000 slots by an array", "bind 1 slot");
    let peer = "dlsym of 10,000 names into an array";
    let find = || {
        let times = (0..TIMES).map(|_| {
            timed(|| {
                // SAFETY: the library is open, and the names are C strings.
                let address = |name: &CString| unsafe { dlsym(library.0, name.as_ptr()) };
                std::hint::black_box(names.iter().map(address).collect::<Vec<_>>());
            })
        });
        Ok(vec![median(times.map(|(time, ())| time).collect())])
    };
    let contenders = vec![
        Contender::in_parts(name, &[""], || bind(&full, &by_name)),
        Contender::in_parts(disorder, &[""], || bind(&full, &in_disorder)),
        Contender::in_parts(array, &[""], || bind(&full, &by_array)),
        Contender::in_parts(nothing, &[""], || bind(&empty, &one)),
        Contender::in_parts(peer, &[""], find),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    comparison.ratio(name, peer, Goal::AtMost(0.5));
    comparison.ratio(disorder, peer, Goal::AtMost(1.0));
    comparison.ratio(name, array, Goal::None);
    comparison.ratio(array, nothing, Goal::None);
    comparison.check(slots_hold(&full, &bindings, &addresses)?);
    Ok(comparison)
}

/// Writes an image with these globals and a function that returns the address of the last.
fn slots_image(keys: &[String], path: &Path) -> Result<(), Failure> {
    let target = Target::host();
    let last = keys.last().ok_or("no key")?;
    let text = format!(
        "global %last = \"{last}\"\nfunction %get() -> i64 system_v {{\n    gv0 = symbol %last\nblock0:\n    \
         v0 = symbol_value.i64 gv0\n    return v0\n}}\n"
    );
    let module =
        parse(Source::new("slots.clif", text).into(), &target).map_err(|faults| faults[0].to_string())?;
    let compiled = Compiler::new(target).compile(&[module])?;
    let mut table = GlobalTable::new();
    keys.iter().for_each(|key| {
        table.intern(key);
    });
    let image = write_image(&compiled.artifacts, &table, &ImageOptions::default())
        .map_err(|errors| errors[0].to_string())?;
    Ok(save(path, &image)?)
}

/// Checks that code sees the same address whether a resolver or an array filled the slots.
fn slots_hold(path: &Path, bindings: &Bindings, addresses: &[usize]) -> Result<String, Failure> {
    let image = Image::open(path)?;
    let in_order = image.slots().iter().zip(addresses).all(|(key, _)| matches!(key, SlotKey::Global(_)));
    if image.slots().len() != addresses.len() || !in_order {
        return Err("the image's slots are not its keys".into());
    }
    for loaded in [image.bind(bindings)?, Image::open(path)?.bind_array(addresses)?] {
        // SAFETY: the loader checks the type, and the function only returns the content of a slot.
        let get = unsafe { loaded.function("get").ok_or("no `get`")?.typed::<extern "C" fn() -> i64>()? };
        if get() != *addresses.last().ok_or("no address")? as i64 {
            return Err("a slot does not hold the address that it was given".into());
        }
    }
    Ok("code reads the given address, both ways".into())
}
