//! Phase `types`: checks that every use of a function agrees with its definition.

use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SectionKind, SymbolKind, SymbolRecord};

use super::agreement::{Agreement, Agreements};
use super::definitions::is_shared_definition;
use super::error::LinkError;
use super::lists::PerModule;
use super::resolve::{Resolution, Resolved};
use super::threads;
use super::users::Users;

/// Checks that modules declare functions with the types of their definitions. The errors are in
/// order of module and symbol.
pub(super) fn check_types(
    artifacts: &[Artifact],
    resolved: &Resolved<'_>,
    parallel: bool,
) -> impl Iterator<Item = LinkError> {
    // A definition that is the only one of its name agrees with itself.
    let is_only = |symbol: &SymbolRecord| {
        let is_strong = matches!(symbol.linkage(), Linkage::Export | Linkage::Hidden);
        let is_plain = symbol.kind() == SymbolKind::Data || symbol.section() == SectionKind::Text;
        resolved.are_unique && is_strong && is_shared_definition(symbol) && is_plain
    };
    let is_use = |symbol: &SymbolRecord| symbol.linkage() != Linkage::Local && !is_only(symbol);
    let has_uses: PerModule<bool> =
        artifacts.iter().map(|artifact| artifact.symbols().iter().any(is_use)).collect();
    let check = |module: usize| match has_uses[module] {
        true => check_module(module, artifacts, resolved),
        false => Vec::new(),
    };
    let used = artifacts.iter().zip(&has_uses).filter(|(_, has_uses)| **has_uses);
    let parallel = parallel && threads::are_many(used.map(|(artifact, _)| artifact.symbols().len()));
    threads::map(parallel, artifacts.len(), check).into_iter().flatten()
}

fn check_module(importer: usize, artifacts: &[Artifact], resolved: &Resolved<'_>) -> Vec<LinkError> {
    let artifact = &artifacts[importer];
    let mut errors = Vec::new();
    let mut agreements = Agreements::default();
    let users = Users::new(artifact);
    for (number, (symbol, &id)) in
        artifact.symbols().iter().zip(resolved.symbols.of_module(importer)).enumerate()
    {
        let is_function = symbol.kind() == SymbolKind::Function;
        let is_overridable_data =
            symbol.kind() == SymbolKind::Data && symbol.linkage() == Linkage::Preemptible;
        if symbol.linkage() == Linkage::Local || !(is_function || is_overridable_data) {
            continue;
        }
        let name = || artifact.name(symbol).into();
        let (definer, defined_as) = match resolved.symbols.resolution(id) {
            // Most symbols are the definition of their name, which agrees with itself.
            Resolution::Defined { module, symbol: defined_as }
                if (module as usize, defined_as as usize) == (importer, number)
                    && is_function
                    && symbol.section() == SectionKind::Text =>
            {
                continue;
            }
            Resolution::Defined { module, symbol } => (module as usize, symbol as usize),
            Resolution::SectionBound { section, .. } if is_function => {
                let definer = resolved.sections.list[section as usize].module;
                errors.push(LinkError::KindConflict {
                    name: name(),
                    importer,
                    user: users.of(number),
                    definer,
                });
                continue;
            }
            Resolution::Replaceable(_) => match resolved.symbols.definition(id) {
                Some((module, symbol)) => (module as usize, symbol as usize),
                None => continue,
            },
            Resolution::SectionBound { .. }
            | Resolution::KnownAddress(_)
            | Resolution::KnownSlot(_)
            | Resolution::Undefined => continue,
        };
        let definition = &artifacts[definer].symbols()[defined_as];
        if is_overridable_data {
            if definition.section() == SectionKind::Text {
                errors.push(LinkError::DataConflict { name: name(), overridden: importer, definer });
            }
            continue;
        }
        if definition.section() != SectionKind::Text {
            errors.push(LinkError::KindConflict { name: name(), importer, user: users.of(number), definer });
            continue;
        }
        if std::ptr::eq(definition, symbol) {
            continue;
        }
        let import = symbol.signature().and_then(|index| artifact.signature(index));
        let defined = definition.signature().and_then(|index| artifacts[definer].signature(index));
        let (Some(import), Some(defined)) = (import, defined) else { continue };
        // Each pair of signatures that differ is reported once per module, because the message has
        // both texts.
        if agreements.compare(import, defined) != Agreement::Conflict {
            continue;
        }
        if symbol.linkage() == Linkage::Replaceable {
            errors.push(LinkError::ReplacedSignature {
                name: name(),
                module: definer,
                signature: defined.into(),
                replaced: importer,
                replaced_signature: import.into(),
            });
        } else {
            errors.push(LinkError::SignatureConflict {
                name: name(),
                importer,
                user: users.of(number),
                import_signature: import.into(),
                definer,
                definition_signature: defined.into(),
            });
        }
    }
    errors
}
