//! Damaged images, and calls that do not fit the function: refused with a reason, and not run.

use std::ops::Range;

use crate::support::{Ended, TestFolder, adder};

/// A folder with an image `p.so` that exports `plus`, a function of one integer.
fn image() -> TestFolder {
    let dir = TestFolder::new(&[("a.clif", &adder("plus", 2))]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    dir
}

/// Asserts that `inspect` and `call` both refuse `bytes`, with a reason of one line.
#[track_caller]
fn refused(dir: &TestFolder, bytes: &[u8], what: &str) {
    dir.write("bad.so", bytes);
    for args in [&["inspect", "bad.so"][..], &["call", "bad.so", "plus", "1"]] {
        let Ended { code, stdout, stderr } = dir.xtask(args);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{what}: {args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains("bad.so: "), "{what}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
    }
}

/// Asserts that `call` takes `bytes` for the image that they were made from.
#[track_caller]
fn accepted(dir: &TestFolder, bytes: &[u8], what: &str) {
    dir.write("good.so", bytes);
    assert_eq!(dir.xtask(&["call", "good.so", "plus", "1"]).ok(), "3\n", "{what}");
}

/// Returns the number of `width` bytes at `at`.
fn number(image: &[u8], at: usize, width: usize) -> usize {
    image[at..at + width].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// Returns the end of what program headers say is loaded.
fn loaded_end(image: &[u8]) -> usize {
    let (table, count) = (number(image, 32, 8), number(image, 56, 2));
    let headers = (0..count).map(|index| table + 56 * index);
    let loaded = headers.filter(|&at| number(image, at, 4) == 1);
    loaded.map(|at| number(image, at + 8, 8) + number(image, at + 32, 8)).max().unwrap()
}

/// Returns the range of a section in the file.
fn section(image: &[u8], name: &str) -> Range<usize> {
    let (table, count, names) = (number(image, 40, 8), number(image, 60, 2), number(image, 62, 2));
    let header = |index: usize| table + 64 * index;
    let names = number(image, header(names) + 24, 8);
    let has_name =
        |&at: &usize| image[names + number(image, at, 4)..].starts_with(&[name, "\0"].concat().into_bytes());
    let at = (0..count).map(header).find(has_name).unwrap_or_else(|| panic!("no {name}"));
    let start = number(image, at + 24, 8);
    start..start + number(image, at + 32, 8)
}

/// An image whose end is gone loads, if only what is not loaded is gone.
#[test]
fn an_image_that_was_cut_off_or_extended() {
    let dir = image();
    let bytes = dir.read("p.so");
    let end = loaded_end(&bytes);
    let lengths = [0, 1, 4, 16, 63, 64, 65, 200, 512, 1000, 4095, 4096, 4097, 8192, end - 1];
    for length in lengths.into_iter().filter(|&length| length < end) {
        refused(&dir, &bytes[..length], &format!("{length} bytes"));
    }
    accepted(&dir, &bytes[..end], "what is loaded");
    accepted(&dir, &[&bytes[..], b"\0"].concat(), "one byte more");
    accepted(&dir, &bytes.repeat(2), "twice");
}

#[test]
fn an_image_with_an_altered_byte() {
    let dir = image();
    let bytes = dir.read("p.so");
    let checked = [".note.kiln", ".gnu.hash", ".eh_frame_hdr", ".eh_frame", ".kiln.code", ".text"];
    let checked: Vec<_> = checked.iter().map(|name| section(&bytes, name)).collect();
    // All headers, then bytes at even distances; some of everything that is loaded.
    let some = checked.iter().flat_map(|range| range.clone().step_by(13));
    let places = (0..512).step_by(3).chain((512..bytes.len()).step_by(149)).chain(some);
    for (turn, at) in places.enumerate() {
        let (mut bad, what) = (bytes.clone(), format!("bit {} of byte {at:#x}", turn % 8));
        bad[at] ^= 1 << (turn % 8);
        if checked.iter().any(|range| range.contains(&at)) {
            refused(&dir, &bad, &what);
            continue;
        }
        // What nobody uses may differ: the function does what it did.
        dir.write("bad.so", &bad);
        let called = dir.xtask(&["call", "bad.so", "plus", "1"]);
        let is_right = matches!((called.code, &*called.stdout), (Some(0), "3\n") | (Some(1), ""));
        assert!(is_right, "{what}: {:?}: {}{}", called.code, called.stdout, called.stderr);
        let inspected = dir.xtask(&["inspect", "bad.so"]);
        assert!(matches!(inspected.code, Some(0 | 1)), "{what}: {:?}: {}", inspected.code, inspected.stderr);
    }
}

#[test]
fn what_is_no_image() {
    let dir = image();
    refused(&dir, adder("plus", 2).as_bytes(), "text");
    refused(&dir, &[0; 20_000], "zeros");
    // An ELF file that is not a Kiln image.
    refused(&dir, &std::fs::read(env!("CARGO_BIN_EXE_kiln")).unwrap(), "a program");
    dir.xtask(&["inspect", "a.clif"]).code(1).says(&["a.clif: not a kiln image: no 64-bit ELF header"]);
    dir.xtask(&["call", "a.clif", "plus"]).code(1).says(&["a.clif: not a kiln image: no 64-bit ELF header"]);
    for (path, reason) in [("nowhere.so", "No such file or directory"), (".", "")] {
        dir.xtask(&["inspect", path]).code(1).says(&["error: ", path, reason]);
        dir.xtask(&["call", path, "plus", "1"]).code(1).says(&["error: ", path, reason]);
    }
}

#[test]
fn calls_that_do_not_fit_the_function() {
    let dir = image();
    let said = |args: &[&str], message: &str| {
        let ended = dir.xtask(&[&["call", "p.so"], args].concat()).code(1);
        assert_eq!((&*ended.stderr, &*ended.stdout), (&*format!("error: {message}\n"), ""));
    };
    let function = "`plus`, which is (i64) -> i64 system_v";
    said(&["minus", "1"], "p.so exports no function `minus`");
    said(&["plus"], "`plus` is (i64) -> i64 system_v: 1 argument expected, 0 given");
    said(&["plus", "1", "2"], "`plus` is (i64) -> i64 system_v: 1 argument expected, 2 given");
    said(&["plus", "one"], &format!("argument 1 of {function}: `one`: expected an i64"));
    said(&["plus", ""], &format!("argument 1 of {function}: ``: expected an i64"));
    said(
        &["plus", "1) == 1 ; run: %f(2"],
        &format!("argument 1 of {function}: `1) == 1 ; run: %f(2`: expected an i64"),
    );
    said(&["plus", "1)"], &format!("argument 1 of {function}: `1)`: expected an i64"));
    for argument in ["1.5", "1, 2", "1 2", "0x1_0000_0000_0000_0000", "99999999999999999999", "[1 2]"] {
        let ended = dir.xtask(&["call", "p.so", "plus", argument]).code(1);
        ended.says(&[&format!("argument 1 of {function}: `{argument}`: ")]);
    }
}

#[test]
fn a_run_time_object_that_is_missing_is_named_by_its_key() {
    let text = r#"global %here = "test:here"
global %there = "test:there = far"
function %same() -> i8 {
    gv0 = symbol %here
    gv1 = symbol %there
block0:
    v0 = symbol_value.i64 gv0
    v1 = symbol_value.i64 gv1
    v2 = icmp eq v0, v1
    return v2
}
"#;
    let dir = TestFolder::new(&[("a.clif", text)]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    let call = |globals: &[&str]| dir.xtask(&[&["call", "p.so", "same"], globals].concat());
    call(&[]).code(1).says(&["global \"test:here\"", "global \"test:there = far\""]);
    let ended = call(&["--global", "test:here=16"]).code(1).says(&["global \"test:there = far\""]);
    assert!(!ended.stderr.contains("test:here"), "{}", ended.stderr);
    // The last `=` ends the key.
    assert_eq!(call(&["--global", "test:here=16", "--global", "test:there = far=0x10"]).ok(), "1\n");
    assert_eq!(call(&["--global", "test:here=16", "--global", "test:there = far=0x20"]).ok(), "0\n");
}
