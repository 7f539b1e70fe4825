//! [`lean`]: the steps, and their result.

use kiln_artifact::Artifact;
use kiln_artifact::record::SectionKind;

use super::super::error::LinkError;
use super::super::threads::{self, is_small};
use super::fold::fold;
use super::nodes::{NodeId, Nodes};
use super::options::LeanOptions;
use super::order::cut;
use super::reach::{Reason, mark};
use super::rebuild::Rebuild;

/// A leaner program.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Lean {
    /// The artifacts to link: one for each part of a module that is left, in order. A module is one
    /// part unless its functions were ordered.
    pub artifacts: Vec<Artifact>,
    /// The number of the module that each artifact is a part of, for
    /// [`ImageOptions::module_numbers`](crate::ImageOptions::module_numbers).
    pub modules: Vec<u32>,
    /// The number and the bytes of functions that were left out because nothing reaches them.
    pub dropped_functions: (usize, u64),
    /// The number and the bytes of data objects that were left out.
    pub dropped_data: (usize, u64),
    /// The number and the bytes of functions in whose places others are.
    pub folded_functions: (usize, u64),
    /// The number of names in the order that no function has.
    pub unknown_names: usize,
    /// Why everything is kept; empty if nothing was left out.
    chains: Chains,
}

/// The reasons why nodes are kept.
#[derive(Clone, Debug, Default)]
struct Chains {
    /// The module and the name of each node.
    nodes: Vec<(u32, Box<str>)>,
    reasons: Vec<Option<Reason>>,
    /// The names of all definitions, sorted, with their nodes.
    names: Vec<(Box<str>, NodeId)>,
}

/// A step of the way from a root to something that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// A function or data object is a root: it is exported, or its name was given.
    Root {
        /// The name.
        name: Box<str>,
        /// The number of its module.
        module: usize,
    },
    /// Data is in a named section, which the host may read.
    Section {
        /// The name of data in it; may be empty.
        name: Box<str>,
        /// The number of its module.
        module: usize,
    },
    /// A module with veneers is kept whole.
    Whole {
        /// The name of a function or data object of it.
        name: Box<str>,
        /// The number of the module.
        module: usize,
    },
    /// A function or data object to which that of the step before refers.
    Referred {
        /// The name; empty if it has none.
        name: Box<str>,
        /// The number of its module.
        module: usize,
    },
}

impl Lean {
    /// Makes the result of a program that stays as it is.
    pub fn unchanged(artifacts: Vec<Artifact>) -> Self {
        let modules = (0..artifacts.len() as u32).collect();
        Self { artifacts, modules, ..Self::default() }
    }

    /// Returns the ways from roots to what has this name, each a shortest one: to each definition
    /// of the name that is kept, in order of modules. Each begins with a root. `None` if no module
    /// defines the name; empty if nothing keeps it.
    ///
    /// There are no ways unless roots were given.
    pub fn why_kept(&self, name: &str) -> Option<Vec<Vec<Kept>>> {
        let names = &self.chains.names;
        let from = names.partition_point(|(own, _)| **own < *name);
        let to = names.partition_point(|(own, _)| **own <= *name);
        let kept = |node: &NodeId| self.chains.reasons[*node as usize].is_some();
        let found = names[from..to].iter().map(|(_, node)| *node);
        (from < to).then(|| found.filter(kept).map(|node| self.chains.way(node)).collect())
    }
}

impl Chains {
    fn new(nodes: &Nodes<'_>, reasons: Vec<Option<Reason>>) -> Self {
        let mut list = vec![(0, Box::default()); nodes.count];
        let mut names = Vec::new();
        for (number, module) in nodes.modules.iter().enumerate() {
            for node in (module.first..).take(module.len()) {
                list[node as usize].0 = number as u32;
                for (_, record) in module.symbols_of(node) {
                    let name = module.artifact.name(record);
                    if !name.is_empty() {
                        names.push((name.into(), node));
                        list[node as usize].1 = name.into();
                    }
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Self { nodes: list, reasons, names }
    }

    /// Returns the way to a node that is kept.
    fn way(&self, mut node: NodeId) -> Vec<Kept> {
        let mut way = Vec::new();
        loop {
            let (module, name) = &self.nodes[node as usize];
            let (module, name) = (*module as usize, name.clone());
            let next = match self.reasons[node as usize] {
                Some(Reason::Node(next)) => {
                    way.push(Kept::Referred { name, module });
                    next
                }
                reason => {
                    way.push(match reason {
                        Some(Reason::Section) => Kept::Section { name, module },
                        Some(Reason::Whole) => Kept::Whole { name, module },
                        _ => Kept::Root { name, module },
                    });
                    way.reverse();
                    return way;
                }
            };
            node = next;
        }
    }
}

/// Makes a program leaner before it is linked. The result does what the modules do, and depends on
/// them, their order and the options only.
///
/// The globals that are left may be fewer, so make the table of
/// [`Artifact::globals`](kiln_artifact::Artifact::globals) of the result if the image is to have
/// slots for no others.
///
/// ```
/// use kiln_image::link::{LeanOptions, Roots, lean};
/// use kiln_image::{ImageOptions, write_image};
///
/// # let artifacts = [];
/// let roots = Some(Roots::Exports);
/// let lean = lean(&artifacts, &LeanOptions { roots, fold: true, ..LeanOptions::default() });
/// let lean = lean.expect("the modules fit together");
/// let options = ImageOptions { module_numbers: lean.modules, ..ImageOptions::default() };
/// # let table = kiln_globals::GlobalTable::new();
/// let image = write_image(&lean.artifacts, &table, &options);
/// # assert!(image.is_ok());
/// ```
///
/// # Errors
///
/// Those about modules that do not fit together, with the numbers of the modules as they were
/// given, and [`LinkError::UnknownRoot`].
pub fn lean(artifacts: &[Artifact], options: &LeanOptions) -> Result<Lean, Vec<LinkError>> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("lean").entered();
    let parallel = !is_small(artifacts);
    let (nodes, definitions) = Nodes::resolve(artifacts)?;
    let reasons = match &options.roots {
        Some(roots) => mark(&nodes, &definitions, roots)?,
        None => Vec::new(),
    };
    let kept = |node: NodeId| reasons.get(node as usize).is_none_or(Option::is_some);
    let places = match options.fold {
        true => fold(&nodes, &kept),
        false => (0..nodes.count as u32).collect(),
    };
    let parts = cut(&nodes, &options.order, &kept, &places);
    let mut result = Lean { unknown_names: parts.unknown, ..Lean::default() };
    result.count(&nodes, &kept, &places);
    let rebuild = Rebuild::new(&nodes, &parts, &places);
    let artifacts = threads::map(parallel, parts.list.len(), |number| rebuild.artifact(&parts.list[number]));
    result.artifacts = artifacts.into_vec();
    result.modules = parts.list.iter().map(|part| part.module as u32).collect();
    if options.roots.is_some() {
        result.chains = Chains::new(&nodes, reasons);
    }
    Ok(result)
}

impl Lean {
    /// Counts what is left out.
    fn count(&mut self, nodes: &Nodes<'_>, kept: &dyn Fn(NodeId) -> bool, places: &[NodeId]) {
        let add =
            |(count, bytes): &mut (usize, u64), more: u64| (*count, *bytes) = (*count + 1, *bytes + more);
        for module in &nodes.modules {
            for node in (module.first..).take(module.len()) {
                match module.function(node).map(|number| u64::from(module.functions()[number].len.get())) {
                    Some(len) if !kept(node) => add(&mut self.dropped_functions, len),
                    Some(len) if places[node as usize] != node => add(&mut self.folded_functions, len),
                    None if !kept(node) => {
                        let object = module.object(node);
                        debug_assert!(object.section != SectionKind::Text);
                        add(&mut self.dropped_data, object.end - object.start);
                    }
                    _ => {}
                }
            }
        }
    }
}
