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
    let out = place.xtask(&["check", "all.kir"]).ok();
    assert_eq!(out, "2 modules with 2 functions fit together\n");
    place
        .xtask(&["cache", "explain", "all.kir", "all.kir"])
        .code(1)
        .says(&["all.kir holds 2 modules, and this command takes one"]);
}

/// What a file begins with says what it is, not what it is called.
#[test]
fn many_modules_in_a_file_of_any_name() {
    let place = Place::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))]);
    place.xtask(&["convert", "a.clif", "b.clif", "all.kir"]).ok();
    place.xtask(&["build", "a.clif", "b.clif", "-o", "text.so"]).ok();
    for name in ["all.bin", "all.clif"] {
        place.write(name, place.read("all.kir"));
        assert_eq!(place.xtask(&["check", name]).ok(), "2 modules with 2 functions fit together\n");
        for more in [&["--cache", "kept"][..], &[]] {
            place.xtask(&[&["build", name, "-o", "binary.so"], more].concat()).ok();
            assert!(place.read("text.so") == place.read("binary.so"), "{name} {more:?}");
        }
        place.xtask(&["convert", name, "again.kir"]).ok();
        assert!(place.read("again.kir") == place.read("all.kir"), "{name}");
    }
}

/// A file of several modules is right as a whole, or it is an error that says where.
#[test]
fn damage_behind_the_first_module_is_found() {
    let place = Place::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))]);
    place.xtask(&["convert", "a.clif", "b.clif", "all.kir"]).ok();
    place.xtask(&["convert", "a.clif", "a.kir"]).ok();
    let (whole, second) = (place.read("all.kir"), place.read("a.kir").len());
    let mut altered = whole.clone();
    altered[second + 100] ^= 1;
    let mut newer = whole.clone();
    newer[second + 8..second + 24].fill(77);
    let (inside, behind) = (format!("byte {second}"), format!("byte {}", whole.len()));
    let ends = format!("{inside}: the file ends inside of a module");
    let foreign = |place: &str| format!("{place}: not a module in binary form");
    let own = format!("version 2 with Cranelift {}", cranelift_codegen::VERSION);
    let version = format!("{inside}: written by version {}, and this is {own}", u32::from_le_bytes([77; 4]));
    let checksum = format!("{inside}: the checksum of the module differs");
    let cases = [
        ("bad.kir", whole[..whole.len() - 10].to_vec(), ends.clone(), "bad.kir"),
        ("bad.kir", whole[..second + 10].to_vec(), ends.clone(), "bad.kir"),
        ("bad.bin", whole[..whole.len() - 10].to_vec(), ends, "bad.bin"),
        ("bad.kir", [&whole[..], b"garbage"].concat(), foreign(&behind), "bad.kir"),
        ("bad.kir", [&whole[..], &[b'x'; 100]].concat(), foreign(&behind), "bad.kir"),
        ("bad.kir", altered, checksum, "bad.kir#1"),
        ("bad.kir", newer, version, "bad.kir"),
        ("bad.kir", whole[..5].to_vec(), "byte 0: the file ends inside of a module".into(), "bad.kir"),
        // These cannot be seen to be in binary form, but are named as if they were.
        ("bad.kir", Vec::new(), foreign("byte 0"), "bad.kir"),
        ("bad.kir", adder("plus", 2).into_bytes(), foreign("byte 0"), "bad.kir"),
    ];
    std::fs::create_dir(place.path("folder")).unwrap();
    for (name, bytes, message, at) in cases {
        place.write(name, bytes);
        let before = place.names();
        let message = format!("error: {message}\n--> {at}\n");
        for args in [
            &["build", name, "-o", "new.so"][..],
            &["check", name],
            &["convert", name, "new.kir"],
            &["convert", name, "a.clif", "new.kir"],
            &["convert", name, "new"],
            &["convert", name, "folder"],
        ] {
            let ended = place.xtask(args).code(1).says(&[&message]);
            assert_eq!((ended.stdout.as_str(), place.names()), ("", before.clone()), "{args:?}");
        }
        assert_eq!(std::fs::read_dir(place.path("folder")).unwrap().count(), 0);
        let ended = place.xtask(&["run", name]).code(1);
        assert!(ended.stdout.contains(&message), "{}", ended.stdout);
        assert!(ended.stdout.ends_with("0 passed, 1 failed, 0 skipped\n"), "{}", ended.stdout);
        place.xtask(&["build", name, "-o", "new.so", "--cache", "kept"]).code(1).says(&[&message]);
        assert!(!place.path("new.so").exists());
        std::fs::remove_file(place.path(name)).unwrap();
        let _ = std::fs::remove_dir_all(place.path("kept"));
    }
}

/// A file is not read as a whole, let alone once for each of its modules.
#[test]
fn a_large_file_of_many_modules_needs_little_memory() {
    let comment = format!("; {}\n", "large ".repeat(1000));
    let text = format!("{}local function %f() {{\nblock0:\n    return\n}}\n", comment.repeat(120));
    let place = Place::new(&[("one.clif", &*text)]);
    place.xtask(&["convert", "one.clif", "one.kir"]).ok();
    let (one, count) = (place.read("one.kir"), 80);
    place.write("many.kir", one.repeat(count));
    let peak = |input: &str, more: &[&str]| {
        let args = ["build", input, "-o", "out.so", "--threads", "2", "--format", "json"];
        let stats: serde_json::Value =
            serde_json::from_str(&place.xtask(&[&args, more].concat()).ok()).unwrap();
        stats["peak_rss_bytes"].as_u64().unwrap()
    };
    for more in [&[][..], &["--cache", "kept"]] {
        let (single, all) = (peak("one.kir", more), peak("many.kir", more));
        let file = (one.len() * count) as u64;
        assert!(all < single + file / 3, "{more:?}: {single} for a module, {all} for {file} bytes");
    }
}

/// Text, binary form of many, and text again: under the names that the texts had.
#[test]
fn a_file_of_many_modules_becomes_a_folder() {
    let place = Place::new(&[("a.clif", &*adder("plus", 2)), ("c.clif", &*adder("third", 3))]);
    std::fs::create_dir_all(place.path("deep/er")).unwrap();
    place.write("deep/a.clif", adder("other", 40));
    place.write("deep/er/-odd name\u{1b}#é.clif", adder("odd", 1));
    let inputs = ["a.clif", "deep/a.clif", "deep/er/-odd name\u{1b}#é.clif"];
    place.xtask(&[&["convert"], &inputs[..], &["three.kir"]].concat()).ok();
    // The names outlive another step.
    place.xtask(&["convert", "three.kir", "c.clif", "all.kir"]).ok();
    let names = ["a#1.clif", "a.clif", "c.clif", "odd_name__é.clif"];
    for folder in ["new", "there"] {
        if folder == "there" {
            std::fs::create_dir(place.path("there")).unwrap();
            place.write("there/file", "stays");
        }
        place.xtask(&["convert", "all.kir", folder]).ok();
        for name in names {
            assert!(place.path(folder).join(name).exists(), "{folder}/{name}");
        }
    }
    assert_eq!(std::fs::read_dir(place.path("new")).unwrap().count(), names.len());
    assert_eq!(place.read("there/file"), b"stays");
    let order = ["new/a.clif", "new/a#1.clif", "new/odd_name__é.clif", "new/c.clif"];
    place.xtask(&[&["convert"], &order[..], &["back.kir"]].concat()).ok();
    place.xtask(&["build", "back.kir", "-o", "back.so"]).ok();
    place.xtask(&["build", "all.kir", "-o", "all.so"]).ok();
    assert!(place.read("back.so") == place.read("all.so"));

    // Nothing is overwritten, nor is a part written.
    std::fs::remove_file(place.path("new/a.clif")).unwrap();
    place
        .xtask(&["convert", "all.kir", "new"])
        .code(1)
        .says(&["cannot write new/a#1.clif: it is there already"]);
    assert!(!place.path("new/a.clif").exists());
    assert_eq!(std::fs::read_dir(place.path("new")).unwrap().count(), names.len() - 1);
    place.xtask(&["convert", "all.kir", "a.clif/new"]).code(1).says(&["cannot write a.clif/new: "]);
}

/// A name in a file is no path.
#[test]
fn names_of_modules_do_not_lead_out_of_the_folder() {
    let place = Place::new(&[("f.clif", TEXT)]);
    let module = || {
        let source = kiln::ir::Source::new("f.clif", TEXT);
        kiln::ir::parse(source.into(), &kiln::ir::Target::host()).unwrap()
    };
    let names = ["../up.clif", "/etc/passwd", "..", "", "a/..", "..\\..\\win", ".hidden", &"é".repeat(1000)];
    let bytes = |name: &str| kiln::ir::Module { name: name.into(), ..module() }.to_bytes();
    place.write("all.kir", names.map(bytes).concat());
    place.xtask(&["convert", "all.kir", "out"]).ok();
    let mut written: Vec<_> = std::fs::read_dir(place.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    written.sort();
    let long = format!("{}.clif", "é".repeat(100));
    let expected = [
        "hidden.clif",
        "module#3.clif",
        "module#4.clif",
        "module.clif",
        "passwd.clif",
        "up.clif",
        "win.clif",
        &long,
    ];
    assert_eq!(written, expected);
    assert_eq!(place.names(), ["all.kir", "f.clif", "out"]);
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

/// What a module was called when it was text is for messages; a build knows it again by its place.
#[test]
fn functions_are_reused_from_modules_converted_elsewhere() {
    let place = Place::new(&[("a.clif", &*adder("plus", 2))]);
    let built = |text: &str, from: &str| {
        place.write(from, text);
        place.xtask(&["convert", "a.clif", from, "all.kir"]).ok();
        place.xtask(&["build", "all.kir", "-o", "all.so", "--cache", "kept"]).ok()
    };
    let same = adder("same", 1);
    assert!(built(&format!("{same}{}", adder("edited", 1)), "b.clif").contains("(3 compiled, 0 reused)"));
    assert!(built(&format!("{same}{}", adder("edited", 2)), "c.clif").contains("(1 compiled, 2 reused)"));
}
