//! The options of a build that make a program leaner, and what is said about it.

use std::path::{Path, PathBuf};

use kiln::artifact::Artifact;
use kiln::image::link::{Kept, Lean, LeanOptions, LinkError, Roots, lean};

use crate::output::{Failure, bytes, count, name};

/// The options that make a program leaner.
#[derive(clap::Args)]
pub(super) struct LeanArgs {
    /// Leave out functions and data that nothing exported reaches
    #[arg(long)]
    gc: bool,
    /// Leave out what nothing in this list reaches, exported or not: a file with the name of a root
    /// in each line
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Leave out what this function or data object does not reach; can be given many times
    #[arg(long, value_name = "NAME")]
    root: Vec<Box<str>>,
    /// Make equal functions one, except for those whose addresses the program or others can see
    #[arg(long)]
    fold: bool,
    /// Put the code of these functions first, in this order: a file with a name in each line
    #[arg(long, value_name = "FILE")]
    order: Option<PathBuf>,
    /// Say why this function or data object is kept: the way from a root to it
    #[arg(long, value_name = "NAME")]
    why_kept: Option<Box<str>>,
}

impl LeanArgs {
    /// Returns the options, if there are some.
    pub(super) fn options(&self) -> Result<Option<LeanOptions>, Failure> {
        let mut names = self.root.clone();
        if let Some(path) = &self.roots {
            names.extend(read_names(path)?);
        }
        let has_list = self.roots.is_some() || !names.is_empty();
        let roots = match (has_list, self.gc) {
            (true, _) => Some(Roots::Names(names)),
            (false, true) => Some(Roots::Exports),
            (false, false) => None,
        };
        if self.why_kept.is_some() && roots.is_none() {
            return Err(Failure::new("--why-kept needs --gc or roots: without them everything is kept"));
        }
        let order = self.order.as_deref().map_or_else(|| Ok(Vec::new()), read_names)?;
        let is_asked = roots.is_some() || self.fold || self.order.is_some();
        Ok(is_asked.then_some(LeanOptions { roots, fold: self.fold, order }))
    }

    /// Returns the answer to the question why something is kept, if it was asked.
    pub(super) fn answer(&self, lean: &Lean, modules: &[Box<str>]) -> Result<Vec<String>, Failure> {
        let Some(asked) = &self.why_kept else { return Ok(Vec::new()) };
        let unknown = || Failure::new(format!("no module defines `{asked}`, which --why-kept names"));
        let ways = lean.why_kept(asked).ok_or_else(unknown)?;
        if ways.is_empty() {
            return Ok(vec![format!("{} is not kept: nothing reaches it", name(asked))]);
        }
        let ways = ways.iter().map(|way| {
            let steps: Vec<String> = way.iter().map(|step| describe(step, modules)).collect();
            format!("{} is kept: {}", name(asked), steps.join(" -> "))
        });
        Ok(ways.collect())
    }
}

/// Returns the names in a file, one in each line. Empty lines, and what follows `#`, are left out.
fn read_names(path: &Path) -> Result<Vec<Box<str>>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::while_doing(format!("cannot read {}", path.display()), error))?;
    let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(names.filter(|name| !name.is_empty()).map(Into::into).collect())
}

fn describe(step: &Kept, modules: &[Box<str>]) -> String {
    let (own, module, why) = match step {
        Kept::Root { name, module } => (name, module, ", a root"),
        Kept::Section { name, module } => (name, module, ", in a section"),
        Kept::Whole { name, module } => (name, module, ", of a module that is kept whole"),
        Kept::Referred { name, module, .. } => (name, module, ""),
        _ => return String::new(),
    };
    let own = if own.is_empty() { "something without a name".into() } else { name(own).into_owned() };
    let module = modules.get(*module).map_or("", |module| &**module);
    format!("{own} ({}{why})", name(module))
}

/// Makes the program leaner, if that was asked for. Without options, the result has the artifacts
/// as they are.
pub(super) fn apply(artifacts: Vec<Artifact>, options: Option<&LeanOptions>) -> Result<Lean, Vec<LinkError>> {
    match options {
        Some(options) => lean(&artifacts, options),
        None => Ok(Lean::unchanged(artifacts)),
    }
}

/// Returns what was left out, in words; `None` if nothing was.
pub(super) fn summary(lean: &Lean) -> Option<String> {
    let parts = [
        ("dropped", lean.dropped_functions, "function"),
        ("dropped", lean.dropped_data, "data object"),
        ("folded", lean.folded_functions, "function"),
    ];
    let parts = parts.iter().filter(|(_, (number, _), _)| *number > 0);
    let parts: Vec<String> = parts
        .map(|(did, (number, size), what)| format!("{did} {} ({})", count(*number, what), bytes(*size)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
