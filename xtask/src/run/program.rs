//! Finds the files that make up the program of a root file.
//!
//! Each file is the root of a program of its own: its modules, and the files that define its
//! imports. If several files define an import, the file in the same folder is taken. So one command
//! runs a folder of unrelated tests as well as a program of many files.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use kiln::ir::{Linkage, Module};

use crate::input::{InputFile, Parsed};
use crate::output::name;

/// The files of a command, by the names that their modules define.
pub(super) struct Definitions<'a> {
    paths: &'a [InputFile],
    files: &'a [Parsed<Vec<Module>>],
    by_name: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Definitions<'a> {
    pub(super) fn new(paths: &'a [InputFile], files: &'a [Parsed<Vec<Module>>]) -> Self {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, modules) in files.iter().enumerate() {
            for name in modules.iter().flatten().flat_map(defined) {
                let files = by_name.entry(name).or_default();
                // The linker reports two definitions in one file.
                if files.last() != Some(&index) {
                    files.push(index);
                }
            }
        }
        Self { paths, files, by_name }
    }

    /// The folder of a file.
    fn folder(&self, index: usize) -> Option<&Path> {
        self.paths[index].name.parent()
    }

    /// Returns `root`, the files that define its imports, the files that define the imports of
    /// those files, and so on, in order of their numbers.
    ///
    /// # Errors
    ///
    /// Fails if several other files define an imported name, unless one of them is in the program
    /// already, or exactly one is in the folder of the file that imports the name.
    pub(super) fn program(&self, root: usize) -> Result<Vec<usize>, String> {
        let mut program = BTreeSet::from([root]);
        let mut queue = vec![root];
        while let Some(index) = queue.pop() {
            for import in self.files[index].iter().flatten().flat_map(imported) {
                let Some(candidates) = self.by_name.get(import) else { continue };
                if candidates.iter().any(|candidate| program.contains(candidate)) {
                    continue;
                }
                let near: Vec<_> = candidates
                    .iter()
                    .copied()
                    .filter(|&other| self.folder(other) == self.folder(index))
                    .collect();
                let ((&[candidate], _) | (_, &[candidate])) = (candidates.as_slice(), near.as_slice()) else {
                    let file = |&index: &usize| name(&self.paths[index].name.to_string_lossy()).into_owned();
                    let files = candidates.iter().map(file).collect::<Vec<_>>().join(", ");
                    let import = name(import);
                    return Err(format!("import `{import}` is defined by several files: {files}"));
                };
                program.insert(candidate);
                queue.push(candidate);
            }
        }
        Ok(program.into_iter().collect())
    }
}

fn defined(module: &Module) -> impl Iterator<Item = &str> {
    let visible = |linkage| !matches!(linkage, Linkage::Import | Linkage::Local);
    module.symbols.iter().filter(move |symbol| visible(symbol.linkage)).map(|symbol| &*symbol.name)
}

fn imported(module: &Module) -> impl Iterator<Item = &str> {
    let import = |symbol: &&kiln::ir::Symbol| {
        symbol.linkage == Linkage::Import && symbol.kind != kiln::ir::SymbolKind::Global
    };
    module.symbols.iter().filter(import).map(|symbol| &*symbol.name)
}
