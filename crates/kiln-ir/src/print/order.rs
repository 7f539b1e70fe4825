//! In which order the items of a module are printed, and which imports need an item.

use cranelift_codegen::ir::{self, ExternalName, Signature};

use crate::module::Module;
use crate::symbol::{Linkage, SymbolId, SymbolKind};

/// An item that stands for a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) symbol: SymbolId,
    pub(crate) item: Item,
}

/// What kind of item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// What another module defines. It need not be printed.
    Import,
    Global,
    /// A datum with this number.
    Data(usize),
    /// A function with this number.
    Function(usize),
}

/// All items: imports by number, then the others by line. Functions stay in their order and so do data, for symbols are numbered
/// by it; if lines say otherwise, or there are none, the kinds follow one another.
pub(crate) fn entries(module: &Module) -> Vec<Entry> {
    let numbered = |(number, symbol)| (SymbolId::from_u32(number), symbol);
    let symbols = || (0..).zip(&module.symbols).map(numbered);
    let mut entries: Vec<(u32, Entry)> = symbols()
        .filter(|(_, symbol)| symbol.linkage == Linkage::Import && symbol.kind != SymbolKind::Global)
        .map(|(symbol, _)| (0, Entry { symbol, item: Item::Import }))
        .collect();
    let imports = entries.len();
    let globals = symbols().filter(|(_, symbol)| symbol.kind == SymbolKind::Global);
    entries.extend(globals.map(|(symbol, of)| (of.line, Entry { symbol, item: Item::Global })));
    let data = module.data.iter().enumerate();
    entries.extend(
        data.map(|(number, data)| (data.line, Entry { symbol: data.symbol, item: Item::Data(number) })),
    );
    let functions = module.functions.iter().enumerate();
    entries.extend(functions.map(|(number, function)| {
        (function.line, Entry { symbol: function.symbol, item: Item::Function(number) })
    }));
    let others = &mut entries[imports..];
    if others.iter().all(|(line, _)| *line != 0)
        && module.functions.is_sorted_by_key(|function| function.line)
        && module.data.is_sorted_by_key(|data| data.line)
    {
        others.sort_by_key(|(line, _)| *line);
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// What functions say about symbols.
pub(super) struct Uses(Vec<Option<Signature>>);

impl Uses {
    pub(super) fn new(module: &Module) -> Self {
        Self(vec![None; module.symbols.len()])
    }

    /// Takes note of a function; to be called in order.
    pub(super) fn function(&mut self, function: &ir::Function) {
        for data in function.dfg.ext_funcs.values() {
            if let ExternalName::User(name) = data.name {
                let number = function.params.user_named_funcs()[name].index;
                self.0[number as usize]
                    .get_or_insert_with(|| function.dfg.signatures[data.signature].clone());
            }
        }
    }

    /// Whether a reader would take an import without item for what it is.
    pub(super) fn tell(&self, module: &Module, symbol: SymbolId) -> bool {
        let (used, of) = (&self.0[symbol.index()], module.symbol(symbol));
        match of.kind {
            SymbolKind::Function => used.is_some() && *used == of.signature,
            SymbolKind::Data | SymbolKind::Global => used.is_none(),
        }
    }
}
