//! Checks what a function refers to, before the verifier and the encoder follow its references.

use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::ir::{ExternalName, Function, GlobalValue, GlobalValueData, Inst, InstructionData};

use crate::limits::MAX_CHAIN;

/// A reference that the encoder or the verifier could not follow, or a name that has no meaning
/// here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// A global value that does not exist.
    NoGlobal(AnyEntity, GlobalValue),
    /// A name number that does not exist.
    NoName(AnyEntity),
    /// A known symbol of Cranelift, which exists only in some object formats.
    KnownSymbol(AnyEntity),
    /// A thread-local symbol with an offset, which most code generators ignore.
    ThreadLocal(GlobalValue),
    /// The address of a global value that is not a symbol. Code generators no longer support that.
    NoAddress(Inst, GlobalValue),
    /// A symbol with an offset that no instruction can hold.
    Offset(GlobalValue),
    /// A global value that is made from so many others that following the chain for each takes too
    /// long.
    Chain(GlobalValue),
    /// The function has no block. Cranelift's verifier accepts that, and code generation panics.
    Empty,
}

impl Unusable {
    /// Returns the entity that has the reference.
    pub(crate) fn entity(&self) -> AnyEntity {
        match self {
            Self::NoGlobal(entity, _) | Self::NoName(entity) | Self::KnownSymbol(entity) => *entity,
            Self::ThreadLocal(global) | Self::Offset(global) | Self::Chain(global) => {
                AnyEntity::GlobalValue(*global)
            }
            Self::NoAddress(inst, _) => AnyEntity::Inst(*inst),
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
            Self::NoAddress(_, global) => {
                write!(f, "{global} is no symbol, so it has no address to be taken")
            }
            Self::Offset(_) => f.write_str("the offset of a symbol has at most 31 bits"),
            Self::Chain(global) => write!(f, "{global} is made from more than {MAX_CHAIN} others"),
            Self::Empty => f.write_str("a function needs a block"),
            Self::ThreadLocal(_) => f.write_str("a thread-local symbol has no offset"),
        }
    }
}

/// Returns the unusable references that Cranelift's verifier does not report.
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
        if let GlobalValueData::Symbol { name: symbol, tls, offset, colocated: _ } = data {
            faults.extend(name(at.into(), symbol));
            faults.extend((*tls && offset.bits() != 0).then_some(Unusable::ThreadLocal(at)));
            faults.extend(i32::try_from(offset.bits()).is_err().then_some(Unusable::Offset(at)));
        }
    }
    faults.extend(long_chain(function).map(Unusable::Chain));
    if globals.values().any(|data| !matches!(data, GlobalValueData::Symbol { .. })) {
        addresses(function, &mut faults);
    }
    faults.extend(function.dfg.ext_funcs.iter().filter_map(|(at, data)| name(at.into(), &data.name)));
    faults
}

/// Returns the first global value that is made from too many others. A small cycle is left to the
/// verifier.
fn long_chain(function: &Function) -> Option<GlobalValue> {
    let globals = &function.global_values;
    if globals.len() <= MAX_CHAIN {
        return None;
    }
    let base = |at: &GlobalValue| match globals.get(*at)? {
        GlobalValueData::Load { base, .. } | GlobalValueData::IAddImm { base, .. } => Some(*base),
        GlobalValueData::VMContext
        | GlobalValueData::Symbol { .. }
        | GlobalValueData::DynScaleTargetConst { .. } => None,
    };
    // The length of the chain that ends with each global value; 0 where it is not known yet.
    let mut lengths: SecondaryMap<GlobalValue, usize> = SecondaryMap::with_capacity(globals.len());
    let mut path = Vec::new();
    globals.keys().find(|at| {
        path.clear();
        // A cycle ends here too.
        path.extend(
            std::iter::successors(Some(*at), base).take_while(|at| lengths[*at] == 0).take(MAX_CHAIN + 2),
        );
        let mut length = path.last().and_then(base).map_or(0, |at| lengths[at]);
        for at in path.iter().rev() {
            length += 1;
            lengths[*at] = length;
        }
        lengths[*at] > MAX_CHAIN + 1
    })
}

/// Finds instructions that take the address of a global value without an address.
fn addresses(function: &Function, faults: &mut Vec<Unusable>) {
    let layout = &function.layout;
    for inst in layout.blocks().flat_map(|block| layout.block_insts(block)) {
        let InstructionData::UnaryGlobalValue { global_value, .. } = function.dfg.insts[inst] else {
            continue;
        };
        match function.global_values.get(global_value) {
            Some(GlobalValueData::Symbol { .. }) => {}
            Some(_) => faults.push(Unusable::NoAddress(inst, global_value)),
            None => faults.push(Unusable::NoGlobal(inst.into(), global_value)),
        }
    }
}
