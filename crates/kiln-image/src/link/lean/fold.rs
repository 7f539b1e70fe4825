//! Finds functions that are equal: the same bytes, tables and targets.
//!
//! Functions that call each other are equal if their targets are, so the search begins with the
//! assumption that all functions with the same bytes and tables are equal, and separates those with
//! targets that are not, until nothing changes. (This is the refinement of partitions by which
//! finite automata are minimized.)

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::{Linkage, SymbolKind};
use kiln_artifact::{Artifact, Table};

use super::nodes::{NodeId, Nodes, part, returns};

/// A hash of everything that equal functions share, but for their targets.
pub(super) type ContentHash = [u8; 32];

/// A function that may be equal to others.
struct Candidate {
    node: NodeId,
    content: ContentHash,
    /// The node of each target, or the resolved symbol of what no module defines.
    targets: Vec<Result<NodeId, u32>>,
}

/// Returns, for each node, the node that takes its place: itself, unless it is equal to a function
/// that comes first or that must stay, and its address cannot be seen. Nodes that are not `kept` do
/// not count.
pub(super) fn fold(nodes: &Nodes<'_>, kept: &dyn Fn(NodeId) -> bool) -> Vec<NodeId> {
    let candidates = candidates(nodes, kept);
    let classes = classes(nodes, &candidates);
    let seen = seen_addresses(nodes, kept);
    let mut places: Vec<NodeId> = (0..nodes.count as u32).collect();
    // The first function of each class whose address can be seen, or else the first.
    let mut first: HashMap<u32, NodeId, FastHash> = HashMap::default();
    for candidate in &candidates {
        let class = classes[candidate.node as usize];
        let known = first.entry(class).or_insert(candidate.node);
        if !seen[*known as usize] && seen[candidate.node as usize] {
            *known = candidate.node;
        }
    }
    for candidate in &candidates {
        if !seen[candidate.node as usize] {
            places[candidate.node as usize] = first[&classes[candidate.node as usize]];
        }
    }
    places
}

fn candidates(nodes: &Nodes<'_>, kept: &dyn Fn(NodeId) -> bool) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for module in nodes.modules.iter().filter(|module| !module.is_whole) {
        for (function, record) in module.functions().iter().enumerate() {
            let node = module.first + function as u32;
            let mut own = module.symbols_of(node);
            // A symbol inside of a function would lose its place.
            let is_plain = own.all(|(_, symbol)| {
                symbol.offset.get() == record.start.get().into() && symbol.linkage() != Linkage::Replaceable
            });
            if !kept(node) || !is_plain || record.len.get() == 0 {
                continue;
            }
            let mut targets = Vec::new();
            let number = nodes.module_of(node);
            nodes.references(node, |reference| {
                let id = nodes.symbols.of_module(number)[reference.symbol as usize];
                targets.push(reference.node.ok_or(id.index() as u32));
            });
            candidates.push(Candidate { node, content: content(module.artifact, function), targets });
        }
    }
    candidates
}

/// Hashes a function without its targets.
pub(super) fn content(artifact: &Artifact, function: usize) -> ContentHash {
    let record = &artifact.functions()[function];
    let (start, len) = (record.start.get(), record.len.get());
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let mut text = artifact.text()[start as usize..][..len as usize].to_vec();
    let calls = part(artifact.resolved_calls(), record, |call| call.offset.get().into());
    for call in calls {
        let (at, width) = ((call.offset.get() - start) as usize, call.kind().width());
        text[at..at + width].copy_from_slice(&call.original[..width]);
    }
    add(&text);
    let number = |value: u32| value.to_le_bytes();
    for call in calls {
        add(&number(call.offset.get() - start));
        add(&[call.kind, 1]);
        add(&call.addend.get().to_le_bytes());
    }
    for reloc in part(artifact.text_relocs(), record, |reloc| reloc.offset.get()) {
        add(&(reloc.offset.get() - u64::from(start)).to_le_bytes());
        add(&[reloc.kind, 0, reloc.flags]);
        add(&reloc.addend.get().to_le_bytes());
    }
    let rows = &artifact.unwind()[record.unwind_start.get() as usize..][..record.unwind_len.get() as usize];
    add(rows);
    add(if rows.is_empty() { &[] } else { artifact.cie() });
    add(artifact.stream_of(function, Table::Traps));
    add(artifact.stream_of(function, Table::CallSites));
    for handler in artifact.handlers_of(function) {
        add(&number(handler.value.get()));
        add(&number(handler.target.get().wrapping_sub(start)));
        add(&[handler.kind]);
    }
    for map in returns(artifact.stack_maps(), start, len, |map| map.return_offset.get()) {
        add(&number(map.return_offset.get() - start));
        add(&number(map.span.get()));
        let entries = &artifact.stack_map_entries()[map.entries_start.get() as usize..];
        for entry in &entries[..map.entries_len.get() as usize] {
            add(&number(entry.offset.get()));
            add(&number(entry.size.get()));
        }
    }
    for call in returns(artifact.patchable_calls(), start, len, |call| call.end.get()) {
        add(&number(call.end.get() - start));
        add(&number(call.len.get()));
    }
    add(&number(record.align.get()));
    let symbol = &artifact.symbols()[record.symbol.get() as usize];
    add(symbol.signature().and_then(|index| artifact.signature(index)).unwrap_or("-").as_bytes());
    *hasher.finalize().as_bytes()
}

/// Returns the class of each candidate, by node.
fn classes(nodes: &Nodes<'_>, candidates: &[Candidate]) -> Vec<u32> {
    const OTHER: u32 = u32::MAX;
    let mut classes = vec![OTHER; nodes.count];
    let mut numbers: HashMap<ContentHash, u32, FastHash> = HashMap::default();
    for candidate in candidates {
        let next = numbers.len() as u32;
        classes[candidate.node as usize] = *numbers.entry(candidate.content).or_insert(next);
    }
    let mut count = numbers.len();
    loop {
        let mut numbers: HashMap<Vec<u64>, u32, FastHash> = HashMap::default();
        let mut refined = classes.clone();
        for candidate in candidates {
            let target = |target: &Result<NodeId, u32>| match *target {
                Ok(node) if classes[node as usize] != OTHER => u64::from(classes[node as usize]),
                Ok(node) => 1 << 32 | u64::from(node),
                Err(symbol) => 2 << 32 | u64::from(symbol),
            };
            let own = u64::from(classes[candidate.node as usize]);
            let key = std::iter::once(own).chain(candidate.targets.iter().map(target)).collect();
            let next = numbers.len() as u32;
            refined[candidate.node as usize] = *numbers.entry(key).or_insert(next);
        }
        let refined_count = numbers.len();
        classes = refined;
        // A refinement never joins classes.
        if refined_count == count {
            return classes;
        }
        count = refined_count;
    }
}

/// Returns whether the address of each node can be seen, by the program or by others.
fn seen_addresses(nodes: &Nodes<'_>, kept: &dyn Fn(NodeId) -> bool) -> Vec<bool> {
    let mut seen = vec![false; nodes.count];
    for (number, module) in nodes.modules.iter().enumerate() {
        for (symbol, record) in (0..).zip(module.artifact.symbols()) {
            if let Some(node) = module.node_of(symbol) {
                let is_private = matches!(record.linkage(), Linkage::Local | Linkage::Hidden);
                seen[node as usize] |= !is_private || record.kind() != SymbolKind::Function;
                seen[node as usize] |= !is_private && nodes.is_exported(number, symbol, record);
            }
        }
        for node in (module.first..).take(module.len()).filter(|node| kept(*node)) {
            nodes.references(node, |reference| {
                if let Some(target) = reference.node.filter(|_| !reference.is_call) {
                    seen[target as usize] = true;
                }
            });
        }
    }
    seen
}
