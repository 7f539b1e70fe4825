//! Damaged images, and calls that do not fit the function: refused with a reason, and not run.

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

#[test]
fn an_image_that_was_cut_off_or_extended() {
    let dir = image();
    let bytes = dir.read("p.so");
    let lengths = [0, 1, 4, 16, 63, 64, 65, 200, 512, 1000, 4095, 4096, 4097, 8192, bytes.len() - 1];
    for length in lengths.into_iter().filter(|&length| length < bytes.len()) {
        refused(&dir, &bytes[..length], &format!("{length} bytes"));
    }
    refused(&dir, &[&bytes[..], b"\0"].concat(), "one byte more");
    refused(&dir, &bytes.repeat(2), "twice");
}

#[test]
fn an_image_with_an_altered_byte() {
    let dir = image();
    let bytes = dir.read("p.so");
    assert_eq!(dir.xtask(&["call", "p.so", "plus", "1"]).ok(), "3\n");
    // Some bytes of the headers, then bytes at even distances; padding is checked too.
    let places = (0..64).step_by(5).chain((64..bytes.len()).step_by(149)).chain([bytes.len() - 1]);
    for (turn, at) in places.enumerate() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (turn % 8);
        refused(&dir, &bad, &format!("bit {} of byte {at:#x}", turn % 8));
    }
}

#[test]
fn what_is_no_image() {
    let dir = image();
    refused(&dir, adder("plus", 2).as_bytes(), "text");
    refused(&dir, &[0; 20_000], "zeros");
    // An ELF file that is not a Kiln image.
    refused(&dir, &std::fs::read(env!("CARGO_BIN_EXE_xtask")).unwrap(), "a program");
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
