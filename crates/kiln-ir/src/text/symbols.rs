//! The symbol table of a file, while it is read.
//!
//! Definitions are entered first, for a use may stand before them; then symbols are numbered in the order in which the
//! text first defines or uses them.
//!
//! Invariant: hash maps are only asked, never iterated.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;

use crate::check::same_type;
use crate::diagnostic::{Diagnostic, DiagnosticKind, Place};
use crate::module::{Linkage, Symbol, SymbolId, SymbolKind};
use crate::source::Source;

/// What a name of this file is defined as.
struct Definition {
    kind: SymbolKind,
    linkage: Linkage,
    signature: Option<Signature>,
    line: u32,
    /// Position and length in the text. A place is made of it only for a fault: that counts lines from the start.
    at: (usize, usize),
    /// The key of a global.
    key: Option<Box<str>>,
}

/// Symbols so far.
pub(super) struct Symbols<'t> {
    source: &'t Arc<Source>,
    definitions: HashMap<Box<str>, Definition>,
    list: Vec<Symbol>,
    by_name: HashMap<Box<str>, SymbolId>,
    by_key: HashMap<Box<str>, SymbolId>,
}

impl<'t> Symbols<'t> {
    pub(super) fn new(source: &'t Arc<Source>) -> Self {
        Self {
            source,
            definitions: HashMap::new(),
            list: Vec::new(),
            by_name: HashMap::new(),
            by_key: HashMap::new(),
        }
    }

    /// Enters a function or, without `signature`, a datum.
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
        self.enter(name, Definition { kind, linkage, signature, line, at, key: None })
    }

    /// Enters a global.
    pub(super) fn define_global(
        &mut self,
        name: &str,
        key: &str,
        line: u32,
        at: (usize, usize),
    ) -> Result<(), Diagnostic> {
        let (kind, linkage) = (SymbolKind::Global, Linkage::Import);
        self.enter(name, Definition { kind, linkage, signature: None, line, at, key: Some(key.into()) })
    }

    fn enter(&mut self, name: &str, definition: Definition) -> Result<(), Diagnostic> {
        match self.definitions.get(name) {
            Some(first) => Err(duplicate(name, self.place(definition.at), self.place(first.at))),
            None => {
                self.definitions.insert(name.into(), definition);
                Ok(())
            }
        }
    }

    fn place(&self, (at, length): (usize, usize)) -> Place {
        Place::at(self.source, at, length)
    }

    /// The symbol of a definition or of anything that has its address taken; `line` is asked for the line of the use when
    /// nothing here defines it.
    pub(super) fn address(&mut self, name: &str, line: impl FnOnce() -> u32) -> SymbolId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let definition = self.definitions.get(name);
        let key = definition.and_then(|definition| definition.key.as_deref());
        if let Some(id) = key.and_then(|key| self.by_key.get(key)) {
            self.by_name.insert(name.into(), *id);
            return *id;
        }
        let id = SymbolId::from_u32(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        let symbol = match definition {
            Some(definition) => Symbol {
                name: key.unwrap_or(name).into(),
                kind: definition.kind,
                linkage: definition.linkage,
                signature: definition.signature.clone(),
                line: definition.line,
            },
            None => Symbol {
                name: name.into(),
                kind: SymbolKind::Data,
                linkage: Linkage::Import,
                signature: None,
                line: line(),
            },
        };
        if let Some(key) = key {
            self.by_key.insert(key.into(), id);
        }
        self.by_name.insert(name.into(), id);
        self.list.push(symbol);
        id
    }

    /// The symbol of a function that is declared with `signature` on the line that `line` tells.
    pub(super) fn function(
        &mut self,
        name: &str,
        signature: &Signature,
        line: impl Fn() -> u32,
    ) -> Result<SymbolId, Diagnostic> {
        let id = self.address(name, &line);
        let shown = written(name);
        if let Some(definition) = self.definitions.get(name) {
            let here = || Place::word(self.source, line(), &shown);
            return match &definition.signature {
                Some(own) if same_type(own, signature) => Ok(id),
                Some(own) => {
                    let message = format!("`{shown}` is declared as {signature}, but defined as {own}");
                    let fault = Diagnostic::new(DiagnosticKind::Signature, message, here());
                    Err(fault.related(self.place(definition.at), "defined here"))
                }
                None => {
                    let what = if definition.key.is_some() { "a global" } else { "data" };
                    let message = format!("`{shown}` is declared as a function, but defined as {what}");
                    let fault = Diagnostic::new(DiagnosticKind::Kind, message, here());
                    Err(fault.related(self.place(definition.at), "defined here"))
                }
            };
        }
        let symbol = &mut self.list[id.index()];
        symbol.kind = SymbolKind::Function;
        symbol.signature.get_or_insert_with(|| signature.clone());
        Ok(id)
    }

    /// The table.
    pub(super) fn finish(self) -> Vec<Symbol> {
        self.list
    }
}

/// A name as the text writes it.
pub(crate) fn written(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("%{name}") }
}

/// A name has two definitions.
pub(crate) fn duplicate(name: &str, second: Place, first: Place) -> Diagnostic {
    let message = format!("`{}` is defined twice", written(name));
    Diagnostic::new(DiagnosticKind::Duplicate, message, second).related(first, "first defined here")
}
