//! Images that other people's tools changed load in this crate's loader as they do with `dlopen`.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use kiln_image::{FunctionRef, Image, ImageInfo, LoadError, read_image, save, verify_bytes};

use crate::elf::{C_PROGRAM, compile};
use crate::hostile::summed;
use crate::note_sum::note_sum;
use crate::support::{I64_TO_I64, image};

/// The changes: a name, and commands in which `FILE` is the image. `llvm-strip` after `patchelf` is
/// not among them: some versions write a file that `dlopen` refuses, too.
const CHANGES: [(&str, &[&str]); 22] = [
    ("strip", &["strip FILE"]),
    ("strip all", &["strip --strip-all FILE"]),
    ("strip debug", &["strip -g FILE"]),
    ("strip unneeded", &["strip --strip-unneeded FILE"]),
    ("strip sections", &["strip --remove-section=.comment --remove-section=.kiln.code.x FILE"]),
    ("llvm-strip", &["llvm-strip FILE"]),
    ("llvm-strip sections", &["llvm-strip --strip-sections FILE"]),
    ("eu-strip", &["eu-strip FILE"]),
    ("eu-strip to a file", &["eu-strip -f FILE.debug FILE"]),
    ("objcopy", &["objcopy FILE"]),
    ("objcopy with a section", &["objcopy --add-section .more=FILE FILE"]),
    ("llvm-objcopy", &["llvm-objcopy FILE"]),
    ("llvm-objcopy with a section", &["llvm-objcopy --add-section .more=FILE FILE"]),
    ("rpath", &["patchelf --set-rpath $ORIGIN/a/long/path FILE"]),
    ("soname", &["patchelf --set-soname libprogram.so.1 FILE"]),
    ("needed", &["patchelf --add-needed libm.so.6 FILE"]),
    ("no rpath", &["patchelf --set-rpath /x FILE", "patchelf --remove-rpath FILE"]),
    (
        "needed, replaced",
        &["patchelf --add-needed libq.so FILE", "patchelf --replace-needed libq.so libm.so.6 FILE"],
    ),
    ("a page", &[INSERT]),
    ("stripped, rpath", &["strip FILE", "patchelf --set-rpath /a/b/c FILE"]),
    ("rpath, stripped", &["patchelf --set-rpath /a/b/c FILE", "strip FILE"]),
    (
        "everything",
        &[
            "patchelf --set-rpath /a/b/c FILE",
            "strip FILE",
            "patchelf --add-needed libm.so.6 FILE",
            "objcopy FILE",
            "patchelf --set-soname another-name-that-is-longer.so FILE",
            "eu-strip FILE",
        ],
    ),
];

/// The command for [`insert_page`].
const INSERT: &str = "insert a page";

/// Inserts a page into the file after the first segment, so that no other has an address that is
/// its offset. No tool at hand does this to code, but loaders allow it.
fn insert_page(file: &Path) {
    const PAGE: u64 = 4096;
    let mut bytes = std::fs::read(file).unwrap();
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let sections = number(&bytes, 40) as usize;
    let (headers, count) = (usize::from(bytes[56]), usize::from(bytes[60]));
    let mut shift = |at: usize| {
        let offset = number(&bytes, at);
        if offset >= PAGE {
            bytes[at..at + 8].copy_from_slice(&(offset + PAGE).to_le_bytes());
        }
    };
    shift(40);
    (0..headers).for_each(|index| shift(64 + 56 * index + 8));
    (0..count).for_each(|index| shift(sections + 64 * index + 24));
    bytes.splice(PAGE as usize..PAGE as usize, [0xaa; PAGE as usize]);
    std::fs::write(file, bytes).unwrap();
}

/// Runs a tool; `false` if it is not installed. CI must have it.
pub(crate) fn run(command: &str, file: &Path) -> bool {
    if command == INSERT {
        insert_page(file);
        return true;
    }
    let mut words = command.split(' ');
    let tool = words.next().expect("a command has a name");
    let name = file.to_str().expect("a path of the test");
    let output = Command::new(tool).args(words.map(|word| word.replace("FILE", name))).output();
    let Ok(output) = output else {
        assert!(std::env::var_os("CI").is_none(), "{tool} is not installed, and CI must have it");
        // Not through the test harness, which would swallow it.
        let _ = writeln!(std::io::stderr(), "skipped: {tool} is not installed");
        return false;
    };
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Changes an image in every way, and passes the files to `check`.
pub(crate) fn each_changed(image: &[u8], mut check: impl FnMut(&str, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    for (name, commands) in CHANGES {
        let path = folder.path().join("image.so");
        save(&path, image).unwrap();
        if commands.iter().all(|command| run(command, &path)) {
            check(name, &path);
        }
    }
}

/// A way to open an image.
type Open = fn(&Path) -> Result<Image, LoadError>;

extern "C" fn host_double(x: i64) -> i64 {
    2 * x
}

#[test]
fn a_changed_image_loads_as_with_dlopen() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("main.c"), folder.path().join("main"));
    std::fs::write(&source, C_PROGRAM).unwrap();
    compile(&source, &program);
    let whole = ImageInfo::parse(&image()).unwrap();
    let (first, second) = (111_i64, [222_i64, 333]);
    each_changed(&image(), |name, path| {
        let output = Command::new(&program).arg(path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "9 6 42 2 111 222 42 1\n", "{name}, dlopen");

        let bytes = read_image(path).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        verify_bytes(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let info = ImageInfo::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((&info.exports, &info.slots), (&whole.exports, &whole.slots), "{name}");

        let ways: [Open; 3] = [
            |path| Image::open(path),
            |path| Image::open_private(path),
            |path| Image::from_bytes(&std::fs::read(path).unwrap()),
        ];
        for way in ways {
            let image = way(path).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            image.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
            let host: extern "C" fn(i64) -> i64 = host_double;
            let addresses = [second.as_ptr() as usize, &raw const first as usize, host as usize];
            let loaded = image.bind_array(&addresses).unwrap_or_else(|error| panic!("{name}: {error}"));
            let call = |function: &str, x: i64| {
                let function = loaded.function(function).unwrap_or_else(|| panic!("{name}: no {function}"));
                // SAFETY: the code is that of this test, its slots are filled, and the image lives.
                match unsafe { function.clone().typed::<extern "C" fn(i64) -> i64>() } {
                    Ok(function) => function(x),
                    // SAFETY: as above.
                    Err(_) => unsafe { function.typed::<extern "C" fn() -> i64>() }.expect("its type")(),
                }
            };
            let calls = [("add8", 1), ("by_table", 1), ("call_host", 21), ("count", 0), ("count", 0)];
            let found = calls.map(|(function, x)| call(function, x));
            assert_eq!(found, [9, 6, 42, 1, 2], "{name}");
            let found = ["read_first", "read_second", "read_answer"].map(|function| call(function, 0));
            assert_eq!(found, [111, 222, 42], "{name}");
            let names = loaded.address("names").unwrap().cast::<usize>();
            // SAFETY: two words of the image's data.
            let names = unsafe { [names.read(), names.add(1).read()] };
            assert_eq!(names, [addresses[0] + 8, addresses[2]], "{name}");
            assert!(loaded.locate(loaded.function("add8").unwrap().address()).is_some(), "{name}");
        }
    });
}

/// Everything that a loader finds through headers and the dynamic section is altered, in images
/// whose segments and tables are not where the writer put them.
#[test]
fn a_changed_image_cannot_do_harm() {
    each_changed(&image(), |name, path| {
        if !["rpath", "a page", "rpath, stripped", "everything"].contains(&name) {
            return;
        }
        let bytes = read_image(path).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let headers = number(32);
        let count = usize::from(bytes[56]);
        let of_kind = |kind: u8| {
            let header = (0..count).map(|index| headers + 56 * index).find(|&at| bytes[at] == kind).unwrap();
            number(header + 8)..number(header + 8) + number(header + 32)
        };
        let (dynamic, note) = (of_kind(2), of_kind(4));
        let body = note.start + 20..note.end;
        let ranges = [0..64, headers..headers + 56 * count, dynamic, body.clone()];
        for at in ranges.into_iter().flatten() {
            for value in [0x00, 0x01, 0x80, 0xff] {
                let mut altered = bytes.clone();
                altered[at] = value;
                if let Some(end) = summed(&altered[body.clone()]) {
                    let sum = note_sum(&altered[body.start + 8..body.start + end]);
                    altered[body.start..body.start + 8].copy_from_slice(&sum.to_le_bytes());
                }
                let _ = (ImageInfo::parse(&altered), verify_bytes(&altered));
                let Ok(image) = Image::from_bytes(&altered) else { continue };
                let _ = image.verify();
                let count = image.slots().len();
                let Ok(loaded) = image.bind_array(&vec![0x1000; count]) else { continue };
                for name in ["add3", "names", "kiln_slots", "nothing"] {
                    let _ = (loaded.address(name), loaded.function(name));
                    // SAFETY: nothing is called.
                    let _ =
                        unsafe { loaded.replace(name, FunctionRef::new("", std::ptr::null(), I64_TO_I64)) };
                }
            }
        }
    });
}

/// A tool may give a symbol another name. Its type is that of the function that was linked under
/// the old name, so it must not be found under the new one.
#[test]
fn a_renamed_export_has_no_type() {
    let bytes = image();
    let at = bytes.windows(6).position(|bytes| bytes == b"\0add3\0").unwrap() + 1;
    let other = bytes.windows(7).position(|bytes| bytes == b"\0count\0").unwrap() + 1;
    assert!(at != other);
    // The names of two symbols are exchanged, as a sorted table would do it.
    let symbols = |name: usize| {
        let info = ImageInfo::parse(&bytes).unwrap();
        let section = |name: &str| {
            let section = info.sections.iter().find(|section| section.name.as_ref() == name).unwrap();
            section.offset as usize..(section.offset + section.size) as usize
        };
        let offset = (name - section(".dynstr").start) as u32;
        let mut symbols = section(".dynsym").step_by(24);
        symbols.find(|&at| bytes[at..at + 4] == offset.to_le_bytes()).unwrap()
    };
    let (first, second) = (symbols(at), symbols(other));
    let mut altered = bytes.clone();
    altered[first..first + 24].copy_from_slice(&bytes[second..second + 24]);
    altered[second..second + 24].copy_from_slice(&bytes[first..first + 24]);
    assert!(
        matches!(verify_bytes(&altered), Err(LoadError::Altered { section }) if &*section == "dynamic symbols")
    );
    let exports = ImageInfo::parse(&altered).unwrap().exports;
    for name in ["add3", "count"] {
        let export = exports.iter().find(|export| &*export.name == name).unwrap();
        assert_eq!(export.signature, None, "{name}");
    }
}
