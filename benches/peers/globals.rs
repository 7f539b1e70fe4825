//! Comparison I: code that reaches globals and functions of the host through slots, and code that
//! contains their addresses. Which is the default follows from it: see ARCHITECTURE.md.
//!
//! The programs are generated: each function reads a global of its own, calls a function of the
//! host and one of another module.

mod program;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln::globals::{GlobalAccess, SlotKey};
use kiln::image::{Image, ImageInfo, ImageOptions, Loaded, save, write_image};
use kiln::jit::{Jit, JitOptions};

use self::program::{CALLS, Program, TOUCHED, compile, library};
use crate::measure::{Contender, interleave};
use crate::open::{Library, open_and_close};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// The numbers of globals, and the names of the programs.
const SIZES: [(usize, &str); 3] = [(10, "10 globals"), (1000, "1,000 globals"), (10_000, "10,000 globals")];
/// Reads or calls of a loop in each round.
const TURNS: i64 = 20_000_000;
const PAGE: usize = 4096;

/// The objects of the host, one for each global.
static OBJECTS: [i64; 10_000] = [1; 10_000];

extern "C" fn step(x: i64) -> i64 {
    x + 1
}

/// Measures programs of all sizes, and the loops.
pub(crate) fn compare(setup: &Setup, folder: &Path) -> Result<Vec<Comparison>, Failure> {
    let sizes = SIZES.into_iter().map(|(globals, name)| sizes(setup, folder, globals, name));
    let mut comparisons = sizes.collect::<Result<Vec<_>, _>>()?;
    comparisons.push(loops(setup, folder)?);
    Ok(comparisons)
}

/// Writes the image of a program, and returns its path.
fn written(program: &Program, folder: &Path, globals: usize) -> Result<PathBuf, Failure> {
    let path = folder.join(format!("globals-{}-{globals}.so", program.access.name()));
    save(&path, &link(program)?)?;
    Ok(path)
}

fn link(program: &Program) -> Result<Vec<u8>, Failure> {
    let image = write_image(&program.artifacts, &program.globals, &ImageOptions::default());
    Ok(image.map_err(|errors| errors[0].to_string())?)
}

/// Returns the address of what a slot is for.
fn address(key: &SlotKey) -> Option<usize> {
    match key {
        SlotKey::Global(key) => {
            let number: usize = key.strip_prefix("object_")?.parse().ok()?;
            Some(&raw const OBJECTS[number] as usize)
        }
        _ => Some(step as *const () as usize),
    }
}

fn addresses(path: &Path) -> Result<Vec<usize>, Failure> {
    let image = Image::open(path)?;
    image.slots().iter().map(|key| address(key).ok_or_else(|| format!("no {key}").into())).collect()
}

/// Measures link, load and publishing of a program with so many globals.
fn sizes(setup: &Setup, folder: &Path, globals: usize, name: &str) -> Result<Comparison, Failure> {
    let title = "I. slots and addresses in code (loads: median of 200 in each round)";
    let mut comparison = Comparison::new(name, title);
    let programs = compile(globals, setup)?;
    let paths = [written(&programs[0], folder, globals)?, written(&programs[1], folder, globals)?];
    let values = addresses(&paths[0])?;
    if addresses(&paths[1])? != values {
        return Err("the images have other slots".into());
    }
    // The symbols that `dlopen` looks for stay loaded.
    let symbols = folder.join(format!("globals-library-{globals}.so"));
    save(&symbols, &library(globals)?)?;
    let symbols = Library::open_global(&CString::new(symbols.as_os_str().as_bytes())?)?;
    let jit = Jit::new(JitOptions::default())?;
    let mut contenders = Vec::new();
    let names = |what: &str| GlobalAccess::ALL.map(|access| format!("{what}, {}", access.name()));
    let whats = ["link an image", "open, bind_array, drop", "dlopen, dlclose", "publish in memory, remove"];
    let [links, loads, opens, publishes] = whats.map(names);
    for (index, (program, path)) in programs.iter().zip(&paths).enumerate() {
        let values = &values;
        let c_path = CString::new(path.as_os_str().as_bytes())?;
        contenders.push(Contender::new(links[index].clone(), || link(program)));
        contenders.push(Contender::in_parts(loads[index].clone(), &["open", "close"], move || {
            open_and_close(|| Ok(Image::open(path)?.bind_array(values)?))
        }));
        contenders.push(Contender::in_parts(opens[index].clone(), &["open", "close"], move || {
            open_and_close(|| Library::open(&c_path))
        }));
        let jit = &jit;
        contenders.push(Contender::new(publishes[index].clone(), move || {
            let unit = jit.link(&program.artifacts, &|key: &SlotKey| address(key))?;
            Ok(jit.remove(&[unit])?)
        }));
    }
    comparison.add(interleave(setup.rounds, contenders)?);
    drop(symbols);
    for [slots, direct] in [&links, &loads, &opens, &publishes] {
        comparison.ratio(direct, slots, Goal::None);
    }
    let mut sums = Vec::new();
    for (program, path) in programs.iter().zip(&paths) {
        let bytes = std::fs::read(path)?;
        let info = ImageInfo::parse(&bytes)?;
        let name = program.access.name();
        let size = |wanted: &str| {
            let section = info.sections.iter().find(|section| &*section.name == wanted);
            section.map_or(0, |section| section.size) as f64
        };
        comparison.value(format!("bytes of code, {name}"), size(".text"), Goal::None);
        comparison.value(format!("bytes of slots, {name}"), size(".kiln.slots"), Goal::None);
        comparison.value(format!("bytes of patches, {name}"), size(".kiln.patches"), Goal::None);
        comparison.value(format!("bytes of relocations, {name}"), size(".rela.dyn"), Goal::None);
        comparison.value(format!("bytes of the file, {name}"), bytes.len() as f64, Goal::None);
        let loaded = Image::open(path)?.bind_array(&values)?;
        let pages = written_pages(&loaded, &info)?;
        comparison.value(format!("pages written at load, {name}"), pages as f64, Goal::None);
        sums.push(sum(&loaded, globals)?);
    }
    if sums[0] != sums[1] {
        return Err("the images do not do the same".into());
    }
    comparison.check(format!("every function returns the same in both, {} in all", sums[0]));
    Ok(comparison)
}

/// Calls every function.
fn sum(loaded: &Loaded, globals: usize) -> Result<i64, Failure> {
    let one = |number: usize| -> Result<i64, Failure> {
        let function = loaded.function(&format!("f{number}")).ok_or("no function")?;
        // SAFETY: the type is checked, and the code reads what it was bound to.
        Ok(unsafe { function.typed::<extern "C" fn() -> i64>() }?())
    };
    (0..globals).map(one).sum()
}

/// Counts the pages of an image that are copies in memory of no file.
fn written_pages(loaded: &Loaded, info: &ImageInfo) -> Result<usize, Failure> {
    let base = loaded.base() as usize;
    let map = File::open("/proc/self/pagemap")?;
    let mut pages = BTreeSet::new();
    let loaded = info.sections.iter().filter(|section| section.loaded);
    let end = loaded.map(|section| section.address + section.size).max().unwrap_or(0) as usize;
    for page in 0..end.div_ceil(PAGE) {
        let mut entry = [0; 8];
        map.read_exact_at(&mut entry, ((base / PAGE + page) * 8) as u64)?;
        // Present or swapped, and not of a file.
        let entry = u64::from_le_bytes(entry);
        if entry >> 62 != 0 && entry >> 61 & 1 == 0 {
            pages.insert(page);
        }
    }
    Ok(pages.len())
}

/// Measures loops that do nothing else than use globals and call functions.
fn loops(setup: &Setup, folder: &Path) -> Result<Comparison, Failure> {
    let title = "I. loops over 32 globals and 8 functions, addresses in no register";
    let mut comparison = Comparison::new("1,000 globals", title);
    let programs = compile(1000, setup)?;
    let mut images = Vec::new();
    for program in &programs {
        let path = written(program, folder, 1000)?;
        images.push((program.access.name(), Image::open(&path)?.bind_array(&addresses(&path)?)?));
    }
    let loops: [(&str, &str, usize); 3] = [
        ("20 million reads of globals", "loop_globals", TOUCHED),
        ("20 million calls of functions of the host", "loop_host", CALLS),
        ("20 million calls of functions of another module", "loop_modules", CALLS),
    ];
    let mut contenders = Vec::new();
    for (what, function, uses) in loops {
        let mut results = Vec::new();
        for (name, loaded) in &images {
            let function = loaded.function(function).ok_or("no loop")?;
            // SAFETY: the type is checked, and the code reads what it was bound to.
            let function = unsafe { function.typed::<extern "C" fn(i64) -> i64>() }?;
            results.push(function(3));
            let turns = TURNS / uses as i64;
            contenders.push(Contender::new(format!("{what}, {name}"), move || Ok(function(turns))));
        }
        if results[0] != results[1] {
            return Err(format!("{what}: {results:?}").into());
        }
    }
    comparison.add(interleave(setup.rounds, contenders)?);
    for (what, ..) in loops {
        comparison.ratio(&format!("{what}, direct"), &format!("{what}, slots"), Goal::None);
    }
    comparison.check("both give the same results");
    Ok(comparison)
}
