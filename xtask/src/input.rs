//! Files and folders named on the command line, as modules.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::Lazy;
use kiln::ir::{
    BinaryError, DataObject, Diagnostic, DiagnosticKind, Init, Location, Module, Modules, OptLevel, Source,
    Target, TargetError, VerifyError, is_binary, parse, spans,
};
use rayon::prelude::*;

use crate::output::{Failure, chain, count, progress};

/// Extension of files in text form.
pub(crate) const TEXT: &str = "clif";
/// Extension of files in binary form.
pub(crate) const BINARY: &str = "kir";

/// The `.clif` and `.kir` files that `paths` name, folders searched through, each file once, in order of their paths: what is built
/// does not depend on the order of arguments.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = BTreeSet::new();
    for path in paths {
        let error = |error| Failure::while_doing(format!("cannot read {}", path.display()), error);
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

/// A module, or what is wrong with it.
pub(crate) type Parsed<T = Module> = Result<T, Vec<Diagnostic>>;

/// Why there is no module.
pub(crate) enum Unbuilt {
    Faults(Vec<Diagnostic>),
    Failed(Failure),
}

impl Unbuilt {
    /// Tells what is wrong with the input from what keeps the command from going on.
    pub(crate) fn split<T>(result: Result<T, Self>) -> Result<Parsed<T>, Failure> {
        match result {
            Ok(module) => Ok(Ok(module)),
            Err(Self::Faults(faults)) => Ok(Err(faults)),
            Err(Self::Failed(failure)) => Err(failure),
        }
    }
}

/// A module of a file, to be read when its turn comes: only its own bytes are read then.
pub(crate) struct Piece {
    path: PathBuf,
    /// Where it lies in a file in binary form; a text is a module as a whole.
    span: Option<Range<u64>>,
    /// Which one it is, if the file has several.
    number: Option<usize>,
}

/// The modules of a file, in order. The form is told by what the file begins with; a file that is called `.kir` must be in
/// binary form.
pub(crate) fn pieces(path: &Path) -> Result<Vec<Piece>, Unbuilt> {
    let failed = |error| Unbuilt::Failed(unreadable(path, &error));
    let mut file = File::open(path).map_err(failed)?;
    let piece = |span, number| Piece { path: path.to_owned(), span, number };
    // What can be read only once, such as a pipe, is not looked into beforehand.
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(vec![piece(None, None)]);
    }
    let mut start = Vec::new();
    file.by_ref().take(16).read_to_end(&mut start).map_err(failed)?;
    if !is_binary(&start) && path.extension().is_none_or(|extension| extension != BINARY) {
        return Ok(vec![piece(None, None)]);
    }
    let faults = |error| Unbuilt::Faults(vec![damaged(&path.display().to_string(), &error)]);
    let spans = spans(file).map_err(faults)?;
    if spans.is_empty() {
        return Err(faults(BinaryError::Foreign { offset: 0 }));
    }
    let many = spans.len() > 1;
    let spans = spans.into_iter().enumerate();
    Ok(spans.map(|(number, span)| piece(Some(span), many.then_some(number))).collect())
}

impl Piece {
    /// The file, and which of its modules this is, if it has several.
    fn name(&self) -> String {
        let path = self.path.display();
        self.number.map_or_else(|| path.to_string(), |number| format!("{path}#{number}"))
    }

    /// What messages call the module, which has another name in the file: that of the text that it was.
    pub(crate) fn shown(&self, stored: &str) -> String {
        let name = self.name();
        if stored.is_empty() || Path::new(stored) == self.path {
            return name;
        }
        format!("{name} (was {})", stored.replace(char::is_control, " "))
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        let read = || {
            let Some(span) = &self.span else { return std::fs::read(&self.path) };
            // No longer than the file, as was found.
            let length = usize::try_from(span.end - span.start).map_err(std::io::Error::other)?;
            let mut bytes = vec![0; length];
            File::open(&self.path)?.read_exact_at(&mut bytes, span.start)?;
            Ok(bytes)
        };
        read().map_err(|error| unreadable(&self.path, &error))
    }

    /// The module in `bytes`, which are this piece's, under the name that it has in the file.
    fn parse(&self, bytes: Vec<u8>, target: &Target) -> Parsed {
        if self.span.is_some() || is_binary(&bytes) {
            self.decode(&bytes, target)
        } else {
            source(&self.name(), bytes).and_then(|source| parse(source, target))
        }
    }

    fn decode(&self, bytes: &[u8], target: &Target) -> Parsed {
        let mut modules = Modules::new(bytes);
        let first = modules.next().unwrap_or(Err(BinaryError::Foreign { offset: 0 }));
        let only = first.and_then(|module| match modules.next() {
            None => Ok(module),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => {
                let what = "several modules, which are read from a regular file only";
                Err(BinaryError::Malformed { offset: 0, what })
            }
        });
        let start = self.span.as_ref().map_or(0, |span| span.start);
        let module = only.map_err(|error| vec![damaged(&self.name(), &moved(error, start))])?;
        let source = Arc::new(Source::new(self.shown(&module.module().name), ""));
        let whole = |kind, error: VerifyError| {
            vec![Diagnostic::new(kind, chain(&error), Location::whole(source.clone()))]
        };
        module.verify(target).map_err(|error| match error {
            VerifyError::Functions(faults) => faults
                .iter()
                .map(|fault| {
                    let message =
                        format!("function `{}`: {}: {}", fault.function, fault.entity, fault.message);
                    let place = Location::unseen(source.clone(), fault.line);
                    Diagnostic::new(DiagnosticKind::Verifier, message, place)
                })
                .collect(),
            VerifyError::Target(TargetError::OtherArchitecture { .. }) => {
                whole(DiagnosticKind::OtherTarget, error)
            }
            _ => whole(DiagnosticKind::Target, error),
        })
    }

    /// The module, under the name that it has in the file.
    pub(crate) fn stored(&self, target: &Target) -> Result<Module, Unbuilt> {
        self.parse(self.bytes().map_err(Unbuilt::Failed)?, target).map_err(Unbuilt::Faults)
    }

    /// A module of this piece, under the name that messages call it.
    fn named(&self, module: Module) -> Module {
        Module { name: self.shown(&module.name).into(), ..module }
    }
}

/// The modules of each file, in order, read in parallel: what `keep` keeps of them.
pub(crate) fn modules<T: Send>(
    files: &[PathBuf],
    target: &Target,
    show: bool,
    keep: impl Fn(Module) -> T + Sync,
) -> Result<Vec<Vec<Parsed<T>>>, Failure> {
    let bar = progress("reading", if show { files.len() as u64 } else { 0 });
    let read = |piece: Piece| Unbuilt::split(piece.stored(target).map(|module| keep(piece.named(module))));
    let modules = files
        .par_iter()
        .map(|file| {
            let modules = match Unbuilt::split(pieces(file))? {
                Ok(pieces) => pieces.into_par_iter().map(read).collect(),
                Err(faults) => Ok(vec![Err(faults)]),
            };
            if show {
                bar.inc(1);
            }
            modules
        })
        .collect();
    bar.finish_and_clear();
    modules
}

/// What other modules can see of a module, which is all that takes part in whether they fit together.
pub(crate) fn outline(module: Module) -> Module {
    let bare = |datum| DataObject { init: Init::Zeros(0), addresses: Vec::new(), ..datum };
    let data = module.data.into_iter().map(bare).collect();
    Module { functions: Vec::new(), data, comments: Vec::new(), ..module }
}

/// The module of a file that has one.
pub(crate) fn one(file: &Path, target: &Target) -> Result<Module, Failure> {
    let mut modules =
        all(modules(&[file.to_owned()], target, false, |module| module)?.into_iter().flatten())?;
    let (found, name) = (modules.len(), file.display());
    match modules.pop() {
        Some(module) if found == 1 => Ok(module),
        _ => {
            Err(Failure::new(format!("{name} holds {found} modules, and this command takes one from a file")))
        }
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::while_doing(format!("cannot read {}", file.display()), error)
}

/// What is wrong with bytes in binary form.
fn damaged(name: &str, error: &BinaryError) -> Diagnostic {
    let place = Location::whole(Arc::new(Source::new(name, "")));
    Diagnostic::new(DiagnosticKind::Syntax, chain(error), place)
}

/// An error in a module that starts at byte `start` of its file.
fn moved(mut error: BinaryError, start: u64) -> BinaryError {
    use BinaryError::{Checksum, Foreign, Malformed, Truncated, Version};
    if let Foreign { offset }
    | Version { offset, .. }
    | Truncated { offset }
    | Checksum { offset }
    | Malformed { offset, .. } = &mut error
    {
        *offset += start;
    }
    error
}

/// The text of a file, or where it is not text.
fn source(name: &str, bytes: Vec<u8>) -> Result<Arc<Source>, Vec<Diagnostic>> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::new(Source::new(name, text))),
        Err(error) => {
            // Up to the fault, what is shown is what is there.
            let source = Arc::new(Source::new(name, String::from_utf8_lossy(error.as_bytes())));
            let place = Location::at(&source, error.utf8_error().valid_up_to(), 1);
            Err(vec![Diagnostic::new(DiagnosticKind::Syntax, "not UTF-8 text", place)])
        }
    }
}

/// The modules of `files`, each to be read when its turn comes. With `keyed`, a module whose bytes were built before need not
/// be read as IR; its key is the hash of its bytes.
pub(crate) fn lazy<'t>(
    files: &[PathBuf],
    target: &'t Target,
    keyed: bool,
    done: &'t (dyn Fn() + Sync),
) -> Result<Vec<Lazy<'t, Unbuilt>>, Failure> {
    let found: Vec<_> = files.par_iter().map(|file| Unbuilt::split(pieces(file))).collect();
    let pieces = all(found.into_iter().collect::<Result<Vec<_>, _>>()?)?;
    let lazy = |piece: Piece| {
        let name = piece.name();
        let hash = if keyed { Some(blake3::hash(&piece.bytes()?)) } else { None };
        let build = move || {
            let bytes = piece.bytes().map_err(Unbuilt::Failed)?;
            if hash.is_some_and(|hash| hash != blake3::hash(&bytes)) {
                let text = format!("{} was changed while it was built", piece.path.display());
                return Err(Unbuilt::Failed(Failure::new(text)));
            }
            let module = piece.parse(bytes, target).map_err(Unbuilt::Faults)?;
            done();
            // Builds compare a module with that of its name in the last build, whatever text it came from.
            Ok(Module { name: piece.name().into(), ..module })
        };
        Ok(match hash {
            Some(hash) => Lazy::new(name, *hash.as_bytes(), build),
            None => Lazy::without_key(name, build),
        })
    };
    pieces.into_iter().flatten().collect::<Vec<_>>().into_par_iter().map(lazy).collect()
}

/// What was read, if all of it is right; else every diagnostic is printed, in order.
pub(crate) fn all<T>(parsed: impl IntoIterator<Item = Parsed<T>>) -> Result<Vec<T>, Failure> {
    let mut right = Vec::new();
    let mut errors = 0;
    for one in parsed {
        match one {
            Ok(one) => right.push(one),
            Err(diagnostics) => {
                errors += diagnostics.len();
                diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            }
        }
    }
    if errors == 0 {
        return Ok(right);
    }
    Err(Failure::new(format!("{} in the input", count(errors, "error"))))
}

/// The target for `--target`, or the host.
pub(crate) fn target(triple: Option<&str>) -> Result<Target, Failure> {
    triple.map_or_else(|| Ok(Target::host()), |text| Target::parse(text).map_err(Failure::of))
}

/// How much a build optimizes.
#[derive(Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Level {
    /// Compile quickly
    None,
    /// Make code fast
    Speed,
    /// Make code fast, then small
    SpeedAndSize,
}

impl From<Level> for OptLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Speed => Self::Speed,
            Level::SpeedAndSize => Self::SpeedAndSize,
        }
    }
}

/// Makes rayon's global pool have `threads` threads.
pub(crate) fn threads(threads: Option<usize>) -> Result<usize, Failure> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| Failure::while_doing(format!("cannot start {threads} threads"), error))?;
    }
    Ok(rayon::current_num_threads())
}
