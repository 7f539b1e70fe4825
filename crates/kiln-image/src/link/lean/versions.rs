//! Finds the functions that differ between the programs that a compiler made of the same modules
//! for several levels of a processor.
//!
//! Nodes have the same numbers in all programs, since the modules are the same. A body is compared
//! without what it refers to, as in `fold`; what it refers to must be the same node or name. So a
//! function that calls one that differs does not differ itself: it calls through a slot.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::{Linkage, SectionKind, SymbolKind};

use super::fold::content;
use super::nodes::{NodeId, Nodes, Reference};

/// A function with several bodies.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// For each level, the first level that has the same body.
    pub(super) bodies: Box<[u8]>,
    linkage: Linkage,
}

/// The functions with several bodies.
#[derive(Debug, Default)]
pub(super) struct Versions {
    of_node: HashMap<NodeId, Version, FastHash>,
    /// Their nodes, in order.
    pub(super) nodes: Vec<NodeId>,
}

/// The number of a module, and the reason why its programs cannot be joined.
pub(super) type Mismatch = (usize, &'static str);

impl Versions {
    /// Compares the programs.
    pub(super) fn find(levels: &[Nodes<'_>]) -> Result<Self, Mismatch> {
        let mut this = Self::default();
        let first = &levels[0];
        for (number, module) in first.modules.iter().enumerate() {
            for other in &levels[1..] {
                check_same(first, other, number).map_err(|what| (number, what))?;
            }
            // Such a module is not taken apart.
            if levels.iter().any(|nodes| nodes.modules[number].is_whole) {
                continue;
            }
            for node in (module.first..).take(module.functions().len()) {
                let Some(linkage) = linkage_of(first, number, node) else { continue };
                let hashes: Vec<_> = levels.iter().map(|nodes| body(nodes, number, node)).collect();
                let same = |hash| hashes.iter().position(|other| other == hash).unwrap_or_default() as u8;
                let bodies: Box<[u8]> = hashes.iter().map(same).collect();
                if bodies.iter().any(|level| *level > 0) {
                    this.of_node.insert(node, Version { bodies, linkage });
                    this.nodes.push(node);
                }
            }
        }
        Ok(this)
    }

    /// Whether a node has several bodies.
    pub(super) fn differs(&self, node: NodeId) -> bool {
        self.of_node.contains_key(&node)
    }

    /// Returns the level that has the body of a node for a level.
    pub(super) fn body(&self, node: NodeId, level: u8) -> u8 {
        self.of_node.get(&node).map_or(0, |version| version.bodies[usize::from(level)])
    }

    /// Returns the bodies of a node: for each level, the first that has the same one.
    pub(super) fn bodies(&self, node: NodeId) -> &[u8] {
        self.of_node.get(&node).map_or(&[], |version| &version.bodies)
    }

    /// Whether a node is known by a name outside of the program.
    pub(super) fn is_public(&self, node: NodeId) -> bool {
        let is_public = |version: &Version| matches!(version.linkage, Linkage::Export | Linkage::Replaceable);
        self.of_node.get(&node).is_some_and(is_public)
    }

    /// Whether a node is a function that the client may replace.
    pub(super) fn is_replaceable(&self, node: NodeId) -> bool {
        self.of_node.get(&node).is_some_and(|version| version.linkage == Linkage::Replaceable)
    }
}

/// Returns the linkage of a function that may have several bodies; `None` of one that may not: a
/// weak definition, which another may override, or one that is not in force.
fn linkage_of(nodes: &Nodes<'_>, module: usize, node: NodeId) -> Option<Linkage> {
    let mut symbols = nodes.modules[module].symbols_of(node);
    let (symbol, record) = symbols.next().filter(|_| symbols.next().is_none())?;
    let in_force = record.linkage() == Linkage::Local || nodes.is_definition(module, symbol);
    (in_force && record.linkage() != Linkage::Preemptible && record.kind() == SymbolKind::Function)
        .then(|| record.linkage())
}

/// Checks that a module has the same functions and data in two programs.
fn check_same(first: &Nodes<'_>, other: &Nodes<'_>, number: usize) -> Result<(), &'static str> {
    let (a, b) = (&first.modules[number], &other.modules[number]);
    fn name<'n>(nodes: &'n Nodes<'_>, number: usize, node: NodeId) -> Option<(&'n str, Linkage)> {
        let module = &nodes.modules[number];
        let (_, record) = module.symbols_of(node).next()?;
        Some((module.artifact.name(record), record.linkage()))
    }
    let functions = a.functions().len();
    if a.first != b.first || functions != b.functions().len() {
        return Err("it has other functions");
    }
    if (a.first..).take(functions).any(|node| name(first, number, node) != name(other, number, node)) {
        return Err("its functions have other names");
    }
    let places = |nodes: &Nodes<'_>| -> Vec<(SectionKind, u64, u64)> {
        let objects = &nodes.modules[number].objects;
        objects.iter().map(|object| (object.section, object.start, object.end)).collect()
    };
    let targets = |nodes: &Nodes<'_>| {
        let module = &nodes.modules[number];
        let objects = (module.first..).take(module.len()).skip(functions);
        objects.map(|node| references(nodes, number, node)).collect::<Vec<_>>()
    };
    let same = a.artifact.read_only() == b.artifact.read_only()
        && a.artifact.writable() == b.artifact.writable()
        && a.artifact.summary().zeroed_size == b.artifact.summary().zeroed_size
        && places(first) == places(other)
        && targets(first) == targets(other);
    if same { Ok(()) } else { Err("it has other data") }
}

/// Hashes a function with what it refers to.
fn body(nodes: &Nodes<'_>, module: usize, node: NodeId) -> [u8; 32] {
    let own = &nodes.modules[module];
    let function = own.function(node).expect("a function's node");
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content(own.artifact, function));
    hasher.update(&references(nodes, module, node));
    *hasher.finalize().as_bytes()
}

/// Returns what a node refers to, in bytes that are the same in all programs.
fn references(nodes: &Nodes<'_>, module: usize, node: NodeId) -> Vec<u8> {
    let artifact = nodes.modules[module].artifact;
    let mut bytes = Vec::new();
    nodes.references(node, |Reference { symbol, node, is_own, is_call }| {
        let record = &artifact.symbols()[symbol as usize];
        bytes.extend([u8::from(is_own), u8::from(is_call), record.kind, record.libcall]);
        match node {
            Some(node) => {
                bytes.push(1);
                bytes.extend(node.to_le_bytes());
                // The place in what is meant: code before it may be longer on other levels.
                if let Some(own) = nodes.modules[module].node_of(symbol) {
                    let inside = record.offset.get() - nodes.modules[module].start(own);
                    bytes.extend(inside.to_le_bytes());
                }
            }
            None => {
                let name = artifact.name(record);
                bytes.push(0);
                bytes.extend((name.len() as u64).to_le_bytes());
                bytes.extend_from_slice(name.as_bytes());
            }
        }
    });
    bytes
}
