//! Runs `examples/compiler` as its users do: programs, errors, images, and a cache.

use std::path::Path;
use std::process::{Command, Output};

/// Runs the compiler in a folder.
fn run(folder: &Path, args: &[&str]) -> Output {
    // Cargo builds the examples with the tests, into a folder beside theirs.
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/compiler");
    let output = Command::new(&program).current_dir(folder).args(args).output();
    output.expect("run all tests, or `cargo build --features trap --example compiler` first")
}

#[track_caller]
fn check(folder: &Path, args: &[&str], success: bool, expected: &str) {
    let output = run(folder, args);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), success, "{args:?}: {stdout}{stderr}");
    assert_eq!(if success { stdout } else { stderr }, expected, "{args:?}");
}

const PRIMES: &str = include_str!("../examples/compiler/primes.lang");

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("primes.lang"), PRIMES).unwrap();
    folder
}

#[test]
fn memory_and_image_do_the_same() {
    let folder = folder();
    // 2, 3, 5 and 7.
    check(folder.path(), &["run", "primes.lang", "10"], true, "4.25\n4\n");
    check(folder.path(), &["build", "primes.lang", "-o", "p.so"], true, "4 functions compiled, 0 reused\n");
    check(folder.path(), &["call", "p.so", "10"], true, "4.25\n4\n");
    check(folder.path(), &["call", "p.so", "1000"], true, "453.13690476190476\n168\n");
}

#[test]
fn only_what_changed_is_compiled() {
    let folder = folder();
    let build = ["build", "primes.lang", "-o", "p.so", "--cache", "kept"];
    check(folder.path(), &build, true, "4 functions compiled, 0 reused\n");
    check(folder.path(), &build, true, "0 functions compiled, 4 reused\n");
    let changed = PRIMES.replace("number < 2", "number <= 1");
    std::fs::write(folder.path().join("primes.lang"), changed).unwrap();
    check(folder.path(), &build, true, "1 functions compiled, 3 reused\n");
    check(folder.path(), &["call", "p.so", "10"], true, "4.25\n4\n");
}

#[test]
fn a_trap_is_an_error_with_its_place() {
    let folder = folder();
    let text = "fn half(n: int) -> int {\n    return n / argument(0);\n}\nfn main() -> int {\n    \
                return half(1);\n}\n";
    std::fs::write(folder.path().join("half.lang"), text).unwrap();
    let output = run(folder.path(), &["run", "half.lang"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("int_divz") && stderr.contains("half"), "{stderr}");
    assert!(stderr.contains("half.lang:2"), "{stderr}");
    check(folder.path(), &["run", "half.lang", "1"], true, "1\n");
}

#[test]
fn wrong_programs_are_errors_with_their_places() {
    let folder = folder();
    for (text, expected) in [
        ("fn f( -> int {}", "1:7: expected a name, found `->`"),
        ("fn f() -> int { return 1 }", "1:26: expected `;`, found `}`"),
        ("fn f() -> int { return 1.5; }", "1:24: expected int, found float"),
        ("fn f() -> int {\n    if true { return 1; }\n}", "3:1: `f` may end without return"),
        ("fn f() -> int { return g(1); }", "1:24: no function `g`"),
        ("fn f(a: int) -> int { return f(); }", "1:30: `f` takes 1 arguments, not 0"),
        ("fn f() -> int { let a = 1; a = true; return a; }", "1:32: expected int, found bool"),
        ("fn f() -> int { { return 1; } }", "1:17: expected a name, found `{`"),
        ("fn f() -> int { return 1; return 2; }", "1:27: this is never reached"),
        (
            "fn f() -> bool { return 1 + 2 * 3 < 8 and not (1 == 2); }\nfn f() -> int { return 1; }",
            "2:1: `f` is defined already",
        ),
        (
            "fn f() -> int { return 99999999999999999999; }",
            "1:24: `99999999999999999999` is no number of 64 bits",
        ),
        ("fn main(a: int) -> int { return a; }", "1:1: `main` takes nothing and returns int"),
        ("fn f() -> int { return é; }", "1:24: unexpected character 'é'"),
    ] {
        std::fs::write(folder.path().join("wrong.lang"), text).unwrap();
        check(folder.path(), &["check", "wrong.lang"], false, &format!("wrong.lang:{expected}\n"));
    }
    let deep = format!("fn f() -> int {{ return {}1; }}", "(".repeat(100_000));
    std::fs::write(folder.path().join("wrong.lang"), deep).unwrap();
    check(folder.path(), &["check", "wrong.lang"], false, "wrong.lang:1:223: too deeply nested\n");
    check(folder.path(), &["run", "gone.lang"], false, "gone.lang: No such file or directory (os error 2)\n");
    std::fs::write(folder.path().join("empty.lang"), "").unwrap();
    check(folder.path(), &["run", "empty.lang"], false, "the program has no `main`\n");
}
