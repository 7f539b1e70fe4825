//! Changes of one thing in the IR of a function that was decoded, so that everything in it is used.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::function::FunctionParameters;
use cranelift_codegen::ir::immediates::{Ieee16, Ieee32, Ieee64, Imm64, Offset32};
use cranelift_codegen::ir::{
    AliasRegionData, AtomicRmwOp, ConstantData, DebugTag, Endianness, ExternalName, Function, GlobalValue,
    GlobalValueData, Inst, InstructionData, MemFlags, Opcode, RelSourceLoc, SourceLoc, StackSlotData,
    StackSlotKey, StackSlotKind, TrapCode, UserExternalName, UserStackMapEntry, Value, ValueLabel,
    ValueLabelAssignments, ValueLabelStart, types,
};
use kiln_oracle::random::Random;

/// Operations that can replace each other.
const ALIKE: [&[Opcode]; 7] = [
    &[Opcode::Iadd, Opcode::Isub, Opcode::Imul, Opcode::Band, Opcode::Bor, Opcode::Bxor, Opcode::Udiv],
    &[Opcode::Smin, Opcode::Smax, Opcode::Umin, Opcode::Umax],
    &[Opcode::Fadd, Opcode::Fsub, Opcode::Fmul, Opcode::Fdiv, Opcode::Fmin, Opcode::Fmax],
    &[Opcode::Ishl, Opcode::Ushr, Opcode::Sshr, Opcode::Rotl, Opcode::Rotr],
    &[Opcode::Ineg, Opcode::Bnot, Opcode::Clz, Opcode::Ctz, Opcode::Popcnt],
    &[Opcode::Fneg, Opcode::Fabs, Opcode::Sqrt, Opcode::Ceil, Opcode::Floor, Opcode::Trunc],
    &[Opcode::Uextend, Opcode::Sextend],
];

/// Changes one thing, and says which; `None` if there is nothing of the kind that was chosen.
/// `symbols` is the number of the module's symbols.
pub(super) fn edit(function: &mut Function, symbols: u32, random: &mut Random) -> Option<String> {
    if random.once_in(4) {
        return around(function, symbols, random).map(str::to_owned);
    }
    let layout = &function.layout;
    let insts: Vec<Inst> = layout.blocks().flat_map(|block| layout.block_insts(block)).collect();
    // The kind is chosen first, since some kinds are rare.
    let mut kinds: Vec<String> = Vec::new();
    let kind = |inst: Inst| format!("{:?}", function.dfg.insts[inst].opcode().format());
    for inst in &insts {
        let kind = kind(*inst);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let chosen = random.choose(&kinds).clone();
    let insts: Vec<Inst> = insts.into_iter().filter(|inst| kind(*inst) == chosen).collect();
    let inst = *random.choose(&insts);
    let before = function.dfg.display_inst(inst).to_string();
    let what = if random.once_in(5) {
        beside(function, inst, random)?
    } else {
        instruction(function, inst, random)?
    };
    Some(format!("{what} in `{before}`"))
}

/// Edits something that belongs to the function as a whole.
fn around(function: &mut Function, symbols: u32, random: &mut Random) -> Option<&'static str> {
    let block_count = function.layout.blocks().count() as u32;
    match random.below(11) {
        0 => {
            let block = function.layout.blocks().nth(random.below(block_count) as usize)?;
            (!function.layout.is_cold(block)).then(|| function.layout.set_cold(block))?;
            Some("cold block")
        }
        1 => {
            let blocks: Vec<_> = function.layout.blocks().collect();
            let at = random.within(1, block_count) as usize;
            let (block, after) = (*blocks.get(at)?, *blocks.get(at + 1)?);
            let insts: Vec<_> = function.layout.block_insts(block).collect();
            insts.iter().for_each(|inst| function.layout.remove_inst(*inst));
            function.layout.remove_block(block);
            function.layout.insert_block_after(block, after);
            insts.iter().for_each(|inst| function.layout.append_inst(*inst, block));
            Some("order of blocks")
        }
        2 => {
            let slot = function.sized_stack_slots.values_mut().next_back()?;
            match random.below(3) {
                0 => slot.size += 1,
                1 => slot.align_shift = (slot.align_shift + 1) % 5,
                _ => slot.key = Some(StackSlotKey::new(slot.key.map_or(0, |key| key.bits() + 1))),
            }
            Some("stack slot")
        }
        3 => {
            let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, 8, 3);
            function.create_sized_stack_slot(slot);
            Some("a stack slot more")
        }
        4 => {
            let limit = function.create_global_value(GlobalValueData::VMContext);
            function.stack_limit = Some(limit);
            Some("stack limit")
        }
        // Labels would keep the name of the old value.
        5 if function.dfg.values_labels.is_none() => {
            let block = function.layout.blocks().nth(random.below(block_count) as usize)?;
            let params = function.dfg.block_params(block);
            let param = *params.get(random.below(params.len() as u32) as usize)?;
            let ty = if function.dfg.value_type(param) == types::I64 { types::I32 } else { types::I64 };
            let new = function.dfg.replace_block_param(param, ty);
            substitute(function, param, new);
            Some("type of a block's parameter")
        }
        6 => {
            let reference = function.dfg.ext_funcs.keys().next_back()?;
            match random.below(4) {
                0 => function.dfg.ext_funcs[reference].colocated ^= true,
                1 => function.dfg.ext_funcs[reference].patchable ^= true,
                2 => {
                    let signature = function.dfg.ext_funcs[reference].signature;
                    let signature = &mut function.dfg.signatures[signature];
                    return Some(super::other_signature(signature, random));
                }
                _ => {
                    let name = function.dfg.ext_funcs[reference].name.clone();
                    let name = other_name(function, &name, symbols)?;
                    function.dfg.ext_funcs[reference].name = name;
                }
            }
            Some("external function")
        }
        7 | 8 => global_value(function, symbols, random),
        9 => {
            // All locations move, so the relative ones stay the same.
            let base = function.params.base_srcloc();
            (!base.is_default()).then_some(())?;
            let mut params = FunctionParameters::new();
            for name in function.params.user_named_funcs().values() {
                params.ensure_user_func_name(name.clone());
            }
            params.ensure_base_srcloc(SourceLoc::new(base.bits() ^ 1));
            function.params = params;
            Some("base of source locations")
        }
        _ => {
            let values = random.below(function.dfg.num_values() as u32);
            let value = function.dfg.values().nth(values as usize)?;
            let label =
                ValueLabelStart { from: RelSourceLoc::new(3), label: ValueLabel::from_u32(random.below(9)) };
            function.dfg.collect_debug_info();
            let labels = function.dfg.values_labels.as_mut()?;
            labels.insert(value, ValueLabelAssignments::Starts(vec![label]));
            Some("labels of values")
        }
    }
}

fn other_name(function: &mut Function, old: &ExternalName, symbols: u32) -> Option<ExternalName> {
    let ExternalName::User(old) = old else { return None };
    let index = (function.params.user_named_funcs()[*old].index + 1) % symbols;
    if index == function.params.user_named_funcs()[*old].index {
        return None;
    }
    let name = function.params.ensure_user_func_name(UserExternalName { namespace: 0, index });
    Some(ExternalName::User(name))
}

fn global_value(function: &mut Function, symbols: u32, random: &mut Random) -> Option<&'static str> {
    let at = random.below(function.global_values.len() as u32);
    let at = function.global_values.is_valid(GlobalValue::from_u32(at)).then(|| GlobalValue::from_u32(at))?;
    let mut data = function.global_values[at].clone();
    let what = match &mut data {
        GlobalValueData::Symbol { name, offset, colocated, .. } => match random.below(3) {
            0 => {
                *offset = Imm64::new(offset.bits() + 1);
                "offset of a symbol"
            }
            1 => {
                *colocated ^= true;
                "place of a symbol"
            }
            _ => {
                *name = other_name(function, &name.clone(), symbols)?;
                "name of a global value"
            }
        },
        GlobalValueData::Load { offset, .. } => {
            *offset = Offset32::new(i32::from(*offset) + 8);
            "offset of a global value"
        }
        GlobalValueData::IAddImm { offset, .. } => {
            *offset = Imm64::new(offset.bits() ^ 1);
            "offset of a global value"
        }
        GlobalValueData::VMContext | GlobalValueData::DynScaleTargetConst { .. } => return None,
    };
    function.global_values[at] = data;
    Some(what)
}

/// Edits something that is stored outside the instruction that it belongs to.
fn beside(function: &mut Function, inst: Inst, random: &mut Random) -> Option<&'static str> {
    match random.below(3) {
        0 => {
            let bits = function.srcloc(inst);
            let bits = if bits.is_default() { 0x10 } else { bits.bits() + 1 };
            function.set_srcloc(inst, SourceLoc::new(bits));
            Some("source location")
        }
        1 => {
            let tags: Vec<_> = function.debug_tags.get(inst).to_vec();
            let more = tags.into_iter().chain([DebugTag::User(random.below(9))]);
            let more: Vec<_> = more.collect();
            function.debug_tags.set(inst, more);
            Some("debug tag")
        }
        _ => {
            let opcode = function.dfg.insts[inst].opcode();
            let slot = function.sized_stack_slots.keys().next()?;
            let entry = UserStackMapEntry { ty: types::I64, slot, offset: random.below(8) };
            (opcode.is_safepoint() && !opcode.is_return()).then_some(())?;
            function.dfg.append_user_stack_map_entry(inst, entry);
            Some("stack map")
        }
    }
}

fn other_flags(function: &mut Function, flags: MemFlags, random: &mut Random) -> Option<MemFlags> {
    let old = function.dfg.mem_flags[flags];
    let new = match random.below(7) {
        0 => old.with_aligned(),
        1 => old.with_readonly(),
        2 => old.with_can_move(),
        3 => old.with_trap_code(old.notrap().then_some(TrapCode::HEAP_OUT_OF_BOUNDS)),
        4 => old.with_trap_code(TrapCode::user(3)),
        5 => {
            let region = AliasRegionData { user_id: 77, description: "another".into() };
            let region = function.dfg.alias_regions.insert(region);
            old.with_alias_region(Some(region))
        }
        _ => match old.explicit_endianness() {
            None => old.with_endianness(Endianness::Big),
            Some(Endianness::Big) => old.with_endianness(Endianness::Little),
            Some(Endianness::Little) => return None,
        },
    };
    (new != old).then(|| function.dfg.mem_flags.insert(new).ok())?
}

/// Edits the instruction itself.
fn instruction(function: &mut Function, inst: Inst, random: &mut Random) -> Option<&'static str> {
    use InstructionData as I;
    let old = function.dfg.insts[inst];
    // Operands and types are edited in the same way for every instruction.
    if random.once_in(3) {
        return operand(function, inst, random);
    }
    let trap = |code: TrapCode| {
        if code == TrapCode::unwrap_user(9) { TrapCode::unwrap_user(8) } else { TrapCode::unwrap_user(9) }
    };
    let offset = |offset: Offset32| Offset32::new(i32::from(offset).wrapping_add(1));
    let (what, new) = match old {
        I::Unary { opcode, arg } => ("operation", I::Unary { opcode: like(opcode, random)?, arg }),
        I::Binary { opcode, args } => ("operation", I::Binary { opcode: like(opcode, random)?, args }),
        I::BinaryImm8 { opcode, arg, imm } => ("lane", I::BinaryImm8 { opcode, arg, imm: imm ^ 1 }),
        I::TernaryImm8 { opcode, args, imm } => ("lane", I::TernaryImm8 { opcode, args, imm: imm ^ 1 }),
        I::UnaryImm { opcode, imm } => {
            if random.once_in(2) && function.dfg.values_labels.is_none() {
                let result = function.dfg.first_result(inst);
                let ty = function.dfg.value_type(result);
                let ty = if ty == types::I64 { types::I32 } else { types::I64 };
                let new = function.dfg.replace_result(result, ty);
                substitute(function, result, new);
                return Some("type");
            }
            let bits = imm.bits() ^ 1 << random.below(64);
            ("immediate", I::UnaryImm { opcode, imm: Imm64::new(bits) })
        }
        I::UnaryIeee16 { opcode, imm } => {
            ("bits", I::UnaryIeee16 { opcode, imm: Ieee16::with_bits(imm.bits() ^ 1 << random.below(16)) })
        }
        I::UnaryIeee32 { opcode, imm } => {
            ("bits", I::UnaryIeee32 { opcode, imm: Ieee32::with_bits(imm.bits() ^ 1 << random.below(32)) })
        }
        I::UnaryIeee64 { opcode, imm } => {
            ("bits", I::UnaryIeee64 { opcode, imm: Ieee64::with_bits(imm.bits() ^ 1 << random.below(64)) })
        }
        I::UnaryConst { opcode, constant_handle } => {
            let data = other_bytes(function.dfg.constants.get(constant_handle), random);
            let constant_handle = function.dfg.constants.insert(data);
            ("constant", I::UnaryConst { opcode, constant_handle })
        }
        I::Shuffle { opcode, args, imm } => {
            let data = other_bytes(&function.dfg.immediates[imm].clone(), random);
            ("mask", I::Shuffle { opcode, args, imm: function.dfg.immediates.push(data) })
        }
        I::IntCompare { opcode, args, cond } => {
            let other = *random.choose(IntCC::all());
            (other != cond).then_some(("condition", I::IntCompare { opcode, args, cond: other }))?
        }
        I::FloatCompare { opcode, args, cond } => {
            let other = *random.choose(FloatCC::all());
            (other != cond).then_some(("condition", I::FloatCompare { opcode, args, cond: other }))?
        }
        I::IntAddTrap { opcode, args, code } => ("code", I::IntAddTrap { opcode, args, code: trap(code) }),
        I::Trap { opcode, code } => ("code", I::Trap { opcode, code: trap(code) }),
        I::CondTrap { opcode, arg, code } => ("code", I::CondTrap { opcode, arg, code: trap(code) }),
        I::Load { opcode, arg, flags, offset: at } => match random.once_in(2) {
            true => ("offset", I::Load { opcode, arg, flags, offset: offset(at) }),
            false => {
                let flags = other_flags(function, flags, random)?;
                ("flags", I::Load { opcode, arg, flags, offset: at })
            }
        },
        I::Store { opcode, args, flags, offset: at } => match random.once_in(2) {
            true => ("offset", I::Store { opcode, args, flags, offset: offset(at) }),
            false => {
                let flags = other_flags(function, flags, random)?;
                ("flags", I::Store { opcode, args, flags, offset: at })
            }
        },
        I::LoadNoOffset { opcode, arg, flags } => {
            ("flags", I::LoadNoOffset { opcode, arg, flags: other_flags(function, flags, random)? })
        }
        I::StoreNoOffset { opcode, args, flags } => {
            ("flags", I::StoreNoOffset { opcode, args, flags: other_flags(function, flags, random)? })
        }
        I::AtomicCas { opcode, args, flags } => {
            ("flags", I::AtomicCas { opcode, args, flags: other_flags(function, flags, random)? })
        }
        I::AtomicRmw { opcode, args, flags, op } => {
            let new = *random.choose(AtomicRmwOp::all());
            (new != op).then_some(("operation", I::AtomicRmw { opcode, args, flags, op: new }))?
        }
        I::StackAddr { opcode, stack_slot, offset: at } => {
            ("offset", I::StackAddr { opcode, stack_slot, offset: offset(at) })
        }
        I::Brif { opcode, arg, blocks: [one, other] } => {
            let pool = &function.dfg.value_lists;
            (one.block(pool) != other.block(pool)).then_some(())?;
            ("order of targets", I::Brif { opcode, arg, blocks: [other, one] })
        }
        I::BranchTable { table, .. } => {
            let dfg = &mut function.dfg;
            let pool = &dfg.value_lists;
            let branches = dfg.jump_tables[table].all_branches_mut();
            let at = random.below(branches.len() as u32) as usize;
            let next = (at + 1) % branches.len();
            (branches[at].block(pool) != branches[next].block(pool)).then(|| branches.swap(at, next))?;
            return Some("order of targets");
        }
        _ => return None,
    };
    function.dfg.insts[inst] = new;
    Some(what)
}

/// Replaces `old` by `new`, everywhere.
fn substitute(function: &mut Function, old: Value, new: Value) {
    let insts: Vec<Inst> =
        function.layout.blocks().flat_map(|block| function.layout.block_insts(block)).collect();
    for inst in insts {
        function.dfg.map_inst_values(inst, |value| if value == old { new } else { value });
    }
}

/// Changes the operation and keeps the operands.
fn like(opcode: Opcode, random: &mut Random) -> Option<Opcode> {
    let group = ALIKE.iter().find(|group| group.contains(&opcode))?;
    let new = *random.choose(group);
    (new != opcode).then_some(new)
}

fn other_bytes(data: &ConstantData, random: &mut Random) -> ConstantData {
    let mut bytes = data.as_slice().to_vec();
    let at = random.below(bytes.len() as u32) as usize;
    bytes[at] ^= 1 << random.below(8);
    ConstantData::from(bytes)
}

/// Replaces one operand by another value.
fn operand(function: &mut Function, inst: Inst, random: &mut Random) -> Option<&'static str> {
    let entry = function.layout.entry_block()?;
    let count = function.dfg.inst_args(inst).len() as u32;
    let at = random.below(count) as usize;
    let old = *function.dfg.inst_args(inst).get(at)?;
    let new = if count > 1 && random.once_in(2) {
        function.dfg.inst_args(inst)[(at + 1) % count as usize]
    } else {
        *function.dfg.block_params(entry).first()?
    };
    (new != old).then_some(())?;
    function.dfg.inst_args_mut(inst)[at] = new;
    Some("operand")
}
