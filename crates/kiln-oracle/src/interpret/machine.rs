//! The state of a running program, and the loop that steps through it.
//!
//! What an instruction computes is Cranelift's to say: [`step`] of its interpreter. Ours are memory, symbols, calls and the
//! loop, since Cranelift's own state knows neither data nor the addresses of symbols, and its loop recurses where the program
//! calls.
//!
//! Invariant: every address is a plain number (in the terms of Cranelift's interpreter, an offset into its region `Stack`), so
//! programs may compute with addresses.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{
    ArgumentPurpose, ExternalName, FuncRef, Function, GlobalValue, GlobalValueData, Inst, LibCall,
    MemFlagsData, StackSlot, Type,
};
use cranelift_interpreter::address::{Address, AddressRegion, AddressSize};
use cranelift_interpreter::frame::Frame;
use cranelift_interpreter::instruction::DfgInstructionContext;
use cranelift_interpreter::interpreter::{LibCallHandler, LibCallValues};
use cranelift_interpreter::state::{InterpreterFunctionRef, MemoryError, State};
use cranelift_interpreter::step::{ControlFlow, CraneliftTrap, StepError, step};

use super::access::no_such;
use super::memory::{Memory, STACK, code, function_at, libcall_at};
use super::{InterpretError, Item, LinkedProgram, memory};

/// A program in execution.
pub(super) struct Machine<'p> {
    program: &'p LinkedProgram,
    pub(super) memory: Memory,
    /// Object of each datum, then of each global.
    pub(super) objects: Vec<usize>,
    frames: Vec<Frame<'p>>,
    /// Where the stack ended before each frame.
    bases: Vec<usize>,
    pinned: DataValue,
}

impl<'p> Machine<'p> {
    pub(super) fn new(program: &'p LinkedProgram, memory: Memory, objects: Vec<usize>) -> Self {
        let pinned = DataValue::I64(0);
        Self { program, memory, objects, frames: Vec::new(), bases: Vec::new(), pinned }
    }

    /// The address of an item, if the program has it.
    pub(super) fn address(&self, item: &Item) -> Option<u64> {
        match *item {
            Item::Function(number) => Some(code(number)),
            Item::Object(number) => Some(self.memory.object(self.objects[number]).base),
            Item::Missing => None,
        }
    }

    /// Calls `function`, at most `fuel` instructions long.
    pub(super) fn run(
        &mut self,
        function: &'p Function,
        arguments: &[DataValue],
        mut fuel: u64,
    ) -> Result<Vec<DataValue>, InterpretError> {
        // A call before this one may have ended in the middle.
        self.frames.clear();
        self.bases.clear();
        self.memory.stack.clear();
        let mut calls: Vec<Inst> = Vec::new();
        let mut at = self.enter(function, arguments.to_vec())?;
        loop {
            fuel = fuel.checked_sub(1).ok_or(InterpretError::Fuel)?;
            let function = self.get_current_function();
            let flow = match self.access(function, at) {
                Some(flow) => flow?,
                None => {
                    step(self, DfgInstructionContext::new(at, &function.dfg)).map_err(|e| self.error(e))?
                }
            };
            let assign = |machine: &mut Self, inst: Inst, values: Vec<DataValue>| {
                let function = machine.get_current_function();
                machine.current_frame_mut().set_all(function.dfg.inst_results(inst), values);
                function
                    .layout
                    .next_inst(inst)
                    .ok_or(InterpretError::Unsupported("a block without an end".into()))
            };
            at = match flow {
                ControlFlow::Assign(values) => assign(self, at, values.to_vec())?,
                ControlFlow::Continue => assign(self, at, Vec::new())?,
                ControlFlow::ContinueAt(block, values) => {
                    self.current_frame_mut().set_all(function.dfg.block_params(block), values.to_vec());
                    first(function, block)?
                }
                ControlFlow::Call(callee, values) => {
                    calls.push(at);
                    self.enter(callee, values.to_vec())?
                }
                ControlFlow::ReturnCall(callee, values) => {
                    self.pop_frame();
                    self.enter(callee, values.to_vec())?
                }
                ControlFlow::Return(values) => {
                    self.pop_frame();
                    match calls.pop() {
                        None => return Ok(values.to_vec()),
                        Some(call) => assign(self, call, values.to_vec())?,
                    }
                }
                ControlFlow::Trap(trap) => return Err(InterpretError::Trapped(trap.to_string().into())),
            };
        }
    }

    fn enter(&mut self, function: &'p Function, arguments: Vec<DataValue>) -> Result<Inst, InterpretError> {
        // Frames are the interpreter's, and cost more than a machine's.
        const DEPTH: usize = 1 << 16;
        if self.frames.len() >= DEPTH {
            return Err(InterpretError::Trapped("the stack is exhausted".into()));
        }
        let entry = function
            .layout
            .entry_block()
            .ok_or(InterpretError::Unsupported("a function without a block".into()))?;
        let params = function.dfg.block_params(entry);
        if params.len() != arguments.len() {
            return Err(InterpretError::Unsupported("a call with another number of arguments".into()));
        }
        self.push_frame(function);
        self.current_frame_mut().set_all(params, arguments);
        first(function, entry)
    }

    fn error(&self, error: StepError) -> InterpretError {
        match error {
            StepError::UnknownFunction(callee) => {
                let function = self.get_current_function();
                let name = &function.dfg.ext_funcs[callee].name;
                let name = match self.item(name) {
                    Some((number, _)) => self.program.name(number).to_owned(),
                    None => name.display(Some(&function.params)).to_string(),
                };
                InterpretError::Unsupported(format!("a call to `{name}` of the host").into())
            }
            error => InterpretError::Unsupported(error.to_string().into()),
        }
    }

    /// The item that a name of the current function stands for, and its program-wide number.
    fn item(&self, name: &ExternalName) -> Option<(u32, &'p Item)> {
        let ExternalName::User(name) = name else { return None };
        let function = self.get_current_function();
        let number = function.params.user_named_funcs().get(*name)?.index;
        Some((number, self.program.items.get(number as usize)?))
    }
}

/// The first instruction of a block.
fn first(function: &Function, block: cranelift_codegen::ir::Block) -> Result<Inst, InterpretError> {
    function.layout.first_inst(block).ok_or(InterpretError::Unsupported("an empty block".into()))
}

/// An address as Cranelift's interpreter passes it around.
fn flat(size: AddressSize, address: u64) -> Result<Address, MemoryError> {
    Address::from_parts(size, AddressRegion::Stack, 0, address)
}

fn plain(address: &Address) -> Option<u64> {
    (address.region == AddressRegion::Stack).then_some(address.offset)
}

/// Where a stack slot begins in its frame, and the size of the frame if there is no such slot.
fn slot_offset(function: &Function, slot: Option<StackSlot>) -> u64 {
    let mut end = 0u64;
    for (at, data) in function.sized_stack_slots.iter() {
        end = end.next_multiple_of(1 << data.align_shift.min(12));
        if Some(at) == slot {
            return end;
        }
        end += u64::from(data.size);
    }
    // What lies on top of the frame begins at a boundary for every slot.
    end.next_multiple_of(4096)
}

impl<'p> State<'p> for Machine<'p> {
    fn get_function(&self, callee: FuncRef) -> Option<&'p Function> {
        let data = self.get_current_function().dfg.ext_funcs.get(callee)?;
        match self.item(&data.name)?.1 {
            Item::Function(number) => self.program.functions.get(*number),
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
        // The offset comes as 32 bits without a sign.
        flat(size, start.wrapping_add_signed(i64::from(offset as i32)))
    }

    fn checked_load(&self, at: Address, ty: Type, flags: MemFlagsData) -> Result<DataValue, MemoryError> {
        let address = plain(&at).ok_or_else(|| no_such(at.offset))?;
        self.read(address, ty, flags)
    }

    fn checked_store(
        &mut self,
        at: Address,
        value: DataValue,
        flags: MemFlagsData,
    ) -> Result<(), MemoryError> {
        let address = plain(&at).ok_or_else(|| no_such(at.offset))?;
        self.write(address, &value, flags)
    }

    fn function_address(&self, size: AddressSize, name: &ExternalName) -> Result<Address, MemoryError> {
        let address = match name {
            ExternalName::LibCall(call) => {
                LibCall::all_libcalls().iter().position(|other| other == call).map(memory::libcall)
            }
            name => self.item(name).and_then(|(_, item)| self.address(item)),
        };
        flat(size, address.ok_or_else(|| no_such(0))?)
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
        // From the value that is asked for down to a base; a cycle is longer than the table.
        let mut chain = vec![global];
        let mut at = global;
        while let GlobalValueData::Load { base, .. } | GlobalValueData::IAddImm { base, .. } =
            function.global_values[at]
        {
            at = base;
            chain.push(at);
            if chain.len() > function.global_values.len() {
                return Err(no_such(0));
            }
        }
        let mut value = 0u64;
        for at in chain.into_iter().rev() {
            value = match &function.global_values[at] {
                GlobalValueData::Symbol { name, offset, .. } => {
                    let address = self.item(name).and_then(|(_, item)| self.address(item));
                    address.ok_or_else(|| no_such(0))?.wrapping_add_signed(offset.bits())
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
                    let (Some(index), Some(entry)) = (index, entry) else { return Err(no_such(0)) };
                    number(self.current_frame().get(function.dfg.block_params(entry)[index]))?
                }
                GlobalValueData::DynScaleTargetConst { .. } => return Err(no_such(0)),
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
        // Caught, and reported as not supported.
        _ => panic!("library call {call}"),
    };
    Ok([result].into_iter().collect())
}
