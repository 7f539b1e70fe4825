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

/// Needs servers: `cargo xtask servers -- cargo test -p xtask --features remote farm`.
#[test]
fn where_modules_came_from_is_told() {
    let variables = ["KILN_TEST_FARM", "KILN_TEST_WORKER", "KILN_TEST_BAZEL"];
    let [farm, worker, cache] = variables.map(|name| std::env::var(name).unwrap_or_default());
    if farm.is_empty() || worker.is_empty() || cache.is_empty() {
        return eprintln!("SKIPPED: no farm: run `cargo xtask servers -- cargo test ..`");
    }
    // Several shards, by their size; other numbers than those of earlier runs.
    let dir = TestFolder::new(&[]);
    let salt = std::process::id();
    for module in 0..6 {
        let function = |n: u32| {
            let sums: String = (1..600)
                .map(|v| format!(" v{} = iadd v{v}, v0\n v{} = imul v{v}, v{v}\n", v + 1, v + 1000))
                .collect();
            format!(
                "function %f{module}_{n}(i64) -> i64 {{\nblock0(v0: i64):\n v1 = iconst.i64 {}\n{sums} \
                 return v600\n}}\n",
                salt + n
            )
        };
        dir.write(&format!("m{module}.clif"), (0..200).map(function).collect::<String>());
    }
    let build = |more: &[&str]| {
        let args = ["build", ".", "-o", "p.so", "--program", "seen", "--remote", &cache, "--verbose"];
        let outputs = ["--stats", "s.json", "--timings", "t.json"];
        let told = dir.xtask(&[&args[..], &outputs, more].concat()).code(0);
        let stats: Value = serde_json::from_slice(&dir.read("s.json")).unwrap();
        (told, stats, String::from_utf8(dir.read("t.json")).unwrap())
    };
    let number = |stats: &Value, path: &str| stats.pointer(path).unwrap().as_f64().unwrap();
    let (told, stats, timeline) =
        build(&["--cache", "one", "--remote-wait", "60", "--farm", &farm, "--farm-worker", &worker]);
    let farmed = number(&stats, "/farmed_modules");
    assert!(farmed > 0.0, "{stats}\n{}", told.stderr);
    assert_eq!(number(&stats, "/cache/places/farm/modules"), farmed);
    assert!(number(&stats, "/cache/places/farm/bytes") > 10_000.0 * farmed, "{stats}");
    assert!(number(&stats, "/cache/places/farm/seconds") > 0.0, "{stats}");
    assert!(number(&stats, "/cache/farm/received_bytes") > 10_000.0, "{stats}");
    assert!(told.stderr.contains(": compiled by the farm"), "{}", told.stderr);
    assert_eq!(timeline.matches("compiled by the farm: ").count() as f64, farmed);
    let image = dir.read("p.so");
    // Another machine, and this one again.
    for (place, cache) in [("remote", "two"), ("disk", "two")] {
        let (told, stats, timeline) = build(&["--cache", cache, "--no-farm"]);
        assert_eq!(number(&stats, &format!("/cache/places/{place}/modules")), 6.0, "{stats}");
        assert!(told.stderr.contains(&format!(": hit: from {place}, ")), "{}", told.stderr);
        assert_eq!(timeline.matches(&format!("hit by the client's key, from {place}")).count(), 6);
        assert!(dir.read("p.so") == image);
    }
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
