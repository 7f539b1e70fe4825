//! Makes a function refer to symbols by number, and to nothing that it does not use.
//!
//! Functions come from Cranelift's reader or from a client's builder. Either way they declare more than they use:
//! placeholders for numbers that the text leaves out, imports that were declared and then not called. What counts as
//! used:
//!
//! - an external function that an instruction refers to;
//! - a global value that an instruction, the stack limit, a dynamic type or a used global value refers to.
//!
//! [`rename`] drops the rest, so that an unused import is no symbol, and renumbers what stays in its order.
//!
//! Invariant: [`used`] returns only references that are in range; a function with one that is not is refused by
//! [`check`] before.

use cranelift_codegen::entity::{EntityRef, PrimaryMap, SecondaryMap};
use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::ir::function::FunctionParameters;
use cranelift_codegen::ir::{
    ExternalName, FuncRef, Function, GlobalValue, GlobalValueData, Inst, InstructionData, UserExternalName,
    UserFuncName,
};

use crate::module::SymbolId;

/// What a function uses of what it declares, by ascending number.
#[derive(Debug, Default)]
pub(crate) struct Used {
    pub(crate) functions: Vec<FuncRef>,
    pub(crate) globals: Vec<GlobalValue>,
}

/// A reference that [`rename`] or the verifier could not follow, or a name that has no meaning here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// A global value that does not exist.
    NoGlobal(AnyEntity, GlobalValue),
    /// A name number that does not exist.
    NoName(AnyEntity),
    /// A symbol that only some object formats have.
    KnownSymbol(AnyEntity),
    /// A thread-local symbol.
    ThreadLocal(GlobalValue),
    /// There is no block. Cranelift's verifier lets that pass, and code generation panics.
    Empty,
}

impl Unusable {
    /// Where it stands.
    pub(crate) fn entity(&self) -> AnyEntity {
        match self {
            Self::NoGlobal(entity, _) | Self::NoName(entity) | Self::KnownSymbol(entity) => *entity,
            Self::ThreadLocal(global) => AnyEntity::GlobalValue(*global),
            Self::Empty => AnyEntity::Function,
        }
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoGlobal(_, global) => write!(f, "undefined global value {global}"),
            Self::NoName(_) => f.write_str("undefined external name"),
            Self::KnownSymbol(_) => f.write_str("symbols of an object format are not supported"),
            Self::Empty => f.write_str("a function needs a block"),
            Self::ThreadLocal(_) => f.write_str("thread-local symbols are not supported"),
        }
    }
}

/// What the function refers to and Cranelift's verifier takes for granted.
pub(crate) fn check(function: &Function) -> Vec<Unusable> {
    let mut faults = Vec::new();
    if function.layout.entry_block().is_none() {
        faults.push(Unusable::Empty);
    }
    let globals = &function.global_values;
    let mut global = |at: AnyEntity, target: GlobalValue| {
        if !globals.is_valid(target) {
            faults.push(Unusable::NoGlobal(at, target));
        }
    };
    for (at, data) in globals {
        match data {
            GlobalValueData::Load { base, .. } | GlobalValueData::IAddImm { base, .. } => {
                global(at.into(), *base);
            }
            GlobalValueData::VMContext
            | GlobalValueData::Symbol { .. }
            | GlobalValueData::DynScaleTargetConst { .. } => {}
        }
    }
    if let Some(limit) = function.stack_limit {
        global(AnyEntity::StackLimit, limit);
    }
    for (at, data) in &function.dfg.dynamic_types {
        global(at.into(), data.dynamic_scale);
    }
    let name = |at: AnyEntity, name: &ExternalName| match name {
        ExternalName::User(number) if !function.params.user_named_funcs().is_valid(*number) => {
            Some(Unusable::NoName(at))
        }
        ExternalName::KnownSymbol(_) => Some(Unusable::KnownSymbol(at)),
        ExternalName::User(_) | ExternalName::TestCase(_) | ExternalName::LibCall(_) => None,
    };
    for (at, data) in globals {
        if let GlobalValueData::Symbol { name: symbol, tls, .. } = data {
            faults.extend(name(at.into(), symbol));
            faults.extend(tls.then_some(Unusable::ThreadLocal(at)));
        }
    }
    faults.extend(function.dfg.ext_funcs.iter().filter_map(|(at, data)| name(at.into(), &data.name)));
    faults
}

/// Finds what the function uses. [`check`] must have found nothing.
pub(crate) fn used(function: &Function) -> Used {
    let mut functions = SecondaryMap::<FuncRef, bool>::new();
    let mut globals = SecondaryMap::<GlobalValue, bool>::new();
    for number in 0..function.dfg.num_insts() {
        match function.dfg.insts[Inst::new(number)] {
            InstructionData::Call { func_ref, .. }
            | InstructionData::FuncAddr { func_ref, .. }
            | InstructionData::TryCall { func_ref, .. } => functions[func_ref] = true,
            InstructionData::UnaryGlobalValue { global_value, .. } => globals[global_value] = true,
            _ => {}
        }
    }
    if let Some(limit) = function.stack_limit {
        globals[limit] = true;
    }
    for data in function.dfg.dynamic_types.values() {
        globals[data.dynamic_scale] = true;
    }
    // A base may be declared behind its user; a cycle ends at what is marked already.
    for start in function.global_values.keys().filter(|&at| globals[at]).collect::<Vec<_>>() {
        let mut at = start;
        while let GlobalValueData::Load { base, .. } | GlobalValueData::IAddImm { base, .. } =
            function.global_values[at]
        {
            if globals[base] {
                break;
            }
            globals[base] = true;
            at = base;
        }
    }
    Used {
        functions: function.dfg.ext_funcs.keys().filter(|&at| functions[at]).collect(),
        globals: function.global_values.keys().filter(|&at| globals[at]).collect(),
    }
}

/// Drops what is not used, refers to symbols by number, and names the function `symbol`.
///
/// `functions` and `globals` give the symbol of what stands at the same position of `used`, or `None` where there is
/// none: a library call, a global value that is no symbol.
pub(crate) fn rename(
    function: &mut Function,
    symbol: SymbolId,
    used: &Used,
    functions: &[Option<SymbolId>],
    globals: &[Option<SymbolId>],
) {
    assert!(functions.len() == used.functions.len() && globals.len() == used.globals.len());
    let mut params = FunctionParameters::new();
    if !function.params.base_srcloc().is_default() {
        params.ensure_base_srcloc(function.params.base_srcloc());
    }
    let mut name = |id: SymbolId| {
        ExternalName::user(params.ensure_user_func_name(UserExternalName::new(0, id.as_u32())))
    };
    let sparse = used.functions.len() != function.dfg.ext_funcs.len()
        || used.globals.len() != function.global_values.len();

    let mut old = std::mem::take(&mut function.dfg.ext_funcs);
    let mut kept = PrimaryMap::with_capacity(used.functions.len());
    let mut new_function = SecondaryMap::<FuncRef, FuncRef>::with_default(FuncRef::new(0));
    for (&at, id) in used.functions.iter().zip(functions) {
        let data = &mut old[at];
        if let Some(id) = id {
            data.name = name(*id);
        }
        new_function[at] = kept.push(data.clone());
    }
    function.dfg.ext_funcs = kept;

    let mut old = std::mem::take(&mut function.global_values);
    let mut new_global = SecondaryMap::<GlobalValue, GlobalValue>::with_default(GlobalValue::new(0));
    for (number, &at) in used.globals.iter().enumerate() {
        new_global[at] = GlobalValue::new(number);
    }
    let mut kept = PrimaryMap::with_capacity(used.globals.len());
    for (&at, id) in used.globals.iter().zip(globals) {
        let data = &mut old[at];
        match data {
            GlobalValueData::Load { base, .. } | GlobalValueData::IAddImm { base, .. } => {
                *base = new_global[*base]
            }
            GlobalValueData::Symbol { name: symbol, .. } => {
                if let Some(id) = id {
                    *symbol = name(*id);
                }
            }
            GlobalValueData::VMContext | GlobalValueData::DynScaleTargetConst { .. } => {}
        }
        kept.push(data.clone());
    }
    function.global_values = kept;

    if sparse {
        function.stack_limit = function.stack_limit.map(|limit| new_global[limit]);
        for data in function.dfg.dynamic_types.values_mut() {
            data.dynamic_scale = new_global[data.dynamic_scale];
        }
        for number in 0..function.dfg.num_insts() {
            match &mut function.dfg.insts[Inst::new(number)] {
                InstructionData::Call { func_ref, .. }
                | InstructionData::FuncAddr { func_ref, .. }
                | InstructionData::TryCall { func_ref, .. } => *func_ref = new_function[*func_ref],
                InstructionData::UnaryGlobalValue { global_value, .. } => {
                    *global_value = new_global[*global_value];
                }
                _ => {}
            }
        }
    }
    function.params = params;
    function.name = UserFuncName::user(0, symbol.as_u32());
}
