//! `check`: all errors between modules, found without compiling.

use crate::support::{TestFolder, adder, root, xtask};

const USER: &str = "function %user(i32) -> i32 {
    fn0 = %adder(i64) -> i32
    fn1 = %nowhere(i32) -> i32
block0(v0: i32):
    v1 = call fn1(v0)
    v2 = sextend.i64 v1
    v3 = call fn0(v2)
    return v3
}
";

#[test]
fn everything_is_found_together_with_both_places() {
    let twice = [("a.clif", &*adder("adder", 1)), ("b.clif", &*adder("adder", 2)), ("user.clif", USER)];
    let dir = TestFolder::new(&twice);
    dir.xtask(&["check", "."]).code(1).says(&[
        "error: `%adder` is defined twice\n --> ./b.clif:1:10\n",
        "::: ./a.clif:1:10\n",
        "error: `%adder` is declared as (i64) -> i32 system_v",
        " --> ./user.clif:2:11\n",
        "error: `%nowhere` is not defined\n --> ./user.clif:3:11\n",
        "error: 3 errors found\n",
    ]);
    assert_eq!(dir.names(), ["a.clif", "b.clif", "user.clif"]);
}

#[test]
fn what_the_host_provides_is_not_missing() {
    let user = USER.replace("%adder(i64)", "%host(i64)");
    let dir = TestFolder::new(&[("user.clif", &*user)]);
    dir.xtask(&["check", "user.clif"]).code(1).says(&["`%host` is not defined", "error: 2 errors found\n"]);
    let out = dir.xtask(&["check", "user.clif", "--provide", "host", "--provide", "nowhere"]).ok();
    assert_eq!(out, "1 module with 1 function fit together\n");
}

#[test]
fn json_has_every_place() {
    let dir = TestFolder::new(&[("user.clif", USER)]);
    let ended = dir.xtask(&["check", "user.clif", "--format", "json"]).code(1);
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let faults = document["faults"].as_array().unwrap();
    let lines: Vec<_> = faults.iter().map(|fault| fault["place"]["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3]);
    assert_eq!(faults[0]["kind"], "Undefined");
    assert_eq!(faults[0]["place"]["file"], "user.clif");
}

/// A module in binary form has no text to show, but it keeps the name and the line numbers of its
/// text.
#[test]
fn faults_between_modules_in_binary_form_name_file_module_and_line() {
    let twice = format!("\n\n{}", adder("adder", 2));
    let dir = TestFolder::new(&[("a.clif", &*adder("adder", 1)), ("b.clif", &*twice), ("user.clif", USER)]);
    dir.xtask(&["convert", "a.clif", "b.clif", "user.clif", "all.kir"]).ok();
    let parts = [
        "error: `%adder` is defined twice\n--> all.kir#1 (was b.clif):3\n",
        "::: all.kir#0 (was a.clif):1\n",
        "error: `%adder` is declared as (i64) -> i32 system_v, but defined as (i64) -> i64 system_v\n--> all.kir#2 (was user.clif):2\n",
    ];
    dir.xtask(&["check", "all.kir"]).code(1).says(&parts).says(&[
        "error: `%nowhere` is not defined\n--> all.kir#2 (was user.clif):3\n",
        "error: 3 errors found\n",
    ]);
    for more in [&["--cache", "kept"][..], &[]] {
        let args = [&["build", "all.kir", "-o", "all.so"], more].concat();
        // In the second build the cache has the code, so the modules are read only for the message.
        for _ in 0..2 {
            let ended =
                dir.xtask(&args).code(1).says(&parts).says(&["error: 2 errors between the modules\n"]);
            assert!(!ended.stderr.contains("module 0"), "{}", ended.stderr);
        }
    }
    let ended = dir.xtask(&["check", "all.kir", "--format", "json"]).code(1);
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let twice = &document["faults"][0];
    assert_eq!(twice["place"]["file"], "all.kir#1 (was b.clif)");
    assert_eq!((&twice["place"]["line"], &twice["place"]["column"]), (&3.into(), &0.into()));
    assert_eq!(twice["related"][0]["place"]["line"], 1);

    // A module that is alone in its file is shown without a number, and without a former name if
    // the file has the name of the text.
    dir.xtask(&["convert", "b.clif", "b.kir"]).ok();
    dir.write("b.clif", dir.read("b.kir"));
    dir.xtask(&["check", "a.clif", "b.kir"])
        .code(1)
        .says(&["--> b.kir (was b.clif):3\n", "::: a.clif:1:10\n"]);
    dir.xtask(&["check", "a.clif", "b.clif"]).code(1).says(&["--> b.clif:3\n", "::: a.clif:1:10\n"]);
}

/// Faults that the verifier finds have the line of their function.
#[test]
fn faults_in_modules_in_binary_form_name_file_module_and_line() {
    let text = "function %f() -> i32 {\nblock0:\n    v0 = iconst.i32 1\n    return v0\n}\n
function %wrong() -> i32 {\nblock0:\n    v0 = iconst.i64 1\n    return v0\n}\n";
    let source = kiln::ir::Source::new("dir/wrong.clif", text);
    let module = kiln::ir::parse_unverified(source.into(), &kiln::ir::Target::host()).unwrap();
    let wrong = module.module().to_bytes();
    let dir = TestFolder::new(&[("a.clif", &*adder("adder", 1))]);
    dir.xtask(&["convert", "a.clif", "a.kir"]).ok();
    dir.write("two.kir", [dir.read("a.kir"), wrong].concat());
    let message = "error: function `wrong`: inst1: result 0 has type i64, must match function signature of i32\n--> two.kir#1 (was dir/wrong.clif):7\n";
    dir.xtask(&["check", "two.kir"]).code(1).says(&[message]);
    dir.xtask(&["build", "two.kir", "-o", "two.so"]).code(1).says(&[message]);
    dir.xtask(&["convert", "two.kir", "new"]).code(1).says(&[message]);
    let ended = dir.xtask(&["run", "two.kir"]).code(1);
    assert!(ended.stdout.contains(message), "{}", ended.stdout);
    assert_eq!(dir.names(), ["a.clif", "a.kir", "two.kir"]);
}

/// Users are shown the messages that the front end's tests expect.
#[test]
fn wrong_modules_are_shown_as_the_front_end_expects() {
    let folder = root().join("crates/kiln-ir/tests/wrong");
    let temporary = tempfile::tempdir().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".stderr"))
        .collect();
    names.sort();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let stem = name.strip_suffix(".clif").unwrap_or(&name);
        let blessed = std::fs::read_to_string(folder.join(format!("{stem}.stderr"))).unwrap();
        let count = blessed.matches("\n\n").count();
        let plural = if count == 1 { "" } else { "s" };
        let expected = format!("{}error: {count} error{plural} found\n", blessed.replace("\n\n", "\n"));
        let ended = xtask(&folder, temporary.path(), &["check", &name, "--target", "x86_64"]).code(1);
        assert_eq!(ended.stderr, expected, "{name}");
        assert_eq!(ended.stdout, "");
    }
}
