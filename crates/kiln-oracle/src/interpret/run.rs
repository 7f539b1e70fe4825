//! The loop that executes a call.
//!
//! The loop of Cranelift's interpreter recurses when the program makes a call; this loop keeps a
//! list of frames.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{Block, Function, Inst};
use cranelift_interpreter::instruction::DfgInstructionContext;
use cranelift_interpreter::state::State;
use cranelift_interpreter::step::{ControlFlow, StepError, step};

use super::access::access;
use super::error::InterpretError;
use super::machine::Machine;

/// Calls `function`, and executes at most `fuel` instructions.
pub(super) fn run<'p>(
    machine: &mut Machine<'p>,
    function: &'p Function,
    arguments: &[DataValue],
    mut fuel: u64,
) -> Result<Vec<DataValue>, InterpretError> {
    // An earlier call may have failed and left its frames.
    machine.clear_stack();
    let mut calls: Vec<Inst> = Vec::new();
    let mut inst = enter(machine, function, arguments.to_vec())?;
    loop {
        fuel = fuel.checked_sub(1).ok_or(InterpretError::Fuel)?;
        let function = machine.get_current_function();
        let flow = match access(machine, function, inst) {
            Some(flow) => flow?,
            None => {
                let context = DfgInstructionContext::new(inst, &function.dfg);
                step(machine, context).map_err(|error| interpret_error(machine, error))?
            }
        };
        inst = match flow {
            ControlFlow::Assign(values) => assign(machine, inst, values.to_vec())?,
            ControlFlow::Continue => assign(machine, inst, Vec::new())?,
            ControlFlow::ContinueAt(block, values) => {
                machine.current_frame_mut().set_all(function.dfg.block_params(block), values.to_vec());
                first_inst(function, block)?
            }
            ControlFlow::Call(callee, values) => {
                calls.push(inst);
                enter(machine, callee, values.to_vec())?
            }
            ControlFlow::ReturnCall(callee, values) => {
                machine.pop_frame();
                enter(machine, callee, values.to_vec())?
            }
            ControlFlow::Return(values) => {
                machine.pop_frame();
                match calls.pop() {
                    None => return Ok(values.to_vec()),
                    Some(call) => assign(machine, call, values.to_vec())?,
                }
            }
            ControlFlow::Trap(trap) => return Err(InterpretError::Trapped(trap.to_string().into())),
        };
    }
}

/// Sets the results of `inst`, and returns the instruction after it.
fn assign(machine: &mut Machine<'_>, inst: Inst, values: Vec<DataValue>) -> Result<Inst, InterpretError> {
    let function = machine.get_current_function();
    machine.current_frame_mut().set_all(function.dfg.inst_results(inst), values);
    function.layout.next_inst(inst).ok_or(InterpretError::Unsupported("a block without an end".into()))
}

/// Pushes a frame for `function`, and returns its first instruction.
fn enter<'p>(
    machine: &mut Machine<'p>,
    function: &'p Function,
    arguments: Vec<DataValue>,
) -> Result<Inst, InterpretError> {
    // Frames of the interpreter need more memory than those of a machine.
    const DEPTH: usize = 1 << 16;
    if machine.depth() >= DEPTH {
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
    machine.push_frame(function);
    machine.current_frame_mut().set_all(params, arguments);
    first_inst(function, entry)
}

fn first_inst(function: &Function, block: Block) -> Result<Inst, InterpretError> {
    function.layout.first_inst(block).ok_or(InterpretError::Unsupported("an empty block".into()))
}

/// Returns the error for a step that failed. If the step called a function that no module defines,
/// the error names it.
fn interpret_error(machine: &Machine<'_>, error: StepError) -> InterpretError {
    match error {
        StepError::UnknownFunction(callee) => {
            let name = machine.callee_name(callee);
            InterpretError::Unsupported(format!("a call to `{name}` of the host").into())
        }
        error => InterpretError::Unsupported(error.to_string().into()),
    }
}
