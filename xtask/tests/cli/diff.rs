//! `diff`: what differs is named, and whatever differs is found.

use std::sync::Arc;

use kiln::Compiler;
use kiln::ir::{Source, Target, parse};

use crate::support::{TestFolder, adder};

/// Asserts that two files differ, and that all `parts` are printed.
#[track_caller]
fn differ(dir: &TestFolder, args: &[&str], parts: &[&str]) {
    let found = dir.xtask(&[&["diff"], args].concat()).code(1);
    for part in parts {
        assert!(found.stdout.contains(part), "no `{part}` in:\n{}{}", found.stdout, found.stderr);
    }
}

/// Two builds of two modules, of which the second changed.
fn builds() -> TestFolder {
    let second = |constant: &str| {
        format!(
            "data %table {{ bytes #{constant} }}\n{}",
            adder("second", u32::from_str_radix(constant, 16).unwrap())
        )
    };
    let dir = TestFolder::new(&[
        ("a.clif", &adder("first", 1)),
        ("b.clif", &second("07")),
        ("c.clif", &second("08")),
    ]);
    dir.xtask(&["build", "a.clif", "b.clif", "-o", "one.so"]).ok();
    dir.xtask(&["build", "a.clif", "c.clif", "-o", "two.so"]).ok();
    dir.xtask(&["build", "a.clif", "b.clif", "-o", "again.so", "--threads", "1"]).ok();
    dir
}

#[test]
fn images_differ_in_named_functions_and_data() {
    let dir = builds();
    assert_eq!(dir.xtask(&["diff", "one.so", "again.so"]).ok(), "equal\n");
    differ(&dir, &["one.so", "two.so"], &["function `second` of module 1\n", "data `table`\n"]);
    differ(
        &dir,
        &["one.so", "two.so", "--format", "json"],
        &["\"equal\": false", "\"what\": \"data `table`\"", "1 bytes, from 0x0: 07", "1 bytes, from 0x0: 08"],
    );
    let other =
        dir.xtask(&["build", "a.clif", "b.clif", "-o", "none.so", "--opt-level", "none", "--soname", "x"]);
    other.ok();
    differ(&dir, &["one.so", "none.so"], &["section `.dynstr`"]);
}

#[test]
fn no_altered_byte_is_called_equal() {
    let dir = builds();
    let image = dir.read("one.so");
    for at in (0..image.len()).step_by(image.len() / 150) {
        let mut altered = image.clone();
        altered[at] ^= 1;
        dir.write("altered.so", &altered);
        let _ = dir.xtask(&["diff", "one.so", "altered.so"]).code(1);
    }
}

#[test]
fn artifacts_and_cache_entries_differ_in_functions_and_settings() {
    let dir = builds();
    let artifact = |number: u32, level: kiln::ir::OptLevel| {
        let target = Target::host().opt_level(level);
        let source = Arc::new(Source::new("a.clif", &*adder("first", number)));
        let module = parse(source, &target).unwrap();
        let artifacts = Compiler::new(target).compile(&[module]).unwrap().artifacts;
        artifacts[0].as_bytes().to_vec()
    };
    let (none, speed) = (kiln::ir::OptLevel::None, kiln::ir::OptLevel::Speed);
    for (name, bytes) in
        [("one", artifact(1, none)), ("same", artifact(1, none)), ("two", artifact(70000, speed))]
    {
        dir.write(name, bytes);
    }
    assert_eq!(dir.xtask(&["diff", "one", "same"]).ok(), "equal\n");
    differ(&dir, &["one", "two"], &["function `first`\n"]);
    let mut cut = dir.read("one");
    cut.pop();
    dir.write("cut", &cut);
    dir.xtask(&["diff", "one", "cut"]).code(1).says(&["error: artifact cut: "]);
    dir.xtask(&["diff", "one", "one.so"])
        .code(1)
        .says(&["error: one is an artifact, and one.so is an image"]);
    dir.xtask(&["diff", "one", "a.clif"]).code(1).says(&["image a.clif", "it is text"]);
    dir.xtask(&["diff", "one", "absent"]).code(1).says(&["cannot read absent"]);

    for (level, cache) in [("none", "x"), ("speed", "y")] {
        dir.xtask(&["build", "a.clif", "-o", "c.so", "--cache", cache, "--opt-level", level]).ok();
    }
    let entry = |cache: &str| {
        let list =
            dir.shell(&format!("find {cache} -type f -size +200c | xargs grep -l KilnEnt | head -1")).ok();
        list.trim().to_owned()
    };
    let (x, y) = (entry("x"), entry("y"));
    differ(&dir, &[&x, &y], &["setting opt_level", "  a: none", "  b: speed"]);
    assert_eq!(dir.xtask(&["diff", &x, &x]).ok(), "equal\n");
}
