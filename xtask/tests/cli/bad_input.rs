//! Input with errors: the exit code, a message that names the place, and nothing written.

use crate::support::{Ended, TestFolder, adder};

/// Builds input that must be refused, to a new file and over an old one, and asserts that no file
/// has changed.
#[track_caller]
fn refused(dir: &TestFolder, inputs: &[&str], more: &[&str]) -> Ended {
    dir.write("old.so", "old");
    let before = dir.names();
    let build = |output| dir.xtask(&[&["build"], inputs, &["-o", output], more].concat());
    let over = build("old.so");
    let ended = build("new.so");
    assert_eq!((over.code, &over.stderr), (ended.code, &ended.stderr));
    assert_eq!(dir.read("old.so"), b"old");
    assert_eq!(dir.names(), before, "something was left");
    assert_eq!(ended.stdout, "");
    ended
}

#[test]
fn syntax_errors_name_the_word() {
    let dir = TestFolder::new(&[(
        "a.clif",
        "function %s() -> i32 {\nblock0:\n    v0 = bogus 1\n    return v0\n}\n",
    )]);
    refused(&dir, &["a.clif"], &[])
        .code(1)
        .says(&["error: unknown opcode: 'bogus'\n --> a.clif:3:10\n", "error: 1 error in the input\n"]);
}

#[test]
fn all_verifier_errors_of_all_files_are_reported() {
    let wrong = |name: &str, ty: &str| {
        format!("function %{name}() -> i32 {{\nblock0:\n    v0 = iconst.{ty} 1\n    return v0\n}}\n")
    };
    let dir = TestFolder::new(&[
        ("a.clif", &format!("{}\n{}", wrong("f", "i64"), wrong("g", "i8"))),
        ("b.clif", &wrong("h", "i16")),
        ("c.clif", &adder("fine", 1)),
    ]);
    refused(&dir, &["a.clif", "b.clif", "c.clif"], &[]).code(1).says(&[
        "result 0 has type i64, must match function signature of i32\n --> a.clif:4:5\n",
        "result 0 has type i8, must match function signature of i32\n  --> a.clif:10:5\n",
        "result 0 has type i16, must match function signature of i32\n --> b.clif:4:5\n",
        "error: 3 errors in the input\n",
    ]);
}

#[test]
fn a_name_defined_twice_is_shown_at_both_places() {
    let dir = TestFolder::new(&[("a.clif", &adder("d", 1)), ("b.clif", &format!("\n{}", adder("d", 2)))]);
    refused(&dir, &["a.clif", "b.clif"], &[]).code(1).says(&[
        "error: `%d` is defined twice\n --> b.clif:2:10\n",
        "::: a.clif:1:10\n",
        "first defined here",
        "error: 1 error between the modules\n",
    ]);
}

#[test]
fn types_that_disagree_are_shown_at_both_places() {
    let import = "function %m() -> i32 {
    fn0 = %d(i32) -> i32 system_v
block0:
    v0 = iconst.i32 1
    v1 = call fn0(v0)
    return v1
}
";
    let dir = TestFolder::new(&[("a.clif", &adder("d", 1)), ("b.clif", import)]);
    refused(&dir, &["a.clif", "b.clif"], &[]).code(1).says(&[
        "error: `%d` is declared as (i32) -> i32 system_v, but defined as (i64) -> i64 system_v\n --> b.clif:2:11\n",
        "::: a.clif:1:10\n",
        "defined here",
    ]);
}

#[test]
fn targets_and_settings() {
    let dir = TestFolder::new(&[
        ("set.clif", &format!("set bogus=1\n{}", adder("f", 1))),
        ("value.clif", &format!("set opt_level=ludicrous\n{}", adder("f", 1))),
        ("s390x.clif", &format!("\ntarget s390x\n{}", adder("f", 1))),
        ("feature.clif", &format!("target {} has_telepathy\n{}", std::env::consts::ARCH, adder("f", 1))),
        ("fine.clif", &adder("f", 1)),
    ]);
    refused(&dir, &["set.clif"], &[]).code(1).says(&["`bogus=1`: no such setting\n --> set.clif:1:5\n"]);
    refused(&dir, &["value.clif"], &[]).code(1).says(&["opt_level=ludicrous", " --> value.clif:1:5\n"]);
    refused(&dir, &["s390x.clif"], &[])
        .code(1)
        .says(&["error: the module is for s390x, not for ", " --> s390x.clif:2:1\n"]);
    refused(&dir, &["feature.clif"], &[])
        .code(1)
        .says(&["setting `has_telepathy`: no such setting\n --> feature.clif:1:"]);
    refused(&dir, &["fine.clif"], &["--target", "vax"])
        .code(1)
        .says(&["error: `vax` is not a target triple"]);
    refused(&dir, &["fine.clif"], &["--target", "i686"]).code(1).says(&["i686"]);
}

#[test]
fn files_that_cannot_be_read() {
    let dir = TestFolder::new(&[("notes.txt", "no code")]);
    std::fs::create_dir(dir.path("empty")).unwrap();
    let said = |input: &str, message: &str| {
        let ended = refused(&dir, &[input], &[]).code(1);
        assert_eq!(ended.stderr, format!("error: {message}\n"));
    };
    said("nowhere.clif", "cannot read nowhere.clif: No such file or directory (os error 2)");
    said("empty", "no .clif or .kir file in folder empty");
    for way in ["nowhere.clif", "empty"] {
        let ended = dir.xtask(&["run", way]).code(1).says(&["error: ", way]);
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn text_that_is_not_utf_8() {
    let dir = TestFolder::new(&[("fine.clif", &adder("g", 1))]);
    dir.write("latin.clif", b"function %f() {\nblock0: ; \xe9t\xe9\n    return\n}\n");
    let ended = refused(&dir, &["fine.clif", "latin.clif"], &[]).code(1);
    assert!(
        ended.stderr.starts_with("error: byte 0xe9 is not UTF-8\n --> latin.clif:2:11\n"),
        "{}",
        ended.stderr
    );
    // The other files are run.
    let ended = dir.xtask(&["run", "fine.clif", "latin.clif"]).code(1);
    assert!(ended.stdout.starts_with("fine.clif: ok"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("error: byte 0xe9 is not UTF-8\n --> latin.clif:2:11\n"),
        "{}",
        ended.stdout
    );
    let totals = "0 passed, 1 failed, 0 skipped, 1 without a run line\n";
    assert!(ended.stdout.ends_with(totals), "{}", ended.stdout);
}

#[test]
fn outputs_that_cannot_be_written() {
    let dir = TestFolder::new(&[("a.clif", &adder("f", 1))]);
    std::fs::create_dir(dir.path("folder")).unwrap();
    let before = dir.names();
    let said = |output: &str, message: &str| {
        let ended = dir.xtask(&["build", "a.clif", "-o", output]).code(1);
        assert_eq!(ended.stderr, format!("error: cannot write {output}: {message}\n"));
        // If the numbers cannot be written, the image is not written either.
        let ended = dir.xtask(&["build", "a.clif", "-o", "p.so", "--stats", output]).code(1);
        assert_eq!(ended.stderr, format!("error: cannot write {output}: {message}\n"));
    };
    said("folder", "it is a folder");
    said("nowhere/p.so", "there is no folder nowhere");
    said("a.clif/p.so", "there is no folder a.clif");
    said("a.clif", "it is an input");
    // Not even root may write in this folder.
    dir.xtask(&["build", "a.clif", "-o", "/proc/self/p.so"])
        .code(1)
        .says(&["cannot write /proc/self/p.so: "]);
    assert_eq!(dir.names(), before);
    assert_eq!(dir.read("a.clif"), adder("f", 1).as_bytes());
}

#[test]
fn a_cache_that_is_not_a_folder_is_an_error() {
    let dir = TestFolder::new(&[("a.clif", &adder("f", 1))]);
    let message = ["error: a.clif is not a folder; a cache is a folder"];
    dir.xtask(&["build", "a.clif", "-o", "p.so", "--cache", "a.clif"]).code(1).says(&message);
    for command in [&["stat", "a.clif"][..], &["verify", "a.clif"], &["gc", "a.clif", "--limit", "0"]] {
        dir.xtask(&[&["cache"], command].concat()).code(1).says(&message);
    }
    assert_eq!(dir.names(), ["a.clif"]);
}

#[test]
fn command_lines_that_cannot_be_understood() {
    let dir = TestFolder::new(&[("a.clif", &adder("f", 1))]);
    let said = |args: &[&str], parts: &[&str]| {
        let ended = dir.xtask(args).code(2).says(parts);
        assert_eq!(ended.stdout, "");
    };
    said(&["build", "a.clif", "-o", "p.so", "--fast"], &["unexpected argument '--fast'"]);
    said(&["build", "a.clif", "-o", "p.so", "--threads", "0"], &["invalid value '0' for '--threads <N>'"]);
    said(&["build", "a.clif", "-o", "p.so", "--threads", "-1"], &["'-1'"]);
    said(&["build", "a.clif", "-o", "p.so", "--opt-level", "9"], &["invalid value '9' for '--opt-level"]);
    said(&["build", "a.clif"], &["--output <IMAGE>"]);
    said(&["build", "-o", "p.so"], &["<FILE|DIR>"]);
    said(&["run"], &["<FILE|DIR>"]);
    said(&["run", "a.clif", "--threads", "0"], &["invalid value '0' for '--threads <N>'"]);
    said(&["run", "a.clif", "--via", "telepathy"], &["invalid value 'telepathy' for '--via"]);
    said(&["run", "a.clif", "--via", "image", "--image-codegen"], &["cannot be used with"]);
    said(&["call", "p.so"], &["<FUNCTION>"]);
    said(&["call", "p.so", "f", "--global", "key"], &["'key' for '--global", "expected KEY=ADDRESS"]);
    said(&["call", "p.so", "f", "--global", "key=zz"], &["'key=zz' for '--global", "address `zz`"]);
    said(&["inspect"], &["<IMAGE>"]);
    said(&["paint"], &["unrecognized subcommand 'paint'"]);
    assert_eq!(dir.names(), ["a.clif"]);
}

/// Errors that only the code generator or the linker finds name the module too, in text and in
/// binary form.
#[test]
fn what_cannot_be_compiled_or_linked_names_the_modules() {
    let wide =
        "\nfunction %wide(i128) -> i128 {\nblock0(v0: i128):\n    v1 = sdiv v0, v0\n    return v1\n}\n";
    let dir = TestFolder::new(&[
        ("a.clif", &adder("f", 1)),
        ("wide.clif", wide),
        ("one.clif", "data %one writable section=\"mine\" { i64 1 }\n"),
        ("two.clif", "data %two section=\"mine\" { i64 1 }\n"),
    ]);
    let message = "function `wide`: the code generator cannot compile it";
    dir.xtask(&["convert", "a.clif", "wide.clif", "wide.kir"]).ok();
    refused(&dir, &["wide.clif"], &[]).code(1).says(&[&format!("error: wide.clif:2: {message}")]);
    let named = format!("error: wide.kir#1 (was wide.clif):2: {message}");
    refused(&dir, &["wide.kir"], &[]).code(1).says(&[&named]);

    let message =
        "section `mine` has both writable and read-only data: that of module 0 and of module 1; module 0 is ";
    dir.xtask(&["convert", "one.clif", "two.clif", "both.kir"]).ok();
    let ended = refused(&dir, &["one.clif", "two.clif"], &[]).code(1);
    assert_eq!(ended.stderr, format!("error: two.clif: {message}one.clif\n"));
    let ended = refused(&dir, &["both.kir"], &[]).code(1);
    let named = format!("error: both.kir#1 (was two.clif): {message}both.kir#0 (was one.clif)\n");
    assert_eq!(ended.stderr, named);
}
