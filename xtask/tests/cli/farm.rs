//! `build --farm`. What a farm does is tested with the crate `kiln-remote`.

use serde_json::Value;

use crate::support::{TestFolder, adder};

#[test]
fn a_farm_that_is_absent_changes_nothing() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))]);
    dir.write("worker", "\u{7f}ELF, which is not looked at");
    let build = |more: &[&str]| {
        dir.xtask(&[&["build", "a.clif", "b.clif", "-o", "p.so", "--stats", "s.json"], more].concat())
    };
    build(&[]).code(0);
    let image = dir.read("p.so");
    let farm = ["--farm", "grpc://127.0.0.1:1/main", "--farm-worker", "worker"];
    let told = build(&farm).code(0);
    assert!(told.stdout.contains("(2 compiled, 0 reused)"), "{}", told.stdout);
    assert!(dir.read("p.so") == image);
    let stats: Value = serde_json::from_slice(&dir.read("s.json")).unwrap();
    // So little is not handed over.
    assert_eq!((&stats["farmed_modules"], &stats["cache"]["farm"]["shards"]), (&0.into(), &0.into()));
    assert_eq!(stats["cache"]["places"]["farm"]["modules"], 0);
}

#[test]
fn wrong_options_are_told_before_anything_is_compiled() {
    let dir = TestFolder::new(&[("a.clif", &*adder("plus", 2))]);
    let build = |more: &[&str]| dir.xtask(&[&["build", "a.clif", "-o", "p.so"], more].concat());
    let url = "grpc://127.0.0.1:1/main";
    build(&["--farm", url, "--farm-worker", "none"]).code(1).says(&["cannot read the worker none"]);
    build(&["--farm", url, "--farm-worker", "a.clif"]).code(1).says(&["not an executable in ELF form"]);
    dir.write("worker", "\u{7f}ELF");
    let worker = ["--farm-worker", "worker"];
    build(&[&["--farm", "redis://me:secret@host"], &worker[..]].concat())
        .code(1)
        .says(&["a farm has an address with grpc:// or grpcs://"]);
    build(&["--farm", url, "--farm-property", "linux"]).code(2).says(&["expected NAME=VALUE"]);
    dir.xtask_with(&[("KILN_FARM", "here")], &["build", "a.clif", "-o", "p.so"])
        .code(1)
        .says(&["not an address of a server"]);
    dir.xtask_with(&[("KILN_FARM", "here")], &["build", "a.clif", "-o", "p.so", "--no-farm"]).code(0);
}
