//! The names of modules and of what uses a symbol, for errors. Users are looked for only when there
//! is an error, so a link without errors does no work for them.

use kiln_artifact::record::{Reloc, SectionKind, SymbolRecord};
use kiln_artifact::{Artifact, RelocKind};

/// The names of a unit's modules.
///
/// They are in one text, because most units have one module, and there may be very many units.
#[derive(Debug, Default)]
pub(crate) struct ModuleNames {
    text: Box<str>,
    /// The end of each name but the last.
    ends: Box<[u32]>,
}

impl ModuleNames {
    pub(crate) fn new(names: &[&str]) -> Self {
        let [first @ .., _] = names else { return Self::default() };
        let mut end = 0;
        let ends = first.iter().map(|name| {
            end += name.len();
            end as u32
        });
        Self { ends: ends.collect(), text: names.concat().into() }
    }

    /// Returns the name of a module; empty if it is not known.
    pub(crate) fn get(&self, module: usize) -> &str {
        let start = match module.checked_sub(1) {
            Some(before) => self.ends.get(before).map(|&end| end as usize),
            None => Some(0),
        };
        let end = self.ends.get(module).map_or(self.text.len(), |&end| end as usize);
        start.and_then(|start| self.text.get(start..end)).unwrap_or_default()
    }
}

/// Returns the name of the first function or data object of a module that uses `name`; empty if it
/// has no name, or if nothing uses it. `None` if the module does not know the name. `is_meant` says
/// whether a symbol of this name is the one that is meant.
pub(crate) fn user_of<'a>(
    artifact: &'a Artifact,
    name: &str,
    is_meant: &dyn Fn(&SymbolRecord) -> bool,
) -> Option<&'a str> {
    let mut symbols = artifact.symbols().iter();
    let symbol = symbols.position(|symbol| artifact.name(symbol) == name && is_meant(symbol))?;
    let user = relocations(artifact).into_iter().find_map(|(section, relocs)| {
        let site = relocs.iter().find(|reloc| reloc.symbol.get() as usize == symbol)?;
        Some(definition_at(artifact, section, site.offset.get()))
    });
    Some(user.unwrap_or_default())
}

/// Returns the name of the first function or data object of a module that has the address of the
/// slot `name` in it; empty if it has no name. `None` if there is none.
pub(crate) fn copy_user_of<'a>(
    artifact: &'a Artifact,
    name: &str,
    is_meant: &dyn Fn(&SymbolRecord) -> bool,
) -> Option<&'a str> {
    let symbols = artifact.symbols();
    relocations(artifact).into_iter().find_map(|(section, relocs)| {
        let refers = |reloc: &&Reloc| {
            let symbol = &symbols[reloc.symbol.get() as usize];
            reloc.kind() == RelocKind::Abs64 && artifact.name(symbol) == name && is_meant(symbol)
        };
        Some(definition_at(artifact, section, relocs.iter().find(refers)?.offset.get()))
    })
}

/// Returns the name of the first data object of a module in a named section; empty if it has none.
pub(crate) fn first_data<'a>(artifact: &'a Artifact, section: &str) -> &'a str {
    let run = artifact.named_data().iter().find(|run| artifact.section_name(run) == section);
    run.map_or("", |run| definition_at(artifact, run.section(), run.start.get()))
}

fn relocations(artifact: &Artifact) -> [(SectionKind, &[Reloc]); 3] {
    [
        (SectionKind::Text, artifact.text_relocs()),
        (SectionKind::ReadOnly, artifact.read_only_relocs()),
        (SectionKind::Writable, artifact.writable_relocs()),
    ]
}

/// Returns the name of the function or data object at `offset` of a section; empty if it has none.
fn definition_at(artifact: &Artifact, section: SectionKind, offset: u64) -> &str {
    let is_there = |symbol: &&SymbolRecord| {
        let start = symbol.offset.get();
        symbol.section() == section && start <= offset && offset - start < symbol.size.get()
    };
    artifact.symbols().iter().find(is_there).map_or("", |symbol| artifact.name(symbol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_has_its_name() {
        for names in [&["a"][..], &["a", "", "bc"], &["", ""], &[]] {
            let known = ModuleNames::new(names);
            let found: Vec<&str> = (0..names.len()).map(|module| known.get(module)).collect();
            assert_eq!(found, names);
            assert_eq!(known.get(names.len()), "");
        }
    }
}
