//! Files of the wrong kind, options that are misspelt: the message says what they are, and what
//! takes them.

use std::process::Command;

use crate::support::{TestFolder, adder};

/// A folder with one file of every kind.
fn kinds() -> TestFolder {
    let dir = TestFolder::new(&[("a.clif", &adder("plus", 2))]);
    dir.xtask(&["build", "a.clif", "-o", "image.so", "--cache", "kept"]).ok();
    dir.xtask(&["convert", "a.clif", "binary.kir"]).ok();
    // The first bytes decide, whatever follows them.
    let object = [b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0", &[0; 44][..]].concat();
    dir.write("object.o", object);
    dir.write("packed.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03");
    dir.write("packed.zst", b"\x28\xb5\x2f\xfd\0\0");
    dir.write("library.a", b"!<arch>\n");
    let modules = [kiln::ir::parse(
        kiln::ir::Source::new("a.clif", adder("plus", 2)).into(),
        &kiln::ir::Target::host(),
    )
    .unwrap()];
    let compiled = kiln::Compiler::new(kiln::ir::Target::host()).compile(&modules).unwrap();
    dir.write("artifact", compiled.artifacts[0].as_bytes());
    let entry = Command::new("sh")
        .args(["-c", "for file in $(find kept -type f); do grep -q KilnEnt $file && echo $file; done"])
        .current_dir(dir.path(""))
        .output()
        .unwrap();
    let entry = String::from_utf8(entry.stdout).unwrap();
    dir.write("entry", dir.read(entry.lines().next().unwrap()));
    dir
}

#[test]
fn every_kind_of_file_is_named_with_the_command_that_takes_it() {
    let dir = kinds();
    let kinds = [
        ("image.so", "an image or another shared object (ELF); `inspect` and `call` take images"),
        ("object.o", "an object file (ELF); a linker takes it"),
        ("packed.gz", "compressed with gzip; `gunzip` unpacks it"),
        ("packed.zst", "compressed with zstd; `unzstd` unpacks it"),
        ("library.a", "an archive; `ar x` unpacks it"),
        ("artifact", "an artifact, a compiled module; `build` links modules to an image"),
        ("entry", "an entry of a cache; `cache` takes the folder that it is in, `diff` compares two"),
    ];
    for (file, what) in kinds {
        for name in [file, "named.clif", "named.kir"] {
            dir.write(name, dir.read(file));
            let message = format!("error: not a module but {what}\n--> {name}\n");
            for args in [
                &["check", name][..],
                &["build", name, "-o", "new.so"],
                &["build", name, "-o", "new.so", "--cache", "new"],
                &["convert", name, "new.kir"],
                &["cache", "explain", name, "a.clif"],
                &["cache", "explain", "a.clif", name],
            ] {
                let ended = dir.xtask(args).code(1).says(&[&message]);
                assert_eq!(ended.stdout, "", "{args:?}");
            }
            let ended = dir.xtask(&["run", name, "a.clif"]).code(1);
            assert!(ended.stdout.contains(&message), "{}", ended.stdout);
            assert!(ended.stdout.ends_with("0 passed, 1 failed, 0 skipped, 1 without a run line\n"));
        }
    }
    let build = "`build` makes an image of it, `run` executes it";
    let text = "it is text; `build` makes an image of a module, `run` executes it";
    let other = [("binary.kir", &*format!("it is a module in binary form; {build}")), ("a.clif", text)];
    let kinds = kinds.map(|(file, what)| (file, format!("it is {what}")));
    let kinds = kinds.iter().skip(1).map(|(file, what)| (*file, &**what)).chain(other);
    for (file, what) in kinds {
        for args in [&["inspect", file][..], &["call", file, "plus", "1"]] {
            let ended = dir.xtask(args).code(1).says(&[&format!("{file}: not a kiln image: "), what]);
            assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 1), "{args:?}");
        }
    }
}

#[test]
fn misspelt_options_get_the_nearest() {
    let dir = TestFolder::new(&[("a.clif", &adder("plus", 2))]);
    let said = |args: &[&str], near: &str| {
        let tip = format!("tip: a similar argument exists: '{near}'");
        let ended = dir.xtask(args).code(2).says(&[&tip]);
        assert!(!ended.stderr.contains("as a value"), "{}", ended.stderr);
    };
    said(&["run", "a.clif", "--vai", "image"], "--via");
    said(&["run", "a.clif", "--vi", "image"], "--via");
    said(&["run", "a.clif", "--timeuot", "3"], "--timeout");
    said(&["build", "a.clif", "-o", "p.so", "--cahce", "kept"], "--cache");
    said(&["call", "p.so", "f", "--tiem", "3"], "--time");
    dir.xtask(&["run", "a.clif", "--xyzzy"]).code(2).says(&["unexpected argument '--xyzzy' found"]);
}
