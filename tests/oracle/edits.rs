//! Random changes of one thing that a fingerprint covers, each with the functions whose own
//! fingerprints cover it.
//!
//! An edited module need not be valid: a fingerprint covers whatever the module holds.

mod ir;

use std::collections::HashSet;

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use kiln::ir::{
    Body, Code, CodeTarget, DataAddress, Init, Linkage, Module, Setting, SymbolId, SymbolKind, TargetLine,
};
use kiln_oracle::random::Random;

/// An edited module.
pub(crate) struct Edit {
    /// The change, for messages.
    pub(crate) what: String,
    pub(crate) module: Module,
    /// For each function, whether its fingerprint must differ; otherwise it must stay the same.
    pub(crate) concerned: Vec<bool>,
}

/// Changes one thing; `None` if the module has nothing of the kind that was chosen.
pub(crate) fn edit(module: &Module, random: &mut Random) -> Option<Edit> {
    let mut edited = module.clone();
    let changed = match random.below(9) {
        0 => symbol(&mut edited, random),
        1 => data(&mut edited, random),
        2 => settings(&mut edited, random),
        3 => order(&mut edited, random),
        4 => machine(&mut edited, random),
        5 => twin(&mut edited, random),
        _ => code(&mut edited, random),
    }?;
    let (what, concerned) = changed;
    Some(Edit { what, module: edited, concerned })
}

/// A change, and the functions that it affects.
type Changed = Option<(String, Vec<bool>)>;

fn nobody(module: &Module) -> Vec<bool> {
    vec![false; module.functions.len()]
}

/// Functions that refer to `symbol`.
fn who_refers(module: &Module, symbol: SymbolId) -> Vec<bool> {
    let refers = |code: &Code| match code {
        Code::Ir(body) => body.references().contains(&symbol),
        Code::Machine(code) => {
            code.relocs.iter().any(|reloc| matches!(reloc.target, CodeTarget::Symbol(id) if id == symbol))
        }
    };
    module.functions.iter().map(|function| refers(&function.code)).collect()
}

/// Changes one thing in a signature.
fn other_signature(signature: &mut Signature, random: &mut Random) -> &'static str {
    let list = if random.once_in(2) { &mut signature.params } else { &mut signature.returns };
    let at = random.below(list.len() as u32) as usize;
    match (random.below(5), list.get_mut(at)) {
        (0, Some(param)) => {
            param.value_type = if param.value_type == types::I64 { types::F64 } else { types::I64 };
            "type of a parameter"
        }
        (1, Some(param)) => {
            use cranelift_codegen::ir::ArgumentExtension::{None, Sext, Uext};
            param.extension = match param.extension {
                None => Uext,
                Uext => Sext,
                Sext => None,
            };
            "extension of a parameter"
        }
        (2, Some(param)) => {
            use cranelift_codegen::ir::ArgumentPurpose::{Normal, StructArgument, StructReturn, VMContext};
            param.purpose = match param.purpose {
                Normal => VMContext,
                VMContext => StructReturn,
                StructReturn => StructArgument(8),
                StructArgument(8) => StructArgument(16),
                StructArgument(_) => Normal,
            };
            "purpose of a parameter"
        }
        (3, _) => {
            list.insert(at, AbiParam::new(types::I8));
            "number of parameters"
        }
        _ => {
            let other =
                if signature.call_conv == CallConv::SystemV { CallConv::Fast } else { CallConv::SystemV };
            signature.call_conv = other;
            "calling convention"
        }
    }
}

fn symbol(module: &mut Module, random: &mut Random) -> Changed {
    let at = random.below(module.symbols.len() as u32);
    let concerned = who_refers(module, SymbolId::from_u32(at));
    let symbol = &mut module.symbols[at as usize];
    let what = match random.below(4) {
        0 if symbol.linkage != Linkage::Local => {
            symbol.name = format!("{}x", symbol.name).into();
            format!("name of {:?} {:?}", symbol.linkage, symbol.kind)
        }
        1 => {
            use Linkage::{Export, Hidden, Import, Local, Preemptible, Replaceable};
            let all = [Import, Local, Hidden, Export, Preemptible, Replaceable];
            let old = std::mem::replace(&mut symbol.linkage, *random.choose(&all));
            (old != symbol.linkage).then_some(format!("linkage: {old:?} becomes {:?}", symbol.linkage))?
        }
        2 => {
            let all = [SymbolKind::Function, SymbolKind::Data, SymbolKind::Global];
            let old = std::mem::replace(&mut symbol.kind, *random.choose(&all));
            (old != symbol.kind).then_some(format!("kind: {old:?} becomes {:?}", symbol.kind))?
        }
        _ => match &mut symbol.signature {
            Some(signature) if !random.once_in(4) => {
                format!("{} of a symbol", other_signature(signature, random))
            }
            signature @ Some(_) => {
                *signature = None;
                "no signature".into()
            }
            signature @ None => {
                *signature = Some(Signature::new(CallConv::SystemV));
                "a signature".into()
            }
        },
    };
    Some((what, concerned))
}

fn data(module: &mut Module, random: &mut Random) -> Changed {
    let symbols = module.symbols.len() as u32;
    if module.data.is_empty() {
        return None;
    }
    let at = random.below(module.data.len() as u32) as usize;
    let data = &mut module.data[at];
    let address = random.below(data.addresses.len() as u32) as usize;
    let what = match (random.below(9), data.addresses.get_mut(address)) {
        (0, _) => {
            data.writable ^= true;
            "writable"
        }
        (1, _) => {
            data.align = if data.align == 4096 { 1 } else { data.align * 2 };
            "alignment"
        }
        (2, _) => {
            data.section = data.section.is_none().then(|| ".other".into());
            "section"
        }
        (3, Some(address)) => {
            address.offset += 1;
            "offset of an address"
        }
        (4, Some(address)) => {
            address.addend = address.addend.wrapping_add(i64::from(random.once_in(2)) * 2 - 1);
            "addend"
        }
        (5, Some(address)) => {
            address.symbol = SymbolId::from_u32((address.symbol.as_u32() + 1) % (symbols + 1));
            "symbol of an address"
        }
        (6, Some(_)) => {
            data.addresses.remove(address);
            "an address less"
        }
        (7, _) => {
            data.addresses.push(DataAddress { offset: 0, symbol: data.symbol, addend: 0 });
            "an address more"
        }
        _ => {
            match &mut data.init {
                Init::Zeros(length) => *length += 1,
                Init::Bytes(bytes) => {
                    let at = random.below(bytes.len() as u32) as usize;
                    match bytes.get_mut(at) {
                        Some(byte) if !random.once_in(4) => *byte ^= 1 << random.below(8),
                        _ => bytes.push(0),
                    }
                }
            }
            "content"
        }
    };
    Some((format!("{what} of a datum"), nobody(module)))
}

fn settings(module: &mut Module, random: &mut Random) -> Changed {
    let settings = &mut module.settings;
    let setting = match random.below(3) {
        0 => Setting::new("opt_level", "speed_and_size"),
        1 => Setting::new("opt_level", "none"),
        _ => Setting { name: "enable_probestack".into(), value: None, line: 0 },
    };
    let what = match (random.below(4), settings.targets.last_mut()) {
        (0, Some(target)) => {
            target.triple = format!("{}-linux", target.triple).into();
            "triple of a target line"
        }
        (1, Some(target)) => {
            target.settings.push(setting);
            "setting of a target line"
        }
        (2, _) => {
            let triple = "riscv64".into();
            settings.targets.push(TargetLine { triple, settings: Vec::new(), line: 0 });
            "target line"
        }
        (3, _) => match settings.shared.iter_mut().find(|setting| setting.name.starts_with("opt")) {
            Some(setting) => {
                let speed = setting.value.as_deref() == Some("speed");
                setting.value = Some(if speed { "none" } else { "speed" }.into());
                "value of a set line"
            }
            None => return None,
        },
        _ => {
            settings.shared.push(setting);
            "set line"
        }
    };
    Some((what.into(), vec![true; module.functions.len()]))
}

fn order(module: &mut Module, random: &mut Random) -> Changed {
    let swap = |length: usize, random: &mut Random| {
        let at = random.below(length as u32) as usize;
        (length > 1).then(|| (at, (at + 1) % length))
    };
    let concerned = nobody(module);
    if random.once_in(2) {
        let (one, other) = swap(module.functions.len(), random)?;
        // Functions keep their numbers, so that only the order of definitions changes. Two equal
        // functions would be no change, but no two have the same symbol.
        module.functions.swap(one, other);
        let mut concerned = concerned;
        (concerned[one], concerned[other]) = (true, true);
        if module.functions[one].code == module.functions[other].code {
            return None;
        }
        Some(("order of functions".into(), concerned))
    } else {
        let (one, other) = swap(module.data.len(), random)?;
        module.data.swap(one, other);
        Some(("order of data".into(), concerned))
    }
}

/// Lets a function refer to another local symbol, which equals the old one in everything but its
/// number.
fn twin(module: &mut Module, random: &mut Random) -> Changed {
    let at = random.below(module.functions.len() as u32) as usize;
    let body = module.functions[at].body()?;
    let local = |id: &&SymbolId| module.symbol(**id).linkage == Linkage::Local;
    let old = *body.references().iter().find(local)?;
    let new = SymbolId::from_u32(module.symbols.len() as u32);
    let code = body.with_references(|id| if id == old { new } else { id });
    module.symbols.push(module.symbol(old).clone());
    module.functions[at].code = Code::Ir(code);
    let mut concerned = nobody(module);
    concerned[at] = true;
    Some(("number of a local symbol".into(), concerned))
}

fn machine(module: &mut Module, random: &mut Random) -> Changed {
    let at = module.functions.iter().position(|function| function.body().is_none())?;
    let mut concerned = nobody(module);
    concerned[at] = true;
    let symbol = module.functions[at].symbol;
    let Code::Machine(code) = &mut module.functions[at].code else { return None };
    let what = match random.below(4) {
        0 => {
            let byte = random.below(code.bytes.len() as u32) as usize;
            code.bytes[byte] ^= 1 << random.below(8);
            "byte"
        }
        1 => {
            code.align = if code.align == 16 { 32 } else { 16 };
            "alignment"
        }
        _ => {
            let mut relocs = vec![kiln::ir::CodeReloc {
                offset: 0,
                kind: cranelift_codegen::binemit::Reloc::Abs8,
                target: CodeTarget::Symbol(symbol),
                addend: 0,
            }];
            relocs.append(&mut code.relocs);
            code.relocs = relocs;
            "relocation"
        }
    };
    Some((format!("{what} of machine code"), concerned))
}

/// Edits the IR of a function.
fn code(module: &mut Module, random: &mut Random) -> Changed {
    let at = random.below(module.functions.len() as u32) as usize;
    let mut function = module.functions[at].ir()?;
    let what = if random.once_in(8) {
        other_signature(&mut function.signature, random).to_owned()
    } else {
        ir::edit(&mut function, module.symbols.len() as u32, random)?
    };
    let mut concerned = nobody(module);
    concerned[at] = true;
    let body = Body::new(&function).map_err(|error| format!("{what}: {error}")).expect("nothing undefined");
    // A reference to a symbol that does not exist has no fingerprint.
    let known: HashSet<u32> = (0..module.symbols.len() as u32).collect();
    assert!(body.references().iter().all(|id| known.contains(&id.as_u32())), "{what}");
    module.functions[at].code = Code::Ir(body);
    Some((format!("{what} of function {at}"), concerned))
}
