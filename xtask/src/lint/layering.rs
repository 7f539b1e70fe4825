//! Compares the dependencies between crates with the table of layers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::rules::{Cranelift, LAYERS};
use crate::develop::metadata;
use crate::output::Failure;

/// Normal dependencies by package name, for every package of the build.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Returns the dependencies that the table does not allow, and the crates that are in the table
/// or in the workspace, but not in both.
pub(super) fn faults() -> Result<Vec<String>, Failure> {
    let graph =
        graph(&metadata(&[])?).ok_or_else(|| Failure::new("cargo metadata has no dependency graph"))?;
    Ok(compare(&graph))
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

fn compare(graph: &Graph) -> Vec<String> {
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

/// Returns a chain of dependencies from a crate to Cranelift, if there is one.
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
        assert_eq!(compare(&with(&[])), Vec::<String>::new());
        assert_eq!(
            compare(&with(&[("kiln-globals", "kiln-artifact"), ("kiln-ir", "kiln")])),
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
            compare(&graph),
            [
                "layering: crate kiln-new is not in the table",
                "layering: crate kiln-jit of the table does not exist"
            ]
        );
    }

    #[test]
    fn cranelift_is_found_through_others() {
        let graph = with(&[("kiln-cache", "a"), ("a", "b"), ("b", "a"), ("b", "cranelift-entity")]);
        assert_eq!(
            compare(&graph),
            [
                "layering: kiln-cache must not reach Cranelift, but does: kiln-cache -> a -> b -> cranelift-entity",
                "layering: kiln-farm must not reach Cranelift, but does: \
                 kiln-farm -> kiln-cache -> a -> b -> cranelift-entity",
                "layering: kiln-remote must not reach Cranelift, but does: \
                 kiln-remote -> kiln-cache -> a -> b -> cranelift-entity"
            ]
        );
        assert_eq!(reaches_cranelift(&graph, "kiln-image"), None);
    }

    #[test]
    fn only_normal_dependencies_are_edges() {
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
}
