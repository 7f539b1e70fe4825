//! Real modules: every file of a corpus is read and verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_ir::{DiagnosticKind, Source, Target, parse};

fn files(under: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(under).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "clif") {
            found.push(path);
        }
    }
}

/// `KILN_CORPUS` is a directory of `.clif` files, such as those that Wasmtime writes with `--emit-clif`.
#[test]
fn everything_is_read() {
    let Some(corpus) = std::env::var_os("KILN_CORPUS") else {
        eprintln!("not run: KILN_CORPUS names no directory of .clif files");
        return;
    };
    // Wasmtime reads frame pointers, and says so to Cranelift outside the text.
    let target = Target::host().setting("preserve_frame_pointers", "true");
    let mut paths = Vec::new();
    files(Path::new(&corpus), &mut paths);
    assert!(!paths.is_empty(), "no .clif file under {}", corpus.display());
    let (mut functions, mut bad) = (0, 0);
    for path in &paths {
        let source = Source::new(path.display().to_string(), std::fs::read_to_string(path).unwrap());
        match parse(Arc::new(source), &target) {
            Ok(module) => functions += module.functions.len(),
            Err(faults) if faults[0].kind == DiagnosticKind::OtherTarget => {}
            Err(faults) => {
                bad += 1;
                eprintln!("{}", faults[0]);
            }
        }
    }
    assert_eq!(bad, 0, "of {} files", paths.len());
    assert!(functions > 0);
}
