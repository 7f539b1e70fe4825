//! Layers: built on images, called with them, shown, and linked with them into one.

use serde_json::Value;

use crate::support::TestFolder;

const BASE: &str = "replaceable function %rate(f64) -> f64 system_v {
block0(v0: f64):
    return v0
}
function %price(f64) -> f64 system_v {
    fn0 = %rate(f64) -> f64 system_v
block0(v0: f64):
    v1 = call fn0(v0)
    return v1
}
";
const ABOVE: &str = "function %twice(f64) -> f64 system_v {
    fn0 = %price(f64) -> f64 system_v
block0(v0: f64):
    v1 = call fn0(v0)
    v2 = fadd v1, v1
    return v2
}
";
const RATE: &str = "replaceable function %rate(f64) -> f64 system_v {
block0(v0: f64):
    v1 = fadd v0, v0
    return v1
}
";

/// An image, a layer on it, and one on that.
fn folder() -> TestFolder {
    let dir = TestFolder::new(&[("base.clif", BASE), ("e.clif", ABOVE), ("f.clif", RATE)]);
    dir.xtask(&["build", "base.clif", "--embed-artifacts", "-o", "base.so"]).ok();
    dir.xtask(&["build", "e.clif", "--base", "base.so", "--embed-artifacts", "-o", "one.so"]).ok();
    dir.xtask(&["build", "f.clif", "--base", "one.so", "--embed-artifacts", "-o", "two.so"]).ok();
    dir
}

#[test]
fn layers_are_called_with_their_bases() {
    let dir = folder();
    let call = |image: &str, function: &str| dir.xtask(&["call", image, function, "2.5"]).ok();
    assert_eq!([call("base.so", "price"), call("one.so", "twice")], ["2.5\n", "5.0\n"]);
    assert_eq!(dir.xtask(&["inspect", "two.so"]).ok().matches("layer on ").count(), 2);
    let shown: Value =
        serde_json::from_str(&dir.xtask(&["inspect", "two.so", "--format", "json"]).ok()).unwrap();
    assert_eq!(shown["bases"][0]["name"], "base.so");
    assert_eq!(shown["replacements"][0]["name"], "rate");
    let shown: Value =
        serde_json::from_str(&dir.xtask(&["inspect", "one.so", "--format", "json"]).ok()).unwrap();
    assert_eq!((&shown["slots"][0]["key"], &shown["slots"][0]["base"]), (&"price".into(), &0.into()));
    // Elsewhere, and named.
    dir.shell("mkdir -p there/base && mv base.so there/base && cp one.so two.so there").ok();
    let missing = dir.xtask(&["call", "one.so", "twice", "1"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("a layer on `base.so` with id"), "{}", missing.stderr);
    let named = ["call", "one.so", "twice", "1", "--base", "there/base/base.so"];
    assert_eq!(dir.xtask(&named).ok(), "2.0\n");
}

#[test]
fn another_base_is_refused_unless_it_fits() {
    let dir = folder();
    dir.write("base.clif", BASE.replace("return v1", "v2 = fneg v1\n    return v2"));
    dir.xtask(&["build", "base.clif", "-o", "base.so"]).ok();
    let refused = dir.xtask(&["call", "one.so", "twice", "1"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("but `base.so` has"), "{}", refused.stderr);
    let allowed = ["call", "one.so", "twice", "1", "--allow-other-bases"];
    assert_eq!(dir.xtask(&allowed).ok(), "-2.0\n");
    dir.write("base.clif", "function %price(f32) -> f32 system_v {\nblock0(v0: f32):\n    return v0\n}\n");
    dir.xtask(&["build", "base.clif", "-o", "base.so"]).ok();
    let refused = dir.xtask(&allowed);
    let expected = "`price` was a function (f64) -> f64 system_v, and is a function (f32) -> f32 system_v";
    assert!(refused.code == Some(1) && refused.stderr.contains(expected), "{}", refused.stderr);
    let wrong = dir.xtask(&["build", "e.clif", "--base", "base.so", "-o", "n.so"]);
    let expected =
        "uses `price` as (f64) -> f64 system_v, but the base image `base.so` has it as (f32) -> f32";
    assert!(wrong.code == Some(1) && wrong.stderr.contains(expected), "{}", wrong.stderr);
}

#[test]
fn layers_become_one_image() {
    let dir = folder();
    dir.xtask(&["flatten", "two.so", "-o", "whole.so"]).ok();
    dir.xtask(&["build", "base.clif", "e.clif", "f.clif", "-o", "built.so"]).ok();
    assert_eq!(dir.read("whole.so"), dir.read("built.so"), "as one build makes it");
    dir.shell("rm base.so one.so").ok();
    assert_eq!(dir.xtask(&["call", "whole.so", "twice", "2.5"]).ok(), "10.0\n");
    let missing = dir.xtask(&["flatten", "two.so", "-o", "n.so"]);
    assert!(
        missing.code == Some(1) && missing.stderr.contains("name its file with --base"),
        "{}",
        missing.stderr
    );
    dir.xtask(&["build", "base.clif", "-o", "base.so"]).ok();
    dir.shell("strip whole.so -o stripped.so").ok();
    let without = dir.xtask(&["flatten", "base.so", "-o", "n.so"]);
    assert!(
        without.code == Some(1) && without.stderr.contains("has no artifacts in it"),
        "{}",
        without.stderr
    );
    let again = dir.xtask(&["flatten", "two.so", "-o", "n.so"]);
    assert!(again.code == Some(1), "one.so is gone: {}", again.stderr);
}
