//! Splits a module, so that every function and every data object has a module of its own.
//!
//! Tests use it to show that nothing depends on which definitions share a module. Compilers can use
//! it to reuse code at the finest granularity.

use crate::data::{DataAddress, DataObject};
use crate::function::{Code, CodeReloc, CodeTarget, Function, MachineCode};
use crate::ids::ClientIds;
use crate::lines::{LineEntry, LineTable};
use crate::module::Module;
use crate::symbol::{Linkage, SymbolId};

impl Module {
    /// Returns one module for each function and each data object.
    ///
    /// Local symbols become hidden, so that the new modules find them. Their names get the suffix
    /// `.number`; CLIF names contain no `.`. Each module of a program must be split with a
    /// different `number`, so that local symbols with the same name stay distinct.
    ///
    /// Returns `None` if a definition has no name.
    pub fn split(&self, number: usize) -> Option<Vec<Module>> {
        let module = self;
        let anonymous = |symbol: SymbolId| module.symbol(symbol).name.is_empty();
        if module.functions.iter().any(|f| anonymous(f.symbol))
            || module.data.iter().any(|d| anonymous(d.symbol))
        {
            return None;
        }
        let entries: Vec<_> = module.lines.iter().collect();
        let mut pieces = Vec::with_capacity(module.functions.len() + module.data.len());
        for function in &module.functions {
            let mut piece = Piece::new(module, number, function.symbol);
            let code = match &function.code {
                Code::Ir(body) => Code::Ir(body.with_references(|symbol| piece.symbol(symbol))),
                Code::Machine(MachineCode { bytes, align, relocs }) => {
                    let relocs = relocs.iter().map(|reloc| {
                        let target = match reloc.target {
                            CodeTarget::Symbol(symbol) => CodeTarget::Symbol(piece.symbol(symbol)),
                            other => other,
                        };
                        CodeReloc { target, ..*reloc }
                    });
                    let relocs = relocs.collect();
                    Code::Machine(MachineCode { bytes: bytes.clone(), align: *align, relocs })
                }
            };
            let copy = Function { symbol: SymbolId::from_u32(0), code, ..function.clone() };
            piece.module.lines = module.lines.part(lines_of(function, &entries));
            pieces.push(piece.finish(vec![copy], Vec::new()));
        }
        for data in &module.data {
            let mut piece = Piece::new(module, number, data.symbol);
            let addresses = data
                .addresses
                .iter()
                .map(|address| DataAddress { symbol: piece.symbol(address.symbol), ..*address })
                .collect();
            let copy = DataObject { symbol: SymbolId::from_u32(0), addresses, ..data.clone() };
            pieces.push(piece.finish(Vec::new(), vec![copy]));
        }
        Some(pieces)
    }
}

/// Returns the entries of a line table that the locations of `function` need.
fn lines_of<'e>(function: &Function, entries: &'e [LineEntry]) -> &'e [LineEntry] {
    let Some(ir) = (if entries.is_empty() { None } else { function.ir() }) else { return &[] };
    let insts = ir.layout.blocks().flat_map(|block| ir.layout.block_insts(block));
    let locations = insts.map(|inst| ir.srcloc(inst)).chain([ir.params.base_srcloc()]);
    let bits = locations.filter(|location| !location.is_default()).map(|location| location.bits());
    let (low, high) = bits.fold((u32::MAX, 0), |(low, high), bits| (low.min(bits), high.max(bits)));
    let end = entries.partition_point(|entry| entry.location.bits() <= high);
    // The first location may be within the range of the entry before it.
    let start = entries.partition_point(|entry| entry.location.bits() <= low).saturating_sub(1);
    entries.get(start..end).unwrap_or_default()
}

/// A module with one definition, symbol 0, while it is being made.
struct Piece<'a> {
    from: &'a Module,
    /// The number of `from` in its program.
    number: usize,
    /// The new number of each symbol, by old number.
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
            lines: LineTable::default(),
            comments: Vec::new(),
            ids: ClientIds::default(),
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

    fn finish(self, functions: Vec<Function>, data: Vec<DataObject>) -> Module {
        Module { functions, data, ..self.module }
    }
}
