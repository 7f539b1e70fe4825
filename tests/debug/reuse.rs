//! An edited text is compiled again only where its instructions have changed.

use std::sync::Arc;

use kiln::cache::MemoryStore;
use kiln::ir::Target;
use kiln::{Compiler, Stats};
use libtest_mimic::Failed;

use crate::program::{PROGRAM, compiled, module};

pub(crate) fn comments() -> Result<(), Failed> {
    let target = Target::host();
    let store = Arc::new(MemoryStore::new());
    let build = |text: &str| -> Result<Stats, Failed> {
        let modules = [module("program.clif", text, "/src", &target)?];
        let built = Compiler::new(target.clone()).store(store.clone()).compile(&modules)?;
        // What is reused has the lines of the new text.
        assert!(built.artifacts == compiled(&modules, &target)?);
        Ok(built.stats)
    };
    let counts = |stats: Stats| (stats.compiled_functions, stats.reused_functions);
    assert_eq!(counts(build(PROGRAM)?), (2, 0));
    // A comment and an empty line more, in a function and before one.
    let edited = PROGRAM.replace("    ; a comment", "    ; another\n\n    ; comment");
    let edited = edited.replace("function %work", "\n; More.\n\nfunction %work");
    assert_eq!(counts(build(&edited)?), (0, 2));
    // Other numbers of values.
    assert_eq!(counts(build(&edited.replace("v8", "v80"))?), (0, 2));
    // An instruction more moves the locations of the function after it.
    let longer = edited.replace("    return v1", "    v9 = iadd v1, v7\n    return v9");
    assert_eq!(counts(build(&longer)?), (1, 1));
    Ok(())
}
