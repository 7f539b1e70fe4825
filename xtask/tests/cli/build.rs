//! `build`: the image is the same however it is built, and other programs can read and run it.

use std::io::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::support::{Ended, TestFolder, adder, root};

/// Three files that call each other, read data and use a run-time object.
fn program() -> TestFolder {
    let first = "function %first(i64) -> i64 system_v {
    fn0 = %second(i64) -> i64 system_v
    gv0 = symbol %bias
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = symbol_value.i64 gv0
    v3 = load.i64 v2
    v4 = iadd v1, v3
    return v4
}
";
    let third = r#"data %bias { i64 1000 }
global %object = "test:object"
function %read() -> i64 system_v {
    gv0 = symbol %object
block0:
    v0 = symbol_value.i64 gv0
    v1 = load.i64 v0
    return v1
}
"#;
    TestFolder::new(&[("a.clif", first), ("b.clif", &adder("second", 5)), ("c.clif", third)])
}

#[track_caller]
fn stats(ended: Ended) -> Value {
    serde_json::from_str(&ended.ok()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn stats_have_the_documented_keys() {
    let dir = program();
    let printed = dir.xtask(&["build", ".", "-o", "p.so", "--stats", "s.json", "--format", "json"]).ok();
    assert_eq!(printed.as_bytes(), dir.read("s.json"));
    let stats: Value = serde_json::from_str(&printed).unwrap();
    let mut expected = [
        "modules",
        "functions",
        "compiled_functions",
        "farmed_functions",
        "farmed_modules",
        "reused_functions",
        "reused_modules",
        "lazy_modules",
        "inlined_calls",
        "cache",
        "dropped_functions",
        "dropped_data",
        "folded_functions",
        "text_bytes",
        "image_bytes",
        "slots",
        "threads",
        "peak_rss_bytes",
        "seconds",
    ];
    // The text has the keys in order of declaration; a parsed document does not keep the order.
    let order: Vec<&str> = expected.to_vec();
    let at = |key: &&str| printed.find(&format!("\n  \"{key}\":")).unwrap();
    assert!(order.is_sorted_by_key(at), "{printed}");
    expected.sort_unstable();
    assert_eq!(keys(&stats), expected);
    assert_eq!(keys(&stats["seconds"]), ["compile", "link", "total", "write"]);
    assert_eq!((&stats["modules"], &stats["functions"], &stats["slots"]), (&3.into(), &3.into(), &1.into()));
    assert_eq!((&stats["compiled_functions"], &stats["reused_modules"]), (&3.into(), &0.into()));
    assert_eq!(stats["image_bytes"], dir.read("p.so").len());
    assert!(stats["peak_rss_bytes"].as_u64().unwrap() > 1 << 20, "{stats}");
    let total = stats["seconds"]["total"].as_f64().unwrap();
    let parts = ["compile", "link", "write"].map(|part| stats["seconds"][part].as_f64().unwrap());
    assert!((parts.iter().sum::<f64>() - total).abs() < 1e-6, "{stats}");
}

#[test]
fn inlined_calls_are_counted_and_kept_in_the_cache() {
    let dir = program();
    let build = |more: &[&str]| {
        let args =
            ["build", "a.clif", "b.clif", "c.clif", "-o", "p.so", "--cache", "kept", "--format", "json"];
        stats(dir.xtask(&[&args[..], more].concat()))
    };
    let numbers = |stats: &Value| {
        ["inlined_calls", "compiled_functions", "lazy_modules"].map(|key| stats[key].as_u64().unwrap())
    };
    assert_eq!(numbers(&build(&["--inline"])), [1, 3, 0]);
    let image = dir.read("p.so");
    assert_eq!(numbers(&build(&["--inline=20", "--threads", "1"])), [0, 0, 3]);
    assert!(image == dir.read("p.so"), "a warm cache changes the image");
    // `second` and the function into which it is inlined.
    dir.write("b.clif", adder("second", 6));
    assert_eq!(numbers(&build(&["--inline"])), [1, 2, 0]);
    assert_eq!(numbers(&build(&["--inline", "--cache-verify"])), [1, 3, 0]);
    // Without, nothing of this is taken, and with another size only what is the same. It is too
    // small for a function of 3 instructions.
    assert_eq!(numbers(&build(&["--inline=2"])), [0, 1, 0]);
    assert_eq!(numbers(&build(&[])), [0, 0, 0]);
    dir.xtask(&["build", "a.clif", "-o", "p.so", "--inline=many"]).code(2);
}

#[test]
fn the_image_does_not_depend_on_threads_or_order() {
    let dir = program();
    dir.xtask(&["build", "a.clif", "b.clif", "c.clif", "-o", "one.so", "--threads", "1"]).ok();
    dir.xtask(&["build", "a.clif", "b.clif", "c.clif", "-o", "two.so", "--threads", "2"]).ok();
    dir.xtask(&["build", "c.clif", "b.clif", "a.clif", "-o", "reverse.so"]).ok();
    dir.xtask(&["build", "c.clif", "./a.clif", "b.clif", "a.clif", "-o", "twice.so"]).ok();
    for other in ["two.so", "reverse.so", "twice.so"] {
        assert!(dir.read("one.so") == dir.read(other), "{other} differs");
    }
}

#[test]
fn a_warm_cache_compiles_nothing_and_gives_the_same_bytes() {
    let dir = program();
    dir.xtask(&["build", ".", "-o", "none.so"]).ok();
    let build = |output| dir.xtask(&["build", ".", "-o", output, "--cache", "cache", "--format", "json"]);
    let cold = stats(build("cold.so"));
    assert_eq!((&cold["compiled_functions"], &cold["reused_modules"]), (&3.into(), &0.into()));
    let warm = stats(build("warm.so"));
    assert_eq!((&warm["compiled_functions"], &warm["reused_modules"]), (&0.into(), &3.into()));
    assert_eq!(warm["reused_functions"], 3);
    assert!(dir.read("none.so") == dir.read("cold.so"), "a cold cache changes the image");
    assert!(dir.read("none.so") == dir.read("warm.so"), "a warm cache changes the image");
    // Only the module that changed is compiled.
    dir.write("b.clif", adder("second", 6));
    let changed = stats(build("changed.so"));
    assert_eq!((&changed["compiled_functions"], &changed["reused_modules"]), (&1.into(), &2.into()));
    // A build with a cache of damaged entries compiles everything, and warns.
    for path in walk(&dir.path("cache")) {
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.is_empty() {
            continue; // a claim
        }
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let damaged = build("damaged.so").says(&["warning: cache cache: "]);
    assert_eq!(stats(damaged)["compiled_functions"], 3);
    assert!(dir.read("changed.so") == dir.read("damaged.so"), "a damaged cache changes the image");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn summary_call_and_inspect() {
    let dir = program();
    let summary = dir.xtask(&["build", ".", "-o", "p.so"]).ok();
    assert!(
        summary.starts_with("p.so: ")
            && summary.contains(" of 3 functions (3 compiled, 0 reused) in 3 modules, ")
    );
    assert!(summary.contains(", 1 slot, in "), "{summary}");
    let global = "--global=test:object=0x1000";
    assert_eq!(dir.xtask(&["call", "p.so", "first", "-7", global]).ok(), "998\n");
    let json = dir.xtask(&["call", "p.so", "first", "0x10", global, "--format", "json"]).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "function": "first", "signature": "(i64) -> i64 system_v", "results": ["1021"] })
    );
    let text = dir.xtask(&["inspect", "p.so"]).ok();
    for part in
        ["target     ", "first(i64) -> i64 system_v", "slots (1):", "global   test:object", ".eh_frame"]
    {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    let json = dir.xtask(&["inspect", "p.so", "--format", "json"]).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["slots"],
        serde_json::json!([{ "kind": "global", "key": "test:object", "signature": null, "base": null }])
    );
    let names: Vec<_> =
        json["exports"].as_array().unwrap().iter().map(|export| export["name"].as_str().unwrap()).collect();
    assert!(["first", "second", "bias", "read"].iter().all(|name| names.contains(name)), "{names:?}");
}

#[test]
fn code_that_contains_addresses_is_chosen_shown_called_and_cached_apart() {
    let dir = program();
    let build = |globals: &str| {
        let arguments = ["build", ".", "-o", "p.so", "--cache", "cache", "--globals", globals];
        dir.xtask(&arguments).ok()
    };
    let call = || dir.xtask(&["call", "p.so", "first", "-7", "--global=test:object=0x1000"]).ok();
    for (globals, line) in [
        ("slots", "globals    slots, 0 addresses in code to write at load"),
        ("direct", "globals    direct, 1 addresses in code to write at load"),
    ] {
        let patches = u64::from(globals == "direct");
        assert!(build(globals).contains(" of 3 functions (3 compiled, 0 reused) in 3 modules, "));
        assert!(build(globals).contains(" of 3 functions (0 compiled, 3 reused) in 3 modules, "));
        assert_eq!(call(), "998\n");
        let text = dir.xtask(&["inspect", "p.so"]).ok();
        assert!(text.contains(line), "{text}");
        let json: Value =
            serde_json::from_str(&dir.xtask(&["inspect", "p.so", "--format", "json"]).ok()).unwrap();
        assert_eq!((&json["globals"], &json["text_patches"]), (&globals.into(), &patches.into()));
    }
    let explain = ["cache", "explain", "a.clif", "a.clif", "--old-globals", "slots", "--globals", "direct"];
    let explained = dir.xtask(&explain).ok();
    assert!(explained.contains("is_pic"), "{explained}");
    dir.xtask(&["build", ".", "-o", "p.o", "--emit", "object", "--globals", "direct"])
        .code(1)
        .says(&["reaches globals directly, which the code of an object cannot; compile it with slots"]);
    dir.xtask(&["build", ".", "-o", "p.so", "--globals", "other"]).code(2).says(&["slots", "direct"]);
}

#[test]
fn the_last_replaceable_definition_is_in_force_and_inspect_shows_it() {
    let f = |number: u32| {
        format!(
            "replaceable function %f() -> i32 system_v {{\nblock0:\n v0 = iconst.i32 {number}\n return v0\n}}\n"
        )
    };
    let other = "function %g() -> i32 system_v {\nfn0 = %f() -> i32 system_v\nblock0:\n v0 = call fn0()\n return v0\n}\n";
    let dir = TestFolder::new(&[("a.clif", &f(1)), ("b.clif", &f(2)), ("c.clif", other)]);
    for order in [["a.clif", "b.clif", "c.clif"], ["c.clif", "b.clif", "a.clif"]] {
        dir.xtask(&[&["build", "-o", "p.so"][..], &order].concat()).ok();
        for function in ["f", "g"] {
            assert_eq!(dir.xtask(&["call", "p.so", function]).ok(), "2\n");
        }
    }
    let text = dir.xtask(&["inspect", "p.so"]).ok();
    assert_eq!(text.matches("f() -> i32 system_v  replaceable, slot 0x").count(), 1, "{text}");
    assert_eq!(text.matches("replaceable").count(), 1, "{text}");
    let json: Value =
        serde_json::from_str(&dir.xtask(&["inspect", "p.so", "--format", "json"]).ok()).unwrap();
    let slots: Vec<_> =
        json["exports"].as_array().unwrap().iter().map(|it| it["replaceable"].as_u64()).collect();
    assert_eq!((slots.len(), slots.iter().flatten().count()), (2, 1), "{json}");
    // The same file twice with another type is an error that names both.
    dir.write("b.clif", f(2).replace("-> i32", "-> i64").replace(".i32", ".i64"));
    let error = dir.xtask(&["build", ".", "-o", "p.so"]).code(1);
    error.says(&[
        "`%f` is declared as () -> i32 system_v, but defined as () -> i64 system_v",
        "a.clif:1",
        "b.clif:1",
    ]);
}

/// Runs a tool. If it is not installed, prints so and returns `None`.
fn tool(name: &str, args: &[&str]) -> Option<(bool, String, String)> {
    match Command::new(name).args(args).env("LC_ALL", "C").output() {
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Some((output.status.success(), text(&output.stdout), text(&output.stderr)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "{name} is not installed, and CI must have it");
            // Written directly, because the test harness would not show it.
            let _ = writeln!(std::io::stderr(), "skipped: {name} is not installed");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

#[test]
fn readelf_and_objdump_accept_the_image() {
    let dir = program();
    dir.xtask(&["build", ".", "-o", "p.so"]).ok();
    let image = dir.path("p.so");
    let image = image.to_str().unwrap();
    if let Some((success, stdout, stderr)) = tool("readelf", &["--all", "--wide", image]) {
        assert!(success && stderr.is_empty(), "{stderr}");
        assert!(!stdout.to_lowercase().contains("warning"), "{stdout}");
        assert!(stdout.contains("DYN (Shared object file)"), "{stdout}");
    }
    if let Some((success, stdout, stderr)) = tool("objdump", &["--disassemble", image]) {
        assert!(success && stderr.is_empty(), "{stderr}");
        for name in ["<first>:", "<second>:", "<read>:"] {
            assert!(stdout.contains(name), "no {name} in:\n{stdout}");
        }
        assert!(!stdout.contains("(bad)"), "{stdout}");
    }
}

#[test]
fn a_c_program_opens_the_image_and_calls_it() {
    // An image without run-time objects needs no loader but the C library's.
    let dir = TestFolder::new(&[("a.clif", &adder("plus", 2)), ("b.clif", &adder("more", 40))]);
    dir.xtask(&["build", ".", "-o", "p.so"]).ok();
    dir.write(
        "host.c",
        r#"#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *image = dlopen(argv[1], RTLD_NOW);
    if (!image) { puts(dlerror()); return 1; }
    long (*plus)(long) = (long (*)(long))dlsym(image, "plus");
    long (*more)(long) = (long (*)(long))dlsym(image, "more");
    if (!plus || !more) return 2;
    printf("%ld\n", more(plus(0)));
    return dlclose(image);
}
"#,
    );
    let path = |name: &str| dir.path(name).to_str().unwrap().to_owned();
    if let Some((success, _, stderr)) = tool("cc", &["-O1", "-o", &path("host"), &path("host.c"), "-ldl"]) {
        assert!(success, "{stderr}");
        let (success, stdout, stderr) = tool(&path("host"), &[&path("p.so")]).unwrap();
        assert!(success, "{stdout}{stderr}");
        assert_eq!(stdout, "42\n");
    }
}

/// Many exports can share one long type.
#[test]
fn long_types_are_cut() {
    let function = |name: &str, count: usize| {
        let types = vec!["i64"; count].join(", ");
        let params: Vec<_> = (0..count).map(|number| format!("v{number}: i64")).collect();
        format!("function %{name}({types}) system_v {{ block0({}): return }}\n", params.join(", "))
    };
    let text =
        function("short", 30) + &function("long", 60) + &function("longer", 60) + &function("huge", 1000);
    let dir = TestFolder::new(&[("a.clif", &*text)]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    let text = dir.xtask(&["inspect", "p.so"]).ok();
    let line = |name: &str| text.lines().find(|line| line.contains(&format!("  {name}("))).unwrap();
    assert!(line("short").ends_with("i64) system_v"), "{text}");
    for name in ["long", "longer", "huge"] {
        assert!(line(name).ends_with("...") && line(name).len() < 250, "{text}");
    }
    let json: Value =
        serde_json::from_str(&dir.xtask(&["inspect", "p.so", "--format", "json"]).ok()).unwrap();
    let exports = json["exports"].as_array().unwrap();
    let signature = |name: &str| {
        let export = exports.iter().find(|export| export["name"] == name).unwrap();
        export["signature"].as_str().unwrap().to_owned()
    };
    assert!(signature("longer").ends_with("i64) system_v"));
    assert_eq!(signature("huge").len(), 4096 + 3);
}

#[test]
fn lines_and_sizes_of_code_are_inspected() {
    let text = "function %half(i64) -> i64 system_v {\nblock0(v0: i64):\n    v1 = iconst.i64 2\n    v2 = udiv v0, v1\n    return v2\n}\n";
    let dir = TestFolder::new(&[("half.clif", text)]);
    let lines = |args: &[&str]| {
        dir.xtask(&[&["build", "half.clif", "-o", "p.so"], args].concat()).ok();
        let json = dir.xtask(&["inspect", "p.so", "--lines", "--format", "json"]).ok();
        (dir.xtask(&["inspect", "p.so", "--lines"]).ok(), serde_json::from_str::<Value>(&json).unwrap())
    };
    // Without debug information, there are neither names of modules nor lines.
    let (text, json) = lines(&[]);
    assert!(text.contains("  half\n") && !text.contains("half.clif"), "{text}");
    let function = &json["functions"][0];
    assert_eq!((&function["name"], &function["module"]), (&"half".into(), &Value::Null));
    let (text, json) = lines(&["-g", "--opt-level", "none"]);
    assert!(text.contains("  half  (half.clif)\n") && text.contains("  half.clif:4:5\n"), "{text}");
    let function = &json["functions"][0];
    assert_eq!(function["module"], "half.clif");
    let sources = function["sources"].as_array().unwrap();
    let is_line =
        |source: &&Value| source["line"] == 4 && source["column"] == 5 && source["file"] == "half.clif";
    let source = sources.iter().find(is_line).unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let (start, end) =
        (number(&function["address"]), number(&function["address"]) + number(&function["size"]));
    assert!(number(&source["address"]) > start && number(&source["address"]) + number(&source["size"]) < end);

    for (address, end) in [(start, "  half  (half.clif)"), (number(&source["address"]), "  half.clif:4:5")] {
        let is_line =
            |line: &str| line.trim_start().starts_with(&format!("{address:#x} ")) && line.ends_with(end);
        assert!(text.lines().any(is_line), "{address:#x} {end} in\n{text}");
    }

    let text = dir.xtask(&["inspect", "p.so", "--sizes"]).ok();
    let json: Value =
        serde_json::from_str(&dir.xtask(&["inspect", "p.so", "--sizes", "--format", "json"]).ok()).unwrap();
    let section: Value =
        serde_json::from_str(&dir.xtask(&["inspect", "p.so", "--format", "json"]).ok()).unwrap();
    let section = section["sections"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == ".kiln.code")
        .unwrap()
        .clone();
    assert_eq!((&json["functions"], &json["code"]), (&1.into(), &function["size"]));
    assert_eq!(json["code_tables"], section["size"]);
    let parts = json["parts"].as_object().unwrap();
    assert_eq!(parts.values().map(number).sum::<u64>(), number(&section["size"]));
    assert!(
        number(&parts["names"]) == "half".len() as u64 + "half.clif".len() as u64
            && number(&parts["lines"]) > 20
    );
    for (name, size) in parts {
        let line = text.lines().find(|line| line.starts_with(&name.replace('_', " "))).unwrap();
        assert!(line.split_whitespace().any(|word| word.parse() == Ok(number(size))), "{text}");
    }
    dir.xtask(&["inspect", "p.so", "--sizes", "--lines"]).code(2);
}

#[test]
fn images_for_other_machines_can_be_made_and_inspected_but_not_called() {
    let dir = TestFolder::new(&[("a.clif", &adder("plus", 2))]);
    for (target, machine) in [("aarch64", "AArch64"), ("riscv64", "RISC-V"), ("s390x", "IBM S/390")] {
        if target == std::env::consts::ARCH {
            continue;
        }
        let image = format!("{target}.so");
        dir.xtask(&["build", ".", "-o", &image, "--target", target]).ok();
        let text = dir.xtask(&["inspect", &image]).ok();
        assert!(text.starts_with(&format!("target     {target}-unknown-linux-gnu\n")), "{text}");
        assert!(text.contains("plus(i64) -> i64 system_v"), "{text}");
        let host = std::env::consts::ARCH;
        let clear =
            format!("error: image {image}: the image is for {target}-unknown-linux-gnu, this is {host}\n");
        let ended = dir.xtask(&["call", &image, "plus", "1"]).code(1);
        assert_eq!((ended.stderr, ended.stdout), (clear, String::new()));
        if let Some((success, stdout, stderr)) =
            tool("readelf", &["--all", "--wide", dir.path(&image).to_str().unwrap()])
        {
            assert!(
                success && !format!("{stdout}{stderr}").to_lowercase().contains("warning"),
                "{stdout}{stderr}"
            );
            assert!(stdout.contains(machine), "{stdout}");
        }
    }
}

#[test]
fn a_whole_triple_is_a_target_too_and_the_level_changes_code() {
    // Optimization turns a multiplication by 8 into a shift.
    let dir = TestFolder::new(&[("a.clif", &adder("times", 8).replace("iadd", "imul"))]);
    dir.xtask(&["build", ".", "-o", "short.so", "--target", "aarch64"]).ok();
    dir.xtask(&["build", ".", "-o", "long.so", "--target", "aarch64-unknown-linux-gnu"]).ok();
    assert!(dir.read("short.so") == dir.read("long.so"));
    dir.xtask(&["build", ".", "-o", "none.so", "--target", "aarch64", "--opt-level", "none"]).ok();
    assert!(dir.read("short.so") != dir.read("none.so"));
}

#[test]
fn an_output_is_replaced_in_place_and_may_be_executed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = program();
    dir.write("p.so", "old");
    dir.xtask(&["build", root().join("examples/clif").to_str().unwrap(), "-o", "p.so"]).ok();
    assert!(dir.read("p.so").starts_with(b"\x7fELF"));
    let mode = std::fs::metadata(dir.path("p.so")).unwrap().permissions().mode();
    assert_eq!(mode & 0o500, 0o500, "{mode:o}");
    assert_eq!(dir.names(), ["a.clif", "b.clif", "c.clif", "p.so"]);
}

/// Builds that are killed leave nothing behind that a later build to the same output and cache does
/// not remove.
#[test]
fn what_killed_builds_leave_goes_with_the_next_build() {
    // Writing takes long enough to be met.
    let many = format!("{}data %large {{ zeros 4000000 }}\n", adder("f", 1));
    let dir = TestFolder::new(&[("a.clif", &*many), ("b.clif", &*adder("g", 1))]);
    let args = ["build", "a.clif", "b.clif", "-o", "p.so", "--cache", "kept"];
    let started = std::time::Instant::now();
    dir.xtask(&args).ok();
    let whole = started.elapsed();
    let expected = dir.read("p.so");
    let before = dir.names().len();
    let mut left = 0;
    for round in 0..40 {
        // Every round compiles and stores anew.
        dir.write("a.clif", format!("{many}{}", adder("last", round)));
        let mut child = dir.start(&args);
        std::thread::sleep(whole.mul_f64(f64::from(round) / 40.0));
        child.kill().unwrap();
        child.wait().unwrap();
        left += dir.names().len() - before + walk(&dir.path("kept/incoming")).len();
    }
    // Leftovers of any moment, whether or not one was met.
    let name = "kept/incoming/.kiln-new-0000000000000000-1-1-0000000000000000";
    std::fs::write(dir.path(name), b"another machine may be writing it").unwrap();
    dir.write("a.clif", &*many);
    std::fs::remove_dir_all(dir.path("kept/quarantine")).unwrap_or_default();
    let entries = walk(&dir.path("kept")).into_iter().filter(|path| path.metadata().unwrap().len() > 64);
    entries.for_each(|path| std::fs::remove_file(path).unwrap());
    dir.xtask(&args).ok();
    assert!(dir.read("p.so") == expected);
    assert_eq!(dir.names(), ["a.clif", "b.clif", "kept", "p.so"], "{left} leftovers before");
    assert_eq!(walk(&dir.path("kept/incoming")), [dir.path(name)]);
    println!("{left} leftovers before");
}

#[test]
fn an_object_is_linked_into_a_c_program() {
    let dir = program();
    let main = "#include <stdint.h>
extern void *kiln_slots[];
int64_t first(int64_t), read(void);
int main(void) {
    int64_t object = 7;
    kiln_slots[0] = &object;
    return first(1) + read() == 1 + 5 + 1000 + 7 ? 42 : 1;
}
";
    dir.write("main.c", main);
    let printed = dir.xtask(&["build", ".", "--emit", "object", "-g", "-o", "p.o"]).ok();
    assert!(printed.contains("1 slot"), "{printed}");
    let cc = Command::new("cc").current_dir(dir.path(".")).args(["main.c", "p.o", "-o", "main"]).status();
    let Ok(status) = cc else { return eprintln!("cc is not installed") };
    assert!(status.success());
    assert_eq!(Command::new(dir.path("main")).status().unwrap().code(), Some(42));
    // Under another name, or without an array.
    dir.xtask(&["build", ".", "--emit", "object", "--slots-symbol", "mine", "-o", "q.o"]).ok();
    let printed = dir.xtask(&["build", ".", "--emit", "object", "--named-globals", "-o", "r.o"]).ok();
    assert!(printed.contains("0 slots"), "{printed}");
    let has = |file: &str, name: &str| dir.read(file).windows(name.len()).any(|part| part == name.as_bytes());
    assert!(has("q.o", "mine") && !has("q.o", "kiln_slots") && has("r.o", "test:object"));
    for (options, message) in [
        (&["--slots-symbol", "a"][..], "--slots-symbol needs --emit object"),
        (&["--named-globals"], "--named-globals needs --emit object"),
        (&["--emit", "object", "--split-debug", "d"], "--split-debug is for images"),
    ] {
        let arguments = ["build", ".", "-o", "x"].iter().chain(options).copied().collect::<Vec<_>>();
        dir.xtask(&arguments).code(1).says(&[message]);
    }
}

/// Three files: `main` needs `used` and `table`; `spare` and its data are for nobody.
fn spacious() -> TestFolder {
    let main = "function %main() -> i64 system_v {
    fn0 = %used(i64) -> i64 system_v
    gv0 = symbol %table
block0:
    v0 = symbol_value.i64 gv0
    v1 = load.i64 v0
    v2 = call fn0(v1)
    return v2
}
; run: %main() == 12
";
    let other = "data %table { i64 7 }
data %big { zeros 50000, i8 1 }
function %spare() -> i64 system_v {
    gv0 = symbol %big
block0:
    v0 = symbol_value.i64 gv0
    v1 = load.i64 v0
    return v1
}
";
    let twins = "local function %left(i64) -> i64 system_v {
block0(v0: i64):
    v1 = imul v0, v0
    return v1
}
local function %right(i64) -> i64 system_v {
block0(v0: i64):
    v1 = imul v0, v0
    return v1
}
function %twins(i64) -> i64 system_v {
    fn0 = colocated %left(i64) -> i64 system_v
    fn1 = colocated %right(i64) -> i64 system_v
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = call fn1(v1)
    return v2
}
";
    let files = [("a.clif", main), ("b.clif", other), ("c.clif", twins), ("d.clif", &adder("used", 5))];
    TestFolder::new(&files)
}

#[test]
fn what_nothing_reaches_is_left_out() {
    let dir = spacious();
    let called = |image: &str| dir.xtask(&["call", image, "main"]).ok();
    let whole = stats(dir.xtask(&["build", ".", "-o", "w.so", "--format", "json"]));
    assert_eq!((&whole["dropped_functions"], &whole["folded_functions"]), (&0.into(), &0.into()));
    let gc = dir.xtask(&["build", ".", "--root", "main", "-o", "g.so", "--why-kept", "table"]).ok();
    assert!(gc.contains("dropped 4 functions (") && gc.contains("1 data object (50.0 kB)"), "{gc}");
    assert!(gc.contains("table is kept: main (./a.clif, a root) -> table (./b.clif)"), "{gc}");
    assert!(dir.read("g.so").len() + 45_000 < dir.read("w.so").len());
    assert_eq!(called("g.so"), called("w.so"));
    // Everything is exported, except for what is private and equal.
    let all = dir.xtask(&["build", ".", "--gc", "--fold", "-o", "a.so", "--why-kept", "left"]).ok();
    assert!(!all.contains("dropped") && all.contains("folded 1 function ("), "{all}");
    assert!(all.contains("left is kept: twins (./c.clif, a root) -> left (./c.clif)"), "{all}");
    dir.write("roots", "# what the program is for\nmain\n\n");
    dir.write("order", "used\nmain\nnobody\n");
    let build = ["build", ".", "--roots", "roots", "--order", "order", "-o", "o.so", "--why-kept", "spare"];
    let ended = dir.xtask(&build);
    assert!(ended.stderr.contains("--order has 1 name that no function has"), "{}", ended.stderr);
    assert!(ended.ok().contains("spare is not kept: nothing reaches it"));
    assert_eq!(called("o.so"), called("w.so"));
    let sizes = dir.xtask(&["inspect", "o.so", "--sizes"]).ok();
    for part in ["sections (", "functions (2), of the code:", "modules (2), of the code:", "main (module 0)"]
    {
        assert!(sizes.contains(part), "no {part} in {sizes}");
    }
    let json = dir.xtask(&["inspect", "w.so", "--sizes", "--format", "json"]).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["by_function"].as_array().unwrap().len(), 6);
    assert_eq!(json["by_section"][0]["name"], ".rodata");
    assert_eq!(json["by_module"][0]["functions"], 3);
}

#[test]
fn wrong_options_of_lean_programs_are_explained() {
    let dir = spacious();
    let fails = |options: &[&str], message: &str| {
        let arguments = ["build", ".", "-o", "x.so"].iter().chain(options).copied().collect::<Vec<_>>();
        dir.xtask(&arguments).code(1).says(&[message]);
        assert!(!dir.path("x.so").exists());
    };
    fails(&["--root", "nobody"], "no module defines `nobody`, which is to be a root, for others");
    fails(&["--root", "left"], "no module defines `left`, which is to be a root");
    fails(&["--roots", "missing.txt"], "cannot read missing.txt");
    fails(&["--why-kept", "main"], "--why-kept needs --gc or roots");
    fails(&["--gc", "--why-kept", "nobody"], "no module defines `nobody`, which --why-kept names");
}
