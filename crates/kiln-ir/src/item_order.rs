//! The order in which the items of a module are printed.

use crate::module::Module;
use crate::symbol::{Linkage, SymbolId, SymbolKind};

/// A symbol and the kind of item that it is printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrintedItem {
    pub(crate) symbol: SymbolId,
    pub(crate) item: ItemKind,
}

/// The kind of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemKind {
    /// A symbol that another module defines. It need not be printed.
    Import,
    Global,
    /// The data object with this number.
    Data(usize),
    /// The function with this number.
    Function(usize),
}

/// Returns all items: imports by number, then the others by line. Functions keep their order, and
/// so do data objects, because symbols are numbered in that order. If lines contradict it, or an
/// item has no line, the others are ordered by kind: globals, data objects, functions.
pub(crate) fn entries(module: &Module) -> Vec<PrintedItem> {
    let numbered = |(number, symbol)| (SymbolId::from_u32(number), symbol);
    let symbols = || (0..).zip(&module.symbols).map(numbered);
    let mut entries: Vec<(u32, PrintedItem)> = symbols()
        .filter(|(_, symbol)| symbol.linkage == Linkage::Import && symbol.kind != SymbolKind::Global)
        .map(|(symbol, _)| (0, PrintedItem { symbol, item: ItemKind::Import }))
        .collect();
    let imports = entries.len();
    let globals = symbols().filter(|(_, symbol)| symbol.kind == SymbolKind::Global);
    entries.extend(globals.map(|(symbol, of)| (of.line, PrintedItem { symbol, item: ItemKind::Global })));
    let data = module.data.iter().enumerate();
    entries.extend(data.map(|(number, data)| {
        (data.line, PrintedItem { symbol: data.symbol, item: ItemKind::Data(number) })
    }));
    let functions = module.functions.iter().enumerate();
    entries.extend(functions.map(|(number, function)| {
        (function.line, PrintedItem { symbol: function.symbol, item: ItemKind::Function(number) })
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
