//! Executes loads and stores.
//!
//! Cranelift's interpreter is not used for them, since it takes a negative offset for a large
//! positive offset, and lacks the widening loads of vectors.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{
    Endianness, Function, Inst, InstructionData, MemFlagsData, Opcode, Type, Value, types,
};
use cranelift_interpreter::state::State;
use cranelift_interpreter::step::{ControlFlow, CraneliftTrap};
use cranelift_interpreter::value::{DataValueExt, ValueConversionKind};

use super::error::InterpretError;
use super::machine::{Machine, native};

/// Executes a load or a store. Returns `None` for any other instruction.
pub(super) fn access<'p>(
    machine: &mut Machine<'p>,
    function: &'p Function,
    inst: Inst,
) -> Option<Result<ControlFlow<'p>, InterpretError>> {
    match function.dfg.insts[inst] {
        InstructionData::Load { opcode, arg, flags, offset } => {
            let address = address(machine, arg, offset.into());
            let flags = function.dfg.mem_flags[flags];
            let ty = function.dfg.ctrl_typevar(inst);
            Some(load(machine, opcode, ty, address, flags))
        }
        InstructionData::Store { opcode, args: [value, arg], flags, offset } => {
            let address = address(machine, arg, offset.into());
            let flags = function.dfg.mem_flags[flags];
            let value = machine.current_frame().get(value).clone();
            Some(store(machine, opcode, value, address, flags))
        }
        _ => None,
    }
}

fn address(machine: &Machine<'_>, base: Value, offset: i64) -> u64 {
    let base = match machine.current_frame().get(base) {
        DataValue::I64(base) => *base as u64,
        DataValue::I32(base) => u64::from(*base as u32),
        _ => return u64::MAX,
    };
    base.wrapping_add_signed(offset)
}

fn load<'p>(
    machine: &Machine<'p>,
    opcode: Opcode,
    ty: Type,
    address: u64,
    flags: MemFlagsData,
) -> Result<ControlFlow<'p>, InterpretError> {
    use ValueConversionKind::{SignExtend, ZeroExtend};
    let (memory, extend) = match opcode {
        Opcode::Load => (ty, None),
        Opcode::Uload8 => (types::I8, Some(ZeroExtend(ty))),
        Opcode::Sload8 => (types::I8, Some(SignExtend(ty))),
        Opcode::Uload16 => (types::I16, Some(ZeroExtend(ty))),
        Opcode::Sload16 => (types::I16, Some(SignExtend(ty))),
        Opcode::Uload32 => (types::I32, Some(ZeroExtend(types::I64))),
        Opcode::Sload32 => (types::I32, Some(SignExtend(types::I64))),
        Opcode::Uload8x8 => return widening_load(machine, 1, false, address, flags),
        Opcode::Sload8x8 => return widening_load(machine, 1, true, address, flags),
        Opcode::Uload16x4 => return widening_load(machine, 2, false, address, flags),
        Opcode::Sload16x4 => return widening_load(machine, 2, true, address, flags),
        Opcode::Uload32x2 => return widening_load(machine, 4, false, address, flags),
        Opcode::Sload32x2 => return widening_load(machine, 4, true, address, flags),
        _ => return Err(InterpretError::Unsupported(opcode.to_string().into())),
    };
    let value = match machine.read(address, memory, flags) {
        Ok(value) => value,
        Err(_) => return Ok(outside(flags)),
    };
    let value = match extend {
        Some(kind) => value.convert(kind).map_err(|e| InterpretError::Unsupported(e.to_string().into()))?,
        None => value,
    };
    Ok(ControlFlow::Assign([value].into_iter().collect()))
}

/// Loads 8 bytes, and makes each lane of `lane` bytes twice as wide.
fn widening_load<'p>(
    machine: &Machine<'p>,
    lane: usize,
    signed: bool,
    address: u64,
    flags: MemFlagsData,
) -> Result<ControlFlow<'p>, InterpretError> {
    let Some(bytes) = machine.memory.bytes(address, 8) else { return Ok(outside(flags)) };
    if flags.endianness(native()) == Endianness::Big {
        return Err(InterpretError::Unsupported("a widening load of big-endian lanes".into()));
    }
    let mut wide = [0; 16];
    for (from, to) in bytes.chunks(lane).zip(wide.chunks_mut(2 * lane)) {
        to[..lane].copy_from_slice(from);
        if signed && from[lane - 1] >= 0x80 {
            to[lane..].fill(0xff);
        }
    }
    Ok(ControlFlow::Assign([DataValue::V128(wide)].into_iter().collect()))
}

fn store<'p>(
    machine: &mut Machine<'p>,
    opcode: Opcode,
    value: DataValue,
    address: u64,
    flags: MemFlagsData,
) -> Result<ControlFlow<'p>, InterpretError> {
    let narrow = match opcode {
        Opcode::Store => None,
        Opcode::Istore8 => Some(types::I8),
        Opcode::Istore16 => Some(types::I16),
        Opcode::Istore32 => Some(types::I32),
        _ => return Err(InterpretError::Unsupported(opcode.to_string().into())),
    };
    let value = match narrow {
        Some(ty) => value
            .convert(ValueConversionKind::Truncate(ty))
            .map_err(|e| InterpretError::Unsupported(e.to_string().into()))?,
        None => value,
    };
    Ok(match machine.write(address, &value, flags) {
        Ok(()) => ControlFlow::Continue,
        Err(_) => outside(flags),
    })
}

/// Returns the effect of an access outside of all objects.
fn outside(flags: MemFlagsData) -> ControlFlow<'static> {
    match flags.trap_code() {
        Some(code) => ControlFlow::Trap(CraneliftTrap::User(code)),
        // The program promised that this does not happen.
        None => ControlFlow::Trap(CraneliftTrap::UnreachableCodeReached),
    }
}
