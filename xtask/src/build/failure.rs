//! The messages of a failed build, which name each module by its file.
//!
//! A build drops each module after it is compiled. For these messages alone, the modules are read
//! once more, to show where they disagree.

use kiln::LazyError;
use kiln::image::link::LinkError;
use kiln::ir::{Target, check_program};

use crate::input::{self, InputFile, ReadError};
use crate::output::{Failure, Shown, compiler_lines, first_lines, link_line, name};

/// The modules that a build was given.
pub(super) struct Inputs<'a> {
    pub(super) files: &'a [InputFile],
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
        let line = |error| link_line(error, &|number| name(modules.title(number)).into_owned());
        modules.misfit().unwrap_or_else(|| Failure::Message(first_lines(errors.iter().map(line))))
    }

    fn reread(&self) -> Reread<'_> {
        let files = input::modules(self.files, self.target, false, input::outline).unwrap_or_default();
        Reread { modules: files.into_iter().flatten().collect(), names: &self.names }
    }
}

/// The modules of a failed build, read once more.
struct Reread<'a> {
    modules: Vec<input::Parsed>,
    /// The names of the modules in the build, for modules that could not be read.
    names: &'a [Box<str>],
}

impl Reread<'_> {
    /// Prints the errors between modules, with their places. Returns `None` if there are none.
    fn misfit(&self) -> Option<Failure> {
        let diagnostics = check_program(&self.modules.iter().flatten().collect::<Vec<_>>());
        let mut shown = Shown::default();
        shown.print(&diagnostics);
        (shown.count() > 0).then(|| shown.failure("error", "between the modules"))
    }

    /// Returns the name of module `number` for messages: its file, its position there, and its
    /// former name.
    fn title(&self, number: usize) -> &str {
        match self.modules.get(number) {
            Some(Ok(module)) => &module.name,
            _ => self.names.get(number).map_or("", |name| name),
        }
    }
}

/// Prints the errors in modules, and returns a failure with the errors of the code generator, with
/// files and lines.
fn not_compiled(failures: Vec<LazyError<ReadError>>, modules: &Reread<'_>) -> Failure {
    let mut errors = Shown::default();
    let mut lines = Vec::new();
    for failure in failures {
        match failure {
            LazyError::Build { error: ReadError::Faults(diagnostics), .. } => errors.print(&diagnostics),
            LazyError::Build { error: ReadError::Failed(failure), .. } => match failure {
                Failure::Message(text) => lines.push(text),
                Failure::Reported => {}
            },
            LazyError::Compile(error) => lines.extend(compiler_lines(&error, &|module| {
                let number = modules.names.iter().position(|name| **name == *module);
                name(number.map_or(module, |number| modules.title(number))).into_owned()
            })),
            _ => lines.push("error: a module could not be compiled".into()),
        }
    }
    let mut text = first_lines(lines.into_iter());
    if errors.count() > 0
        && let Failure::Message(last) = errors.failure("error", "in the input")
    {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&last);
    }
    Failure::Message(text)
}
