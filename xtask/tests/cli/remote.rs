//! `build --remote` and the commands for servers that machines share. The server is a folder; those
//! that speak a protocol are tested with the crate `kiln-remote`.

use serde_json::Value;

use crate::support::{TestFolder, adder};

fn dir() -> TestFolder {
    TestFolder::new(&[("a.clif", &*adder("plus", 2)), ("b.clif", &*adder("more", 40))])
}

fn stats(dir: &TestFolder) -> Value {
    serde_json::from_slice(&dir.read("s.json")).unwrap()
}

#[test]
fn what_one_machine_compiles_another_finds() {
    let dir = dir();
    let url = format!("file://{}", dir.path("server").display());
    let build = |more: &[&str]| {
        let args = ["build", "a.clif", "b.clif", "-o", "p.so", "--stats", "s.json", "--remote", &url];
        dir.xtask(&[&args[..], &["--remote-wait", "20"], more].concat())
    };
    assert!(build(&["--cache", "one"]).ok().contains("(2 compiled, 0 reused)"));
    let image = dir.read("p.so");
    assert_eq!(stats(&dir)["cache"]["remote"]["sent"], 2);
    let told = build(&["--cache", "two", "--verbose", "--timings", "t.json"]).code(0);
    assert!(told.stdout.contains("(0 compiled, 2 reused)"), "{}", told.stdout);
    told.says(&[": hit: from remote, "]);
    assert!(dir.read("p.so") == image);
    let places = &stats(&dir)["cache"]["places"];
    assert_eq!((&places["remote"]["modules"], &places["disk"]["modules"]), (&2.into(), &0.into()));
    assert!(places["remote"]["bytes"].as_u64().unwrap() > 400, "{places}");
    assert!(places["remote"]["seconds"].as_f64().unwrap() > 0.0, "{places}");
    assert_eq!(stats(&dir)["lazy_modules"], 2);
    let timeline = String::from_utf8(dir.read("t.json")).unwrap();
    assert_eq!(timeline.matches("hit by the client's key, from remote").count(), 2, "{timeline}");
    // They are in the local cache now.
    build(&["--cache", "two"]).code(0);
    let places = &stats(&dir)["cache"]["places"];
    assert_eq!((&places["remote"]["modules"], &places["disk"]["modules"]), (&0.into(), &2.into()));
    // Without a local cache, and from another file with the same IR.
    dir.write("b.clif", format!("; a comment\n{}", adder("more", 40)));
    assert!(build(&[]).ok().contains("(0 compiled, 2 reused)"));
    assert!(dir.read("p.so") == image);
}

#[test]
fn a_server_that_is_absent_is_told() {
    let dir = dir();
    let build = |url: &str| dir.xtask(&["build", "a.clif", "-o", "p.so", "--remote", url]);
    let told = build("grpc://127.0.0.1:1").code(0);
    assert!(told.stdout.contains("(1 compiled, 0 reused)"), "{}", told.stdout);
    told.says(&["warning: server asked for nothing for now: "]);
    build("gopher://host").code(1).says(&["unknown protocol"]);
    build("redis://me:secret@").code(1).says(&["address without a host"]);
    assert!(!build("redis://me:secret@").stderr.contains("secret"));
    dir.xtask(&["cache", "stat", "grpc://127.0.0.1:1"]).code(1).says(&["cannot ask grpc://127.0.0.1:1/"]);
}

#[test]
fn whole_caches_are_sent_received_and_signed() {
    let dir = dir();
    let url = format!("file://{}", dir.path("server").display());
    let build = |cache: &str| {
        let args = ["build", "a.clif", "b.clif", "-o", "p.so", "--cache", cache, "--cache-list", "used.txt"];
        dir.xtask(&args).ok()
    };
    build("one");
    assert!(dir.xtask(&["cache", "stat", &url]).ok().starts_with("protocol "));
    let told = dir.xtask(&["cache", "push", "one", &url]).ok();
    assert!(told.starts_with("2 entries (") && told.contains(" 0 failed"), "{told}");
    let told = dir.xtask(&["cache", "pull", &url, "two", "--list", "used.txt"]).ok();
    assert!(told.starts_with("2 entries (") && told.contains(" 0 not found"), "{told}");
    assert!(build("two").contains("(0 compiled, 2 reused)"));

    let public = dir.xtask(&["cache", "keygen", "secret.key"]).ok();
    assert!(public.starts_with("kiln-public-key "), "{public}");
    dir.xtask(&["cache", "keygen", "secret.key"]).code(1);
    dir.write("accepted.txt", &public);
    let pull = |cache: &str| {
        let args = ["cache", "pull", &url, cache, "--list", "used.txt"];
        dir.xtask_with(&[("KILN_REMOTE_ACCEPT", "accepted.txt")], &args)
    };
    let told = pull("three").code(0);
    assert!(told.stdout.contains(" 2 not found"), "{}", told.stdout);
    let push = ["cache", "push", "one", &url];
    dir.xtask_with(&[("KILN_REMOTE_SIGN", "secret.key")], &push).ok();
    assert!(pull("three").ok().starts_with("2 entries ("));
    dir.xtask_with(&[("KILN_REMOTE_SIGN", "accepted.txt")], &push)
        .code(1)
        .says(&["expected `kiln-secret-key`"]);
}
