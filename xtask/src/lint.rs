//! `lint`: what a machine can see of the project's rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::develop::{cargo, execute, root};
use crate::output::{Failure, Outcome};

/// Check formatting, clippy, documentation, layering, and that ARCHITECTURE.md is true.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask lint
  cargo xtask lint --only layering")]
pub(crate) struct Args {
    /// Only this check
    #[arg(long, value_enum)]
    only: Option<Check>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Check {
    /// rustfmt
    Format,
    /// Clippy, every warning an error
    Clippy,
    /// rustdoc, every warning an error
    Docs,
    /// Dependency edges between crates against the table
    Layering,
    /// ARCHITECTURE.md names what exists
    Architecture,
    /// Every file says what it is for, and `unsafe` stays where it may be
    Files,
}

/// Which crates of ours a crate may depend on, and whether it may reach Cranelift at all.
///
/// This is the layering of ARCHITECTURE.md. An edge that is added here needs a reason there.
const LAYERS: [(&str, &[&str], Cranelift); 10] = [
    ("kiln-globals", &[], Cranelift::Never),
    ("kiln-artifact", &[], Cranelift::Never),
    ("kiln-ir", &[], Cranelift::Yes),
    ("kiln-backend", &["kiln-ir", "kiln-artifact"], Cranelift::Yes),
    (
        "kiln-oracle",
        &["kiln-artifact", "kiln-cache", "kiln-globals", "kiln-image", "kiln-ir"],
        Cranelift::Yes,
    ),
    ("kiln-cache", &["kiln-artifact"], Cranelift::Never),
    ("kiln-image", &["kiln-artifact", "kiln-globals"], Cranelift::Never),
    ("kiln-jit", &["kiln-artifact", "kiln-globals", "kiln-image"], Cranelift::Yes),
    (
        "kiln",
        &["kiln-globals", "kiln-artifact", "kiln-ir", "kiln-backend", "kiln-cache", "kiln-image", "kiln-jit"],
        Cranelift::Yes,
    ),
    ("xtask", &["kiln", "kiln-oracle"], Cranelift::Yes),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cranelift {
    Yes,
    /// Not even through others: who takes this crate must not build a code generator.
    Never,
}

/// Crates in which `unsafe` may occur; everywhere else it is forbidden.
const UNSAFE: [&str; 3] = ["kiln-jit", "kiln-image", "xtask"];
/// Files of crates in which `unsafe` may occur only where an `expect` says why.
const DENIES_UNSAFE: [&str; 2] = ["crates/kiln-image/src/lib.rs", "xtask/src/main.rs"];

const MAX_LINES: usize = 1000;
const MAX_ARCHITECTURE_LINES: usize = 250;

pub(crate) fn main(args: &Args) -> Outcome {
    let checks: [(Check, fn() -> Outcome); 6] = [
        (Check::Format, || execute(&mut cargo(&["fmt", "--all", "--check"]))),
        (Check::Layering, layering),
        (Check::Architecture, architecture),
        (Check::Files, files),
        (Check::Clippy, || {
            execute(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        }),
        (Check::Docs, || {
            execute(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
        }),
    ];
    let mut failed = Vec::new();
    for (check, run) in checks {
        if args.only.is_some_and(|only| only != check) {
            continue;
        }
        let name = format!("{check:?}").to_lowercase();
        match run() {
            Ok(()) => println!("{name}: ok"),
            Err(failure) => {
                if let Failure::Message(text) = failure {
                    eprintln!("{text}");
                }
                println!("{name}: FAILED");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("lint failed: {}", failed.join(", ")))) }
}

/// All of `faults`, as a failure.
fn verdict(faults: &[String]) -> Outcome {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::Message(faults.iter().map(|fault| format!("error: {fault}")).collect::<Vec<_>>().join("\n")))
}

/// Normal dependencies by package name, for every package of the build.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn dependencies() -> Result<Graph, Failure> {
    let output = cargo(&["metadata", "--format-version=1", "--locked"]).output().map_err(Failure::new)?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(Failure::new)?;
    graph(&metadata).ok_or_else(|| Failure::new("cargo metadata has no dependency graph"))
}

fn graph(metadata: &Value) -> Option<Graph> {
    let packages = metadata["packages"].as_array()?;
    let names: BTreeMap<&str, &str> = packages
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let nodes = metadata["resolve"]["nodes"].as_array()?;
    let mut graph = BTreeMap::new();
    for node in nodes {
        let Some(name) = node["id"].as_str().and_then(|id| names.get(id)) else { continue };
        let normal = |dep: &&Value| {
            dep["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        };
        let deps = node["deps"].as_array().into_iter().flatten().filter(normal);
        let deps = deps.filter_map(|dep| names.get(dep["pkg"].as_str()?).map(ToString::to_string));
        graph.entry((*name).to_owned()).or_insert_with(BTreeSet::new).extend(deps);
    }
    Some(graph)
}

fn layering() -> Outcome {
    verdict(&layering_faults(&dependencies()?))
}

fn layering_faults(graph: &Graph) -> Vec<String> {
    let mut faults = Vec::new();
    let table: BTreeMap<&str, _> =
        LAYERS.iter().map(|&(name, may, cranelift)| (name, (may, cranelift))).collect();
    for name in graph.keys().filter(|name| ours(name)) {
        if !table.contains_key(name.as_str()) {
            faults.push(format!("layering: crate {name} is not in the table"));
        }
    }
    for (&name, &(may, cranelift)) in &table {
        let Some(deps) = graph.get(name) else {
            faults.push(format!("layering: crate {name} of the table does not exist"));
            continue;
        };
        for dep in deps.iter().filter(|dep| ours(dep) && !may.contains(&dep.as_str())) {
            faults.push(format!("layering: {name} must not depend on {dep}"));
        }
        if cranelift == Cranelift::Never
            && let Some(path) = reaches_cranelift(graph, name)
        {
            faults
                .push(format!("layering: {name} must not reach Cranelift, but does: {}", path.join(" -> ")));
        }
    }
    faults
}

fn ours(name: &str) -> bool {
    name == "kiln" || name == "xtask" || name.starts_with("kiln-")
}

/// A way from a crate to Cranelift, if there is one.
fn reaches_cranelift(graph: &Graph, from: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut stack = vec![vec![from.to_owned()]];
    while let Some(path) = stack.pop() {
        let last = path.last()?;
        if last.starts_with("cranelift") {
            return Some(path);
        }
        for dep in graph.get(last).into_iter().flatten() {
            if seen.insert(dep.clone()) {
                stack.push(path.iter().chain([dep]).cloned().collect());
            }
        }
    }
    None
}

fn architecture() -> Outcome {
    let root = root();
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md"))
        .map_err(|error| Failure::new(format!("ARCHITECTURE.md: {error}")))?;
    verdict(&architecture_faults(&text, &|path| root.join(path).exists()))
}

fn architecture_faults(text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_ARCHITECTURE_LINES {
        faults.push(format!("ARCHITECTURE.md has {lines} lines, at most {MAX_ARCHITECTURE_LINES} are read"));
    }
    for (number, line) in text.lines().enumerate() {
        // Every word in backquotes that has a slash and no space is a path; one that starts as our crates do is a crate.
        for word in line.split('`').skip(1).step_by(2) {
            let path = word.trim_end_matches('/');
            let is_path = word.contains('/') && !word.contains([' ', '<', '*', '(']) && !word.contains("::");
            let is_crate = word.starts_with("kiln-");
            if is_path && !exists(path) || is_crate && !LAYERS.iter().any(|(name, ..)| *name == word) {
                faults.push(format!("ARCHITECTURE.md:{}: `{word}` does not exist", number + 1));
            }
        }
    }
    for (name, ..) in LAYERS {
        if !text.contains(&format!("`{name}`")) {
            faults.push(format!("ARCHITECTURE.md does not name the crate `{name}`"));
        }
    }
    faults
}

fn files() -> Outcome {
    let root = root();
    let mut faults = Vec::new();
    let mut sources = Vec::new();
    for folder in ["src", "crates", "xtask", "tests", "benches", "examples"] {
        rust_files(&root.join(folder), &mut sources)?;
    }
    for path in sources {
        let text = std::fs::read_to_string(&path).map_err(Failure::new)?;
        faults.extend(file_faults(&path.strip_prefix(&root).unwrap_or(&path).display().to_string(), &text));
    }
    for (name, ..) in LAYERS.iter().filter(|(name, ..)| !UNSAFE.contains(name)) {
        let folder = if *name == "kiln" { root.clone() } else { root.join("crates").join(name) };
        let text = std::fs::read_to_string(folder.join("src/lib.rs")).map_err(Failure::new)?;
        if !forbids_unsafe(&text) {
            faults.push(format!("{name} does not forbid unsafe code"));
        }
    }
    for path in DENIES_UNSAFE {
        let text = std::fs::read_to_string(root.join(path)).map_err(Failure::new)?;
        if !text.lines().any(|line| line == "#![deny(unsafe_code)]") {
            faults.push(format!("{path} does not deny unsafe code"));
        }
    }
    verdict(&faults)
}

/// Whether a crate's root forbids unsafe code; a comment does not.
fn forbids_unsafe(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == "#![forbid(unsafe_code)]")
}

fn file_faults(shown: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{shown}: does not open with `//!`, which says what the file is for"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{shown}: {lines} lines, at most {MAX_LINES}"));
    }
    faults
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(Failure::new)?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crates of the table, depending on all that they may, with `more` edges.
    fn with(more: &[(&str, &str)]) -> Graph {
        let mut graph: Graph = LAYERS
            .iter()
            .map(|&(name, may, _)| (name.to_owned(), may.iter().map(ToString::to_string).collect()))
            .collect();
        for (from, to) in more {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    }

    #[test]
    fn the_table_forbids_every_other_edge() {
        assert_eq!(layering_faults(&with(&[])), Vec::<String>::new());
        assert_eq!(
            layering_faults(&with(&[("kiln-globals", "kiln-artifact"), ("kiln-ir", "kiln")])),
            [
                "layering: kiln-globals must not depend on kiln-artifact",
                "layering: kiln-ir must not depend on kiln"
            ]
        );
    }

    #[test]
    fn the_table_and_the_workspace_have_the_same_crates() {
        let mut graph = with(&[("kiln-new", "serde")]);
        graph.remove("kiln-jit");
        assert_eq!(
            layering_faults(&graph),
            [
                "layering: crate kiln-new is not in the table",
                "layering: crate kiln-jit of the table does not exist"
            ]
        );
    }

    #[test]
    fn cranelift_is_found_behind_others() {
        let graph = with(&[("kiln-cache", "a"), ("a", "b"), ("b", "a"), ("b", "cranelift-entity")]);
        assert_eq!(
            layering_faults(&graph),
            [
                "layering: kiln-cache must not reach Cranelift, but does: kiln-cache -> a -> b -> cranelift-entity"
            ]
        );
        assert_eq!(reaches_cranelift(&graph, "kiln-image"), None);
    }

    #[test]
    fn only_normal_dependencies_count() {
        let dep =
            |name: &str, kind: Value| serde_json::json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = serde_json::json!({
            "packages": [{ "id": "1", "name": "a" }, { "id": "2", "name": "b" }, { "id": "3", "name": "c" }],
            "resolve": { "nodes": [{ "id": "1", "deps": [dep("2", Value::Null), dep("3", "dev".into())] }] },
        });
        let expected = Graph::from([("a".to_owned(), BTreeSet::from(["b".to_owned()]))]);
        assert_eq!(graph(&metadata), Some(expected));
        assert_eq!(graph(&Value::Null), None);
    }

    #[test]
    fn architecture_names_what_exists() {
        let crates: String = LAYERS.iter().map(|(name, ..)| format!("`{name}` ")).collect();
        let exists = |path: &str| path == "src/lib.rs" || path == "crates";
        let faults = |text: &str| architecture_faults(&format!("{crates}\n{text}"), &exists);
        assert_eq!(faults("`src/lib.rs`, `crates/`, `a::b/c`, `x / y`, `*/z` and src/gone.rs"), [""; 0]);
        assert_eq!(faults("`src/gone.rs`"), ["ARCHITECTURE.md:2: `src/gone.rs` does not exist"]);
        assert_eq!(
            architecture_faults(&crates.replace("`kiln-jit`", "kiln-jit"), &exists),
            ["ARCHITECTURE.md does not name the crate `kiln-jit`"]
        );
        assert_eq!(faults(&"x\n".repeat(249)), [""; 0]);
        assert_eq!(faults(&"x\n".repeat(250)), ["ARCHITECTURE.md has 251 lines, at most 250 are read"]);
    }

    #[test]
    fn a_comment_forbids_nothing() {
        assert!(forbids_unsafe("//! A crate.\n\n#![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("//! A crate.\n// #![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("//! A crate.\n#![deny(unsafe_code)]\n"));
    }

    #[test]
    fn files_open_with_their_purpose_and_end() {
        assert_eq!(file_faults("a.rs", &format!("//! A.\n{}", "\n".repeat(999))), [""; 0]);
        assert_eq!(
            file_faults("a.rs", &"\n".repeat(1001)),
            [
                "a.rs: does not open with `//!`, which says what the file is for",
                "a.rs: 1001 lines, at most 1000"
            ]
        );
    }
}
