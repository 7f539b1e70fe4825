//! The messages of a build that failed: which module it was, by the name of its file.
//!
//! A build drops each module when it is compiled. The modules are read once more only for these
//! messages, which show where they disagree.

use std::path::PathBuf;

use kiln::image::link::LinkError;
use kiln::ir::{Target, check_program};
use kiln::{CompilerError, LazyError};

use crate::input::{self, ReadError};
use crate::output::{Failure, chain, count};

/// The modules that a build was given.
pub(super) struct Inputs<'a> {
    pub(super) files: &'a [PathBuf],
    pub(super) target: &'a Target,
    /// The names of the modules in the build, in order.
    pub(super) names: Vec<Box<str>>,
}

impl Inputs<'_> {
    /// Says why modules could not be compiled.
    pub(super) fn not_compiled(&self, failures: Vec<LazyError<ReadError>>) -> Failure {
        let is_unread = |failure: &LazyError<ReadError>| matches!(failure, LazyError::Build { .. });
        if failures.iter().any(is_unread) {
            return not_compiled(failures, &Reread { modules: Vec::new(), names: &self.names });
        }
        // Modules that do not fit together are reported before code that cannot be compiled.
        let modules = self.reread();
        modules.misfit().unwrap_or_else(|| not_compiled(failures, &modules))
    }

    /// Says why artifacts could not be linked.
    pub(super) fn not_linked(&self, errors: &[LinkError]) -> Failure {
        let modules = self.reread();
        modules.misfit().unwrap_or_else(|| {
            let lines = errors.iter().map(|error| modules.line(error));
            Failure::Message(lines.collect::<Vec<_>>().join("\n"))
        })
    }

    fn reread(&self) -> Reread<'_> {
        let files = input::modules(self.files, self.target, false, input::outline).unwrap_or_default();
        Reread { modules: files.into_iter().flatten().collect(), names: &self.names }
    }
}

/// The modules of a build that failed, read once more.
struct Reread<'a> {
    modules: Vec<input::Parsed>,
    /// Their names in the build, for those that could not be read.
    names: &'a [Box<str>],
}

impl Reread<'_> {
    /// Prints the errors between the modules, with their places; `None` if there are none.
    fn misfit(&self) -> Option<Failure> {
        let diagnostics = check_program(&self.modules.iter().flatten().collect::<Vec<_>>());
        diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
        let found = count(diagnostics.len(), "error");
        (!diagnostics.is_empty()).then(|| Failure::new(format!("{found} between the modules")))
    }

    /// The name of module `number` in messages: its file, its position there, and its former name.
    fn title(&self, number: usize) -> &str {
        match self.modules.get(number) {
            Some(Ok(module)) => &module.name,
            _ => self.names.get(number).map_or("", |name| name),
        }
    }

    /// An error of the linker, which knows the numbers of modules, with their names.
    fn line(&self, error: &LinkError) -> String {
        let Some(number) = error.module() else { return format!("error: {}", chain(error)) };
        let line = format!("error: {}: {}", self.title(number), chain(error));
        let other = match *error {
            LinkError::DuplicateDefinition { first, .. } | LinkError::SectionConflict { first, .. } => first,
            LinkError::SignatureConflict { definer, .. }
            | LinkError::KindConflict { definer, .. }
            | LinkError::DataConflict { definer, .. } => definer,
            LinkError::TargetMismatch { .. } => 0,
            _ => return line,
        };
        format!("{line}; module {other} is {}", self.title(other))
    }
}

/// Prints the errors in modules, and returns those that the code generator found, with files and
/// lines.
fn not_compiled(failures: Vec<LazyError<ReadError>>, modules: &Reread<'_>) -> Failure {
    let mut errors = 0;
    let mut lines = Vec::new();
    for failure in failures {
        match failure {
            LazyError::Build { error: ReadError::Faults(diagnostics), .. } => {
                errors += diagnostics.len();
                diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            }
            LazyError::Build { error: ReadError::Failed(failure), .. } => match failure {
                Failure::Message(text) => lines.push(text),
                Failure::Reported => {}
            },
            LazyError::Compile(CompilerError::Functions(functions)) => {
                lines.extend(functions.iter().map(|error| {
                    let line = if error.line == 0 { String::new() } else { format!(":{}", error.line) };
                    let number = modules.names.iter().position(|name| *name == error.module_name);
                    let name = number.map_or(&*error.module_name, |number| modules.title(number));
                    format!("error: {name}{line}: function `{}`: {}", error.function, chain(&error.kind))
                }));
            }
            LazyError::Compile(other) => lines.push(format!("error: {}", chain(&other))),
            _ => lines.push("error: a module could not be compiled".into()),
        }
    }
    if errors > 0 {
        lines.push(format!("error: {} in the input", count(errors, "error")));
    }
    Failure::Message(lines.join("\n"))
}
