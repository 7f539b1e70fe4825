//! The files in `programs`, with the expected outcome at their top.
//!
//! ```text
//! # result: 42
//! # state: 3          the exported variable `state` at the end; none if left out
//! # tally: 5          the host's variable `tally` at the end; 0 if left out
//! # prints: a line
//! ```

use std::path::{Path, PathBuf};

use cranelift_module::Module;

use crate::Way;
use crate::engines::{Client, kiln_module};
use crate::host::Outcome;
use crate::language::{Failure, Program, generate, parse};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn files_in(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).expect("a folder of the repository");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files
}

/// All programs.
pub(crate) fn files() -> Vec<PathBuf> {
    let files = files_in("programs");
    assert!(files.len() >= 5, "programs are missing");
    files
}

impl Client for Program {
    fn build<M: Module>(&self, module: &mut M) -> Result<(), Failure> {
        generate(self, module)
    }
}

/// Runs the program at `path` and compares.
pub(crate) fn check(path: &Path, run: Way<Program>) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path)?;
    let expected = expected(&text)?;
    let outcome = run(&parse(&text)?)?;
    if outcome == expected {
        Ok(())
    } else {
        Err(format!("expected {expected:#?}\nfound {outcome:#?}").into())
    }
}

fn expected(text: &str) -> Result<Outcome, Failure> {
    let values = |key: &'static str| {
        let lines = text.lines().take_while(|line| line.starts_with('#'));
        lines
            .filter_map(move |line| line.trim_start_matches(['#', ' ']).strip_prefix(key)?.strip_prefix(": "))
    };
    let number = |key| values(key).next().map(str::parse).transpose();
    Ok(Outcome {
        result: number("result")?.ok_or("the file does not say what its result is")?,
        output: values("prints").map(|line| format!("{line}\n")).collect(),
        tally: number("tally")?.unwrap_or(0),
        state: number("state")?,
    })
}

/// Errors in programs are errors of the client, with every module.
pub(crate) fn rejects_what_is_wrong() -> Result<(), Failure> {
    for (text, wanted) in [
        ("fn f( {", "a name expected"),
        ("fn f() { return 1.5; }", "Int expected, not Float"),
        ("fn f() { return g(); }", "no function `g`"),
        ("fn f() { let x = 1; x = \"a\"; }", "Int expected, not Text"),
        ("var x = 1; text x = \"a\";", "`x` is defined twice"),
        ("table t = nothing;", "no datum `nothing`"),
        ("text a = \"abc\"; text b = a from 4;", "no such tail"),
    ] {
        let result = parse(text).and_then(|program| generate(&program, &mut kiln_module()?));
        match result {
            Err(error) if error.to_string().contains(wanted) => {}
            other => return Err(format!("{text}: `{wanted}` expected, not {other:?}").into()),
        }
    }
    Ok(())
}

/// The compiler is a client like any other: its source names the trait, and no implementation.
pub(crate) fn knows_no_implementation() -> Result<(), Failure> {
    for path in files_in("language") {
        let text = std::fs::read_to_string(&path)?.to_lowercase();
        for word in ["kiln", "jit", "cranelift_object", "crate::"] {
            if text.contains(word) {
                return Err(format!("{} mentions `{word}`", path.display()).into());
            }
        }
    }
    Ok(())
}
