//! Symbol resolution: from names to entities.
//!
//! An *entity* is what a symbol means after resolution: one per local symbol, per visible name, and per key. Names are
//! hashed here and nowhere else; afterwards everything is an index. Invariant: entities are numbered in order of module
//! and symbol, so nothing depends on the order of a hash map, which is only ever asked for one key.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState as FastHash;

use kiln_artifact::record::{Linkage, SectionKind, SymbolKind, SymbolRecord};
use kiln_artifact::{Artifact, signatures_agree};
use kiln_globals::{GlobalTable, SlotKey};
use rayon::prelude::*;

use super::sections::{Bound, Sections};
use super::{ExternalDefinition, LinkError};

/// "None" for an index.
pub(crate) const NONE: u32 = u32::MAX;

/// Where an entity's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// Defined by symbol `symbol` of module `module`.
    Defined { module: u32, symbol: u32 },
    /// An end of the named section with this number.
    Section { section: u32, bound: Bound },
    /// Known before linking.
    Address(u64),
    /// Only its slot is known, and that exists before linking, at this address.
    KnownSlot(u64),
    /// Only its slot is known, and that is ours.
    Outside,
}

/// What a symbol means, after resolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entity {
    pub(crate) home: Home,
    /// A symbol that stands for it, to find its name: that of its definition or first use.
    pub(crate) module: u32,
    pub(crate) symbol: u32,
    /// Its slot's number in the slot array.
    pub(crate) slot: u32,
    /// Its stub's number.
    pub(crate) stub: u32,
}

/// The result: entities, and the entity of every symbol of every module.
pub(crate) struct Resolved {
    pub(crate) entities: Vec<Entity>,
    pub(crate) entity_of: Vec<Vec<u32>>,
    /// Entities of the keys that need a slot, in slot order; [`NONE`] where no module uses a key of the table.
    pub(crate) keys: Vec<(SlotKey, u32)>,
}

pub(crate) fn resolve(
    artifacts: &[Artifact],
    table: &GlobalTable,
    known: &dyn Fn(&SlotKey) -> Option<ExternalDefinition>,
    sections: &mut Sections<'_>,
    errors: &mut Vec<LinkError>,
) -> Resolved {
    let mut entities: Vec<Entity> = Vec::new();
    let mut entity_of = Vec::with_capacity(artifacts.len());
    let symbols = artifacts.iter().map(|artifact| artifact.symbols().len()).sum();
    let mut names: HashMap<&str, u32, FastHash> =
        HashMap::with_capacity_and_hasher(symbols, FastHash::default());
    let mut libcalls: HashMap<&str, u32, FastHash> = HashMap::default();
    let mut keys: Vec<(SlotKey, u32)> = table.keys().map(|key| (SlotKey::Global(key.into()), NONE)).collect();
    let mut globals: HashMap<&str, u32> = HashMap::new();

    for (module, artifact) in artifacts.iter().enumerate() {
        let mut map = Vec::with_capacity(artifact.symbols().len());
        for (number, symbol) in artifact.symbols().iter().enumerate() {
            let next = entities.len() as u32;
            let (module, number) = (module as u32, number as u32);
            let defined = Home::Defined { module, symbol: number };
            let fresh = |home| Entity { home, module, symbol: number, slot: NONE, stub: NONE };
            if symbol.linkage() == Linkage::Local {
                entities.push(fresh(defined));
                map.push(next);
                continue;
            }
            let name = artifact.name(symbol);
            if symbol.kind() == SymbolKind::Global {
                let entity = *globals.entry(name).or_insert(next);
                if entity == next {
                    let key = SlotKey::Global(name.into());
                    let home = known(&key).map_or(Home::Outside, Home::from);
                    entities.push(fresh(home));
                    match table.get(name) {
                        Some(id) => keys[id.index()].1 = entity,
                        None if home == Home::Outside => keys.push((key, entity)),
                        None => {}
                    }
                }
                map.push(entity);
                continue;
            }
            if name.contains('\0') {
                errors.push(LinkError::NameWithZero { module: module as usize, name: name.into() });
            }
            // A routine that the code generator asked for is the C library's, whatever modules call by that name.
            let names = if symbol.libcall == 0 { &mut names } else { &mut libcalls };
            let entity = *names.entry(name).or_insert(next);
            map.push(entity);
            if entity == next {
                entities.push(fresh(if symbol.is_defined() { defined } else { Home::Outside }));
                continue;
            }
            if !symbol.is_defined() {
                continue;
            }
            let old = &mut entities[entity as usize];
            if let Home::Defined { module: first, symbol: at } = old.home {
                let weak = |linkage| linkage == Linkage::Preemptible;
                let old_symbol: &SymbolRecord = &artifacts[first as usize].symbols()[at as usize];
                match (weak(old_symbol.linkage()), weak(symbol.linkage())) {
                    (_, true) => continue,
                    (true, false) => {}
                    (false, false) => {
                        errors.push(LinkError::DuplicateDefinition {
                            name: name.into(),
                            first: first as usize,
                            second: module as usize,
                        });
                        continue;
                    }
                }
            }
            *old = fresh(defined);
        }
        entity_of.push(map);
    }
    for entity in &mut entities {
        let artifact = &artifacts[entity.module as usize];
        let symbol = &artifact.symbols()[entity.symbol as usize];
        if symbol.kind() == SymbolKind::Global {
            continue;
        }
        // What is known outside this link wins over a definition that gives way.
        let asked = match entity.home {
            Home::Outside => true,
            Home::Defined { .. } => symbol.linkage() == Linkage::Preemptible,
            Home::Section { .. } | Home::Address(_) | Home::KnownSlot(_) => false,
        };
        if asked {
            entity.home = match known(&SlotKey::Symbol(artifact.name(symbol).into())) {
                Some(ExternalDefinition::Address(_)) if symbol.libcall != 0 => entity.home,
                Some(known) => Home::from(known),
                None => entity.home,
            };
        }
        // A bound of a section gives way to everything else of its name.
        if entity.home == Home::Outside
            && symbol.libcall == 0
            && let Some((section, bound)) = sections.bound(artifact.name(symbol))
        {
            entity.home = Home::Section { section, bound };
        }
    }
    check_types(artifacts, &entities, &entity_of, sections, errors);
    Resolved { entities, entity_of, keys }
}

impl From<ExternalDefinition> for Home {
    fn from(known: ExternalDefinition) -> Self {
        match known {
            ExternalDefinition::Address(address) => Self::Address(address),
            ExternalDefinition::Slot(address) => Self::KnownSlot(address),
        }
    }
}

/// Every use of a defined name agrees with its definition.
fn check_types(
    artifacts: &[Artifact],
    entities: &[Entity],
    entity_of: &[Vec<u32>],
    sections: &Sections<'_>,
    errors: &mut Vec<LinkError>,
) {
    let modules = artifacts.par_iter().zip(entity_of).enumerate();
    let found: Vec<Vec<LinkError>> = modules
        .map(|(importer, (artifact, map))| {
            check_types_of(importer, artifact, artifacts, entities, map, sections)
        })
        .collect();
    errors.extend(found.into_iter().flatten());
}

fn check_types_of(
    importer: usize,
    artifact: &Artifact,
    artifacts: &[Artifact],
    entities: &[Entity],
    map: &[u32],
    sections: &Sections<'_>,
) -> Vec<LinkError> {
    let mut errors = Vec::new();
    // Reading signatures takes longer than comparing their texts.
    let mut compatible: HashSet<(&str, &str)> = HashSet::new();
    for (symbol, &entity) in artifact.symbols().iter().zip(map) {
        if matches!(symbol.linkage(), Linkage::Local) || symbol.kind() != SymbolKind::Function {
            continue;
        }
        let name = || artifact.name(symbol).into();
        let (definer, at) = match entities[entity as usize].home {
            Home::Defined { module, symbol } => (module as usize, symbol as usize),
            Home::Section { section, .. } => {
                let definer = sections.list[section as usize].info.module;
                errors.push(LinkError::KindConflict { name: name(), importer, definer });
                continue;
            }
            _ => continue,
        };
        let definition = &artifacts[definer].symbols()[at];
        if definition.section() != SectionKind::Text {
            errors.push(LinkError::KindConflict { name: name(), importer, definer });
            continue;
        }
        let import = symbol.signature().and_then(|index| artifact.signature(index));
        let defined = definition.signature().and_then(|index| artifacts[definer].signature(index));
        let (Some(import), Some(defined)) = (import, defined) else { continue };
        if import == defined || compatible.contains(&(import, defined)) {
            continue;
        }
        if signatures_agree(import, defined) {
            compatible.insert((import, defined));
        } else {
            errors.push(LinkError::SignatureConflict {
                name: name(),
                importer,
                import_signature: import.into(),
                definer,
                definition_signature: defined.into(),
            });
        }
    }
    errors
}
