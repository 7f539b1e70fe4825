//! Files that can be read only once: standard input, pipes, process substitutions. Each is read
//! once, whichever processes then need it; and what is not read is not called passed.

use expect_test::expect;

use crate::support::{TestFolder, adder};

/// Two functions, of whose run lines the second fails.
const WRONG: &str = "function %f() -> i64 {
block0:
    v0 = iconst.i64 1
    return v0
}
; run: %f() == 1
; run: %f() == 2
";

fn folder() -> TestFolder {
    TestFolder::new(&[("wrong.clif", WRONG), ("right.clif", &WRONG.replace("== 2", "!= 2"))])
}

const WAYS: [&str; 5] = ["", "--via image", "--image-codegen", "--via interpreter", "--split-modules"];

#[test]
fn standard_input_is_executed_under_each_of_its_names() {
    let dir = folder();
    std::os::unix::fs::symlink("/dev/stdin", dir.path("link")).unwrap();
    let names =
        [("-", "<stdin>"), ("/dev/stdin", ""), ("/proc/self/fd/0", ""), ("/dev/fd/0", ""), ("link", "")];
    for (name, shown) in names {
        let shown = if shown.is_empty() { name } else { shown };
        let expected = format!(
            "{shown}: FAILED: line 7: `run: %f() == 2`: expected 2, got 1\n0 passed, 1 failed, 0 skipped\n"
        );
        for way in WAYS {
            for line in ["cat wrong.clif | $xtask run", "< wrong.clif $xtask run"] {
                let line = format!("{line} {name} {way}");
                assert_eq!(dir.shell(&line).code(1).stdout, expected, "{line}");
            }
        }
    }
    for way in WAYS {
        let output = dir.shell(&format!("cat right.clif | $xtask run - {way}")).ok();
        assert_eq!(output, "<stdin>: ok, 2 invocations\n1 passed, 0 failed, 0 skipped\n", "{way}");
    }
}

/// The workers of several files, and of several turns, read what the first has read.
#[test]
fn pipes_are_read_once_for_all_workers() {
    let dir = folder();
    dir.write("trap.clif", "function %t() {\nblock0:\n    trap user1\n}\n; print: %t()\n");
    for way in ["", "--via image"] {
        let line = format!("cat trap.clif | $xtask run - <(cat wrong.clif) <(cat right.clif) {way}");
        let ended = dir.shell(&line).code(1);
        for part in [
            ": FAILED: line 5: `print: %t()`: trapped: user1 in `t`",
            "expected 2, got 1\n",
            ": ok, 2 invocations\n",
        ] {
            assert!(ended.stdout.contains(part), "{line}: no `{part}` in:\n{}", ended.stdout);
        }
        assert!(ended.stdout.ends_with("\n1 passed, 2 failed, 0 skipped\n"), "{line}: {}", ended.stdout);
    }
}

#[test]
fn every_command_that_takes_a_file_takes_standard_input() {
    let dir = folder();
    dir.write("plus.clif", adder("plus", 2));
    dir.xtask(&["convert", "wrong.clif", "plus.clif", "two.kir"]).ok();
    assert_eq!(dir.shell("$xtask check - < wrong.clif").ok(), "1 module with 1 function fit together\n");
    for line in ["cat two.kir | $xtask check -", "$xtask check <(cat two.kir)", "$xtask check - < two.kir"] {
        assert_eq!(dir.shell(line).ok(), "2 modules with 2 functions fit together\n", "{line}");
    }
    // A build reads its modules twice: for the key, and to compile.
    for more in ["", "--cache kept", "--cache kept"] {
        dir.shell(&format!("cat two.kir | $xtask build - -o piped.so {more}")).ok();
        dir.xtask(&["build", "two.kir", "-o", "named.so"]).ok();
        assert!(dir.read("piped.so") == dir.read("named.so"), "{more}");
    }
    assert_eq!(dir.shell("$xtask call - plus 3 < named.so").ok(), "5\n");
    assert_eq!(dir.shell("cat named.so | $xtask call /dev/stdin plus 3").ok(), "5\n");
    let inspected = dir.xtask(&["inspect", "named.so"]).ok();
    assert_eq!(dir.shell("cat named.so | $xtask inspect -").ok(), inspected);
    // Text is printed as it is written to a file.
    dir.xtask(&["convert", "wrong.clif", "formatted.clif"]).ok();
    let printed = dir.shell("cat wrong.clif | $xtask convert - -").ok();
    assert_eq!(printed.as_bytes(), dir.read("formatted.clif"));
    dir.shell("cat wrong.clif | $xtask convert - again.kir").ok();
    dir.shell("$xtask convert - - < again.kir").ok();
    let output = dir.shell("$xtask cache explain - right.clif < wrong.clif").ok();
    assert_eq!(output, "hit: both are the same module for a cache\n");
    dir.xtask(&["convert", "two.kir", "-"]).code(1).says(&["a .clif file is one module, and these are 2"]);
    dir.xtask(&["build", "wrong.clif", "-o", "-"]).code(1).says(&["error: cannot write -: name a file\n"]);
    assert!(!dir.path("-").exists());
}

#[test]
fn what_is_read_once_is_named_once() {
    let dir = folder();
    for command in ["run", "check", "build -o p.so"] {
        let ended = dir.shell(&format!("cat right.clif | $xtask {command} - /dev/stdin")).code(1);
        assert_eq!(ended.stderr, "error: <stdin> and /dev/stdin are the same, which is read only once\n");
    }
    dir.shell("cat right.clif | $xtask convert - - p.kir").code(1).says(&["which is read only once"]);
    assert!(!dir.path("p.so").exists() && !dir.path("p.kir").exists());
}

#[test]
fn faults_in_standard_input_are_named_with_it() {
    let dir = folder();
    let ended = dir.shell("echo 'function %s( {' | $xtask build - -o p.so").code(1);
    ended.says(&["error: expected parameter type\n --> <stdin>:1:1\n", "error: 1 error in the input\n"]);
    // An empty file is one; it has no line, so nothing is executed.
    let ended = dir.shell("$xtask run - < /dev/null");
    assert_eq!(
        ended.ok(),
        "<stdin>: ok, compiled and linked, no invocation\n0 passed, 0 failed, 0 skipped, 1 without a run line\n"
    );
}

/// Files without an end are not read, and nothing waits.
#[test]
fn devices_and_fifos_are_refused() {
    let dir = folder();
    dir.shell("mkfifo fifo && mkdir folder && mkfifo folder/fifo.clif && truncate -s 3G hole.clif hole.so")
        .ok();
    let refused = |line: &str, message: &str| {
        let ended = dir.shell(&format!("timeout 20 $xtask {line}")).code(1);
        assert!(ended.stderr.contains(message), "{line}: {}", ended.stderr);
    };
    for command in ["run", "check", "build -o p.so", "inspect"] {
        refused(&format!("{command} /dev/zero"), "error: cannot read /dev/zero: it is a device\n");
        refused(&format!("{command} - < /dev/zero"), "error: cannot read -: it is a device\n");
    }
    refused("convert /dev/zero p.kir", "error: cannot read /dev/zero: it is a device\n");
    refused("call /dev/zero f", "error: cannot read /dev/zero: it is a device\n");
    refused("check folder", "error: cannot read folder/fifo.clif: it is a FIFO\n");
    std::os::unix::fs::symlink("fifo", dir.path("link")).unwrap();
    for command in ["run", "check", "build -o p.so", "inspect"] {
        refused(&format!("{command} fifo"), "error: cannot read fifo: it is a FIFO\n");
        refused(&format!("{command} link"), "error: cannot read link: it is a FIFO\n");
    }
    refused("call fifo f", "error: cannot read fifo: it is a FIFO\n");
    refused("convert fifo p.kir", "error: cannot read fifo: it is a FIFO\n");
    refused("cache explain right.clif fifo", "error: cannot read fifo: it is a FIFO\n");
    // A FIFO that the shell has opened is an input like every pipe.
    for name in ["-", "/dev/stdin", "/dev/fd/0"] {
        let line = format!("(cat right.clif > fifo &) && timeout 20 $xtask run {name} < fifo");
        assert!(dir.shell(&line).ok().contains("ok, 2 invocations"), "{line}");
    }
    // Its writer has gone when the command starts.
    let line = "(cat right.clif > fifo &) && (sleep 0.3; timeout 20 $xtask run /dev/fd/7) 7< fifo";
    assert_eq!(dir.shell(line).ok(), "/dev/fd/7: ok, 2 invocations\n1 passed, 0 failed, 0 skipped\n");
    refused("check - < folder", "error: cannot read -: it is a folder\n");
    refused("check hole.clif", "error: cannot read hole.clif: it is longer than 1024 MiB\n");
    refused("build hole.clif -o p.so", "error: cannot read hole.clif: it is longer than 1024 MiB\n");
    refused("inspect hole.so", "hole.so: not a kiln image");
    refused("call hole.so f", "hole.so: not a kiln image");
}

/// A line that belongs to no function is not executed, so the file has not passed.
#[test]
fn lines_that_are_not_executed_fail() {
    let lost = "function %f() {\nblock0:\n    return\n}\ndata %x { i64 1 }\n; run: %f()\n";
    let dir = TestFolder::new(&[("lost.clif", lost), ("some.clif", &format!("{WRONG}{lost}"))]);
    for way in WAYS {
        let ended = dir.shell(&format!("$xtask run lost.clif {way}")).code(1);
        expect![[r#"
            lost.clif: FAILED: line 6: `run: %f()` follows no function
            0 passed, 1 failed, 0 skipped
        "#]]
        .assert_eq(&ended.stdout);
    }
}

/// A run line calls the function above it; another name in it may be a mistake.
#[test]
fn a_line_that_names_another_function_is_noted() {
    let text = WRONG.replace("run: %f() == 1", "run: %g() == 1").replace("== 2", "!= 2");
    let dir = TestFolder::new(&[("a.clif", &*text)]);
    expect![[r#"
        a.clif: note: line 6: `run: %g() == 1`: the function above is `%f`, and not `%g`
        a.clif: ok, 2 invocations
        1 passed, 0 failed, 0 skipped
    "#]]
    .assert_eq(&dir.xtask(&["run", "a.clif"]).ok());
}
