//! The symbol table of a file, while it is read.
//!
//! Definitions are entered first, because a use may precede them. Then symbols are numbered in the
//! order in which the text first defines or uses them.
//!
//! Invariant: hash maps are never iterated, because their order is not deterministic.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;

use crate::diagnostic::{Diagnostic, DiagnosticKind, duplicate};
use crate::location::Location;
use crate::names::written;
use crate::signature::{Shown, same_type};
use crate::source::Source;
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

/// The definition or import of a name.
struct Definition {
    kind: SymbolKind,
    linkage: Linkage,
    signature: Option<Signature>,
    line: u32,
    /// Position and length in the text. They become a location only for an error, because computing
    /// one counts lines from the start of the file.
    at: (usize, usize),
}

/// The meaning of a name that an item introduces.
pub(super) enum Meaning {
    /// The symbol with this name for linking.
    Name(Box<str>),
    /// A symbol without a name.
    Anonymous,
    /// The run-time object with this key.
    Global(Box<str>),
}

struct AliasEntry {
    meaning: Meaning,
    line: u32,
    at: (usize, usize),
}

/// The kind of a name: a name for linking, a name that is only valid in this file, or a key of a
/// global. Names of different kinds cannot clash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum NameSpace {
    Name,
    Anonymous,
    Global,
}

/// The meaning of a name. Names that mean the same symbol have equal keys.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct LinkKey(NameSpace, Box<str>);

type Table<T> = [HashMap<Box<str>, T>; 3];

/// The symbols that were entered or numbered so far.
pub(super) struct SymbolTable<'t> {
    source: &'t Arc<Source>,
    aliases: HashMap<Box<str>, AliasEntry>,
    definitions: Table<Definition>,
    list: Vec<Symbol>,
    numbers: Table<SymbolId>,
}

/// Returns the name space of `name`, the name that it stands for there, and its alias entry if it
/// is an alias.
fn meaning<'n>(
    aliases: &'n HashMap<Box<str>, AliasEntry>,
    name: &'n str,
) -> (NameSpace, &'n str, Option<&'n AliasEntry>) {
    // Most files have no aliases.
    match if aliases.is_empty() { None } else { aliases.get(name) } {
        None => (NameSpace::Name, name, None),
        Some(alias) => match &alias.meaning {
            Meaning::Name(of) => (NameSpace::Name, of, Some(alias)),
            Meaning::Anonymous => (NameSpace::Anonymous, name, Some(alias)),
            Meaning::Global(key) => (NameSpace::Global, key, Some(alias)),
        },
    }
}

impl<'t> SymbolTable<'t> {
    pub(super) fn new(source: &'t Arc<Source>) -> Self {
        Self {
            source,
            aliases: HashMap::new(),
            definitions: Table::default(),
            list: Vec::new(),
            numbers: Table::default(),
        }
    }

    /// Tells whether there are aliases.
    pub(super) fn has_aliases(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// Returns the meaning of `name`. All aliases must have been entered.
    pub(super) fn key(&self, name: &str) -> LinkKey {
        let (space, key, _) = meaning(&self.aliases, name);
        LinkKey(space, key.into())
    }

    /// Enters an alias. All aliases are entered before any definition.
    pub(super) fn alias(
        &mut self,
        name: &str,
        meaning: Meaning,
        line: u32,
        at: (usize, usize),
    ) -> Result<(), Diagnostic> {
        match self.aliases.get(name) {
            Some(first) => Err(duplicate(name, self.location(at), self.location(first.at))),
            None => {
                self.aliases.insert(name.into(), AliasEntry { meaning, line, at });
                Ok(())
            }
        }
    }

    /// Enters a function or, without `signature`, a data object.
    pub(super) fn define(
        &mut self,
        name: &str,
        linkage: Linkage,
        signature: Option<&Signature>,
        line: u32,
        at: (usize, usize),
    ) -> Result<(), Diagnostic> {
        let kind = if signature.is_some() { SymbolKind::Function } else { SymbolKind::Data };
        let signature = signature.cloned();
        let (space, ..) = meaning(&self.aliases, name);
        if space == NameSpace::Anonymous && linkage != Linkage::Local {
            let message =
                format!("`{}` has no name outside of this file, so it must be `local`", written(name));
            return Err(Diagnostic::new(DiagnosticKind::Syntax, message, self.location(at)));
        }
        self.enter(name, Definition { kind, linkage, signature, line, at })
    }

    /// Enters an import.
    pub(super) fn import(
        &mut self,
        name: &str,
        kind: SymbolKind,
        signature: Option<Signature>,
        line: u32,
        at: (usize, usize),
    ) -> Result<(), Diagnostic> {
        self.enter(name, Definition { kind, linkage: Linkage::Import, signature, line, at })
    }

    fn enter(&mut self, name: &str, definition: Definition) -> Result<(), Diagnostic> {
        let (space, key, alias) = meaning(&self.aliases, name);
        let first = match alias {
            Some(alias) if space == NameSpace::Global => Some(alias.at),
            _ => self.definitions[space as usize].get(key).map(|first| first.at),
        };
        match first {
            Some(first) => {
                let (first, second) = (first.min(definition.at), first.max(definition.at));
                Err(duplicate(name, self.location(second), self.location(first)))
            }
            None => {
                self.definitions[space as usize].insert(key.into(), definition);
                Ok(())
            }
        }
    }

    /// Checks that the name of an item `anonymous %name` is defined in the file.
    pub(super) fn check_anonymous(&self, name: &str) -> Result<(), Diagnostic> {
        let (space, key, alias) = meaning(&self.aliases, name);
        let defined = self.definitions[space as usize]
            .get(key)
            .is_some_and(|definition| definition.linkage != Linkage::Import);
        match alias {
            Some(alias) if space == NameSpace::Anonymous && !defined => {
                let message = format!("`{}` is anonymous, and not defined in this file", written(name));
                Err(Diagnostic::new(DiagnosticKind::Undefined, message, self.location(alias.at)))
            }
            _ => Ok(()),
        }
    }

    fn location(&self, (at, length): (usize, usize)) -> Location {
        Location::at(self.source, at, length)
    }

    /// Returns the symbol of a definition, or of anything whose address is taken. `line` returns
    /// the line of the use; it is called if the file does not define the name.
    pub(super) fn address(&mut self, name: &str, line: impl FnOnce() -> u32) -> SymbolId {
        let (space, key, alias) = meaning(&self.aliases, name);
        if let Some(id) = self.numbers[space as usize].get(key) {
            return *id;
        }
        let id = SymbolId::from_u32(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        let name = if space == NameSpace::Anonymous { "" } else { key };
        let symbol = match (self.definitions[space as usize].get(key), alias) {
            (Some(definition), _) => Symbol {
                name: name.into(),
                kind: definition.kind,
                linkage: definition.linkage,
                signature: definition.signature.clone(),
                line: definition.line,
            },
            (None, Some(alias)) if space == NameSpace::Global => Symbol {
                name: name.into(),
                kind: SymbolKind::Global,
                linkage: Linkage::Import,
                signature: None,
                line: alias.line,
            },
            (None, _) => Symbol {
                name: name.into(),
                kind: SymbolKind::Data,
                linkage: Linkage::Import,
                signature: None,
                line: line(),
            },
        };
        self.numbers[space as usize].insert(key.into(), id);
        self.list.push(symbol);
        id
    }

    /// Returns the symbol of a function that is declared with `signature`. `line` returns the line
    /// of the declaration.
    pub(super) fn function(
        &mut self,
        name: &str,
        signature: &Signature,
        line: impl Fn() -> u32,
    ) -> Result<SymbolId, Diagnostic> {
        let id = self.address(name, &line);
        let (space, key, alias) = meaning(&self.aliases, name);
        let shown = written(name);
        let fault = |kind, message, other| {
            let fault = Diagnostic::new(kind, message, Location::word(self.source, line(), &shown));
            Err(fault.related(self.location(other), "defined here"))
        };
        if let (NameSpace::Global, Some(alias)) = (space, alias) {
            let message = format!("`{shown}` is declared as a function, but defined as a global");
            return fault(DiagnosticKind::Kind, message, alias.at);
        }
        if let Some(definition) = self.definitions[space as usize].get(key) {
            let import = definition.linkage == Linkage::Import;
            return match (&definition.signature, definition.kind) {
                (Some(own), _) if import || same_type(own, signature) => Ok(id),
                (Some(own), _) => {
                    let (signature, own) = (Shown(signature), Shown(own));
                    let message = format!("`{shown}` is declared as {signature}, but defined as {own}");
                    fault(DiagnosticKind::Signature, message, definition.at)
                }
                (None, SymbolKind::Function) => Ok(id),
                (None, SymbolKind::Data | SymbolKind::Global) => {
                    let how = if import { "imported" } else { "defined" };
                    let message = format!("`{shown}` is declared as a function, but {how} as data");
                    fault(DiagnosticKind::Kind, message, definition.at)
                }
            };
        }
        let symbol = &mut self.list[id.index()];
        symbol.kind = SymbolKind::Function;
        symbol.signature.get_or_insert_with(|| signature.clone());
        Ok(id)
    }

    /// Returns the symbol of `name`, if it is used and its line is `line`.
    pub(super) fn defined_at(&self, name: &str, line: u32) -> Option<SymbolId> {
        let (space, key, _) = meaning(&self.aliases, name);
        let id = *self.numbers[space as usize].get(key)?;
        (self.list[id.index()].line == line).then_some(id)
    }

    /// Returns the symbols by number.
    pub(super) fn finish(self) -> Vec<Symbol> {
        self.list
    }
}
