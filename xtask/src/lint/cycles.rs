//! Finds cycles between the files of a crate. Files that depend on each other can only be
//! understood together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::references::{Graph, between_files};
use super::sources::Source;

/// Returns a shortest cycle for each group of files that depend on each other.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    let roots = sources.iter().filter(|source| is_root(source));
    roots.flat_map(|root| cycles(&between_files(sources, root))).collect()
}

/// Whether a file is the root of a crate that is not a test crate.
fn is_root(source: &Source) -> bool {
    let folders: Vec<&str> = source.path.split('/').collect();
    !source.is_test()
        && matches!(folders[..], [.., "src", "lib.rs" | "main.rs"] | ["benches" | "examples", _, "main.rs"])
}

fn cycles(graph: &Graph<'_>) -> Vec<String> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|&file| (file, reachable(graph, file))).collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut faults = Vec::new();
    for (&file, others) in &reached {
        // The files of a group reach each other. A file that is in no cycle does not reach itself,
        // so its group is empty.
        let group: Vec<&str> = others
            .iter()
            .copied()
            .filter(|&other| reached.get(other).is_some_and(|reached| reached.contains(file)))
            .collect();
        if seen.contains(file) || group.is_empty() {
            continue;
        }
        seen.extend(&group);
        let cycles = group.iter().filter_map(|&file| shortest_cycle(graph, file));
        faults.extend(cycles.min_by_key(Vec::len).map(|cycle| message(graph, &cycle, &group)));
    }
    faults
}

/// The files that a file needs, the files that those need, and so on.
fn reachable<'a>(graph: &Graph<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut queue = vec![from];
    while let Some(file) = queue.pop() {
        for &next in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next) {
                queue.push(next);
            }
        }
    }
    reached
}

/// Returns the shortest path from a file back to itself, with the file at both ends.
fn shortest_cycle<'a>(graph: &Graph<'a>, from: &'a str) -> Option<Vec<&'a str>> {
    let mut queue = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = queue.pop_front() {
        for &next in graph.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            let longer = [&way[..], &[next]].concat();
            if next == from {
                return Some(longer);
            }
            if seen.insert(next) {
                queue.push_back(longer);
            }
        }
    }
    None
}

/// The message for a cycle in a group of files.
fn message(graph: &Graph<'_>, cycle: &[&str], group: &[&str]) -> String {
    let (first, edges) = (cycle[0], cycle.windows(2).map(|edge| (edge[1], &graph[edge[0]][edge[1]])));
    let line = graph[first][cycle[1]].line;
    let chain: String = edges
        .map(|(to, reference)| format!(" → {to} ({}, line {})", reference.item, reference.line))
        .collect();
    let others = match group.len() + 1 - cycle.len() {
        0 => String::new(),
        others => format!("; {others} more in cycles with these: {}", outside(group, cycle).join(", ")),
    };
    format!("{first}:{line}: cycle of files: {first}{chain}{others}")
}

fn outside<'a>(group: &[&'a str], cycle: &[&str]) -> Vec<&'a str> {
    group.iter().copied().filter(|file| !cycle.contains(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::references::Reference;
    use super::super::sources::source;
    use super::*;

    fn graph(edges: &[(&'static str, &'static str)]) -> Graph<'static> {
        let mut graph = Graph::new();
        for (line, &(from, to)) in edges.iter().enumerate() {
            let reference = Reference { item: to.to_uppercase(), line: line + 1 };
            graph.entry(from).or_default().insert(to, reference);
        }
        graph
    }

    #[test]
    fn a_graph_without_cycles_has_no_faults() {
        assert_eq!(cycles(&graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])), [""; 0]);
    }

    #[test]
    fn one_shortest_cycle_of_each_group_is_shown() {
        assert_eq!(
            cycles(&graph(&[("a", "b"), ("b", "a"), ("c", "d"), ("a", "c"), ("d", "c")])),
            [
                "a:1: cycle of files: a → b (B, line 1) → a (A, line 2)",
                "c:3: cycle of files: c → d (D, line 3) → c (C, line 5)"
            ]
        );
        assert_eq!(
            cycles(&graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "b")])),
            ["b:2: cycle of files: b → c (C, line 2) → b (B, line 4); 1 more in cycles with these: a"]
        );
    }

    #[test]
    fn files_of_every_crate_are_read() {
        let files = |root: &str, folder: &str| {
            [
                source(root, "mod a;\nmod b;\n"),
                source(&format!("{folder}/a.rs"), "use crate::b::B;\npub struct A;\n"),
                source(&format!("{folder}/b.rs"), "pub struct B;\nfn f(_: crate::a::A) {}\n"),
            ]
        };
        for (root, folder) in [
            ("src/lib.rs", "src"),
            ("crates/x/src/lib.rs", "crates/x/src"),
            ("xtask/src/main.rs", "xtask/src"),
            ("benches/peers/main.rs", "benches/peers"),
        ] {
            let expected = format!(
                "{folder}/a.rs:1: cycle of files: {folder}/a.rs → {folder}/b.rs (B, line 1) → {folder}/a.rs (A, line 2)"
            );
            assert_eq!(faults(&files(root, folder)), [expected]);
        }
        assert_eq!(faults(&files("tests/suite/main.rs", "tests/suite")), [""; 0]);
    }
}
