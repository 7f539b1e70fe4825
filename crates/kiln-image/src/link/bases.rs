//! The names that modules share with the images that they are linked on.
//!
//! What a base exports is not a part of the link: its address is known when the layer is loaded. So
//! the linker treats it as something of the host, and gives it an external slot; here it is found,
//! and its kind and type are compared as between modules.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_artifact::{Artifact, signatures_agree};

use super::error::LinkError;
use super::users::Users;
use crate::base::{Base, BaseSymbol, BaseSymbolKind, START_SYMBOL};

/// The symbols of bases that modules refer to, or define again.
#[derive(Debug, Default)]
pub struct OfBases<'a, 'b> {
    symbols: HashMap<&'a str, OfBase<'b>, FastHash>,
}

/// A symbol of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfBase<'b> {
    /// The position of the base.
    pub base: usize,
    /// The symbol.
    pub symbol: BaseSymbol<'b>,
}

impl<'a, 'b> OfBases<'a, 'b> {
    /// Finds the names of `artifacts` in `bases`.
    ///
    /// # Errors
    ///
    /// [`LinkError`]s: a module defines what a base has and nobody may replace, uses it as
    /// something else, or with another type; two bases have a name that a module uses; a heap
    /// points into an image that is no base.
    pub fn find<B: Base + ?Sized>(
        artifacts: &'a [Artifact],
        bases: &[&'b B],
    ) -> Result<Self, Vec<LinkError>> {
        let mut found = Self::default();
        let mut errors = places(artifacts, bases);
        if bases.is_empty() {
            return if errors.is_empty() { Ok(found) } else { Err(errors) };
        }
        if let Some(artifact) = artifacts.first() {
            let others = bases.iter().filter(|base| base.triple() != artifact.triple());
            errors.extend(others.map(|base| LinkError::BaseTarget {
                base: base.name().into(),
                triple: base.triple().into(),
                expected: artifact.triple().into(),
            }));
        }
        let mut known: HashMap<&'a str, Option<OfBase<'b>>, FastHash> = HashMap::default();
        for (module, artifact) in artifacts.iter().enumerate() {
            let users = Users::new(artifact);
            for (number, symbol) in
                artifact.symbols().iter().enumerate().filter(|(_, symbol)| is_shared(symbol))
            {
                let name = artifact.name(symbol);
                let of_base = *known.entry(name).or_insert_with(|| search(name, bases, &mut errors));
                let Some(of_base) = of_base else { continue };
                found.symbols.insert(name, of_base);
                let base = bases[of_base.base].name();
                errors.extend(check(artifact, symbol, of_base.symbol, base, module, || users.of(number)));
            }
        }
        if errors.is_empty() { Ok(found) } else { Err(errors) }
    }

    /// Returns all names that were found, in no order.
    pub fn all(&self) -> impl Iterator<Item = (&'a str, OfBase<'b>)> {
        self.symbols.iter().map(|(name, found)| (*name, *found))
    }

    /// Returns the symbol of a base that has this name.
    pub fn get(&self, name: &str) -> Option<OfBase<'b>> {
        self.symbols.get(name).copied()
    }
}

/// Finds heaps that point into images that are not there: see [`START_SYMBOL`].
fn places<B: Base + ?Sized>(artifacts: &[Artifact], bases: &[&B]) -> Vec<LinkError> {
    let mut errors = Vec::new();
    // A heap is a module without code. There are few of those, and names of others are not read.
    let heaps = artifacts.iter().enumerate().filter(|(_, artifact)| artifact.functions().is_empty());
    for (module, artifact) in heaps {
        let used = artifact.symbols().iter().filter(|symbol| !symbol.is_defined());
        let places = used.map(|symbol| artifact.name(symbol)).filter(|name| name.starts_with(START_SYMBOL));
        let missing = places.filter(|name| bases.iter().all(|base| base.find(name).is_none()));
        errors.extend(missing.map(|name| LinkError::PlaceOfOtherImage { name: name.into(), module }));
    }
    errors
}

/// Whether modules share the name of a symbol.
fn is_shared(symbol: &SymbolRecord) -> bool {
    symbol.linkage() != Linkage::Local && symbol.kind() != SymbolKind::Global && symbol.libcall == 0
}

/// Searches the bases for a name. If two of them have it, nobody knows which is meant.
fn search<'b, B: Base + ?Sized>(
    name: &str,
    bases: &[&'b B],
    errors: &mut Vec<LinkError>,
) -> Option<OfBase<'b>> {
    // Keys of globals are no names of symbols.
    let found = (0..).zip(bases).filter_map(|(base, image)| Some(OfBase { base, symbol: image.find(name)? }));
    let mut all = found.filter(|found| found.symbol.kind != BaseSymbolKind::Global);
    let first = all.next()?;
    if let Some(second) = all.next() {
        let [first, second] = [first, second].map(|of_base| bases[of_base.base].name().into());
        errors.push(LinkError::AmbiguousBase { name: name.into(), first, second });
    }
    Some(first)
}

/// Compares a symbol of a module with that of a base.
fn check(
    artifact: &Artifact,
    symbol: &SymbolRecord,
    of_base: BaseSymbol<'_>,
    base: &str,
    module: usize,
    user: impl Fn() -> Box<str>,
) -> Option<LinkError> {
    let name = || artifact.name(symbol).into();
    let is_function = symbol.kind() == SymbolKind::Function;
    let is_replacement = symbol.linkage() == Linkage::Replaceable;
    if symbol.is_defined() && symbol.linkage() != Linkage::Preemptible {
        let may_replace = is_replacement && of_base.kind == BaseSymbolKind::Replaceable;
        if !may_replace {
            return Some(LinkError::DefinedInBase {
                name: name(),
                module,
                base: base.into(),
                kind: of_base.kind,
            });
        }
    }
    // Data may have the address of a function that its module declares no further.
    let is_overridden_data = symbol.is_defined() && !is_function && of_base.kind.is_function();
    if is_overridden_data || (is_function && !of_base.kind.is_function()) {
        let (user, base) = (user(), base.into());
        return Some(LinkError::BaseKind { name: name(), importer: module, user, base, found: of_base.kind });
    }
    let own =
        Some(symbol).filter(|_| is_function)?.signature().and_then(|index| artifact.signature(index))?;
    let theirs = of_base.signature.filter(|theirs| !signatures_agree(own, theirs))?;
    Some(LinkError::BaseSignature {
        name: name(),
        importer: module,
        user: user(),
        import_signature: own.into(),
        base: base.into(),
        definition_signature: theirs.into(),
    })
}
