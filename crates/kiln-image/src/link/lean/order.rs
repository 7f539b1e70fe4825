//! Cuts modules into parts, so that functions stand in the order of a profile.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::SectionKind;

use super::nodes::{NodeId, Nodes};

/// A part of a module, which becomes an artifact.
pub(super) struct Part {
    pub(super) module: usize,
    /// Its functions, in the order of their code.
    pub(super) functions: Vec<NodeId>,
    /// Its data objects. All of a module's are in its last part.
    pub(super) objects: Vec<NodeId>,
}

/// The parts of a program, in order.
pub(super) struct Parts {
    pub(super) list: Vec<Part>,
    /// The part of each node that is kept.
    pub(super) of_node: Vec<u32>,
    /// The number of names of the order that no function has.
    pub(super) unknown: usize,
}

/// Cuts the modules. Functions of the order come first; those that follow each other in it and are
/// of one module are one part. The rest of each module is one part, in order of modules. Only nodes
/// that are `kept` and whose place is not taken by another are in parts.
pub(super) fn cut(
    nodes: &Nodes<'_>,
    order: &[Box<str>],
    kept: &dyn Fn(NodeId) -> bool,
    places: &[NodeId],
) -> Parts {
    let (hot, unknown) = ordered(nodes, order, kept, places);
    let mut is_hot = vec![false; nodes.count];
    let mut list: Vec<Part> = Vec::new();
    for node in hot {
        is_hot[node as usize] = true;
        let module = nodes.module_of(node);
        match list.last_mut() {
            Some(part) if part.module == module => part.functions.push(node),
            _ => list.push(Part { module, functions: vec![node], objects: Vec::new() }),
        }
    }
    for (number, module) in nodes.modules.iter().enumerate() {
        let own = (module.first..).take(module.len());
        let here =
            own.filter(|node| kept(*node) && places[*node as usize] == *node && !is_hot[*node as usize]);
        let (functions, objects): (Vec<_>, Vec<_>) = here.partition(|node| module.function(*node).is_some());
        if !functions.is_empty() || !objects.is_empty() {
            list.push(Part { module: number, functions, objects });
        }
    }
    let mut of_node = vec![u32::MAX; nodes.count];
    for (number, part) in (0..).zip(&list) {
        part.functions.iter().chain(&part.objects).for_each(|node| of_node[*node as usize] = number);
    }
    Parts { list, of_node, unknown }
}

/// Returns the functions that the order names, each once, and the number of names of no function.
fn ordered(
    nodes: &Nodes<'_>,
    order: &[Box<str>],
    kept: &dyn Fn(NodeId) -> bool,
    places: &[NodeId],
) -> (Vec<NodeId>, usize) {
    let mut wanted: HashMap<&str, usize, FastHash> = HashMap::default();
    for (rank, name) in order.iter().enumerate() {
        wanted.entry(name).or_insert(rank);
    }
    let mut found: Vec<Vec<NodeId>> = vec![Vec::new(); order.len()];
    let mut known = vec![false; order.len()];
    if !order.is_empty() {
        for module in &nodes.modules {
            for (symbol, record) in (0..).zip(module.artifact.symbols()) {
                if record.section() != SectionKind::Text {
                    continue;
                }
                let Some(&rank) = wanted.get(module.artifact.name(record)) else { continue };
                known[rank] = true;
                let Some(node) = module.node_of(symbol).filter(|node| kept(*node)) else { continue };
                let place = places[node as usize];
                if !nodes.modules[nodes.module_of(place)].is_whole {
                    found[rank].push(place);
                }
            }
        }
    }
    let mut seen = vec![false; nodes.count];
    let mut hot: Vec<NodeId> = found.into_iter().flatten().collect();
    hot.retain(|node| !std::mem::replace(&mut seen[*node as usize], true));
    // A name that is repeated counts once.
    let unknown = wanted.values().filter(|rank| !known[**rank]).count();
    (hot, unknown)
}
