//! The images that a program is linked on.
//!
//! What a base has is not a part of the program in memory: it is elsewhere, where no reference
//! reaches. So code uses it through slots, as it uses things of the host, and a base is asked for
//! addresses before the resolver is. Replaceable functions of bases can be defined again: then the
//! slot in the base leads to code of the program, until the last such definition is removed.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;
use kiln_globals::{Resolve, SlotKey, Unresolved};
use kiln_image::code::Location;
use kiln_image::link::{LinkError, OfBases};
use kiln_image::{Base as _, BaseSymbolKind, FunctionRef, Loaded, Override, with_bases};

use crate::error::JitError;

/// The images, each after its own bases.
#[derive(Debug, Default)]
pub(crate) struct Bases(Vec<Arc<Loaded>>);

/// A symbol of a base.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InBase {
    base: usize,
    pub(crate) kind: BaseSymbolKind,
}

/// The names that a batch shares with bases.
pub(crate) type InBases<'a> = HashMap<&'a str, InBase, FastHash>;

impl Bases {
    pub(crate) fn new(images: &[Arc<Loaded>]) -> Result<Self, JitError> {
        let all = with_bases(images);
        for (number, image) in all.iter().enumerate() {
            // Two copies of one image have two states, and nobody could say which is meant.
            if all[..number].iter().any(|other| other.id() == image.id()) {
                return Err(JitError::SameBase { base: image.name().into() });
            }
        }
        Ok(Self(all))
    }

    pub(crate) fn all(&self) -> &[Arc<Loaded>] {
        &self.0
    }

    /// Finds the names that modules share with bases, and compares what they mean.
    pub(crate) fn names<'a>(&self, artifacts: &'a [Artifact]) -> Result<InBases<'a>, Vec<LinkError>> {
        if self.0.is_empty() {
            return Ok(InBases::default());
        }
        let images: Vec<&Loaded> = self.0.iter().map(|image| &**image).collect();
        let found = OfBases::find(artifacts, &images)?;
        let names =
            found.all().map(|(name, found)| (name, InBase { base: found.base, kind: found.symbol.kind }));
        Ok(names.collect())
    }

    /// Returns the name of the image that has a symbol.
    pub(crate) fn name(&self, symbol: InBase) -> &str {
        self.0[symbol.base].name()
    }

    /// Prepares to replace a function.
    pub(crate) fn override_function(&self, symbol: InBase, name: &str, signature: &str) -> Option<Override> {
        self.0[symbol.base].override_function(name, signature).ok()
    }

    /// Returns the address of the initial content of thread-local data.
    pub(crate) fn thread_local(&self, symbol: InBase, name: &str) -> Option<u64> {
        self.0[symbol.base].thread_local_content(name).map(|content| content.addr() as u64)
    }

    /// Returns the address that a base has for a global, or for a function or data object, and the
    /// name of that base.
    pub(crate) fn address_of(&self, key: &SlotKey) -> Option<(usize, &str)> {
        let address = |image: &Arc<Loaded>| match key {
            SlotKey::Global(key) => image.global(key),
            SlotKey::Symbol(name) => image.address(name).map(<*const u8>::addr),
            SlotKey::Routine(_) => None,
        };
        self.0.iter().find_map(|image| Some((address(image)?, image.name())))
    }

    pub(crate) fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        self.0.iter().find_map(|image| image.function(name))
    }

    pub(crate) fn address(&self, name: &str) -> Option<*const u8> {
        self.0.iter().find_map(|image| image.thread_local_content(name).or_else(|| image.address(name)))
    }

    /// Finds a place in the code of the images.
    pub(crate) fn locate(&self, address: *const u8) -> Option<Location<'_>> {
        self.0.iter().find_map(|image| image.locate(address))
    }

    pub(crate) fn locate_call(&self, return_address: *const u8) -> Option<Location<'_>> {
        self.0.iter().find_map(|image| image.locate_call(return_address))
    }
}

/// Asks bases first, about the names that a batch shares with them and about globals.
pub(crate) struct OnBases<'a> {
    pub(crate) bases: &'a Bases,
    pub(crate) names: &'a InBases<'a>,
    pub(crate) next: &'a dyn Resolve,
}

impl Resolve for OnBases<'_> {
    fn resolve(&self, key: &SlotKey, expected: Option<&str>) -> Result<usize, Unresolved> {
        let is_asked = match key {
            SlotKey::Global(_) => !self.bases.0.is_empty(),
            SlotKey::Symbol(name) => self.names.contains_key(&**name),
            SlotKey::Routine(_) => false,
        };
        let known = if is_asked { self.bases.address_of(key) } else { None };
        // Its type was compared when the name was found.
        known.map_or_else(|| self.next.resolve(key, expected), |(address, _)| Ok(address))
    }
}
