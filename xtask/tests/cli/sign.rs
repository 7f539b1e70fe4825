//! `keygen`, `sign`, and the options that sign and verify.

use crate::support::{TestFolder, adder};

fn folder() -> TestFolder {
    let dir = TestFolder::new(&[("a.clif", &*adder("add", 1))]);
    for name in ["one", "two"] {
        let key = dir.xtask(&["keygen", &format!("{name}.key")]).ok();
        dir.write(&format!("{name}.pub"), format!("# {name}\n{key}"));
    }
    dir
}

#[test]
fn an_image_is_called_only_if_it_was_signed() {
    let dir = folder();
    dir.xtask(&["build", "a.clif", "-o", "bare.so"]).ok();
    dir.xtask(&["build", "a.clif", "--sign", "one.key", "--signers", "1", "-o", "p.so"]).ok();
    let call = |image: &str, more: &[&str]| dir.xtask(&[&["call", image, "add", "1"], more].concat());
    assert_eq!(call("p.so", &["--verify", "one.pub"]).ok(), call("bare.so", &[]).ok());
    call("bare.so", &["--verify", "one.pub"]).code(1).says(&["image bare.so: the image is not signed"]);
    call("p.so", &["--verify", "two.pub"])
        .code(1)
        .says(&["no accepted signature: `kiln-public-key ", "is not accepted"]);
    call("p.so", &["--verify", "one.pub", "--revoked", "one.pub"]).code(1).says(&["was revoked"]);
    let both = ["--verify", "one.pub", "--verify", "two.pub", "--at-least", "2"];
    call("p.so", &both).code(1).says(&["fewer than 2 accepted signatures"]);
    dir.xtask(&["sign", "p.so", "--key", "two.key", "--embed"]).ok();
    call("p.so", &both).ok();
    dir.xtask(&["sign", "bare.so", "--key", "two.key", "--embed"])
        .code(1)
        .says(&["cannot sign bare.so: the image was built without room for signatures"]);

    dir.xtask(&["sign", "bare.so", "--key", "one.key"]).ok();
    dir.xtask(&["sign", "bare.so", "--key", "two.key", "--key", "one.key"]).ok();
    let lines = String::from_utf8(dir.read("bare.so.sig")).unwrap();
    assert_eq!(lines.lines().count(), 2);
    call("bare.so", &both).ok();
    let mut altered = dir.read("bare.so");
    // The number in the code: nothing else of the image is about it but checksums.
    let at = altered.windows(4).rposition(|bytes| bytes == [0xcc; 4]).unwrap_or(0x1000);
    altered[at] ^= 1;
    dir.write("bare.so", altered);
    assert!(call("bare.so", &both).code(1).stderr.contains("altered"));
}

#[test]
fn signatures_are_shown() {
    let dir = folder();
    dir.xtask(&["build", "a.clif", "--sign", "one.key", "-o", "p.so"]).ok();
    dir.xtask(&["sign", "p.so", "--key", "two.key"]).ok();
    let shown = dir.xtask(&["inspect", "p.so", "--verify", "two.pub"]).ok();
    let signed: Vec<_> = shown.lines().filter(|line| line.starts_with("signed ")).collect();
    assert!(
        signed[0].ends_with(", ed25519, not verified") && signed[1].ends_with(", ed25519, verified"),
        "{shown}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&dir.xtask(&["inspect", "p.so", "--format", "json"]).ok()).unwrap();
    assert_eq!(json["content"].as_str().unwrap().len(), 64);
    assert_eq!(json["signatures"][0]["verified"], false);
    // The content is the same without the signatures, and after `strip`.
    dir.write("empty.pub", "# nobody\n");
    dir.xtask(&["inspect", "p.so", "--verify", "empty.pub"]).code(1).says(&["is not accepted"]);
}

#[test]
fn files_of_keys_that_are_wrong() {
    let dir = folder();
    dir.xtask(&["keygen", "one.key"]).code(1).says(&["cannot write one.key"]);
    dir.xtask(&["build", "a.clif", "--sign", "one.pub", "-o", "p.so"])
        .code(1)
        .says(&["key in one.pub", "line 1: expected `kiln-secret-key`"]);
    dir.xtask(&["build", "a.clif", "--sign", "one.key", "--emit", "object", "-o", "p.o"])
        .code(1)
        .says(&["--sign and --signers are for images"]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    dir.xtask(&["call", "p.so", "add", "1", "--verify", "one.key"])
        .code(1)
        .says(&["keys in one.key", "line 1: expected `kiln-public-key`"]);
    dir.xtask(&["call", "p.so", "add", "1", "--verify", "nothing.pub"])
        .code(1)
        .says(&["cannot read nothing.pub"]);
}
