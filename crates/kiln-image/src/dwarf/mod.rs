//! DWARF 5 for linked modules: lines, functions and variables, for debuggers.
//!
//! [`sections`] is one pure function from artifacts and the addresses of their code to the bytes of
//! sections, for images and for code in memory alike. Each module that has lines becomes a
//! compilation unit:
//!
//! - `unit` makes the unit of one module with `gimli`. Its offsets into sections are left open.
//! - `join` puts the sections of all units behind each other, and adds the place of each unit to
//!   its offsets.
//!
//! So units are made in parallel, and the result does not depend on the number of threads. Strings
//! are written where they are used: names are short, and modules share few of them.
//!
//! Code without source location has line 0, which DWARF has for that. The first bytes of a
//! function, before its first location, have the line of the function's base location.

mod join;
mod section;
mod unit;

use kiln_artifact::Artifact;
use rayon::prelude::*;

use self::join::join;
pub(crate) use self::section::Reference;
use self::section::Start;
pub use self::section::{Code, NAMES, Section, TooLarge};
use self::unit::unit;
use crate::link::Plan;

/// The number of functions from which units are made by several threads.
const MANY: usize = 2000;

/// Returns the sections for code of modules of one target: for each name of [`NAMES`] a section,
/// which may be empty. Modules without lines are left out; if no module has lines, there are no
/// sections.
///
/// Several threads work on large inputs, unless the caller is a thread of a pool.
///
/// # Errors
///
/// [`TooLarge`].
pub fn sections(code: &[Code<'_>]) -> Result<Vec<Section>, TooLarge> {
    let start = |code: &Code<'_>| Start::Address(code.address);
    sections_at(code.iter().map(|code| (code.artifact, start(code))), drop)
}

/// Returns the sections for modules whose code has these starts, and calls `refer` with every place
/// that refers to a section or to the code.
fn sections_at<'a>(
    modules: impl Iterator<Item = (&'a Artifact, Start)>,
    refer: impl FnMut(Reference),
) -> Result<Vec<Section>, TooLarge> {
    let with_lines: Vec<_> = modules.filter(|(artifact, _)| !artifact.source_files().is_empty()).collect();
    if with_lines.is_empty() {
        return Ok(Vec::new());
    }
    let functions: usize = with_lines.iter().map(|(artifact, _)| artifact.functions().len()).sum();
    let units: Vec<_> = if functions >= MANY && rayon::current_thread_index().is_none() {
        with_lines.par_iter().map(|&(artifact, start)| unit(artifact, start)).collect()
    } else {
        with_lines.iter().map(|&(artifact, start)| unit(artifact, start)).collect()
    };
    join(&units.into_iter().collect::<Result<Vec<_>, _>>()?, refer)
}

/// Returns the sections for a linked program whose area of code is at `text`.
///
/// # Errors
///
/// [`TooLarge`].
pub fn sections_of(plan: &Plan<'_>, text: u64) -> Result<Vec<Section>, TooLarge> {
    let modules = plan.artifacts().iter().enumerate();
    let code: Vec<_> =
        modules.map(|(number, artifact)| Code { artifact, address: text + plan.text_of(number) }).collect();
    sections(&code)
}

/// Returns the sections for a relocatable object, and the places in them that a linker completes,
/// in order of sections and offsets.
///
/// # Errors
///
/// [`TooLarge`].
#[cfg(feature = "write")]
pub(crate) fn relocatable(plan: &Plan<'_>) -> Result<(Vec<Section>, Vec<Reference>), TooLarge> {
    let modules = plan.artifacts().iter().enumerate();
    let modules = modules.map(|(number, artifact)| (artifact, Start::Offset(plan.text_of(number))));
    let mut references = Vec::new();
    let sections = sections_at(modules, |reference| references.push(reference))?;
    references.sort_by_key(|reference| (reference.section, reference.offset));
    Ok((sections, references))
}
