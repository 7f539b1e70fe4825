//! Decides which references are direct: references to symbols that the module itself defines and
//! that no other definition can override.
//!
//! Cranelift calls such a reference colocated. It reaches the symbol relative to the program
//! counter; any other reference goes through the symbol's GOT slot.

use cranelift_codegen::ir::{self, ExternalName, GlobalValueData, Inst, InstructionData};
use kiln_ir::{Function, Linkage, Module, Symbol, SymbolId, SymbolKind};

/// Whether the module defines the symbol, and no other definition can override it or take its place
/// while the program runs.
fn is_near(symbol: &Symbol) -> bool {
    !matches!(symbol.linkage, Linkage::Import | Linkage::Preemptible | Linkage::Replaceable)
}

/// Returns one byte, the class, for each symbol that `function` refers to. The class contains
/// everything about the symbol that the code generator uses, so functions with equal canonical
/// forms and equal classes have equal code.
pub fn reference_classes(module: &Module, function: &Function) -> Vec<u8> {
    let references = function.body().map_or(&[][..], |body| body.references());
    let class = |id: &SymbolId| {
        let symbol = module.symbol(*id);
        let kind = match symbol.kind {
            SymbolKind::Function => 0,
            SymbolKind::Data => 1,
            SymbolKind::Global => 2,
        };
        // A recursive function must not match a function that calls another function in the same
        // way.
        let recursive = *id == function.symbol;
        let replaceable = symbol.linkage == Linkage::Replaceable;
        kind | u8::from(is_near(symbol)) << 2 | u8::from(recursive) << 3 | u8::from(replaceable) << 4
    };
    references.iter().map(class).collect()
}

/// Makes calls to the module's own functions direct, whether or not the client marked them as
/// colocated, and those of its replaceable functions not direct: a call that reads the function's
/// slot is faster than one that takes the stub.
pub(crate) fn colocate(module: &Module, function: &mut ir::Function) {
    let ir::Function { stencil, params, .. } = function;
    let names = params.user_named_funcs();
    for (_, callee) in stencil.dfg.ext_funcs.iter_mut() {
        if let ExternalName::User(name) = callee.name {
            // A callee that no instruction uses may have no symbol.
            let symbol = names.get(name).and_then(|name| module.symbols.get(name.index as usize));
            match symbol {
                Some(symbol) if is_near(symbol) => callee.colocated = true,
                Some(symbol) if symbol.linkage == Linkage::Replaceable => callee.colocated = false,
                _ => {}
            }
        }
    }
}

/// For code that contains addresses: makes every reference to data that the module does not define
/// an address, whatever the client says. Otherwise Cranelift would reach data that is marked as
/// colocated relative to the code, from which the data of the host can have any distance.
pub(crate) fn reach_directly(module: &Module, function: &mut ir::Function) {
    let ir::Function { stencil, params, .. } = function;
    let names = params.user_named_funcs();
    for global in stencil.global_values.values_mut() {
        if let GlobalValueData::Symbol { name: ExternalName::User(name), colocated, .. } = global {
            let symbol = names.get(*name).and_then(|name| module.symbols.get(name.index as usize));
            *colocated &= symbol.is_some_and(is_near);
        }
    }
}

/// Returns the functions whose addresses `function` may use for something else than calls, as
/// symbol numbers, sorted.
///
/// A function that is called and whose address is taken counts for all its references: relocations
/// do not tell them apart.
pub(crate) fn addresses_taken(module: &Module, function: &ir::Function) -> Vec<u32> {
    let ir::Function { stencil, params, .. } = function;
    let mut taken = Vec::new();
    let mut add = |name: &ExternalName| {
        if let ExternalName::User(name) = *name
            && let Some(name) = params.user_named_funcs().get(name)
            && module.symbols.get(name.index as usize).is_some_and(|it| it.kind == SymbolKind::Function)
        {
            taken.push(name.index);
        }
    };
    for global in stencil.global_values.values() {
        if let GlobalValueData::Symbol { name, .. } = global {
            add(name);
        }
    }
    // All instructions, also those that were optimised away: one too many costs a jump.
    if !stencil.dfg.ext_funcs.is_empty() {
        for index in 0..stencil.dfg.num_insts() {
            if let InstructionData::FuncAddr { func_ref, .. } =
                stencil.dfg.insts[Inst::from_u32(index as u32)]
            {
                add(&stencil.dfg.ext_funcs[func_ref].name);
            }
        }
    }
    taken.sort_unstable();
    taken.dedup();
    taken
}

/// Decides for every reference of a function for s390x whether it is marked as colocated, whatever
/// the client says.
///
/// Data and functions that the module defines, and that cannot be overridden, are marked: `larl`
/// and loads reach them without a slot. Functions that are only called are marked wherever they are
/// defined, because `brasl` may go through a stub. Every other address comes from a slot.
pub(crate) fn colocate_s390x(module: &Module, function: &mut ir::Function) {
    let ir::Function { stencil, params, .. } = function;
    let names = params.user_named_funcs();
    let is_own = |name: &ExternalName| {
        let ExternalName::User(name) = *name else { return false };
        let symbol = names.get(name).and_then(|name| module.symbols.get(name.index as usize));
        symbol.is_some_and(|symbol| symbol.kind != SymbolKind::Global && is_near(symbol))
    };
    for global in stencil.global_values.values_mut() {
        if let GlobalValueData::Symbol { name, colocated, .. } = global {
            *colocated = is_own(name);
        }
    }
    for callee in stencil.dfg.ext_funcs.values_mut() {
        callee.colocated = true;
    }
    for block in stencil.layout.blocks() {
        for inst in stencil.layout.block_insts(block) {
            if let InstructionData::FuncAddr { func_ref, .. } = stencil.dfg.insts[inst] {
                let callee = &mut stencil.dfg.ext_funcs[func_ref];
                callee.colocated = is_own(&callee.name);
            }
        }
    }
}
