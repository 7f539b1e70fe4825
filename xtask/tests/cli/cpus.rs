//! `build --cpus`, `call --cpu`, and what `inspect` says about them.

use std::process::Command;

use serde_json::Value;

use crate::support::{TestFolder, adder};

/// A function that differs on all levels from v2 on, one that calls it, and one that is the same.
fn folder() -> TestFolder {
    let scale = "function %scale(f64, f64) -> f64 system_v {
block0(v0: f64, v1: f64):
    v2 = fmul v0, v1
    return v2
}
function %twice(f64) -> f64 system_v {
    fn0 = %scale(f64, f64) -> f64 system_v
block0(v0: f64):
    v1 = call fn0(v0, v0)
    return v1
}
";
    TestFolder::new(&[("a.clif", scale), ("b.clif", &adder("add", 1))])
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_image_has_code_for_several_levels() {
    let dir = folder();
    let build = |more: &[&str]| {
        dir.xtask(
            &[&["build", "a.clif", "b.clif", "--cpus", "x86-64-v3,x86-64-v2", "-o", "p.so"], more].concat(),
        )
    };
    let told = build(&[]).ok();
    assert!(told.contains("with bodies of their own for some of x86-64-v2, x86-64-v3"), "{told}");
    let shown = dir.xtask(&["inspect", "p.so"]).ok();
    assert!(shown.contains("levels     x86-64-v2 x86-64-v3, "), "{shown}");
    assert!(shown.contains("  scale.x86-64-v3  slot 0x"), "{shown}");
    let info = json(&dir.xtask(&["inspect", "p.so", "--format", "json"]).ok());
    assert_eq!(info["levels"][1]["name"], "x86-64-v3");
    assert!(info["features"].as_array().unwrap().iter().all(|feature| feature != "has_avx"));
    let functions: Vec<_> =
        info["versions"].as_array().unwrap().iter().map(|body| &body["function"]).collect();
    assert!(!functions.contains(&&Value::from("add.x86-64-v3")), "{functions:?}");

    let first = dir.read("p.so");
    // Levels are in order, and none is twice.
    dir.xtask(&[
        "build",
        "a.clif",
        "b.clif",
        "--cpus",
        "x86-64-v2,x86-64-v3,x86-64-v2",
        "--threads",
        "1",
        "-o",
        "q.so",
    ])
    .ok();
    assert!(dir.read("q.so") == first);
    // Each level is reused for itself.
    assert!(build(&["--cache", "kept"]).ok().contains("(6 compiled, 0 reused)"));
    assert!(build(&["--cache", "kept"]).ok().contains("(0 compiled, 6 reused)"));
    assert!(dir.read("p.so") == first);

    for level in ["x86-64-v2", "x86-64-v3"] {
        let called = dir.xtask(&["call", "p.so", "twice", "1.5", "--cpu", level, "--format", "json"]);
        if level == "x86-64-v3" && !std::arch::is_x86_feature_detected!("avx2") {
            called.code(1).says(&["the image needs CPU features that this machine does not have"]);
            continue;
        }
        let called = json(&called.ok());
        assert_eq!((&called["results"][0], &called["cpu_level"]), (&"2.25".into(), &level.into()));
    }
    dir.xtask(&["call", "p.so", "twice", "1.5", "--cpu", "x86-64-v4"])
        .code(1)
        .says(&["the image has no code for x86-64-v4, but for x86-64-v2, x86-64-v3"]);
}

#[test]
fn levels_that_there_are_not() {
    let dir = folder();
    let refused = |args: &[&str], expected: &str| {
        let ended = dir.xtask(&[&["build", "a.clif", "-o", "p.so"], args].concat());
        assert!(ended.code == Some(1) || ended.code == Some(2));
        ended.says(&[expected]);
        assert!(!dir.path("p.so").exists());
    };
    refused(
        &["--cpus", "x86-64-v5"],
        "no level `x86-64-v5` of x86_64-unknown-linux-gnu: x86-64, x86-64-v2, x86-64-v3, x86-64-v4 are known",
    );
    refused(&["--cpus", "x86-64-v2", "--target", "aarch64"], "its processors have no levels");
    refused(&["--cpus", "x86-64-v2", "--emit", "object"], "--cpus is for images");
    refused(&["--cpus", "x86-64-v2", "--gc"], "cannot be used with");
}

/// Under emulators of processors, the loader chooses what they have.
#[test]
fn other_machines_choose_other_code() {
    let dir = folder();
    dir.xtask(&["build", "a.clif", "--cpus", "x86-64-v2,x86-64-v3,x86-64-v4", "-o", "p.so"]).ok();
    dir.xtask(&["build", "a.clif", "--cpus", "x86-64-v3,x86-64-v4", "-o", "new.so"]).ok();
    let call = |cpu: &str, image: &str| {
        let mut command = Command::new("qemu-x86_64");
        command.args([
            "-cpu",
            cpu,
            env!("CARGO_BIN_EXE_kiln"),
            "call",
            image,
            "twice",
            "1.5",
            "--format",
            "json",
        ]);
        command.current_dir(dir.path(".")).output()
    };
    let Ok(output) = call("Nehalem", "p.so") else {
        assert!(std::env::var_os("CI").is_none(), "qemu-x86_64 is not installed, and CI must have it");
        return;
    };
    let called = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!((&called["results"][0], &called["cpu_level"]), (&"2.25".into(), &"x86-64-v2".into()));
    let output = call("Haswell", "p.so").unwrap();
    let called = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!((&called["results"][0], &called["cpu_level"]), (&"2.25".into(), &"x86-64-v3".into()));
    let output = call("Nehalem", "new.so").unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("the image needs CPU features that this machine does not have: has_avx"),
        "{error}"
    );
}
