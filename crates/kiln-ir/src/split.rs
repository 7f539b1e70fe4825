//! A module taken apart: every function and every datum in a module of its own.
//!
//! Used to show that nothing depends on which definitions share a module, and by compilers that want the finest grain of
//! reuse.

use cranelift_codegen::ir::{
    self, ExternalName, GlobalValueData, UserExternalName, UserExternalNameRef, UserFuncName,
};

use crate::{Data, DataAddress, Function, Linkage, Module, SymbolId};

/// References of a function to names of its module, in order: callees, then symbol addresses.
///
/// Unused placeholders that a reader left behind are among them; their numbers may be no symbols.
pub(crate) fn references(function: &ir::Function) -> impl Iterator<Item = UserExternalNameRef> + '_ {
    let callees = function.dfg.ext_funcs.values().map(|callee| &callee.name);
    let addresses = function.global_values.values().filter_map(|value| match value {
        GlobalValueData::Symbol { name, .. } => Some(name),
        _ => None,
    });
    callees.chain(addresses).filter_map(|name| match name {
        ExternalName::User(name) => Some(*name),
        _ => None,
    })
}

/// See [`Module::split`].
pub(crate) fn split(module: &Module, number: usize) -> Option<Vec<Module>> {
    let anonymous = |symbol: SymbolId| module.symbol(symbol).name.is_empty();
    if module.functions.iter().any(|f| anonymous(f.symbol)) || module.data.iter().any(|d| anonymous(d.symbol))
    {
        return None;
    }
    let mut pieces = Vec::with_capacity(module.functions.len() + module.data.len());
    for function in &module.functions {
        let mut piece = Piece::new(module, number, function.symbol);
        let mut copy = function.clone();
        copy.symbol = SymbolId::from_u32(0);
        copy.ir.name = UserFuncName::user(0, 0);
        for name in references(&function.ir) {
            let old = function.ir.params.user_named_funcs().get(name)?;
            if old.index as usize >= module.symbols.len() {
                continue;
            }
            let index = piece.symbol(SymbolId::from_u32(old.index)).as_u32();
            copy.ir.params.reset_user_func_name(name, UserExternalName { namespace: 0, index });
        }
        pieces.push(piece.finish(vec![copy], Vec::new()));
    }
    for data in &module.data {
        let mut piece = Piece::new(module, number, data.symbol);
        let addresses = data
            .addresses
            .iter()
            .map(|address| DataAddress { symbol: piece.symbol(address.symbol), ..*address })
            .collect();
        let copy = Data { symbol: SymbolId::from_u32(0), addresses, ..data.clone() };
        pieces.push(piece.finish(Vec::new(), vec![copy]));
    }
    Some(pieces)
}

/// A module with one definition, symbol 0, while it is being made.
struct Piece<'a> {
    from: &'a Module,
    /// Number of `from` in its program.
    number: usize,
    /// New number by old number.
    numbers: Vec<Option<SymbolId>>,
    module: Module,
}

impl<'a> Piece<'a> {
    fn new(from: &'a Module, number: usize, defined: SymbolId) -> Self {
        let module = Module {
            name: from.name.clone(),
            source: from.source.clone(),
            settings: from.settings.clone(),
            symbols: Vec::new(),
            functions: Vec::new(),
            data: Vec::new(),
        };
        let mut piece = Self { from, number, numbers: vec![None; from.symbols.len()], module };
        piece.symbol(defined);
        let own = &mut piece.module.symbols[0];
        own.linkage = match from.symbol(defined).linkage {
            Linkage::Local => Linkage::Hidden,
            other => other,
        };
        piece
    }

    fn symbol(&mut self, old: SymbolId) -> SymbolId {
        if let Some(number) = self.numbers[old.index()] {
            return number;
        }
        let number = SymbolId::from_u32(self.module.symbols.len() as u32);
        let mut symbol = self.from.symbol(old).clone();
        if symbol.linkage == Linkage::Local {
            symbol.name = format!("{}.{}", symbol.name, self.number).into();
        }
        symbol.linkage = Linkage::Import;
        self.module.symbols.push(symbol);
        self.numbers[old.index()] = Some(number);
        number
    }

    fn finish(self, functions: Vec<Function>, data: Vec<Data>) -> Module {
        Module { functions, data, ..self.module }
    }
}
