//! The state of a running program, as Cranelift's interpreter sees it through its trait [`State`].
//!
//! Cranelift's interpreter computes the result of an instruction. Memory, symbols and frames are
//! implemented here, since Cranelift's own state knows neither data nor the addresses of symbols.
//!
//! Invariant: every address is a plain number (in the terms of Cranelift's interpreter, an offset
//! into its region `Stack`), so programs may compute with addresses.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{
    ArgumentPurpose, Endianness, ExternalName, FuncRef, Function, GlobalValue, GlobalValueData, LibCall,
    MemFlagsData, StackSlot, Type,
};
use cranelift_interpreter::address::{Address, AddressRegion, AddressSize};
use cranelift_interpreter::frame::Frame;
use cranelift_interpreter::interpreter::{LibCallHandler, LibCallValues};
use cranelift_interpreter::state::{InterpreterFunctionRef, MemoryError, State};
use cranelift_interpreter::step::CraneliftTrap;

use super::memory::{self, Memory, STACK, code, function_at, libcall_at};
use super::program::{LinkedProgram, Resolved};

/// The state of a program in execution.
pub(super) struct Machine<'p> {
    program: &'p LinkedProgram,
    pub(super) memory: Memory,
    /// The memory object of each data object, then of each run-time object.
    pub(super) objects: Vec<usize>,
    frames: Vec<Frame<'p>>,
    /// The size of the stack before each frame.
    bases: Vec<usize>,
    pinned: DataValue,
}

impl<'p> Machine<'p> {
    pub(super) fn new(program: &'p LinkedProgram, memory: Memory, objects: Vec<usize>) -> Self {
        let pinned = DataValue::I64(0);
        Self { program, memory, objects, frames: Vec::new(), bases: Vec::new(), pinned }
    }

    /// Ends all calls.
    pub(super) fn clear_stack(&mut self) {
        self.frames.clear();
        self.bases.clear();
        self.memory.stack.clear();
    }

    /// Returns the number of frames.
    pub(super) fn depth(&self) -> usize {
        self.frames.len()
    }

    /// Returns the address of a symbol, if the program defines it.
    pub(super) fn address(&self, symbol: &Resolved) -> Option<u64> {
        match *symbol {
            Resolved::Function(number) => Some(code(number)),
            Resolved::Object(number) => Some(self.memory.object(self.objects[number]).base),
            Resolved::Missing => None,
        }
    }

    /// Returns the definition that a name of the current function refers to, and its program-wide
    /// number.
    fn resolve(&self, name: &ExternalName) -> Option<(u32, &'p Resolved)> {
        let ExternalName::User(name) = name else { return None };
        let function = self.get_current_function();
        let number = function.params.user_named_funcs().get(*name)?.index;
        Some((number, self.program.resolved.get(number as usize)?))
    }

    /// Returns the name of a callee of the current function, for messages.
    pub(super) fn callee_name(&self, callee: FuncRef) -> String {
        let function = self.get_current_function();
        let name = &function.dfg.ext_funcs[callee].name;
        match self.resolve(name) {
            Some((number, _)) => self.program.name(number).to_owned(),
            None => name.display(Some(&function.params)).to_string(),
        }
    }

    /// Loads a value.
    pub(super) fn read(&self, address: u64, ty: Type, flags: MemFlagsData) -> Result<DataValue, MemoryError> {
        let bytes = self.memory.bytes(address, ty.bytes() as usize).ok_or_else(|| no_object(address))?;
        Ok(match flags.endianness(native()) {
            Endianness::Big => DataValue::read_from_slice_be(bytes, ty),
            Endianness::Little => DataValue::read_from_slice_le(bytes, ty),
        })
    }

    /// Stores a value.
    pub(super) fn write(
        &mut self,
        address: u64,
        value: &DataValue,
        flags: MemFlagsData,
    ) -> Result<(), MemoryError> {
        let len = value.ty().bytes() as usize;
        let bytes = self.memory.bytes_mut(address, len).ok_or_else(|| no_object(address))?;
        match flags.endianness(native()) {
            Endianness::Big => value.write_to_slice_be(bytes),
            Endianness::Little => value.write_to_slice_le(bytes),
        }
        Ok(())
    }
}

/// Returns the byte order of accesses that do not name a byte order.
pub(super) fn native() -> Endianness {
    if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big }
}

/// Returns the error for an access outside of all objects.
fn no_object(address: u64) -> MemoryError {
    MemoryError::InvalidAddress(DataValue::I64(address as i64))
}

/// Returns an address in the form of Cranelift's interpreter.
fn flat(size: AddressSize, address: u64) -> Result<Address, MemoryError> {
    Address::from_parts(size, AddressRegion::Stack, 0, address)
}

fn plain(address: &Address) -> Option<u64> {
    (address.region == AddressRegion::Stack).then_some(address.offset)
}

/// Returns the offset of a stack slot in its frame, or the size of the frame if there is no such
/// slot.
fn slot_offset(function: &Function, slot: Option<StackSlot>) -> u64 {
    let mut end = 0u64;
    for (other, data) in function.sized_stack_slots.iter() {
        end = end.next_multiple_of(1 << data.align_shift.min(12));
        if Some(other) == slot {
            return end;
        }
        end += u64::from(data.size);
    }
    // The next frame starts at a multiple of every alignment that a slot may have.
    end.next_multiple_of(4096)
}

impl<'p> State<'p> for Machine<'p> {
    fn get_function(&self, callee: FuncRef) -> Option<&'p Function> {
        let data = self.get_current_function().dfg.ext_funcs.get(callee)?;
        match self.resolve(&data.name)?.1 {
            Resolved::Function(number) => self.program.functions.get(*number),
            _ => None,
        }
    }

    fn get_current_function(&self) -> &'p Function {
        self.current_frame().function()
    }

    fn get_libcall_handler(&self) -> LibCallHandler {
        libcall
    }

    fn push_frame(&mut self, function: &'p Function) {
        self.bases.push(self.memory.stack.len());
        let size = if function.sized_stack_slots.is_empty() { 0 } else { slot_offset(function, None) };
        self.memory.stack.resize(self.memory.stack.len() + size as usize, 0);
        self.frames.push(Frame::new(function));
    }

    fn pop_frame(&mut self) {
        self.frames.pop();
        if let Some(base) = self.bases.pop() {
            self.memory.stack.truncate(base);
        }
    }

    fn current_frame_mut(&mut self) -> &mut Frame<'p> {
        self.frames.last_mut().expect("an instruction belongs to a frame")
    }

    fn current_frame(&self) -> &Frame<'p> {
        self.frames.last().expect("an instruction belongs to a frame")
    }

    fn stack_address(&self, size: AddressSize, slot: StackSlot, offset: u64) -> Result<Address, MemoryError> {
        let base = self.bases.last().copied().unwrap_or(0) as u64;
        let start = STACK + base + slot_offset(self.get_current_function(), Some(slot));
        // Cranelift passes the signed 32-bit offset without its sign.
        flat(size, start.wrapping_add_signed(i64::from(offset as i32)))
    }

    fn checked_load(
        &self,
        address: Address,
        ty: Type,
        flags: MemFlagsData,
    ) -> Result<DataValue, MemoryError> {
        let address = plain(&address).ok_or_else(|| no_object(address.offset))?;
        self.read(address, ty, flags)
    }

    fn checked_store(
        &mut self,
        address: Address,
        value: DataValue,
        flags: MemFlagsData,
    ) -> Result<(), MemoryError> {
        let address = plain(&address).ok_or_else(|| no_object(address.offset))?;
        self.write(address, &value, flags)
    }

    fn function_address(&self, size: AddressSize, name: &ExternalName) -> Result<Address, MemoryError> {
        let address = match name {
            ExternalName::LibCall(call) => {
                LibCall::all_libcalls().iter().position(|other| other == call).map(memory::libcall)
            }
            name => self.resolve(name).and_then(|(_, symbol)| self.address(symbol)),
        };
        flat(size, address.ok_or_else(|| no_object(0))?)
    }

    fn get_function_from_address(&self, address: Address) -> Option<InterpreterFunctionRef<'p>> {
        let address = plain(&address)?;
        if let Some(number) = libcall_at(address) {
            return LibCall::all_libcalls().get(number).copied().map(InterpreterFunctionRef::LibCall);
        }
        let number = function_at(address)?;
        self.program.functions.get(number).map(InterpreterFunctionRef::Function)
    }

    fn resolve_global_value(&self, global: GlobalValue) -> Result<DataValue, MemoryError> {
        let function = self.get_current_function();
        // The chain goes from the value to its base; a chain that is longer than the table has a
        // cycle.
        let mut chain = vec![global];
        let mut last = global;
        while let GlobalValueData::Load { base, .. } | GlobalValueData::IAddImm { base, .. } =
            function.global_values[last]
        {
            last = base;
            chain.push(last);
            if chain.len() > function.global_values.len() {
                return Err(no_object(0));
            }
        }
        let mut value = 0u64;
        for global in chain.into_iter().rev() {
            value = match &function.global_values[global] {
                GlobalValueData::Symbol { name, offset, .. } => {
                    let address = self.resolve(name).and_then(|(_, symbol)| self.address(symbol));
                    address.ok_or_else(|| no_object(0))?.wrapping_add_signed(offset.bits())
                }
                GlobalValueData::IAddImm { offset, .. } => value.wrapping_add_signed(offset.bits()),
                GlobalValueData::Load { offset, global_type, flags, .. } => {
                    let offset: i64 = (*offset).into();
                    let flags = function.dfg.mem_flags[*flags];
                    number(&self.read(value.wrapping_add_signed(offset), *global_type, flags)?)?
                }
                GlobalValueData::VMContext => {
                    let params = &function.signature.params;
                    let index = params.iter().position(|p| p.purpose == ArgumentPurpose::VMContext);
                    let entry = function.layout.entry_block();
                    let (Some(index), Some(entry)) = (index, entry) else { return Err(no_object(0)) };
                    number(self.current_frame().get(function.dfg.block_params(entry)[index]))?
                }
                GlobalValueData::DynScaleTargetConst { .. } => return Err(no_object(0)),
            };
        }
        Ok(DataValue::I64(value as i64))
    }

    fn get_pinned_reg(&self) -> DataValue {
        self.pinned.clone()
    }

    fn set_pinned_reg(&mut self, value: DataValue) {
        self.pinned = value;
    }
}

fn number(value: &DataValue) -> Result<u64, MemoryError> {
    match value {
        DataValue::I64(value) => Ok(*value as u64),
        DataValue::I32(value) => Ok(u64::from(*value as u32)),
        other => Err(MemoryError::InvalidAddress(other.clone())),
    }
}

fn libcall(call: LibCall, arguments: LibCallValues) -> Result<LibCallValues, CraneliftTrap> {
    let result = match (call, &arguments[..]) {
        (LibCall::CeilF32, [DataValue::F32(x)]) => DataValue::F32(x.ceil()),
        (LibCall::CeilF64, [DataValue::F64(x)]) => DataValue::F64(x.ceil()),
        (LibCall::FloorF32, [DataValue::F32(x)]) => DataValue::F32(x.floor()),
        (LibCall::FloorF64, [DataValue::F64(x)]) => DataValue::F64(x.floor()),
        (LibCall::TruncF32, [DataValue::F32(x)]) => DataValue::F32(x.trunc()),
        (LibCall::TruncF64, [DataValue::F64(x)]) => DataValue::F64(x.trunc()),
        (LibCall::NearestF32, [DataValue::F32(x)]) => DataValue::F32(x.round_ties_even()),
        (LibCall::NearestF64, [DataValue::F64(x)]) => DataValue::F64(x.round_ties_even()),
        // `Process` catches the panic, and reports the call as not supported.
        _ => panic!("library call {call}"),
    };
    Ok([result].into_iter().collect())
}
