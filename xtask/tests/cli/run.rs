//! `run`: every way of executing gives the same verdicts, and no program keeps later files from
//! running.

use std::path::{Path, PathBuf};

use expect_test::expect;
use serde_json::Value;

use crate::support::{TestFolder, root, xtask};

/// The ways of executing.
const WAYS: [&[&str]; 5] =
    [&[], &["--via", "image"], &["--image-codegen"], &["--via", "interpreter"], &["--split-modules"]];

/// The `.clif` files of `folder`, and of the folders in it.
fn clif_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(clif_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "clif") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The first word after `keyword` of every line that begins with it.
fn header<'a>(text: &'a str, keyword: &str) -> Vec<&'a str> {
    let words = |line: &'a str| line.strip_prefix(keyword)?.strip_prefix(' ')?.split(' ').next();
    text.lines().filter_map(words).collect()
}

/// The line that `run` must print for a file, as the file's text tells.
fn expected(file: &Path, interpreter: bool) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let name = file.strip_prefix(root()).unwrap().display();
    let targets = header(&text, "target");
    let fitting = targets.iter().filter(|triple| triple.starts_with(std::env::consts::ARCH)).count();
    if !targets.is_empty() && fitting == 0 {
        return format!("{name}: skipped: the module is for {}", targets.join(", "));
    }
    let tests = header(&text, "test");
    let names_interpreter = tests.contains(&"interpret");
    if interpreter && !tests.is_empty() && !names_interpreter {
        return format!("{name}: skipped: its `test` lines do not name the interpreter");
    }
    let is_run = |line: &&str| line.starts_with("; run:") || line.starts_with("; print:");
    let (count, times) = (text.lines().filter(is_run).count(), if interpreter { 1 } else { fitting.max(1) });
    match count * times {
        0 if interpreter => format!("{name}: skipped: it has no run line to interpret"),
        0 => format!("{name}: ok, compiled and linked, no invocation"),
        1 => format!("{name}: ok, 1 invocation"),
        _ => format!("{name}: ok, {} invocations", count * times),
    }
}

#[test]
fn the_suite_passes_in_every_way() {
    let temporary = tempfile::tempdir().unwrap();
    let files = clif_files(&root().join("tests/clif"));
    assert!(files.len() > 10, "{files:?}");
    for way in WAYS {
        let interpreter = way.contains(&"interpreter");
        let mut lines: Vec<String> = files.iter().map(|file| expected(file, interpreter)).collect();
        let with = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        let (skipped, compiled) = (with(": skipped: "), with("no invocation"));
        let without = if compiled == 0 { "".into() } else { format!(", {compiled} without a run line") };
        lines.push(format!(
            "{} passed, 0 failed, {skipped} skipped{without}",
            files.len() - skipped - compiled
        ));
        let output = xtask(root(), temporary.path(), &[&["run", "tests/clif"], way].concat()).ok();
        assert_eq!(output.lines().count(), lines.len(), "{way:?}:\n{output}");
        for (line, expected) in output.lines().zip(&lines) {
            assert!(line.starts_with(expected), "{way:?}: `{line}`, not `{expected}`");
        }
    }
}

#[test]
fn examples_print_and_json_is_a_document_a_line() {
    let temporary = tempfile::tempdir().unwrap();
    let args = ["run", "examples/clif", "--threads", "1"];
    let text = xtask(root(), temporary.path(), &args).ok();
    assert!(text.lines().any(|line| line == "%is_odd(10) -> 0"), "{text}");
    let json = xtask(root(), temporary.path(), &[&args[..], &["--format", "json"]].concat()).ok();
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (total, files) = lines.split_last().unwrap();
    assert_eq!(
        *total,
        serde_json::json!({ "passed": files.len(), "failed": 0, "skipped": 0, "compiled": 0 })
    );
    assert_eq!(files.len(), clif_files(&root().join("examples/clif")).len());
    let main = files.iter().find(|line| line["file"] == "examples/clif/main.clif").unwrap();
    assert_eq!(main["status"], "passed");
    assert_eq!(main["printed"][1], "%is_odd(10) -> 0");
}

const FINE: &str = "function %fine() -> i32 {
block0:
    v0 = iconst.i32 9
    return v0
}
; print: %fine()
; run: %fine() == 9
";

#[test]
fn a_wrong_value_is_shown_with_its_line_and_what_was_expected() {
    let wrong = "function %one() -> i32 {
block0:
    v0 = iconst.i32 1
    return v0
}
; run: %one() == 1
; run: %one() == 2
";
    let dir =
        TestFolder::new(&[("a.clif", wrong), ("b.clif", &wrong.replace("== 2", "!= 1")), ("z.clif", FINE)]);
    for way in WAYS {
        let ended = dir.xtask(&[&["run", "."], way].concat()).code(1);
        expect![[r#"
            ./a.clif: FAILED: line 7: `run: %one() == 2`: expected 2, got 1
            ./b.clif: FAILED: line 7: `run: %one() != 1`: expected anything but 1, got 1
            %fine() -> 9
            ./z.clif: ok, 2 invocations
            1 passed, 2 failed, 0 skipped
        "#]]
        .assert_eq(&ended.stdout);
        assert_eq!(ended.stderr, "");
    }
}

const NULL: &str = "function %null() -> i64 {
block0:
    v0 = iconst.i64 0
    v1 = load.i64 v0
    return v1
}
; run: %null() == 0
";

const TRAP: &str = "function %trap(i32) -> i32 {
block0(v0: i32):
    trapz v0, user1
    return v0
}
; print: %trap(5)
; run: %trap(0) == 0
";

const RECURSION: &str = "function %deep(i64) -> i64 {
    fn0 = %deep(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = iadd v1, v0
    return v2
}
; run: %deep(1) == 0
";

#[test]
fn a_trap_fails_its_file_only_and_is_named() {
    let dir = TestFolder::new(&[("a.clif", TRAP), ("b.clif", NULL), ("c.clif", RECURSION), ("d.clif", FINE)]);
    for way in WAYS.iter().filter(|way| !way.contains(&"interpreter")) {
        let ended = dir.xtask(&[&["run", "."], *way].concat()).code(1);
        expect![[r#"
            %trap(5) -> 5
            ./a.clif: FAILED: line 7: `run: %trap(0) == 0`: trapped: user1 in `trap`
            ./b.clif: FAILED: line 7: `run: %null() == 0`: trapped: heap_oob in `null`
            ./c.clif: FAILED: line 8: `run: %deep(1) == 0`: trapped: stk_ovf in `deep`
            %fine() -> 9
            ./d.clif: ok, 2 invocations
            1 passed, 3 failed, 0 skipped
        "#]]
        .assert_eq(&ended.stdout);
    }
    // With lines.
    let text = dir.xtask(&["run", "-g", "a.clif", "--format", "json"]).code(1).stdout;
    assert!(text.contains("trapped: user1 in `trap` at a.clif:3:5"), "{text}");
    // The interpreter knows the kind of the trap.
    let ended = dir.xtask(&["run", "a.clif", "b.clif", "d.clif", "--via", "interpreter"]).code(1);
    expect![[r#"
        %trap(5) -> 5
        a.clif: FAILED: line 7: `run: %trap(0) == 0`: trapped: user code: user1
        b.clif: FAILED: line 7: `run: %null() == 0`: trapped: user code: heap_oob
        %fine() -> 9
        d.clif: ok, 2 invocations
        1 passed, 2 failed, 0 skipped
    "#]]
    .assert_eq(&ended.stdout);
}

/// An access that the code is said not to trap at, and that the C library is made to do.
const CRASH: &str = "function %crash() -> i64 {
block0:
    v0 = iconst.i64 8
    v1 = load.i64 notrap v0
    return v1
}
; run: %crash() == 0
";
const ABORT: &str = "function %stop() {
    fn0 = %abort() system_v
block0:
    call fn0()
    return
}
; print: %stop()
";

#[test]
fn a_crash_fails_its_file_only_and_names_the_invocation() {
    let dir = TestFolder::new(&[("a.clif", CRASH), ("b.clif", ABORT), ("c.clif", FINE)]);
    for way in WAYS.iter().filter(|way| !way.contains(&"interpreter")) {
        let ended = dir.xtask(&[&["run", "."], *way].concat()).code(1);
        expect![[r#"
            ./a.clif: FAILED: the program crashed (signal 11, bad memory access), line 7: `run: %crash() == 0`
            ./b.clif: FAILED: the program was killed by signal 6, line 7: `print: %stop()`
            %fine() -> 9
            ./c.clif: ok, 2 invocations
            1 passed, 2 failed, 0 skipped
        "#]]
        .assert_eq(&ended.stdout);
    }
}

/// The code of every way to run is known to a profiler, by a dump; that of a map is in the folder
/// for temporary files of the system, under the number of the process.
#[test]
fn a_profiler_knows_what_is_run() {
    let name = format!("profiled_{}", std::process::id());
    let text = format!(
        "function %{name}(i64) -> i64 system_v {{\nblock0(v0: i64):\n    return v0\n}}\n; run: %{name}(3) == 3\n"
    );
    let dir = TestFolder::new(&[("a.clif", &*text)]);
    let has_name = |folder: &Path, start: &str, end: &str| {
        let mut found = 0;
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            if file.starts_with(start)
                && file.ends_with(end)
                && bytes.windows(name.len()).any(|part| part == name.as_bytes())
            {
                std::fs::remove_file(entry.path()).unwrap();
                found += 1;
            }
        }
        found
    };
    let ways = [&[][..], &["--via", "image"], &["--image-codegen"]];
    for way in ways {
        assert_eq!(
            dir.shell(&format!("JITDUMPDIR=$PWD $xtask run a.clif --profiler jitdump {}", way.join(" ")))
                .code,
            Some(0)
        );
        assert_eq!(has_name(&dir.path(""), "jit-", ".dump"), 1, "{way:?}");
        dir.xtask(&[&["run", "a.clif", "--profiler", "perf"], way].concat()).ok();
        assert_eq!(has_name("/tmp".as_ref(), "perf-", ".map"), 1, "{way:?}");
    }
    dir.xtask(&["build", "a.clif", "-o", "p.so", "--strip"]).ok();
    assert_eq!(dir.xtask(&["call", "p.so", &name, "3", "--profiler", "perf"]).ok(), "3\n");
    assert_eq!(has_name("/tmp".as_ref(), "perf-", ".map"), 1);
    dir.xtask(&["run", "a.clif"]).ok();
    assert_eq!(has_name("/tmp".as_ref(), "perf-", ".map"), 0);
}

#[test]
fn a_program_that_ends_the_process_has_failed() {
    let leave = "function %leave() {
    fn0 = %exit(i32) system_v
block0:
    v0 = iconst.i32 0
    call fn0(v0)
    return
}
; print: %leave()
";
    let dir = TestFolder::new(&[("a.clif", leave), ("b.clif", FINE)]);
    for way in [&[][..], &["--via", "image"]] {
        let ended = dir.xtask(&[&["run", "."], way].concat()).code(1);
        expect![[r#"
            ./a.clif: FAILED: the program ended its process with exit code 0, line 8: `print: %leave()`
            %fine() -> 9
            ./b.clif: ok, 2 invocations
            1 passed, 1 failed, 0 skipped
        "#]]
        .assert_eq(&ended.stdout);
    }
}

/// Text without a newline, text that is not UTF-8, and text that looks like a report of the worker.
#[test]
fn what_a_program_prints_is_shown_and_disturbs_nothing() {
    let say = r#"data %half { bytes "half a line" }
data %bytes { bytes #ff0a }
data %forged { bytes "{\"done\":{\"status\":\"failed\",\"reason\":\"forged\"}}\n" }

function %say() -> i64 {
    fn0 = %write(i32, i64, i64) -> i64 system_v
    fn1 = %putchar(i32) -> i32 system_v
    gv0 = symbol %half
    gv1 = symbol %bytes
    gv2 = symbol %forged
block0:
    v0 = iconst.i32 1
    v1 = symbol_value.i64 gv1
    v2 = iconst.i64 2
    v3 = call fn0(v0, v1, v2)
    v4 = symbol_value.i64 gv2
    v5 = iconst.i64 47
    v6 = call fn0(v0, v4, v5)
    v7 = symbol_value.i64 gv0
    v8 = iconst.i64 11
    v9 = call fn0(v0, v7, v8)
    v10 = iconst.i32 33
    v11 = call fn1(v10)
    return v9
}
; run: %say() == 11
"#;
    let dir = TestFolder::new(&[("a.clif", say)]);
    for way in WAYS.iter().filter(|way| !way.contains(&"interpreter")) {
        let output = dir.xtask(&[&["run", "."], *way].concat()).ok();
        // The C library writes this text only when the process ends.
        let mut lines: Vec<&str> = output.lines().collect();
        let late = lines.iter().position(|line| *line == "!").map(|at| lines.remove(at));
        assert_eq!(late, Some("!"), "{way:?}: {output}");
        assert_eq!(
            lines,
            [
                "\u{fffd}",
                r#"{"done":{"status":"failed","reason":"forged"}}"#,
                "half a line",
                "./a.clif: ok, 1 invocation",
                "1 passed, 0 failed, 0 skipped"
            ],
            "{way:?}"
        );
    }
}

#[test]
fn an_import_that_two_files_define_is_ambiguous() {
    let define =
        "function %f() -> i32 {\nblock0:\n    v0 = iconst.i32 1\n    return v0\n}\n; run: %f() == 1\n";
    let import = "function %g() -> i32 {
    fn0 = %f() -> i32
block0:
    v0 = call fn0()
    return v0
}
; run: %g() == 1
";
    let dir = TestFolder::new(&[("a.clif", define), ("b.clif", define), ("c.clif", import)]);
    let ended = dir.xtask(&["run", "."]).code(1);
    expect![[r#"
        ./a.clif: ok, 1 invocation
        ./b.clif: ok, 1 invocation
        ./c.clif: FAILED: import `f` is defined by several files: ./a.clif, ./b.clif
        2 passed, 1 failed, 0 skipped
    "#]]
    .assert_eq(&ended.stdout);
    // With only one of the two files, the import is not ambiguous.
    assert!(dir.xtask(&["run", "c.clif", "b.clif"]).ok().ends_with("2 passed, 0 failed, 0 skipped\n"));
}

#[test]
fn a_name_that_nothing_defines_is_shown_where_it_is_used() {
    let undefined = "function %u() {
    fn0 = %no_such_function_anywhere() system_v
block0:
    call fn0()
    return
}
; print: %u()
";
    let dir = TestFolder::new(&[("a.clif", undefined), ("b.clif", "function %s( {\n"), ("c.clif", FINE)]);
    let ended = dir.xtask(&["run", "."]).code(1);
    let shown = |text: &str| assert!(ended.stdout.contains(text), "no `{text}` in:\n{}", ended.stdout);
    shown("error: `%no_such_function_anywhere` is not defined\n --> ./a.clif:2:11\n");
    shown("error: expected parameter type\n --> ./b.clif:1:1\n");
    shown("./c.clif: ok, 2 invocations\n1 passed, 2 failed, 0 skipped\n");
}

#[test]
fn a_file_for_another_machine_is_skipped_with_the_reason() {
    let other = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    let dir = TestFolder::new(&[("a.clif", &format!("target {other}\n{FINE}"))]);
    for way in WAYS {
        let output = dir.xtask(&[&["run", "."], way].concat()).ok();
        let reason = format!("./a.clif: skipped: the module is for {other}, not for ");
        assert!(output.starts_with(&reason), "{output}");
        assert!(output.ends_with("0 passed, 0 failed, 1 skipped\n"), "{output}");
    }
}

/// A CPU feature that Cranelift knows and this machine lacks, if there is one.
#[cfg(target_arch = "x86_64")]
fn lacking() -> Option<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    let features = [
        ("has_avx512vbmi", has!("avx512vbmi")),
        ("has_avx512vnni", has!("avx512vnni")),
        ("has_avx512f", has!("avx512f")),
        ("has_avx_vnni", has!("avxvnni")),
        ("has_avx2", has!("avx2")),
    ];
    features.iter().find(|(_, has)| !has).map(|(name, _)| *name)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_file_for_another_cpu_is_skipped_with_the_reason() {
    let Some(feature) = lacking() else {
        // Written directly, because the test harness would not show it. `run/variants.rs` tests the
        // rule with an invented CPU.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: this CPU has every feature\n");
        return;
    };
    let dir = TestFolder::new(&[("a.clif", &format!("target x86_64 {feature}\n{FINE}"))]);
    let output = dir.xtask(&["run", "."]).ok();
    assert_eq!(
        output,
        format!("./a.clif: skipped: this CPU lacks {feature}\n0 passed, 0 failed, 1 skipped\n")
    );
    // One line that fits is enough.
    let dir = TestFolder::new(&[("a.clif", &format!("target x86_64 {feature}\ntarget x86_64\n{FINE}"))]);
    assert!(dir.xtask(&["run", "."]).ok().contains("./a.clif: ok, 2 invocations\n"));
}

/// The modules of a file are one program, their lines are executed in order, and files in text and
/// in binary form find each other.
#[test]
fn all_modules_of_a_file_are_one_program() {
    let one = "function %one() -> i32 {
    fn0 = %two() -> i32
    fn1 = %four() -> i32
block0:
    v0 = call fn0()
    v1 = call fn1()
    v2 = isub v1, v0
    return v2
}
; print: %one()
; run: %one() == 2
";
    let constant = |name: &str, number: u32| {
        format!(
            "function %{name}() -> i32 {{\nblock0:\n    v0 = iconst.i32 {number}\n    return v0\n}}\n; run: %{name}() == {number}\n"
        )
    };
    let four = format!(
        "{}\nfunction %uses() -> i32 {{\n    fn0 = %one() -> i32\nblock0:\n    v0 = call fn0()\n    return v0\n}}\n; run: %uses() == 2\n",
        constant("four", 4)
    );
    let dir = TestFolder::new(&[("one.clif", one), ("two.clif", &constant("two", 2)), ("four.clif", &*four)]);
    dir.xtask(&["convert", "one.clif", "two.clif", "both.kir"]).ok();
    std::fs::rename(dir.path("both.kir"), dir.path("both.bin")).unwrap();
    dir.xtask(&["convert", "one.clif", "two.clif", "four.clif", "all.kir"]).ok();
    for way in WAYS {
        let output = dir.xtask(&[&["run", "all.kir"], way].concat()).ok();
        assert_eq!(
            output, "%one() -> 2\nall.kir: ok, 5 invocations\n1 passed, 0 failed, 0 skipped\n",
            "{way:?}"
        );
        let output = dir.xtask(&[&["run", "both.bin", "four.clif"], way].concat()).ok();
        let expected = "%one() -> 2\nboth.bin: ok, 3 invocations\nfour.clif: ok, 2 invocations\n";
        assert_eq!(output, format!("{expected}2 passed, 0 failed, 0 skipped\n"), "{way:?}");
        let output = dir.xtask(&[&["run", "one.clif", "two.clif", "four.clif"], way].concat()).ok();
        assert!(output.ends_with("3 passed, 0 failed, 0 skipped\n"), "{way:?}: {output}");
    }
}

/// Messages about a file of several modules name the module.
#[test]
fn a_line_of_a_module_of_several_is_named_with_it() {
    let trap = "function %trap() {\nblock0:\n    trap user1\n}\n; run: %trap()\n";
    let wrong = FINE.replace("== 9", "== 8");
    let dir = TestFolder::new(&[("fine.clif", &FINE.replace("%fine", "%good")), ("wrong.clif", &*wrong)]);
    dir.write("trap.clif", trap);
    dir.xtask(&["convert", "fine.clif", "wrong.clif", "wrong.kir"]).ok();
    dir.xtask(&["convert", "fine.clif", "trap.clif", "trap.kir"]).ok();
    for way in WAYS {
        let ended = dir.xtask(&[&["run", "wrong.kir"], way].concat()).code(1);
        let line = "wrong.kir: FAILED: wrong.kir#1 (was wrong.clif), line 7: `run: %fine() == 8`: expected 8, got 9\n";
        assert!(ended.stdout.contains(line), "{way:?}: {}", ended.stdout);
        let ended = dir.xtask(&[&["run", "trap.kir"], way].concat()).code(1);
        let dir = "trap.kir#1 (was trap.clif), line 5: `run: %trap()`";
        assert!(ended.stdout.contains(dir), "{way:?}: {}", ended.stdout);
    }
}

/// Each module of a file is compiled for its own `target` lines.
#[test]
fn modules_of_a_file_with_target_lines_of_their_own() {
    let arch = std::env::consts::ARCH;
    let lines = |count: usize| format!("target {arch}\n").repeat(count);
    let named = |name: &str| FINE.replace("%fine", name);
    let dir = TestFolder::new(&[("a.clif", &format!("test run\n{}{}", lines(2), named("%a")))]);
    dir.write("b.clif", named("%b"));
    dir.write("c.clif", format!("target s390x\n{}", named("%c")));
    dir.xtask(&["convert", "a.clif", "b.clif", "ab.kir"]).ok();
    for way in [&[][..], &["--via", "image"], &["--image-codegen"]] {
        let output = dir.xtask(&[&["run", "ab.kir"], way].concat()).ok();
        assert!(output.contains("ab.kir: ok, 8 invocations\n"), "{way:?}: {output}");
    }
    dir.xtask(&["convert", "c.clif", "c.kir", "--target", "s390x"]).ok();
    dir.write("abc.kir", [dir.read("ab.kir"), dir.read("c.kir")].concat());
    let output = dir.xtask(&["run", "abc.kir"]).ok();
    assert!(output.starts_with("abc.kir: skipped: the module is for s390x"), "{output}");
}
