//! Enters the definitions of items into the symbol table, and numbers the symbols they refer to.

use std::cell::OnceCell;
use std::sync::Arc;

use cranelift_codegen::ir::entities::AnyEntity;

use super::comments::Owner;
use super::draft::FunctionDraft;
use super::item::{CodeItem, DataItem, FunctionItem, Item, RelocTarget};
use super::locate::Locator;
use super::symbols::{Meaning, SymbolTable};
use crate::body::Body;
use crate::comments::Comments;
use crate::data::{DataAddress, DataObject};
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::function::{Code, CodeReloc, CodeTarget, Function, InlineHint, MachineCode};
use crate::location::Location;
use crate::module::Module;
use crate::names::{external_name, function_name, written};
use crate::source::Source;

/// Enters aliases and globals into the symbol table.
pub(super) fn aliases(items: &[Item<'_>], symbols: &mut SymbolTable<'_>, faults: &mut Vec<Diagnostic>) {
    for item in items {
        let entered = match item {
            Item::Global(global) => {
                let at = (global.at, written(&global.name).len());
                symbols.alias(&global.name, Meaning::Global(global.key.clone()), global.line, at)
            }
            Item::Alias(alias) => {
                let at = (alias.at, written(&alias.name).len());
                let meaning = alias.of.clone().map_or(Meaning::Anonymous, Meaning::Name);
                symbols.alias(&alias.name, meaning, alias.line, at)
            }
            _ => Ok(()),
        };
        faults.extend(entered.err());
    }
}

/// Enters definitions and imports into the symbol table.
pub(super) fn define(
    items: &[Item<'_>],
    functions: &[Option<FunctionDraft>],
    source: &Arc<Source>,
    symbols: &mut SymbolTable<'_>,
    faults: &mut Vec<Diagnostic>,
) {
    for (item, draft) in items.iter().zip(functions) {
        let entered = match (item, draft) {
            (Item::Function(item), Some(draft)) => {
                let at = Locator { source, item }.header();
                let signature = Some(&draft.signature);
                let name = function_name(&draft.name);
                if name.is_empty() {
                    let location = Location::at(source, at.0, at.1);
                    faults.push(Diagnostic::new(DiagnosticKind::Syntax, "a function needs a name", location));
                }
                symbols.define(&name, item.linkage, signature, item.line, at)
            }
            (Item::Function(_), None) => Ok(()),
            (Item::Data(data), _) => {
                let at = (data.at, written(&data.name).len());
                symbols.define(&data.name, data.linkage, None, data.line, at)
            }
            (Item::Code(code), _) => {
                let at = (code.at, written(&code.name).len());
                symbols.define(&code.name, code.linkage, Some(&code.signature), code.line, at)
            }
            (Item::Import(import), _) => {
                let at = (import.at, written(&import.name).len());
                symbols.import(&import.name, import.kind, import.signature.clone(), import.line, at)
            }
            (Item::Global(_) | Item::Alias(_) | Item::Debug(_) | Item::Lines(_), _) => Ok(()),
        };
        faults.extend(entered.err());
    }
    // Anonymous names are checked for a definition only if there are no other errors, because an
    // item that could not be read may be the definition.
    if faults.is_empty() {
        let checked = items.iter().filter_map(|item| match item {
            Item::Alias(alias) => symbols.check_anonymous(&alias.name).err(),
            _ => None,
        });
        faults.extend(checked);
    }
}

/// Moves functions and data objects to `module`, and numbers their symbols. Returns an `Owner` for
/// each item.
pub(super) fn number_definitions(
    items: &[Item<'_>],
    drafts: &mut [Option<FunctionDraft>],
    source: &Arc<Source>,
    symbols: &mut SymbolTable<'_>,
    module: &mut Module,
    faults: &mut Vec<Diagnostic>,
) -> Vec<Owner> {
    let mut owners = vec![Owner::Nothing; items.len()];
    for ((item, draft), owner) in items.iter().zip(drafts).zip(&mut owners) {
        let number = module.functions.len();
        match (item, draft.take()) {
            (Item::Function(item), Some(draft)) => {
                let locator = Locator { source, item };
                module.functions.extend(number_function(draft, locator, symbols, faults));
            }
            (Item::Code(item), _) => module.functions.push(number_code(item, symbols)),
            _ => continue,
        }
        *owner = Owner::Function(number);
    }
    for (item, owner) in items.iter().zip(&mut owners) {
        if let Item::Data(data) = item {
            let data = number_data(data, symbols);
            *owner = Owner::Symbol(data.symbol);
            module.data.push(data);
        }
    }
    owners
}

/// Sets the owners of items that only name a symbol, if the symbol is used.
pub(super) fn own_names(items: &[Item<'_>], symbols: &SymbolTable<'_>, owners: &mut [Owner]) {
    for (item, owner) in items.iter().zip(owners) {
        match item {
            Item::Global(global) => {
                let symbol = symbols.defined_at(&global.name, global.line);
                *owner = symbol.map_or(Owner::Nothing, Owner::Symbol);
            }
            Item::Import(import) => {
                let symbol = symbols.defined_at(&import.name, import.line);
                *owner = symbol.map_or(Owner::Nothing, Owner::Import);
            }
            Item::Function(_)
            | Item::Code(_)
            | Item::Data(_)
            | Item::Alias(_)
            | Item::Debug(_)
            | Item::Lines(_) => {}
        }
    }
}

/// Numbers the symbols of a function.
fn number_function(
    draft: FunctionDraft,
    locator: Locator<'_>,
    symbols: &mut SymbolTable<'_>,
    faults: &mut Vec<Diagnostic>,
) -> Option<Function> {
    let symbol = symbols.address(&function_name(&draft.name), || locator.item.line);
    // The declarations of the function, which are searched when the first is needed.
    let declarations = OnceCell::new();
    let declaration = |entity: AnyEntity| {
        let all = declarations.get_or_init(|| locator.declarations());
        all.get(&entity.to_string())
    };
    let line = |entity: AnyEntity| declaration(entity).map_or(locator.item.line, |(_, line)| line);
    let mut encoded_references =
        draft.encoded.as_ref().map_or(&[][..], |encoded| &encoded.references).iter().peekable();
    let mut references = Vec::with_capacity(encoded_references.len());
    for &(external, number) in &draft.uses {
        let (entity, name, signature) = draft.used(external);
        let name = external_name(draft.params(), name);
        if name.is_empty() {
            let location = |(at, _)| Location::at(locator.source, at, entity.to_string().len());
            let location = declaration(entity).map_or_else(|| locator.function(), location);
            faults.push(Diagnostic::new(DiagnosticKind::Syntax, "a symbol needs a name", location));
        }
        let used = match signature {
            Some(signature) => symbols.function(&name, signature, || line(entity)),
            None => Ok(symbols.address(&name, || line(entity))),
        };
        // After an error any number will do, because there will be no module.
        let used = used.unwrap_or_else(|fault| {
            faults.push(fault);
            symbol
        });
        // References are in order of first use.
        if encoded_references.next_if_eq(&&number).is_some() {
            references.push(used);
        }
    }
    match draft.encoded {
        Ok(encoded) => {
            let code = Code::Ir(Body::of(encoded, references));
            let FunctionDraft { variables, comments, .. } = draft;
            let FunctionItem { inline, line, .. } = *locator.item;
            Some(Function { symbol, code, inline, line, variables, comments })
        }
        // A function that was verified has no such fault, or too many values.
        Err(error) => {
            let fault = Diagnostic::new(DiagnosticKind::Verifier, error.to_string(), locator.function());
            faults.push(fault);
            None
        }
    }
}

/// Numbers the symbols of a data object.
fn number_data(data: &DataItem<'_>, symbols: &mut SymbolTable<'_>) -> DataObject {
    let symbol = symbols.address(&data.name, || data.line);
    let addresses = data.addresses.iter().map(|address| DataAddress {
        offset: address.offset,
        symbol: symbols.address(&address.name, || address.line),
        addend: address.addend,
    });
    DataObject {
        symbol,
        writable: data.writable,
        align: data.align,
        addresses: addresses.collect(),
        section: data.section.as_deref().map(Into::into),
        init: data.init.clone(),
        line: data.line,
    }
}

/// Numbers the symbols of machine code.
fn number_code(item: &CodeItem<'_>, symbols: &mut SymbolTable<'_>) -> Function {
    let symbol = symbols.address(&item.name, || item.line);
    let relocs = item.relocs.iter().map(|reloc| CodeReloc {
        offset: reloc.offset,
        kind: reloc.kind,
        target: match &reloc.target {
            RelocTarget::Name(name, line) => CodeTarget::Symbol(symbols.address(name, || *line)),
            RelocTarget::Routine(call) => CodeTarget::LibCall(*call),
            RelocTarget::Here(offset) => CodeTarget::Here(*offset),
        },
        addend: reloc.addend,
    });
    let relocs = relocs.collect();
    let code = MachineCode { bytes: item.bytes.as_slice().into(), align: item.align, relocs };
    Function {
        symbol,
        code: Code::Machine(code),
        inline: InlineHint::BySize,
        line: item.line,
        variables: Box::default(),
        comments: Comments::new(),
    }
}
