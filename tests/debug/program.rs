//! Programs for the tests: modules, their artifacts and images.

use std::path::Path;
use std::sync::Arc;

use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::globals::GlobalTable;
use kiln::image::{DebugInfo, ImageFiles, ImageOptions, write_image_files};
use kiln::ir::{Module, OptLevel, Source, Target, parse};
use libtest_mimic::Failed;

/// The program that `host.c` loads.
pub(crate) const PROGRAM: &str = include_str!("program.clif");

/// Returns the module in `text`, which debuggers show as the file `name` in `folder`.
pub(crate) fn module(name: &str, text: &str, folder: &str, target: &Target) -> Result<Module, Failed> {
    parse(Arc::new(Source::new(name, text).debugged(folder)), target)
        .map_err(|faults| faults.iter().map(|fault| format!("{fault}\n")).collect::<String>().into())
}

pub(crate) fn compiled(modules: &[Module], target: &Target) -> Result<Vec<Artifact>, Failed> {
    Ok(Compiler::new(target.clone()).compile(modules)?.artifacts)
}

/// Returns the image of `artifacts`.
pub(crate) fn linked(artifacts: &[Artifact], options: &ImageOptions) -> Result<ImageFiles, Failed> {
    let mut globals = GlobalTable::new();
    for key in artifacts.iter().flat_map(Artifact::globals) {
        globals.intern(key);
    }
    let files = write_image_files(artifacts, &globals, options);
    Ok(files.map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect::<String>())?)
}

pub(crate) fn with_debug(debug: DebugInfo) -> ImageOptions {
    ImageOptions { debug, ..ImageOptions::default() }
}

/// Returns the artifact of the program, whose text is in `folder`.
pub(crate) fn program(folder: &Path) -> Result<Vec<Artifact>, Failed> {
    // The code is the same at every level, and a value keeps its place for longer at this one.
    let target = Target::host().opt_level(OptLevel::None);
    compiled(&[module("program.clif", PROGRAM, &folder.to_string_lossy(), &target)?], &target)
}
