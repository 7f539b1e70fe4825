//! Checks rows that come and go with each unwinder that is there: the one of this machine, and
//! those in the folder that the environment variable `KILN_UNWINDERS` names, at any depth.
//!
//! A program that is linked to `libgcc_s.so.1` has another version of it by `LD_LIBRARY_PATH`, and
//! LLVM's `libunwind.so.1` instead by `LD_PRELOAD`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::ops::Range;
use std::path::{Path, PathBuf};

use kiln_debug::PlainRows;
use kiln_debug::unwind::{Method, Registration, Rows, method};
use libtest_mimic::Failed;

use super::tool::{output, program};

/// The files, by the names that a program asks for.
const FILES: [&str; 2] = ["libgcc_s.so.1", "libunwind.so.1"];

/// Returns the unwinders in the folder.
fn found() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        std::env::var_os("KILN_UNWINDERS").map(PathBuf::from).into_iter().collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                _ if FILES.iter().any(|file| path.ends_with(file)) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort_unstable();
    // A file may have several names.
    let mut files = BTreeSet::new();
    found.retain(|path| path.canonicalize().is_ok_and(|file| files.insert(file)));
    found
}

/// Runs the programs with one unwinder. Returns what the first one said.
fn check(unwinder: Option<&Path>) -> Result<String, Failed> {
    let mut said = String::new();
    let programs = [("lookups", &[][..]), ("plain", &["3"]), ("sampler", &["2"])];
    // Another test samples with the unwinder of this machine.
    for (name, arguments) in &programs[..if unwinder.is_some() { 3 } else { 2 }] {
        let mut command = program(name, arguments);
        if let Some(path) = unwinder {
            match path.parent() {
                Some(folder) if path.ends_with(FILES[0]) => command.env("LD_LIBRARY_PATH", folder),
                _ => command.env("LD_PRELOAD", path),
            };
        }
        let text = output(&mut command, None).map_err(|failure| {
            format!(
                "{}: {name}: {}",
                unwinder.map_or("".into(), Path::to_string_lossy),
                failure.message().unwrap_or_default()
            )
        })?;
        if said.is_empty() {
            said = text;
        }
    }
    Ok(said)
}

pub(super) fn of_this_machine() -> Result<(), Failed> {
    check(None).map(drop)
}

pub(super) fn others() -> Result<(), Failed> {
    let found = found();
    if let Some(file) = FILES.iter().find(|file| !found.iter().any(|path| path.ends_with(file))) {
        return Err(format!("there is no {file} in the folder KILN_UNWINDERS").into());
    }
    for path in found {
        let said = check(Some(&path))?;
        println!("{}: {said}", path.display());
        let way = if path.ends_with(FILES[1]) { "Frames" } else { "Ranges" };
        if !said.contains(way) {
            return Err(format!("{} is not told about {way}, but: {said}", path.display()).into());
        }
    }
    Ok(())
}

unsafe extern "C" {
    fn _Unwind_Find_FDE(pc: *const c_void, bases: *mut [*const c_void; 3]) -> *const c_void;
}

fn is_found(pc: usize) -> bool {
    let mut bases = [std::ptr::null(); 3];
    // SAFETY: any address may be asked for.
    !unsafe { _Unwind_Find_FDE(pc as *const c_void, &mut bases) }.is_null()
}

/// The bytes of the smallest piece of code, and the number of places for such pieces.
const UNIT: usize = 16;
const PLACES: usize = 1600;
/// The words of a section of rows.
const SECTION: usize = 9;
/// The changes of each seed.
const STEPS: usize = 2000;

/// Registers rows of code, which are copied to `place`. With `unread`, they are registered without
/// being read, if the unwinder allows it; whether it did is the second result.
fn register(
    code: Range<usize>,
    region: Range<usize>,
    place: &mut [u64],
    unread: bool,
) -> (Registration, bool) {
    // They are absolute.
    for (word, bytes) in place.iter_mut().zip(PlainRows::new(code.clone()).section().bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    let rows = Rows { section: place.as_ptr().cast(), code, region };
    // SAFETY: nobody has code here, and the rows stay until the registration is dropped.
    let registration = unread.then(|| unsafe { Registration::unread(rows.clone()) }).flatten();
    let is_unread = registration.is_some();
    // SAFETY: as above.
    (registration.unwrap_or_else(|| unsafe { Registration::new(rows) }), is_unread)
}

/// Registers and takes back rows of code of different sizes at random addresses, as code in memory
/// does, and as images do. What is registered must be found at its first and its last byte, and
/// nothing else.
pub(super) fn lookups() {
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory, which nobody uses: only its addresses matter.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), UNIT * (PLACES + 2), libc::PROT_NONE, kind, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    let region = start as usize..start as usize + UNIT * (PLACES + 2);
    // Before the code, as in an image. What the registrations map comes before it.
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let len = SECTION * PLACES * size_of::<u64>();
    // SAFETY: new memory.
    let sections = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
    assert_ne!(sections, libc::MAP_FAILED);
    let section = |number: usize| {
        let at = sections.cast::<[u64; SECTION]>().wrapping_add(number);
        // SAFETY: inside of the memory, and no two places that are in use are the same.
        unsafe { &mut *at }
    };
    let place = |number: usize| region.start + UNIT * (number + 1);
    let (mut changes, mut lost, mut unread) = (0, 0, 0);
    for seed in 1..=6_u64 {
        let mut live: BTreeMap<usize, (Range<usize>, Registration)> = BTreeMap::new();
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for step in 0..STEPS {
            let (first, len) = (next(PLACES), 1 + next(8));
            let range = place(first)..place((first + len).min(PLACES));
            let overlaps =
                live.range(..range.end).next_back().is_some_and(|(_, (code, _))| code.end > range.start);
            if !overlaps {
                let (rows, is_unread) = register(range.clone(), region.clone(), section(first), next(2) == 0);
                unread += usize::from(is_unread);
                live.insert(range.start, (range, rows));
            } else if next(STEPS) < step
                && let Some((&key, _)) = live.range(..range.end).next_back()
            {
                let (code, rows) = live.remove(&key).expect("it was just found");
                drop(rows);
                assert!(!is_found(code.start) && !is_found(code.end - 1), "{code:x?} was taken back");
            }
            changes += 1;
            // Now and then all, else some that are near.
            let near = if step % 50 == 0 { 0 } else { place(first.saturating_sub(20)) };
            let far = if step % 50 == 0 { usize::MAX } else { place(first + 20) };
            for (code, _) in live.range(near..far).map(|(_, known)| known) {
                lost += usize::from(!is_found(code.start)) + usize::from(!is_found(code.end - 1));
            }
        }
    }
    println!("{:?}: {changes} changes, {unread} of them unread, {lost} not found", method());
    assert_eq!(lost, 0, "addresses are not found");
    assert!(method() != Method::Ranges || unread > changes / 20, "{unread} of {changes}");
}
