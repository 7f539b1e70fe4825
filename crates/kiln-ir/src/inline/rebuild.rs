//! Makes the module of functions into which calls were inlined.

use std::collections::HashMap;

use super::caller::Inlined;
use super::program::{LinkName, Program, link_name};
use crate::body::Body;
use crate::comments::Comments;
use crate::data::{DataAddress, DataObject};
use crate::function::{Code, CodeReloc, CodeTarget, Function, MachineCode};
use crate::ids::ClientIds;
use crate::module::Module;
use crate::symbol::{Linkage, Symbol, SymbolId};

/// Returns the module with this number, with the functions in `inlined`, which are given by their
/// indices, and the number of calls that were inlined.
///
/// Comments and the ids of a builder are left out. They do not affect code, and their places are
/// not those of the new code.
pub(super) fn rebuild(
    program: &Program<'_>,
    number: usize,
    inlined: Vec<(usize, Inlined)>,
) -> (Module, usize) {
    let module = &program.modules()[number];
    let mut symbols = Symbols { all: module.symbols.clone(), new: HashMap::new() };
    let mut changed: HashMap<usize, Body> = HashMap::with_capacity(inlined.len());
    let mut count = 0;
    for (function, Inlined { encoded, others, calls }) in inlined {
        let others = others.iter().map(|&(other, symbol)| {
            let wanted = program.modules()[other].symbol(symbol);
            (link_name(wanted), wanted)
        });
        // Two functions may use a function of the host with different types. The linker says so if
        // modules do, and this module did not; so it keeps its calls.
        let Some(others) = symbols.refer_to(others) else { continue };
        let own = module.symbols.len() as u32;
        let references = encoded.references.iter().map(|&reference| match reference.checked_sub(own) {
            None => SymbolId::from_u32(reference),
            Some(other) => others[other as usize],
        });
        let references = references.collect();
        changed.insert(function, Body::of(encoded, references));
        count += calls;
    }
    (renumbered(module, symbols.all, changed), count)
}

/// The symbols of a module, and those that it did not have.
struct Symbols<'m> {
    all: Vec<Symbol>,
    new: HashMap<LinkName<'m>, SymbolId>,
}

impl<'m> Symbols<'m> {
    /// Returns a symbol for each name, which means what the symbol next to it means in another
    /// module; `None`, without any change, if one of them has another meaning already.
    fn refer_to<'s>(
        &mut self,
        others: impl Iterator<Item = (LinkName<'m>, &'s Symbol)> + Clone,
    ) -> Option<Vec<SymbolId>> {
        let fits = |(name, wanted): (LinkName<'_>, &Symbol)| {
            let Some(known) = self.new.get(&name).map(|id| &self.all[id.index()]) else { return true };
            known.kind == wanted.kind
                && (known.signature == wanted.signature
                    || known.signature.is_none()
                    || wanted.signature.is_none())
        };
        if !others.clone().all(fits) {
            return None;
        }
        let ids = others.map(|(name, wanted)| {
            let next = SymbolId::from_u32(self.all.len() as u32);
            let id = *self.new.entry(name).or_insert(next);
            if id == next {
                self.all.push(Symbol { linkage: Linkage::Import, line: 0, ..wanted.clone() });
            } else if self.all[id.index()].signature.is_none() {
                self.all[id.index()].signature = wanted.signature.clone();
            }
            id
        });
        Some(ids.collect())
    }
}

/// Returns `module` with other bodies. Its symbols are numbered again, as the invariants of a
/// module say, and those that nothing refers to any more are left out.
fn renumbered(module: &Module, all: Vec<Symbol>, mut changed: HashMap<usize, Body>) -> Module {
    let mut numbers: Vec<Option<SymbolId>> = vec![None; all.len()];
    let mut order = Vec::with_capacity(all.len());
    let mut number = |old: SymbolId| {
        *numbers[old.index()].get_or_insert_with(|| {
            order.push(old);
            SymbolId::from_u32(order.len() as u32 - 1)
        })
    };
    let function = |(index, function): (usize, &Function)| {
        let symbol = number(function.symbol);
        let code = match (changed.remove(&index), &function.code) {
            (Some(body), _) => Code::Ir(body.with_references(&mut number)),
            (None, Code::Ir(body)) => Code::Ir(body.with_references(&mut number)),
            (None, Code::Machine(MachineCode { bytes, align, relocs })) => {
                let reloc = |reloc: &CodeReloc| match reloc.target {
                    CodeTarget::Symbol(symbol) => {
                        CodeReloc { target: CodeTarget::Symbol(number(symbol)), ..*reloc }
                    }
                    CodeTarget::LibCall(_) | CodeTarget::Here(_) => *reloc,
                };
                let relocs = relocs.iter().map(reloc).collect();
                Code::Machine(MachineCode { bytes: bytes.clone(), align: *align, relocs })
            }
        };
        let (inline, line, variables) = (function.inline, function.line, function.variables.clone());
        Function { symbol, code, inline, line, variables, comments: Comments::new() }
    };
    let functions = module.functions.iter().enumerate().map(function).collect();
    let data = module.data.iter().map(|data| {
        let symbol = number(data.symbol);
        let address = |address: &DataAddress| DataAddress { symbol: number(address.symbol), ..*address };
        let addresses = data.addresses.iter().map(address).collect();
        DataObject { symbol, addresses, ..data.clone() }
    });
    let data = data.collect();
    let mut left: Vec<Option<Symbol>> = all.into_iter().map(Some).collect();
    let symbols = order.iter().filter_map(|old| left[old.index()].take()).collect();
    Module {
        name: module.name.clone(),
        source: module.source.clone(),
        settings: module.settings.clone(),
        symbols,
        functions,
        data,
        lines: module.lines.clone(),
        comments: Vec::new(),
        ids: ClientIds::default(),
    }
}
