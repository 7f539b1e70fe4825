//! `convert`: text and binary form of the same modules.

use crate::support::{Place, adder};

const TEXT: &str = "; what it does\nfunction %f() -> i32 system_v {\nblock0:\n    v0 = iconst.i32 7 ; seven\n    return v0\n}\n; run: %f() == 7\n";

#[test]
fn there_and_back() {
    let place = Place::new(&[("f.clif", TEXT)]);
    place.xtask(&["convert", "f.clif", "f.kir"]).ok();
    place.xtask(&["convert", "f.kir", "g.clif"]).ok();
    place.xtask(&["convert", "g.clif", "g.kir"]).ok();
    place.xtask(&["convert", "g.kir", "g.clif"]).ok();
    let text = String::from_utf8(place.read("g.clif")).unwrap();
    for part in ["; what it does", "; seven", "; run: %f() == 7", "v0 = iconst.i32 7"] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    for file in ["f.clif", "f.kir", "g.clif"] {
        assert!(place.xtask(&["run", file]).ok().contains("1 passed"), "{file}");
        let image = format!("{file}.so");
        place.xtask(&["build", file, "-o", &image]).ok();
        assert!(place.read("f.clif.so") == place.read(&image), "{file} gives another image");
    }
    // A file can be formatted in place.
    place.xtask(&["convert", "f.clif", "f.clif"]).ok();
    assert_eq!(String::from_utf8(place.read("f.clif")).unwrap(), text);
}

#[test]
fn many_modules_in_a_file() {
    let place = Place::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))]);
    place.xtask(&["convert", "a.clif", "b.clif", "all.kir"]).ok();
    place.xtask(&["build", "a.clif", "b.clif", "-o", "text.so"]).ok();
    place.xtask(&["build", "all.kir", "-o", "binary.so"]).ok();
    assert!(place.read("text.so") == place.read("binary.so"));
    let cached = |output| place.xtask(&["build", "all.kir", "-o", output, "--cache", "kept"]).ok();
    cached("cold.so");
    assert!(cached("warm.so").contains("(0 compiled, 2 reused) in 2 modules"));
    assert!(place.read("text.so") == place.read("warm.so"));
    place
        .xtask(&["convert", "all.kir", "all.clif"])
        .code(1)
        .says(&["a .clif file is one module, and these are 2"]);
    place.xtask(&["check", "all.kir"]).code(1).says(&["all.kir holds 2 modules, and this command takes one"]);
}

#[test]
fn what_cannot_be_converted_leaves_nothing() {
    let place = Place::new(&[("f.clif", TEXT), ("bad.clif", "function %f() {\nblock0:\n    retrun\n}\n")]);
    place.xtask(&["convert", "f.clif", "f.txt"]).code(1).says(&["cannot tell the form of f.txt"]);
    place
        .xtask(&["convert", "bad.clif", "bad.kir"])
        .code(1)
        .says(&["--> bad.clif:3:5", "error: 1 error in the input"]);
    assert!(!place.path("bad.kir").exists());
    place.xtask(&["convert", "f.clif", "f.kir"]).ok();
    let mut bytes = place.read("f.kir");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    place.write("f.kir", &bytes);
    let message = "byte 0: the checksum of the module differs";
    place.xtask(&["check", "f.kir"]).code(1).says(&[message, "f.kir"]);
    place.xtask(&["build", "f.kir", "-o", "f.so"]).code(1).says(&[message]);
    place.write("f.kir", &bytes[..100]);
    place.xtask(&["run", "f.kir"]).code(1);
    place.xtask(&["check", "f.kir"]).code(1).says(&["byte 0: the file ends inside of a module"]);
}
