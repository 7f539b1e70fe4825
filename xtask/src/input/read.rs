//! Reads many modules: all at once, or each one when a build needs it.

use kiln::ir::{DataObject, Init, Module, Target};
use kiln::{Lazy, LazyKey};
use rayon::prelude::*;

use super::file_module::{FileModule, Parsed, ReadError, modules_of};
use super::files::InputFile;
use crate::output::{Failure, Shown, progress};

/// Reads the modules of files in parallel. Returns the modules of each file in order, each reduced
/// by `keep` to the part that is needed.
pub(crate) fn modules<T: Send>(
    files: &[InputFile],
    target: &Target,
    show_progress: bool,
    keep: impl Fn(Module) -> T + Sync,
) -> Result<Vec<Vec<Parsed<T>>>, Failure> {
    let bar = progress("reading", if show_progress { files.len() as u64 } else { 0 });
    let read =
        |module: FileModule| ReadError::split(module.stored(target).map(|stored| keep(module.named(stored))));
    let modules = files
        .par_iter()
        .map(|file| {
            let modules = match ReadError::split(modules_of(file))? {
                Ok(modules) => modules.into_par_iter().map(read).collect(),
                Err(faults) => Ok(vec![Err(faults)]),
            };
            if show_progress {
                bar.inc(1);
            }
            modules
        })
        .collect();
    bar.finish_and_clear();
    modules
}

/// Returns the part of a module that other modules see. It is enough to check that modules fit
/// together.
pub(crate) fn outline(module: Module) -> Module {
    let bare = |data| DataObject { init: Init::Zeros(0), addresses: Vec::new(), ..data };
    let data = module.data.into_iter().map(bare).collect();
    Module { functions: Vec::new(), data, comments: Vec::new(), ..module }
}

/// Reads a file that must contain exactly one module.
pub(crate) fn one(file: &InputFile, target: &Target) -> Result<Module, Failure> {
    let files = std::slice::from_ref(file);
    let mut modules = all(modules(files, target, false, |module| module)?.into_iter().flatten())?;
    let (found, name) = (modules.len(), file.name.display());
    match modules.pop() {
        Some(module) if found == 1 => Ok(module),
        _ => {
            Err(Failure::new(format!("{name} holds {found} modules, and this command takes one from a file")))
        }
    }
}

/// Returns the modules of `files`, not read yet. A build reads each module when it needs it.
///
/// With `keyed`, a module's key is the hash of its bytes, so a module that was built before need
/// not be parsed. `done` is called after each module is read.
pub(crate) fn lazy<'t>(
    files: &[InputFile],
    target: &'t Target,
    keyed: bool,
    done: &'t (dyn Fn() + Sync),
) -> Result<Vec<Lazy<'t, ReadError>>, Failure> {
    let found: Vec<_> = files.par_iter().map(|file| ReadError::split(modules_of(file))).collect();
    let modules = all(found.into_iter().collect::<Result<Vec<_>, _>>()?)?;
    let lazy = |module: FileModule| {
        let name = module.name();
        let hash = if keyed { Some(module.hash(&module.bytes()?)) } else { None };
        let build = move || {
            let bytes = module.bytes().map_err(ReadError::Failed)?;
            if hash.is_some_and(|hash| hash != module.hash(&bytes)) {
                let text = format!("{} was changed while it was built", module.file.name.display());
                return Err(ReadError::Failed(Failure::new(text)));
            }
            let parsed = module.parse(bytes, target).map_err(ReadError::Faults)?;
            done();
            // A module's last build is found by the module's name. So the name is that of the file,
            // and not that of the text from which the module was converted.
            Ok(Module { name: module.name().into(), ..parsed })
        };
        Ok(match hash {
            Some(hash) => {
                let version = concat!("kiln-ir ", env!("CARGO_PKG_VERSION"));
                Lazy::new(name, LazyKey::new(version, *hash.as_bytes()), build)
            }
            None => Lazy::without_key(name, build),
        })
    };
    modules.into_iter().flatten().collect::<Vec<_>>().into_par_iter().map(lazy).collect()
}

/// Returns everything that was read if it has no errors. Otherwise prints every diagnostic, in
/// order.
pub(crate) fn all<T>(parsed: impl IntoIterator<Item = Parsed<T>>) -> Result<Vec<T>, Failure> {
    let mut modules = Vec::new();
    let mut errors = Shown::default();
    for result in parsed {
        match result {
            Ok(module) => modules.push(module),
            Err(diagnostics) => errors.print(&diagnostics),
        }
    }
    if errors.count() == 0 {
        return Ok(modules);
    }
    Err(errors.failure("error", "in the input"))
}
