//! Files and folders named on the command line, as modules.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::Lazy;
use kiln::ir::{
    BinaryError, Diagnostic, DiagnosticKind, Module, Modules, Place, Source, Target, VerifyError, is_binary,
    parse, spans,
};
use rayon::prelude::*;

use crate::output::{Failure, count, progress};

/// Extension of files in text form.
pub(crate) const TEXT: &str = "clif";
/// Extension of files in binary form.
pub(crate) const BINARY: &str = "kir";

/// The `.clif` and `.kir` files that `paths` name, folders searched through, each file once, in order of their paths: what is built
/// does not depend on the order of arguments.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = BTreeSet::new();
    for path in paths {
        let error = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
        if std::fs::metadata(path).map_err(error)?.is_dir() {
            let before = files.len();
            folder(path, &mut files).map_err(error)?;
            if files.len() == before {
                return Err(Failure::new(format!("no .clif or .kir file in folder {}", path.display())));
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
        } else if path.extension().is_some_and(|extension| extension == TEXT || extension == BINARY) {
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
            let bytes = read(file)?;
            let found = pieces(&bytes).len();
            if found != 1 {
                let name = file.display();
                return Err(Failure::new(format!(
                    "{name} holds {found} modules, and this command takes one from a file"
                )));
            }
            let module = module(&file.display().to_string(), bytes, target);
            if show {
                bar.inc(1);
            }
            Ok(module)
        })
        .collect();
    bar.finish_and_clear();
    modules
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))
}

/// Where the modules of a file lie: one, unless it is in binary form and says otherwise.
pub(crate) fn pieces(bytes: &[u8]) -> Vec<Range<usize>> {
    let found = if is_binary(bytes) { spans(bytes).ok() } else { None };
    found.unwrap_or_else(|| std::iter::once(0..bytes.len()).collect())
}

/// The module in `bytes`, text or binary.
pub(crate) fn module(name: &str, bytes: Vec<u8>, target: &Target) -> Parsed {
    if !is_binary(&bytes) {
        return source(name, bytes).and_then(|source| parse(source, target));
    }
    let whole = || Place::whole(Arc::new(Source::new(name, "")));
    let fault =
        |error: &BinaryError| vec![Diagnostic::new(DiagnosticKind::Syntax, error.to_string(), whole())];
    let module =
        Modules::new(&bytes[..]).next().expect("it starts with a header").map_err(|error| fault(&error))?;
    match module.verify(target) {
        Ok(module) => Ok(Module { name: name.into(), ..module }),
        Err(VerifyError::Functions(faults)) => Err(faults
            .iter()
            .map(|fault| {
                let message = format!("function `{}`: {}: {}", fault.function, fault.entity, fault.message);
                Diagnostic::new(DiagnosticKind::Verifier, message, whole())
            })
            .collect()),
        Err(error @ VerifyError::Target(kiln::ir::TargetError::OtherArchitecture { .. })) => {
            Err(vec![Diagnostic::new(DiagnosticKind::OtherTarget, error.to_string(), whole())])
        }
        Err(error) => Err(vec![Diagnostic::new(DiagnosticKind::Target, error.to_string(), whole())]),
    }
}

/// The text of a file, or where it is not text.
fn source(name: &str, bytes: Vec<u8>) -> Result<Arc<Source>, Vec<Diagnostic>> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::new(Source::new(name, text))),
        Err(error) => {
            // Up to the fault, what is shown is what is there.
            let source = Arc::new(Source::new(name, String::from_utf8_lossy(error.as_bytes())));
            let place = Place::at(&source, error.utf8_error().valid_up_to(), 1);
            Err(vec![Diagnostic::new(DiagnosticKind::Syntax, "not UTF-8 text", place)])
        }
    }
}

/// Why a module of a build is none.
pub(crate) enum Unbuilt {
    Faults(Vec<Diagnostic>),
    Failed(Failure),
}

/// The modules of `files`, each to be read when its turn comes. With `keyed`, a file whose content was built before need not
/// be read as IR; its key is the hash of its bytes.
pub(crate) fn lazy<'t>(
    files: &[PathBuf],
    target: &'t Target,
    keyed: bool,
    done: &'t (dyn Fn() + Sync),
) -> Result<Vec<Lazy<'t, Unbuilt>>, Failure> {
    // Files in binary form may hold many modules, which is known by their headers.
    let pieces = files.par_iter().map(|file| -> Result<Vec<Lazy<'t, Unbuilt>>, Failure> {
        let name: Box<str> = file.display().to_string().into();
        // Text is read here only for its hash.
        let binary = file.extension().is_some_and(|extension| extension == BINARY);
        let bytes = if keyed || binary { read(file)? } else { Vec::new() };
        let ranges = pieces(&bytes);
        let many = ranges.len() > 1;
        let one = |(number, range): (usize, Range<usize>)| {
            let hash = blake3::hash(&bytes[range.clone()]);
            let name: Box<str> = if many { format!("{name}#{number}").into() } else { name.clone() };
            let (file, shown) = (file.clone(), name.clone());
            let build = move || {
                let bytes = read(&file).map_err(Unbuilt::Failed)?;
                let bytes = if many { bytes.get(range).unwrap_or_default().to_vec() } else { bytes };
                if keyed && blake3::hash(&bytes) != hash {
                    let text = format!("{} was changed while it was built", file.display());
                    return Err(Unbuilt::Failed(Failure::new(text)));
                }
                let module = module(&shown, bytes, target).map_err(Unbuilt::Faults)?;
                done();
                Ok(module)
            };
            match keyed {
                true => Lazy::new(name, *hash.as_bytes(), build),
                false => Lazy::without_key(name, build),
            }
        };
        Ok(ranges.into_iter().enumerate().map(one).collect())
    });
    let pieces: Vec<_> = pieces.collect();
    let mut modules = Vec::with_capacity(files.len());
    for piece in pieces {
        modules.extend(piece?);
    }
    Ok(modules)
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
