//! Marks what roots reach, breadth first, so that the way from a root to a node is a shortest one.

use std::collections::VecDeque;

use kiln_globals::THREAD_LOCAL_SECTION;

use super::super::definitions::Definitions;
use super::super::error::LinkError;
use super::nodes::{NodeId, Nodes};
use super::options::Roots;

/// The reason why a node is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is a root: it is exported, or was named.
    Root,
    /// It is in a named section, which the host may read.
    Section,
    /// Its module is kept whole.
    Whole,
    /// A node that is kept refers to it.
    Node(NodeId),
}

/// Returns why each node is kept; `None` for those that are not.
pub(super) fn mark(
    nodes: &Nodes<'_>,
    definitions: &Definitions,
    roots: &Roots,
) -> Result<Vec<Option<Reason>>, Vec<LinkError>> {
    let mut reasons = vec![None; nodes.count];
    let mut queue = VecDeque::new();
    let keep = |reasons: &mut Vec<Option<Reason>>, queue: &mut VecDeque<NodeId>, node: NodeId, reason| {
        if reasons[node as usize].is_none() {
            reasons[node as usize] = Some(reason);
            queue.push_back(node);
        }
    };
    let mut errors = Vec::new();
    match roots {
        Roots::Names(names) => {
            for name in names {
                let place = definitions.find(nodes.artifacts, name);
                let node = place.and_then(|(module, symbol)| nodes.modules[module as usize].node_of(symbol));
                match node {
                    Some(node) => keep(&mut reasons, &mut queue, node, Reason::Root),
                    None => errors.push(LinkError::UnknownRoot { name: name.clone() }),
                }
            }
        }
        Roots::Exports => {
            for (number, module) in nodes.modules.iter().enumerate() {
                for (symbol, record) in (0..).zip(module.artifact.symbols()) {
                    if nodes.is_exported(number, symbol, record)
                        && let Some(node) = module.node_of(symbol)
                    {
                        keep(&mut reasons, &mut queue, node, Reason::Root);
                    }
                }
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    for module in &nodes.modules {
        for node in (module.first..).take(module.len()) {
            // Nobody but code reads the initial content of thread-local data.
            let is_read = |run: u32| {
                let run = &module.artifact.named_data()[run as usize];
                module.artifact.section_name(run) != THREAD_LOCAL_SECTION
            };
            let is_run = || module.function(node).is_none() && module.object(node).run.is_some_and(is_read);
            if module.is_whole {
                keep(&mut reasons, &mut queue, node, Reason::Whole);
            } else if is_run() {
                keep(&mut reasons, &mut queue, node, Reason::Section);
            }
        }
    }
    while let Some(node) = queue.pop_front() {
        nodes.references(node, |reference| {
            if let Some(target) = reference.node {
                keep(&mut reasons, &mut queue, target, Reason::Node(node));
            }
        });
    }
    Ok(reasons)
}
