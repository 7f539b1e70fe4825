//! The modules of a file in text or binary form.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use kiln::ir::{
    BinaryError, Diagnostic, DiagnosticKind, Location, Module, Modules, Source, Target, TargetError,
    VerifyError, is_binary, parse, spans,
};

use super::files::{BINARY, InputFile, refuse_long};
use super::kind::{KIND_LENGTH, binary_kind};
use crate::output::{Failure, chain};

/// A module, or the errors in it.
pub(crate) type Parsed<T = Module> = Result<T, Vec<Diagnostic>>;

/// The reason why a module could not be read.
pub(crate) enum ReadError {
    /// The input has errors.
    Faults(Vec<Diagnostic>),
    /// The command cannot continue.
    Failed(Failure),
}

impl ReadError {
    /// Separates errors in the input from a failure that ends the command.
    pub(crate) fn split<T>(result: Result<T, Self>) -> Result<Parsed<T>, Failure> {
        match result {
            Ok(module) => Ok(Ok(module)),
            Err(Self::Faults(faults)) => Ok(Err(faults)),
            Err(Self::Failed(failure)) => Err(failure),
        }
    }
}

/// A module of a file, not read yet. Reading it reads no other module of the file.
pub(crate) struct FileModule {
    pub(super) file: InputFile,
    /// The range of bytes in the file that holds the module, if it is in binary form; a text file
    /// is one module.
    span: Option<Range<u64>>,
    /// The module's position in a file that has several.
    number: Option<usize>,
}

/// The modules of a file, in order.
///
/// The first bytes of the file tell whether it is text or in binary form; a file with the extension
/// `.kir` must be in binary form.
pub(crate) fn modules_of(input: &InputFile) -> Result<Vec<FileModule>, ReadError> {
    let name = &input.name;
    let failed = |error| ReadError::Failed(unreadable(name, &error));
    let mut file = File::open(&input.path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let module = |span, number| FileModule { file: input.clone(), span, number };
    let mut start = Vec::with_capacity(KIND_LENGTH);
    file.by_ref().take(KIND_LENGTH as u64).read_to_end(&mut start).map_err(failed)?;
    let faults = |fault| ReadError::Faults(vec![fault]);
    if let Some(kind) = binary_kind(&start) {
        return Err(faults(whole(&name.display().to_string(), kind.instead_of_module())));
    }
    if !is_binary(&start) && name.extension().is_none_or(|extension| extension != BINARY) {
        refuse_long(name, length).map_err(ReadError::Failed)?;
        return Ok(vec![module(None, None)]);
    }
    let damaged = |error| faults(damaged(&name.display().to_string(), &error));
    let spans = spans(file).map_err(damaged)?;
    if spans.is_empty() {
        return Err(damaged(BinaryError::Foreign { offset: 0 }));
    }
    for span in &spans {
        refuse_long(name, span.end - span.start).map_err(ReadError::Failed)?;
    }
    let many = spans.len() > 1;
    let spans = spans.into_iter().enumerate();
    Ok(spans.map(|(number, span)| module(Some(span), many.then_some(number))).collect())
}

impl FileModule {
    /// The path of the file, with the module's number if the file has several.
    pub(super) fn name(&self) -> String {
        let path = self.file.name.display();
        self.number.map_or_else(|| path.to_string(), |number| format!("{path}#{number}"))
    }

    /// Returns the module's name for messages: the name of the file, and also `stored`, the
    /// module's name in the file, if the two differ.
    pub(crate) fn shown(&self, stored: &str) -> String {
        let name = self.name();
        if stored.is_empty() || Path::new(stored) == self.file.name {
            return name;
        }
        format!("{name} (was {})", stored.replace(char::is_control, " "))
    }

    /// The module's bytes in the file.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, Failure> {
        let read = || {
            let Some(span) = &self.span else { return std::fs::read(&self.file.path) };
            // `spans` has checked that the file is this long.
            let length = usize::try_from(span.end - span.start).map_err(std::io::Error::other)?;
            let mut bytes = vec![0; length];
            File::open(&self.file.path)?.read_exact_at(&mut bytes, span.start)?;
            Ok(bytes)
        };
        read().map_err(|error| unreadable(&self.file.name, &error))
    }

    /// The hash of everything that the module is made of, if these are its bytes.
    pub(super) fn hash(&self, bytes: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes);
        if let Some(folder) = self.file.debug_folder() {
            hasher.update(b"\0debugged in ").update(folder.as_bytes());
        }
        hasher.finalize()
    }

    /// Makes a module of its `bytes`, with the name that it has in the file.
    pub(super) fn parse(&self, bytes: Vec<u8>, target: &Target) -> Parsed {
        if self.span.is_some() || is_binary(&bytes) {
            self.decode(&bytes, target)
        } else {
            let source = source(&self.name(), bytes)?;
            let source = match self.file.debug_folder() {
                Some(folder) => source.debugged(folder),
                None => source,
            };
            parse(Arc::new(source), target)
        }
    }

    fn decode(&self, bytes: &[u8], target: &Target) -> Parsed {
        let mut modules = Modules::new(bytes);
        let first = modules.next().unwrap_or(Err(BinaryError::Foreign { offset: 0 }));
        let only = first.and_then(|module| match modules.next() {
            None => Ok(module),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => {
                let what = "the file has changed while it was read";
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
                    let location = Location::unseen(source.clone(), fault.line);
                    Diagnostic::new(DiagnosticKind::Verifier, message, location)
                })
                .collect(),
            VerifyError::Target(TargetError::OtherArchitecture { .. }) => {
                whole(DiagnosticKind::OtherTarget, error)
            }
            _ => whole(DiagnosticKind::Target, error),
        })
    }

    /// Reads the module, and keeps the name that it has in the file.
    pub(crate) fn stored(&self, target: &Target) -> Result<Module, ReadError> {
        self.parse(self.bytes().map_err(ReadError::Failed)?, target).map_err(ReadError::Faults)
    }

    /// Renames a module of this file to the name that messages use.
    pub(super) fn named(&self, module: Module) -> Module {
        Module { name: self.shown(&module.name).into(), ..module }
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::while_doing(format!("cannot read {}", file.display()), error)
}

/// A diagnostic for bytes that are not a module in binary form.
fn damaged(name: &str, error: &BinaryError) -> Diagnostic {
    whole(name, chain(error))
}

/// A diagnostic for a file as a whole.
fn whole(name: &str, message: String) -> Diagnostic {
    let location = Location::whole(Arc::new(Source::new(name, "")));
    Diagnostic::new(DiagnosticKind::Syntax, message, location)
}

/// Changes an error's offset in a module to the offset in the file, in which the module starts at
/// byte `start`.
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

/// Makes a source of a file's bytes, or returns a diagnostic at the first place that is not text.
fn source(name: &str, bytes: Vec<u8>) -> Result<Source, Vec<Diagnostic>> {
    Source::from_bytes(name, bytes).map_err(|fault| vec![fault])
}
