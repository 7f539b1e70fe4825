//! Images that are damaged, and calls that do not fit: refused with a reason, and never run.

use crate::support::{Ended, Place, adder};

/// A place with an image `p.so` that exports `plus`, a function of one integer.
fn image() -> Place {
    let place = Place::new(&[("a.clif", &adder("plus", 2))]);
    place.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    place
}

/// `inspect` and `call` of `bytes`, both refused for one reason.
#[track_caller]
fn refused(place: &Place, bytes: &[u8], what: &str) {
    place.write("bad.so", bytes);
    for args in [&["inspect", "bad.so"][..], &["call", "bad.so", "plus", "1"]] {
        let Ended { code, stdout, stderr } = place.xtask(args);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{what}: {args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains("bad.so: "), "{what}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
    }
}

#[test]
fn an_image_that_was_cut_off_or_extended() {
    let place = image();
    let bytes = place.read("p.so");
    let lengths = [0, 1, 4, 16, 63, 64, 65, 200, 512, 1000, 4095, 4096, 4097, 8192, bytes.len() - 1];
    for length in lengths.into_iter().filter(|&length| length < bytes.len()) {
        refused(&place, &bytes[..length], &format!("{length} bytes"));
    }
    refused(&place, &[&bytes[..], b"\0"].concat(), "one byte more");
    refused(&place, &bytes.repeat(2), "twice");
}

#[test]
fn an_image_of_which_any_byte_was_altered() {
    let place = image();
    let bytes = place.read("p.so");
    assert_eq!(place.xtask(&["call", "p.so", "plus", "1"]).ok(), "3\n");
    // Every byte of the headers' beginning, then here and there; padding is checked too.
    let places = (0..64).step_by(5).chain((64..bytes.len()).step_by(149)).chain([bytes.len() - 1]);
    for (turn, at) in places.enumerate() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (turn % 8);
        refused(&place, &bad, &format!("bit {} of byte {at:#x}", turn % 8));
    }
}

#[test]
fn what_is_no_image() {
    let place = image();
    refused(&place, adder("plus", 2).as_bytes(), "text");
    refused(&place, &[0; 20_000], "zeros");
    // An ELF file of another kind.
    refused(&place, &std::fs::read(env!("CARGO_BIN_EXE_xtask")).unwrap(), "a program");
    place.xtask(&["inspect", "a.clif"]).code(1).says(&["a.clif: not a kiln image: no 64-bit ELF header"]);
    place
        .xtask(&["call", "a.clif", "plus"])
        .code(1)
        .says(&["a.clif: not a kiln image: no 64-bit ELF header"]);
    for (path, reason) in [("nowhere.so", "No such file or directory"), (".", "")] {
        place.xtask(&["inspect", path]).code(1).says(&["error: ", path, reason]);
        place.xtask(&["call", path, "plus", "1"]).code(1).says(&["error: ", path, reason]);
    }
}

#[test]
fn calls_that_do_not_fit_the_function() {
    let place = image();
    let said = |args: &[&str], message: &str| {
        let ended = place.xtask(&[&["call", "p.so"], args].concat()).code(1);
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
        &format!("argument 1 of {function}: `1) == 1 ; run: %f(2`: not a value"),
    );
    said(&["plus", "1)"], &format!("argument 1 of {function}: `1)`: not a value"));
    for argument in ["1.5", "1, 2", "1 2", "0x1_0000_0000_0000_0000", "99999999999999999999", "[1 2]"] {
        let ended = place.xtask(&["call", "p.so", "plus", argument]).code(1);
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
    let place = Place::new(&[("a.clif", text)]);
    place.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    let call = |globals: &[&str]| place.xtask(&[&["call", "p.so", "same"], globals].concat());
    call(&[]).code(1).says(&["global \"test:here\"", "global \"test:there = far\""]);
    let ended = call(&["--global", "test:here=16"]).code(1).says(&["global \"test:there = far\""]);
    assert!(!ended.stderr.contains("test:here"), "{}", ended.stderr);
    // The last `=` ends the key.
    assert_eq!(call(&["--global", "test:here=16", "--global", "test:there = far=0x10"]).ok(), "1\n");
    assert_eq!(call(&["--global", "test:here=16", "--global", "test:there = far=0x20"]).ok(), "0\n");
}
