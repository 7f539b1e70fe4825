//! One program of several: the same modules, compiled for several levels of a processor.
//!
//! Bodies that are equal are kept once, those of the first level. A function that differs has a
//! body for each level that has another one, and a slot, through which everyone calls it who is the
//! same on all levels; a body calls the bodies of its own level directly. The slot is that of a
//! replaceable function, so an exported name and every pointer are the address of a stub, and
//! `dlopen` finds the body of the first level in it. Who loads the image for another level writes
//! the slots of the functions that differ, and nothing else.
//!
//! Rejected: an indirect function (`STT_GNU_IFUNC`) costs a relocation and a call of a resolver for
//! each function, and loaders run code of the image to load it. Another image for each level makes
//! whoever ships choose, and holds what is equal as often.

use std::collections::BTreeSet;

use kiln_artifact::Artifact;

use super::super::error::LinkError;
use super::super::threads::{self, is_small};
use super::nodes::{NodeId, Nodes};
use super::order::{Part, Parts, cut};
use super::rebuild::{Alias, AliasKind, OfLevel, Rebuild};
use super::versions::Versions;
use crate::note::MAX_LEVELS;

/// A program for one level of a processor.
#[derive(Clone, Copy, Debug)]
pub struct Level<'a> {
    /// The name, such as `x86-64-v3`.
    pub name: &'a str,
    /// The modules, in the same order as those of other levels.
    pub artifacts: &'a [Artifact],
}

/// A program for several levels.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Levels {
    /// The artifacts to link: first the modules as they are for the lowest level, then the bodies
    /// that other levels have instead.
    pub artifacts: Vec<Artifact>,
    /// The number of the module that each artifact is a part of, for
    /// [`ImageOptions::module_numbers`](crate::ImageOptions::module_numbers).
    pub modules: Vec<u32>,
    /// The levels, and the bodies of functions, for
    /// [`ImageOptions::levels`](crate::ImageOptions::levels).
    pub table: LevelTable,
}

/// The levels of a program, and which bodies its functions have.
#[derive(Clone, Debug, Default)]
pub struct LevelTable {
    pub(crate) levels: Vec<LevelInfo>,
    /// The number of artifacts of the lowest level, which are the first.
    pub(crate) base: usize,
    pub(crate) functions: Vec<VersionedFunction>,
}

/// A level, and the features that its code may use.
#[derive(Clone, Debug)]
pub(crate) struct LevelInfo {
    pub(crate) name: Box<str>,
    pub(crate) features: Vec<Box<str>>,
}

/// A function with several bodies.
#[derive(Clone, Debug)]
pub(crate) struct VersionedFunction {
    /// The name of the symbol that has the slot.
    pub(crate) entry: Box<str>,
    /// Whether the client may replace it.
    pub(crate) is_replaceable: bool,
    /// For each level but the lowest, the name of the symbol at the body, if that is not the body
    /// of the lowest level.
    pub(crate) bodies: Vec<Option<Box<str>>>,
}

impl LevelTable {
    /// Returns the number of functions that have several bodies.
    pub fn functions(&self) -> usize {
        self.functions.len()
    }
}

/// Joins programs that were made of the same modules for several levels of a processor, the lowest
/// first: each level must have all features of those before it.
///
/// Weak definitions are those of the lowest level.
///
/// # Errors
///
/// Those about modules that do not fit together, with the numbers of the modules as they were
/// given, and [`LinkError::Levels`].
pub fn join_levels(levels: &[Level<'_>]) -> Result<Levels, Vec<LinkError>> {
    let wrong = |module, what| vec![LinkError::Levels { module, what }];
    let Some(first) = levels.first() else { return Ok(Levels::default()) };
    if levels.len() > MAX_LEVELS {
        return Err(wrong(None, "there are more than 64"));
    }
    if levels.iter().any(|level| level.artifacts.len() != first.artifacts.len()) {
        return Err(wrong(None, "they have other modules"));
    }
    if (1..levels.len()).any(|number| levels[..number].iter().any(|level| level.name == levels[number].name))
    {
        return Err(wrong(None, "one is given twice"));
    }
    let nodes = levels
        .iter()
        .map(|level| Nodes::resolve(level.artifacts).map(|(nodes, _)| nodes))
        .collect::<Result<Vec<_>, _>>()?;
    let versions = Versions::find(&nodes).map_err(|(module, what)| wrong(Some(module), what))?;
    let places: Vec<NodeId> = (0..nodes[0].count as u32).collect();
    let parts: Vec<Parts> =
        (0..).zip(&nodes).map(|(level, nodes)| parts_of(nodes, level, &versions, &places)).collect();
    let rebuilds = || {
        (0..).zip(levels.iter().zip(nodes.iter().zip(&parts))).map(|(level, (info, (nodes, parts)))| {
            let of = OfLevel { versions: &versions, level, name: info.name };
            Rebuild::of_level(nodes, parts, &places, Some(of))
        })
    };
    let mut aliases: BTreeSet<Alias> = rebuilds().flat_map(|rebuild| rebuild.wanted()).collect();
    for &node in &versions.nodes {
        if !versions.is_public(node) {
            aliases.insert(Alias { node, kind: AliasKind::Entry });
        }
        aliases.extend(versions.bodies(node).iter().map(|body| Alias { node, kind: AliasKind::Body(*body) }));
    }
    let mut result = Levels::default();
    for (rebuild, parts) in rebuilds().zip(&parts) {
        let rebuild = rebuild.with_aliases(aliases.clone());
        let parallel = !is_small(first.artifacts);
        let made = threads::map(parallel, parts.list.len(), |number| rebuild.artifact(&parts.list[number]));
        result.artifacts.extend(made.into_vec());
        result.modules.extend(parts.list.iter().map(|part| part.module as u32));
        if result.table.base == 0 {
            result.table.base = result.artifacts.len();
        }
    }
    result.table.levels = levels.iter().map(info).collect();
    result.table.functions =
        versions.nodes.iter().map(|node| function(&nodes[0], &versions, *node)).collect();
    Ok(result)
}

/// Returns the parts of the program of a level: all of the lowest, and of each other those bodies
/// that no level before it has.
fn parts_of(nodes: &Nodes<'_>, level: u8, versions: &Versions, places: &[NodeId]) -> Parts {
    if level == 0 {
        return cut(nodes, &[], &|_| true, places);
    }
    let mut list: Vec<Part> = Vec::new();
    let mut of_node = vec![u32::MAX; nodes.count];
    for &node in versions.nodes.iter().filter(|node| versions.body(**node, level) == level) {
        let module = nodes.module_of(node);
        match list.last_mut() {
            Some(part) if part.module == module => part.functions.push(node),
            _ => list.push(Part { module, functions: vec![node], objects: Vec::new() }),
        }
        of_node[node as usize] = list.len() as u32 - 1;
    }
    Parts { list, of_node, unknown: 0 }
}

fn info(level: &Level<'_>) -> LevelInfo {
    let features: BTreeSet<&str> = level.artifacts.iter().flat_map(Artifact::features).collect();
    LevelInfo { name: level.name.into(), features: features.into_iter().map(Box::from).collect() }
}

fn function(nodes: &Nodes<'_>, versions: &Versions, node: NodeId) -> VersionedFunction {
    let module = &nodes.modules[nodes.module_of(node)];
    let own = module.symbols_of(node).next().map_or("", |(_, record)| module.artifact.name(record));
    let entry = match versions.is_public(node) {
        true => own.into(),
        false => Alias { node, kind: AliasKind::Entry }.name().into(),
    };
    let body = |level: &u8| {
        let alias = Alias { node, kind: AliasKind::Body(*level) };
        (*level > 0).then(|| alias.name().into())
    };
    let bodies = versions.bodies(node).iter().skip(1).map(body).collect();
    VersionedFunction { entry, is_replaceable: versions.is_replaceable(node), bodies }
}
