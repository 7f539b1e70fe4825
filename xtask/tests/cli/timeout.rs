//! Invocations that never end.

use std::time::{Duration, Instant};

use expect_test::expect;

use crate::support::TestFolder;

const ENDLESS: &str = "function %fine() -> i64 {
block0:
    v0 = iconst.i64 1
    return v0
}
; run: %fine() == 1

function %spin() -> i64 {
block0:
    jump block1
block1:
    jump block1
}
; run: %spin() == 1
";

#[test]
fn an_endless_loop_is_a_failure_with_its_place() {
    let fine = ENDLESS.split("\nfunction %spin").next().unwrap();
    let dir = TestFolder::new(&[("a.clif", ENDLESS), ("b.clif", fine)]);
    for way in [&[][..], &["--via", "image"], &["--image-codegen"], &["--via", "interpreter"]] {
        let start = Instant::now();
        let ended = dir.xtask(&[&["run", ".", "--timeout", "1"], way].concat()).code(1);
        expect![[r#"
            ./a.clif: FAILED: no result after 1 s (`--timeout`), line 14: `run: %spin() == 1`
            ./b.clif: ok, 1 invocation
            1 passed, 1 failed, 0 skipped
        "#]]
        .assert_eq(&ended.stdout);
        assert!(start.elapsed() < Duration::from_secs(20), "{way:?}");
    }
    dir.xtask(&["build", "a.clif", "-o", "a.so"]).ok();
    let ended = dir.xtask(&["call", "a.so", "spin", "--timeout", "1"]).code(1);
    assert_eq!(
        ended.stderr,
        "error: `spin`, which is () -> i64 system_v: no result after 1 s (`--timeout`)\n"
    );
    assert_eq!(dir.xtask(&["call", "a.so", "fine", "--timeout", "0"]).ok(), "1\n");
}

/// A loop that prints is as endless, and its text is no reason to wait, nor to keep all of it.
#[test]
fn a_loop_that_prints_ends_too() {
    let text = r#"data %line { bytes "again\n" }
function %spin() {
    fn0 = %write(i32, i64, i64) -> i64 system_v
    gv0 = symbol %line
block0:
    jump block1
block1:
    v0 = iconst.i32 1
    v1 = symbol_value.i64 gv0
    v2 = iconst.i64 6
    v3 = call fn0(v0, v1, v2)
    jump block1
}
; print: %spin()
"#;
    let dir = TestFolder::new(&[("a.clif", text)]);
    for way in ["", "--via image"] {
        let ended = dir.shell(&format!("timeout 30 $xtask run a.clif --timeout 1 {way} | tail -2")).ok();
        expect![[r#"
            a.clif: FAILED: no result after 1 s (`--timeout`), line 14: `print: %spin()`
            0 passed, 1 failed, 0 skipped
        "#]]
        .assert_eq(&ended);
    }
}

/// A worker does not outlive the command that nobody waits for any more.
#[test]
fn a_worker_ends_with_its_command() {
    let dir = TestFolder::new(&[("a.clif", ENDLESS)]);
    for way in ["", "--via image"] {
        // Processes of a program with this name are those of this test.
        let line = format!(
            "cp $xtask own; $PWD/own run a.clif {way} > out 2>&1 & sleep 1; kill -9 $!; sleep 3
            left=$(grep -al ^$PWD/own /proc/[0-9]*/cmdline 2>&- | cut -d/ -f3); echo left: $left; kill -9 $left 2>&-; true"
        );
        assert_eq!(dir.shell(&line).stdout, "left:\n", "{way}");
    }
}
