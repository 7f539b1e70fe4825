//! Messages that users see for modules that are wrong: `tests/wrong/*.clif`, and folders of modules
//! that do not fit together.
//!
//! Next to each is a `.stderr` file with every error as `cargo xtask check --target x86_64` prints
//! it, each followed by an empty line; a test of `xtask` compares them too. `UPDATE_EXPECT=1`
//! writes those files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use expect_test::expect_file;
use kiln_ir::{Module, Source, check_program, parse, undefined};

use crate::target;

/// Returns the `.clif` files at `path`, which is a file or a folder.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Returns the errors in the modules, in each alone and then in all together.
fn faults(folder: &Path, path: &Path) -> String {
    let mut modules: Vec<Module> = Vec::new();
    let mut faults = Vec::new();
    for file in files(path) {
        let name = file.strip_prefix(folder).unwrap().display().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        match parse(Arc::new(Source::new(name, text)), &target()) {
            Ok(module) => modules.push(module),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() {
        let modules: Vec<&Module> = modules.iter().collect();
        faults.extend(check_program(&modules));
        faults.extend(undefined(&modules, &|_| false));
    }
    faults.iter().map(|fault| format!("{fault}\n\n")).collect()
}

#[test]
fn every_wrong_module() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_none_or(|extension| extension == "clif"));
    paths.sort();
    assert!(paths.len() > 15);
    for path in paths {
        let shown = faults(&folder, &path);
        assert!(!shown.is_empty(), "{} has no error", path.display());
        expect_file![path.with_extension("stderr")].assert_eq(&shown);
    }
}
