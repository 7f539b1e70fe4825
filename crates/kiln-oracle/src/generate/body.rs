//! Bodies of functions: statements over variables and values, in nested control flow.
//!
//! A body has a variable of every type, so every statement finds its operands. Statements also use
//! values that dominate them directly. Blocks are filled in one order and laid out in another, and
//! the numbers of values, blocks and instructions have gaps.
//!
//! Invariant: before a statement is built, the number of instructions that it can execute, times
//! the rounds of the loops around it, is added to `cost`, which stays below the plan's cap.

use cranelift_codegen::ir::{
    Block, Function, InstBuilder, SourceLoc, StackSlot, StackSlotData, StackSlotKind, TrapCode, Type, Value,
    types,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use cranelift_module::Module;

use super::plan::{HostIds, Plan, SCALARS, VECTORS};
use super::program::ProgramOptions;
use crate::random::Random;

/// A function under construction.
pub(super) struct Body<'a, 'f, M> {
    pub(super) builder: FunctionBuilder<'f>,
    pub(super) host: &'a mut M,
    pub(super) plan: &'a Plan,
    pub(super) options: &'a ProgramOptions,
    pub(super) ids: &'a HostIds,
    /// The function's number in the plan.
    pub(super) me: usize,
    pub(super) module: usize,
    pub(super) random: Random,
    pub(super) types: Vec<Type>,
    pub(super) variables: Vec<(Type, Variable)>,
    /// Values that dominate the current position.
    pub(super) scope: Vec<(Type, Value)>,
    /// The stack slots, each with its size and its alignment in bytes.
    pub(super) slots: Vec<(StackSlot, u32, u32)>,
    /// Blocks that are laid out.
    pub(super) blocks: Vec<Block>,
    /// The product of the rounds of all loops around the current position.
    pub(super) times: u64,
    pub(super) loops: u32,
    pub(super) cost: u64,
}

/// Builds the body of function `me` of the plan.
pub(super) fn build<M: Module>(
    function: &mut Function,
    scratch: &mut FunctionBuilderContext,
    host: &mut M,
    plan: &Plan,
    options: &ProgramOptions,
    ids: &HostIds,
    me: usize,
) {
    let planned = &plan.functions[me];
    let mut builder = FunctionBuilder::new(function, scratch);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    builder.ensure_inserted_block();
    let params = builder.block_params(entry).to_vec();
    let types = SCALARS.iter().chain(&VECTORS).copied().filter(|ty| match ty {
        ty if ty.is_vector() => options.vectors && (options.floats || ty.lane_type().is_int()),
        ty => options.floats || ty.is_int(),
    });
    let mut body = Body {
        builder,
        host,
        plan,
        options,
        ids,
        me,
        module: planned.module,
        random: Random::new(planned.seed),
        types: types.collect(),
        variables: Vec::new(),
        scope: planned.signature.params.iter().map(|param| param.value_type).zip(params).collect(),
        slots: Vec::new(),
        blocks: vec![entry],
        times: 1,
        loops: 0,
        cost: 0,
    };
    body.begin();
    let size = body.random.within(1, options.statements.max(1));
    body.statements(size);
    body.end();
    let config = body.host.target_config();
    body.builder.finalize(config);
}

impl<M: Module> Body<'_, '_, M> {
    fn begin(&mut self) {
        for index in 0..self.types.len() {
            let ty = self.types[index];
            let variable = self.builder.declare_var(ty);
            let value = if self.random.once_in(2) { self.pick(ty) } else { self.constant(ty) };
            self.builder.def_var(variable, value);
            self.variables.push((ty, variable));
        }
        for _ in 0..self.random.below(3) {
            let size = *self.random.choose(&[1, 7, 8, 16, 40, 64]);
            let shift = self.random.below(5) as u8;
            let data = StackSlotData::new(StackSlotKind::ExplicitSlot, size, shift);
            let slot = self.builder.create_sized_stack_slot(data);
            self.clear(slot, size);
            self.slots.push((slot, size, 1 << shift));
        }
    }

    /// Whether `steps` more instructions may be executed here; if so they are added to the cost.
    pub(super) fn afford(&mut self, steps: u64) -> bool {
        let cost = self.cost + steps * self.times;
        let affordable = cost <= self.plan.functions[self.me].cap;
        if affordable {
            self.cost = cost;
        }
        affordable
    }

    /// Adds statements of this total size.
    pub(super) fn statements(&mut self, size: u32) {
        let mut left = size;
        while left > 0 && self.afford(8) {
            left -= 1;
            let inner = left.min(1 + self.random.below(10));
            if self.random.once_in(6) {
                let line = self.random.below(1000);
                self.builder.set_srcloc(if line < 100 { SourceLoc::default() } else { SourceLoc::new(line) });
            }
            match self.random.below(40) {
                0..3 if inner > 0 => {
                    self.branch(inner);
                    left -= inner;
                }
                3 if inner > 0 && self.loops < 2 => {
                    self.repeat(inner);
                    left -= inner;
                }
                4 if inner > 0 => {
                    self.switch(inner);
                    left -= inner;
                }
                5..8 => self.call(),
                8..14 => self.memory(),
                14 => self.odd(),
                15..18 => {
                    let index = self.random.below(self.variables.len() as u32) as usize;
                    let (ty, variable) = self.variables[index];
                    let value = self.pick(ty);
                    self.builder.def_var(variable, value);
                }
                _ => self.compute(),
            }
        }
    }

    /// Adds an operation, and keeps its result as a value, as a variable, or not at all.
    fn compute(&mut self) {
        let ty = *self.random.choose(&self.types.clone());
        let value = self.operation(ty);
        match self.random.below(8) {
            0..4 => self.scope.push((ty, value)),
            4..7 => self.set(ty, value),
            _ => {}
        }
    }

    /// Adds an operation that gives a value of type `ty`.
    pub(super) fn operation(&mut self, ty: Type) -> Value {
        if ty.is_vector() {
            self.vector(ty)
        } else if ty.is_float() {
            self.float(ty)
        } else {
            self.int(ty)
        }
    }

    pub(super) fn set(&mut self, ty: Type, value: Value) {
        let variable = self.variables.iter().find(|(other, _)| *other == ty);
        let variable = variable.expect("there is a variable of every type").1;
        self.builder.def_var(variable, value);
    }

    /// Returns some value of type `ty` that may be used here.
    pub(super) fn pick(&mut self, ty: Type) -> Value {
        let kind = self.random.below(8);
        if kind < 3
            && let Some((_, variable)) = self.variables.iter().find(|(other, _)| *other == ty)
        {
            return self.builder.use_var(*variable);
        }
        let known: Vec<Value> =
            self.scope.iter().filter(|(other, _)| *other == ty).map(|(_, value)| *value).collect();
        // The newest values are chosen most often, so that computations become deep.
        let recent = &known[known.len().saturating_sub(4)..];
        match kind {
            3..6 if !recent.is_empty() => *self.random.choose(recent),
            6 if !known.is_empty() => *self.random.choose(&known),
            _ if ty == types::I128 || kind == 7 => self.constant(ty),
            _ => match self.variables.iter().find(|(other, _)| *other == ty) {
                Some((_, variable)) => self.builder.use_var(*variable),
                None => self.constant(ty),
            },
        }
    }

    /// Returns a value to branch on: an integer, or the result of a comparison.
    pub(super) fn condition(&mut self) -> Value {
        match self.random.below(6) {
            0 => self.pick(types::I64),
            1 => self.pick(types::I8),
            2 if self.options.floats => {
                let ty = *self.random.choose(&[types::F32, types::F64]);
                self.compare_floats(ty)
            }
            _ => {
                let ty = *self.random.choose(&[types::I8, types::I16, types::I32, types::I64, types::I128]);
                self.compare(ty)
            }
        }
    }

    /// Adds code that is rare and has no effect, such as traps that do not happen and removed
    /// instructions.
    fn odd(&mut self) {
        match self.random.below(6) {
            0 => {
                self.builder.ins().nop();
            }
            1 if self.options.atomics => {
                self.builder.ins().fence();
            }
            2 => {
                // A trap that does not happen.
                let value = self.pick(types::I32);
                let one = self.builder.ins().iconst(types::I32, 1);
                let value = self.builder.ins().bor(value, one);
                self.builder.ins().trapz(value, TrapCode::unwrap_user(7));
            }
            3 => {
                let value = self.pick(types::I64);
                let zero = self.builder.ins().iconst(types::I64, 0);
                let value = self.builder.ins().band(value, zero);
                self.builder.ins().trapnz(value, TrapCode::HEAP_OUT_OF_BOUNDS);
            }
            4 => {
                // An instruction that is removed again, so that its number is not in the layout.
                let ty = *self.random.choose(&[types::I32, types::I64]);
                let (a, b) = (self.pick(ty), self.pick(ty));
                let kept = self.builder.ins().isub(a, b);
                let gone = self.builder.ins().isub(a, b);
                let dfg = &mut self.builder.func.dfg;
                let (kept_inst, gone_inst) =
                    (dfg.value_def(kept).unwrap_inst(), dfg.value_def(gone).unwrap_inst());
                dfg.replace_with_aliases(gone_inst, kept_inst);
                self.builder.func.layout.remove_inst(gone_inst);
                self.scope.push((ty, gone));
            }
            _ => {
                let value = self.constant(types::I64);
                let inst = self.builder.func.dfg.value_def(value).unwrap_inst();
                self.builder.func.layout.remove_inst(inst);
            }
        }
    }
}
