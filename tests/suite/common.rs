//! Helpers of the tests: modules from text and from the test files, shared stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::cache::Store;
use kiln::ir::{Module, Source, Target, parse};

/// Parses the module in `text`.
pub(crate) fn module(name: &str, text: &str) -> Module {
    match parse(Arc::new(Source::new(name, text)), &Target::host()) {
        Ok(module) => module,
        Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()),
    }
}

pub(crate) type SharedStore = Arc<dyn Store + Send + Sync>;

pub(crate) fn shared(store: impl Store + Send + 'static) -> SharedStore {
    Arc::new(store)
}

/// All `.clif` files below `folder` of the repository, sorted.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "clif"));
    assert!(!files.is_empty(), "no test files in {folder}");
    files
}

/// All files below `folder`, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    fn search(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder that exists") {
            let path = entry.expect("a readable folder").path();
            match path.is_dir() {
                true => search(&path, files),
                false => files.push(path),
            }
        }
    }
    let mut files = Vec::new();
    search(folder, &mut files);
    files.sort();
    files
}

/// The modules of the test files that this machine can compile, except those whose names clash with
/// others.
pub(crate) fn modules() -> Vec<Module> {
    let target = Target::host();
    let parsed = files("tests/clif").into_iter().filter_map(|path| {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        match parse(Arc::new(Source::new(name, text)), &target) {
            Ok(module) => Some(module),
            Err(faults) => {
                assert!(
                    faults.iter().all(|fault| fault.kind == kiln::ir::DiagnosticKind::OtherTarget),
                    "{faults:?}"
                );
                None
            }
        }
    });
    let mut names = std::collections::BTreeSet::new();
    let modules: Vec<_> = parsed
        .filter(|module| module.functions.iter().all(|f| names.insert(module.symbol(f.symbol).name.clone())))
        .collect();
    assert!(modules.len() >= 8, "the test files give too few modules: {}", modules.len());
    modules
}
