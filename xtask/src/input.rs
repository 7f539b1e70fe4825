//! Files and folders named on the command line, as modules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::ir::{Diagnostic, DiagnosticKind, Module, Place, Source, Target, parse};
use rayon::prelude::*;

use crate::output::{Failure, count, progress};

/// The `.clif` files that `paths` name, folders searched through, each file once, in order of their paths: what is built
/// does not depend on the order of arguments.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = BTreeSet::new();
    for path in paths {
        let error = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
        if std::fs::metadata(path).map_err(error)?.is_dir() {
            let before = files.len();
            folder(path, &mut files).map_err(error)?;
            if files.len() == before {
                return Err(Failure::new(format!("no .clif file in folder {}", path.display())));
            }
        } else {
            files.insert(path.clone());
        }
    }
    // `a.clif` and `./a.clif` are one file.
    let mut seen = BTreeSet::new();
    Ok(files.into_iter().filter(|file| seen.insert(file.canonicalize().unwrap_or(file.clone()))).collect())
}

fn folder(path: &Path, files: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        // Following links is what the user of a folder of links wants; a cycle ends with the system's limit on links.
        if path.is_dir() {
            folder(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "clif") {
            files.insert(path);
        }
    }
    Ok(())
}

/// A file's module, or what is wrong with it.
pub(crate) type Parsed = Result<Module, Vec<Diagnostic>>;

/// Reads and parses `files` in parallel.
pub(crate) fn modules(files: &[PathBuf], target: &Target, show: bool) -> Result<Vec<Parsed>, Failure> {
    let bar = progress("reading", if show { files.len() as u64 } else { 0 });
    let modules = files
        .par_iter()
        .map(|file| {
            let module = source(file)?.and_then(|source| parse(source, target));
            if show {
                bar.inc(1);
            }
            Ok(module)
        })
        .collect();
    bar.finish_and_clear();
    modules
}

/// The text of `file`, or where it is not text.
fn source(file: &Path) -> Result<Result<Arc<Source>, Vec<Diagnostic>>, Failure> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::new(Source::new(name, text))),
        Err(error) => {
            // Up to the fault, what is shown is what is there.
            let source = Arc::new(Source::new(name, String::from_utf8_lossy(error.as_bytes())));
            let place = Place::at(&source, error.utf8_error().valid_up_to(), 1);
            Err(vec![Diagnostic::new(DiagnosticKind::Syntax, "not UTF-8 text", place)])
        }
    })
}

/// The modules, if all are; else every diagnostic is printed, in order of files.
pub(crate) fn all(parsed: Vec<Parsed>) -> Result<Vec<Module>, Failure> {
    let mut modules = Vec::with_capacity(parsed.len());
    let mut errors = 0;
    for file in parsed {
        match file {
            Ok(module) => modules.push(module),
            Err(diagnostics) => {
                errors += diagnostics.len();
                diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            }
        }
    }
    if errors == 0 {
        return Ok(modules);
    }
    Err(Failure::new(format!("{} in the input", count(errors, "error"))))
}

/// The target for `--target`, or the host.
pub(crate) fn target(triple: Option<&str>) -> Result<Target, Failure> {
    triple.map_or_else(|| Ok(Target::host()), |text| Target::parse(text).map_err(Failure::new))
}

/// Makes rayon's global pool have `threads` threads.
pub(crate) fn threads(threads: Option<usize>) -> Result<usize, Failure> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| Failure::new(format!("cannot start {threads} threads: {error}")))?;
    }
    Ok(rayon::current_num_threads())
}
