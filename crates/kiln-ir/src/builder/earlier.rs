//! The definitions of the earlier modules of a builder, and the names of private definitions.
//!
//! A local or anonymous definition has no name that other modules know. If its builder makes
//! several modules, each may refer to private definitions of the others. So in those modules a
//! private definition is hidden, and has a name that consists of the builder's name and of what the
//! client calls it: its own name, or its id. No such name depends on another builder, on the
//! process, or on which module has the definition.

use std::collections::HashMap;

use cranelift_module::{FuncOrDataId, Linkage};

use super::declarations::Declarations;

/// The start of the names of private definitions. No other name may start with it.
pub(super) const PRIVATE: &str = "kiln.private.";

/// The contents of the earlier modules of a builder.
#[derive(Default)]
pub(super) struct Earlier {
    /// Everything that they define or refer to, except for globals.
    mentioned: HashMap<FuncOrDataId, Mentioned>,
}

#[derive(Clone, Copy)]
struct Mentioned {
    defined: bool,
    /// Whether the modules know it by its private name. This never changes, even if the linkage of
    /// a declaration does.
    private: bool,
}

impl Earlier {
    pub(super) fn is_mentioned(&self, id: FuncOrDataId) -> bool {
        self.mentioned.contains_key(&id)
    }

    pub(super) fn defines(&self, id: FuncOrDataId) -> bool {
        self.mentioned.get(&id).is_some_and(|mentioned| mentioned.defined)
    }

    /// Whether modules know `id`, whose linkage is `linkage`, by a private name.
    pub(super) fn is_private(&self, id: FuncOrDataId, linkage: Linkage) -> bool {
        self.mentioned.get(&id).map_or(linkage == Linkage::Local, |mentioned| mentioned.private)
    }

    /// Adds something that a finished module mentions.
    pub(super) fn mention(&mut self, id: FuncOrDataId, linkage: Linkage, defined: bool) {
        let private = self.is_private(id, linkage);
        let mentioned = self.mentioned.entry(id).or_insert(Mentioned { defined: false, private });
        mentioned.defined |= defined;
    }
}

/// Returns the name of a private definition of the builder that is called `scope`.
pub(super) fn private_name(scope: &str, declarations: &Declarations, id: FuncOrDataId) -> Box<str> {
    // The length tells where the scope ends, so no two pairs of a scope and a name give one text.
    let scope = scope.escape_debug().to_string();
    let (name, kind, number) = match id {
        FuncOrDataId::Func(id) => (&declarations.all().get_function_decl(id).name, "fn", id.as_u32()),
        FuncOrDataId::Data(id) => (&declarations.all().get_data_decl(id).name, "data", id.as_u32()),
    };
    match name {
        Some(name) => format!("{PRIVATE}{}.{scope}.{name}", scope.len()),
        None => format!("{PRIVATE}{}.{scope}:{kind}{number}", scope.len()),
    }
    .into()
}
