//! `convert`: text and binary form of the same modules.

use crate::support::{TestFolder, adder};

const TEXT: &str = "; what it does\nfunction %f() -> i32 system_v {\nblock0:\n    v0 = iconst.i32 7 ; seven\n    return v0\n}\n; run: %f() == 7\n";

#[test]
fn there_and_back() {
    let dir = TestFolder::new(&[("f.clif", TEXT)]);
    dir.xtask(&["convert", "f.clif", "f.kir"]).ok();
    dir.xtask(&["convert", "f.kir", "g.clif"]).ok();
    dir.xtask(&["convert", "g.clif", "g.kir"]).ok();
    dir.xtask(&["convert", "g.kir", "g.clif"]).ok();
    let text = String::from_utf8(dir.read("g.clif")).unwrap();
    for part in ["; what it does", "; seven", "; run: %f() == 7", "v0 = iconst.i32 7"] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    for file in ["f.clif", "f.kir", "g.clif"] {
        assert!(dir.xtask(&["run", file]).ok().contains("1 passed"), "{file}");
        let image = format!("{file}.so");
        dir.xtask(&["build", file, "-o", &image]).ok();
        assert!(dir.read("f.clif.so") == dir.read(&image), "{file} gives another image");
    }
    // A file can be formatted in place.
    dir.xtask(&["convert", "f.clif", "f.clif"]).ok();
    assert_eq!(String::from_utf8(dir.read("f.clif")).unwrap(), text);
}

#[test]
fn many_modules_in_a_file() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))]);
    dir.xtask(&["convert", "a.clif", "b.clif", "all.kir"]).ok();
    dir.xtask(&["build", "a.clif", "b.clif", "-o", "text.so"]).ok();
    dir.xtask(&["build", "all.kir", "-o", "binary.so"]).ok();
    assert!(dir.read("text.so") == dir.read("binary.so"));
    let cached = |output| dir.xtask(&["build", "all.kir", "-o", output, "--cache", "kept"]).ok();
    cached("cold.so");
    assert!(cached("warm.so").contains("(0 compiled, 2 reused) in 2 modules"));
    assert!(dir.read("text.so") == dir.read("warm.so"));
    dir.xtask(&["convert", "all.kir", "all.clif"])
        .code(1)
        .says(&["a .clif file is one module, and these are 2"]);
    let out = dir.xtask(&["check", "all.kir"]).ok();
    assert_eq!(out, "2 modules with 2 functions fit together\n");
    dir.xtask(&["cache", "explain", "all.kir", "all.kir"])
        .code(1)
        .says(&["all.kir holds 2 modules, and this command takes one"]);
}

/// The form of a file follows from its first bytes, not from its name.
#[test]
fn many_modules_in_a_file_of_any_name() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))]);
    dir.xtask(&["convert", "a.clif", "b.clif", "all.kir"]).ok();
    dir.xtask(&["build", "a.clif", "b.clif", "-o", "text.so"]).ok();
    for name in ["all.bin", "all.clif"] {
        dir.write(name, dir.read("all.kir"));
        assert_eq!(dir.xtask(&["check", name]).ok(), "2 modules with 2 functions fit together\n");
        for more in [&["--cache", "kept"][..], &[]] {
            dir.xtask(&[&["build", name, "-o", "binary.so"], more].concat()).ok();
            assert!(dir.read("text.so") == dir.read("binary.so"), "{name} {more:?}");
        }
        dir.xtask(&["convert", name, "again.kir"]).ok();
        assert!(dir.read("again.kir") == dir.read("all.kir"), "{name}");
    }
}

/// Damage anywhere in a file of several modules is an error that names the place.
#[test]
fn damage_after_the_first_module_is_found() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))]);
    dir.xtask(&["convert", "a.clif", "b.clif", "all.kir"]).ok();
    dir.xtask(&["convert", "a.clif", "a.kir"]).ok();
    let (whole, second) = (dir.read("all.kir"), dir.read("a.kir").len());
    let mut altered = whole.clone();
    altered[second + 100] ^= 1;
    let mut newer = whole.clone();
    newer[second + 8..second + 24].fill(77);
    let (inside, after) = (format!("byte {second}"), format!("byte {}", whole.len()));
    let ends = format!("{inside}: the file ends inside of a module");
    let foreign = |place: &str| format!("{place}: not a module in binary form");
    let version = u32::from_le_bytes(whole[8..12].try_into().unwrap());
    let own = format!("version {version} with Cranelift {}", cranelift_codegen::VERSION);
    let version = format!("{inside}: written by version {}, and this is {own}", u32::from_le_bytes([77; 4]));
    let checksum = format!("{inside}: the checksum of the module differs");
    let cases = [
        ("bad.kir", whole[..whole.len() - 10].to_vec(), ends.clone(), "bad.kir"),
        ("bad.kir", whole[..second + 10].to_vec(), ends.clone(), "bad.kir"),
        ("bad.bin", whole[..whole.len() - 10].to_vec(), ends, "bad.bin"),
        ("bad.kir", [&whole[..], b"garbage"].concat(), foreign(&after), "bad.kir"),
        ("bad.kir", [&whole[..], &[b'x'; 100]].concat(), foreign(&after), "bad.kir"),
        ("bad.kir", altered, checksum, "bad.kir#1"),
        ("bad.kir", newer, version, "bad.kir"),
        ("bad.kir", whole[..5].to_vec(), "byte 0: the file ends inside of a module".into(), "bad.kir"),
        // The bytes of these are not of the binary form, but the files have its extension.
        ("bad.kir", Vec::new(), foreign("byte 0"), "bad.kir"),
        ("bad.kir", adder("plus", 2).into_bytes(), foreign("byte 0"), "bad.kir"),
    ];
    std::fs::create_dir(dir.path("folder")).unwrap();
    for (name, bytes, message, at) in cases {
        dir.write(name, bytes);
        let before = dir.names();
        let message = format!("error: {message}\n--> {at}\n");
        for args in [
            &["build", name, "-o", "new.so"][..],
            &["check", name],
            &["convert", name, "new.kir"],
            &["convert", name, "a.clif", "new.kir"],
            &["convert", name, "new"],
            &["convert", name, "folder"],
        ] {
            let ended = dir.xtask(args).code(1).says(&[&message]);
            assert_eq!((ended.stdout.as_str(), dir.names()), ("", before.clone()), "{args:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path("folder")).unwrap().count(), 0);
        let ended = dir.xtask(&["run", name]).code(1);
        assert!(ended.stdout.contains(&message), "{}", ended.stdout);
        assert!(ended.stdout.ends_with("0 passed, 1 failed, 0 skipped\n"), "{}", ended.stdout);
        dir.xtask(&["build", name, "-o", "new.so", "--cache", "kept"]).code(1).says(&[&message]);
        assert!(!dir.path("new.so").exists());
        std::fs::remove_file(dir.path(name)).unwrap();
        let _ = std::fs::remove_dir_all(dir.path("kept"));
    }
}

/// Only a part of a file is in memory at any time, and it is not read once for each module.
#[test]
fn a_large_file_of_many_modules_needs_little_memory() {
    let comment = format!("; {}\n", "large ".repeat(1000));
    let text = format!("{}local function %f() {{\nblock0:\n    return\n}}\n", comment.repeat(120));
    let dir = TestFolder::new(&[("one.clif", &*text)]);
    dir.xtask(&["convert", "one.clif", "one.kir"]).ok();
    let (one, count) = (dir.read("one.kir"), 80);
    dir.write("many.kir", one.repeat(count));
    let peak = |input: &str, more: &[&str]| {
        let args = ["build", input, "-o", "out.so", "--threads", "2", "--format", "json"];
        let stats: serde_json::Value =
            serde_json::from_str(&dir.xtask(&[&args, more].concat()).ok()).unwrap();
        stats["peak_rss_bytes"].as_u64().unwrap()
    };
    for more in [&[][..], &["--cache", "kept"]] {
        let (single, all) = (peak("one.kir", more), peak("many.kir", more));
        let file = (one.len() * count) as u64;
        assert!(all < single + file / 3, "{more:?}: {single} for a module, {all} for {file} bytes");
    }
}

/// Several texts become a file in binary form and texts again, with the names that they had.
#[test]
fn a_file_of_many_modules_becomes_a_folder() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2)), ("c.clif", &*adder("third", 3))]);
    std::fs::create_dir_all(dir.path("deep/er")).unwrap();
    dir.write("deep/a.clif", adder("other", 40));
    dir.write("deep/er/-odd name\u{1b}#é.clif", adder("odd", 1));
    let inputs = ["a.clif", "deep/a.clif", "deep/er/-odd name\u{1b}#é.clif"];
    dir.xtask(&[&["convert"], &inputs[..], &["three.kir"]].concat()).ok();
    // The names survive another conversion.
    dir.xtask(&["convert", "three.kir", "c.clif", "all.kir"]).ok();
    let names = ["a#1.clif", "a.clif", "c.clif", "odd_name__é.clif"];
    for folder in ["new", "there"] {
        if folder == "there" {
            std::fs::create_dir(dir.path("there")).unwrap();
            dir.write("there/file", "stays");
        }
        dir.xtask(&["convert", "all.kir", folder]).ok();
        for name in names {
            assert!(dir.path(folder).join(name).exists(), "{folder}/{name}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path("new")).unwrap().count(), names.len());
    assert_eq!(dir.read("there/file"), b"stays");
    let order = ["new/a.clif", "new/a#1.clif", "new/odd_name__é.clif", "new/c.clif"];
    dir.xtask(&[&["convert"], &order[..], &["back.kir"]].concat()).ok();
    dir.xtask(&["build", "back.kir", "-o", "back.so"]).ok();
    dir.xtask(&["build", "all.kir", "-o", "all.so"]).ok();
    assert!(dir.read("back.so") == dir.read("all.so"));

    // No file is overwritten, and none is written if one cannot be.
    std::fs::remove_file(dir.path("new/a.clif")).unwrap();
    dir.xtask(&["convert", "all.kir", "new"]).code(1).says(&["cannot write new/a#1.clif: it exists already"]);
    assert!(!dir.path("new/a.clif").exists());
    assert_eq!(std::fs::read_dir(dir.path("new")).unwrap().count(), names.len() - 1);
    dir.xtask(&["convert", "all.kir", "a.clif/new"]).code(1).says(&["cannot write a.clif/new: "]);
}

/// The name of a module in a file is not used as a path.
#[test]
fn names_of_modules_do_not_lead_out_of_the_folder() {
    let dir = TestFolder::new(&[("f.clif", TEXT)]);
    let module = || {
        let source = kiln::ir::Source::new("f.clif", TEXT);
        kiln::ir::parse(source.into(), &kiln::ir::Target::host()).unwrap()
    };
    let names = ["../up.clif", "/etc/passwd", "..", "", "a/..", "..\\..\\win", ".hidden", &"é".repeat(1000)];
    let bytes = |name: &str| kiln::ir::Module { name: name.into(), ..module() }.to_bytes();
    dir.write("all.kir", names.map(bytes).concat());
    dir.xtask(&["convert", "all.kir", "out"]).ok();
    let mut written: Vec<_> = std::fs::read_dir(dir.path("out"))
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
    assert_eq!(dir.names(), ["all.kir", "f.clif", "out"]);
}

#[test]
fn what_cannot_be_converted_leaves_nothing() {
    let dir = TestFolder::new(&[("f.clif", TEXT), ("bad.clif", "function %f() {\nblock0:\n    retrun\n}\n")]);
    dir.xtask(&["convert", "f.clif", "f.txt"]).code(1).says(&["cannot tell the form of f.txt"]);
    dir.xtask(&["convert", "bad.clif", "bad.kir"])
        .code(1)
        .says(&["--> bad.clif:3:5", "error: 1 error in the input"]);
    assert!(!dir.path("bad.kir").exists());
    dir.xtask(&["convert", "f.clif", "f.kir"]).ok();
    let mut bytes = dir.read("f.kir");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    dir.write("f.kir", &bytes);
    let message = "byte 0: the checksum of the module differs";
    dir.xtask(&["check", "f.kir"]).code(1).says(&[message, "f.kir"]);
    dir.xtask(&["build", "f.kir", "-o", "f.so"]).code(1).says(&[message]);
    dir.write("f.kir", &bytes[..100]);
    dir.xtask(&["run", "f.kir"]).code(1);
    dir.xtask(&["check", "f.kir"]).code(1).says(&["byte 0: the file ends inside of a module"]);
}

/// The name of a module's text is only for messages; a build finds a module's last build by the
/// file it is in.
#[test]
fn functions_are_reused_from_modules_converted_elsewhere() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2))]);
    let built = |text: &str, from: &str| {
        dir.write(from, text);
        dir.xtask(&["convert", "a.clif", from, "all.kir"]).ok();
        dir.xtask(&["build", "all.kir", "-o", "all.so", "--cache", "kept"]).ok()
    };
    let same = adder("same", 1);
    assert!(built(&format!("{same}{}", adder("edited", 1)), "b.clif").contains("(3 compiled, 0 reused)"));
    assert!(built(&format!("{same}{}", adder("edited", 2)), "c.clif").contains("(1 compiled, 2 reused)"));
}
