//! Converts Kiln's modules to the form of `cranelift_module`, for the peers that implement its
//! `Module`.
//!
//! The peers number functions and data in order of declaration, so all numbers are known before
//! anything is declared. Names inside functions are changed before measuring, because a client of
//! the peer would have built its functions with the peer's numbers.

use std::collections::HashMap;

use cranelift_codegen::ir::{self, Signature, UserExternalName};
use cranelift_codegen::isa::TargetIsa;
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, ModuleRelocTarget};
use kiln::ir::{DataObject, Init, Linkage as OurLinkage, Module as OurModule, SymbolId, SymbolKind};

use crate::setup::Failure;

/// The namespace of functions; `cranelift_module` defines it.
const FUNCTION: u32 = 0;
/// The namespace of data; `cranelift_module` defines it.
const DATA: u32 = 1;

/// Declarations in order, and the number of every symbol.
pub(crate) struct Numbering {
    declarations: Vec<Declaration>,
    /// The new name of each symbol, by module and symbol.
    symbols: Vec<Vec<UserExternalName>>,
}

struct Declaration {
    /// The symbol's name; `None` if it is local.
    name: Option<Box<str>>,
    linkage: Linkage,
    /// The function's signature; `None` for data.
    signature: Option<Signature>,
    writable: bool,
}

impl Numbering {
    /// Numbers the symbols of a program that is linked from `modules` alone.
    pub(crate) fn new(modules: &[&OurModule], isa: &dyn TargetIsa) -> Self {
        let mut numbering = Self { declarations: Vec::new(), symbols: Vec::new() };
        let mut known: HashMap<&str, UserExternalName> = HashMap::new();
        let mut counts = [0; 2];
        for module in modules {
            numbering
                .symbols
                .push(vec![UserExternalName { namespace: DATA, index: u32::MAX }; module.symbols.len()]);
        }
        // Definitions come first, because only they have the symbol's kind and signature for
        // certain.
        for defined in [true, false] {
            for (number, module) in modules.iter().enumerate() {
                for (index, symbol) in module.symbols.iter().enumerate() {
                    if (symbol.linkage != OurLinkage::Import) != defined {
                        continue;
                    }
                    let local = symbol.linkage == OurLinkage::Local;
                    let name = match known.get(&*symbol.name) {
                        Some(name) if !local => name.clone(),
                        _ => {
                            let is_function = symbol.kind == SymbolKind::Function;
                            let namespace = if is_function { FUNCTION } else { DATA };
                            let count = &mut counts[namespace as usize];
                            let name = UserExternalName { namespace, index: *count };
                            *count += 1;
                            let unknown = || Signature::new(isa.default_call_conv());
                            let id = SymbolId::from_u32(index as u32);
                            numbering.declarations.push(Declaration {
                                name: (!local).then(|| symbol.name.clone()),
                                linkage: linkage(symbol.linkage),
                                signature: is_function
                                    .then(|| symbol.signature.clone().unwrap_or_else(unknown)),
                                writable: module
                                    .data
                                    .iter()
                                    .any(|datum| datum.symbol == id && datum.writable),
                            });
                            if !local {
                                known.insert(&symbol.name, name.clone());
                            }
                            name
                        }
                    };
                    numbering.symbols[number][index] = name;
                }
            }
        }
        numbering
    }

    /// Declares everything in order.
    pub(crate) fn declare(&self, module: &mut dyn Module) -> Result<(), Failure> {
        for Declaration { name, linkage, signature, writable } in &self.declarations {
            match (signature, name) {
                (Some(signature), Some(name)) => {
                    module.declare_function(name, *linkage, signature).map(|_| ())
                }
                (Some(signature), None) => module.declare_anonymous_function(signature).map(|_| ()),
                (None, Some(name)) => module.declare_data(name, *linkage, *writable, false).map(|_| ()),
                (None, None) => module.declare_anonymous_data(*writable, false).map(|_| ()),
            }?;
        }
        Ok(())
    }

    /// Returns the number of a function.
    pub(crate) fn function(&self, module: usize, symbol: SymbolId) -> FuncId {
        FuncId::from_u32(self.symbols[module][symbol.index()].index)
    }

    /// Copies a function with these numbers in place of its symbols.
    pub(crate) fn rename(&self, module: usize, function: &ir::Function) -> ir::Function {
        let mut function = function.clone();
        let names: Vec<_> =
            function.params.user_named_funcs().iter().map(|(id, name)| (id, name.clone())).collect();
        // In two steps, because no two references may have the same name at any time.
        for (id, _) in &names {
            let name = UserExternalName { namespace: u32::MAX, index: id.as_u32() };
            function.params.reset_user_func_name(*id, name);
        }
        for (id, name) in names {
            // A reference that no instruction uses may have no symbol.
            if let Some(symbol) = self.symbols[module].get(name.index as usize) {
                function.params.reset_user_func_name(id, symbol.clone());
            }
        }
        function
    }

    /// Returns the target of a relocation against a symbol.
    fn target(&self, module: usize, symbol: SymbolId) -> ModuleRelocTarget {
        let name = &self.symbols[module][symbol.index()];
        ModuleRelocTarget::user(name.namespace, name.index)
    }

    /// Converts a data object to the form of `cranelift_module`.
    pub(crate) fn datum(&self, module: usize, datum: &DataObject) -> (DataId, DataDescription) {
        let mut description = DataDescription::new();
        match &datum.init {
            Init::Zeros(len) => description.define_zeroinit(*len as usize),
            Init::Bytes(bytes) => description.define(bytes.clone().into()),
        }
        description.set_align(u64::from(datum.align));
        for address in &datum.addresses {
            let target = self.target(module, address.symbol);
            if self.symbols[module][address.symbol.index()].namespace == FUNCTION && address.addend == 0 {
                let function = description.import_function(target);
                description.write_function_addr(address.offset as u32, function);
            } else {
                let value = description.import_global_value(target);
                description.write_data_addr(address.offset as u32, value, address.addend);
            }
        }
        (DataId::from_u32(self.symbols[module][datum.symbol.index()].index), description)
    }
}

fn linkage(linkage: OurLinkage) -> Linkage {
    match linkage {
        OurLinkage::Import => Linkage::Import,
        OurLinkage::Local => Linkage::Local,
        OurLinkage::Hidden => Linkage::Hidden,
        OurLinkage::Export => Linkage::Export,
        OurLinkage::Preemptible => Linkage::Preemptible,
        OurLinkage::Replaceable => Linkage::Export,
    }
}
