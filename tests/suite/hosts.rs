//! The hosts of `crates/kiln-image/examples/hosts` use one image: in Rust, in C and in Python. A
//! host in Rust builds few crates.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln::Compiler;
use kiln::globals::GlobalTable;
use kiln::image::{ImageOptions, save, write_image};
use kiln::ir::{Source, Target, parse};

#[path = "../../crates/kiln-image/examples/hosts/host.rs"]
mod host;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/kiln-image/examples/hosts").join(name)
}

/// Returns what a program prints, which must be there if this is CI.
fn output(program: &str, arguments: &[&Path]) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed, and CI must have it");
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn hosts_in_three_languages_use_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(example("counter.clif")).unwrap();
    let module = parse(Source::new("counter.clif", text).into(), &Target::host()).unwrap();
    let mut globals = GlobalTable::new();
    module.globals().for_each(|key| {
        globals.intern(key);
    });
    let compiled = Compiler::new(Target::host()).compile(&[module]).unwrap();
    let image = folder.path().join("counter.so");
    save(&image, &write_image(&compiled.artifacts, &globals, &ImageOptions::default()).unwrap()).unwrap();

    assert_eq!(host::add(&image).unwrap(), 42);
    let expected = "the total is 42\n42\n";
    if let Some(printed) = output("python3", &[&example("host.py"), &image]) {
        assert_eq!(printed, expected);
    }
    let program = folder.path().join("host");
    let options = [&example("host.c"), Path::new("-o"), &program, Path::new("-ldl")];
    if output("cc", &options).is_some() {
        assert_eq!(output(&program.to_string_lossy(), &[&image]).as_deref(), Some(expected));
    }
}

/// A program that only loads images is quick to build.
#[test]
fn loading_alone_needs_few_crates() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["tree", "--package", "kiln-image", "--offline"]);
    cargo.args(["--no-default-features", "--features", "load", "--prefix", "none", "--format", "{p}"]);
    // With build scripts, without what tests need.
    let output = cargo.args(["--edges", "normal,build"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let crates: BTreeSet<String> = listed.lines().filter(|line| !line.is_empty()).map(name).collect();
    assert!(crates.len() > 5 && crates.len() <= 20, "{}: {crates:?}", crates.len());
    for unwanted in ["rayon", "blake3", "cc", "cranelift-codegen", "thiserror"] {
        assert!(!crates.contains(unwanted), "{unwanted}");
    }
}
