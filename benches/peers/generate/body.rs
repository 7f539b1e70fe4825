//! Bodies of the generated functions: statements over a few variables.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    Function, InstBuilder, MemFlagsData, StackSlot, StackSlotData, StackSlotKind, Value, types,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Switch, Variable};
use cranelift_module::Module as _;
use kiln::ir::ModuleBuilder;
use kiln_oracle::random::Random;

use super::plan::{FunctionPlan, MEMORY, ModuleScope, SHAPES};

/// A function under construction.
struct BodyBuilder<'a, 'f> {
    builder: FunctionBuilder<'f>,
    module: &'a mut ModuleBuilder,
    scope: &'a ModuleScope,
    random: &'a mut Random,
    ints: Vec<Variable>,
    floats: Vec<Variable>,
    memory: Value,
    depth: Value,
    slot: StackSlot,
    /// Number of loops around the next statement.
    loops: u32,
}

pub(super) fn build(
    function: &mut Function,
    scratch: &mut FunctionBuilderContext,
    module: &mut ModuleBuilder,
    scope: &ModuleScope,
    plan: FunctionPlan,
    random: &mut Random,
) {
    let mut builder = FunctionBuilder::new(function, scratch);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let params = builder.block_params(entry).to_vec();
    let slot = builder.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 64, 3));
    let ints: Vec<_> = (0..4).map(|_| builder.declare_var(types::I64)).collect();
    let floats: Vec<_> = (0..2).map(|_| builder.declare_var(types::F64)).collect();
    for (at, variable) in ints.iter().enumerate() {
        let value = builder.ins().iconst(types::I64, plan.index as i64 * 7 + at as i64);
        builder.def_var(*variable, value);
    }
    for (at, variable) in floats.iter().enumerate() {
        let value = builder.ins().f64const(f64::from(plan.index) + at as f64 * 0.5);
        builder.def_var(*variable, value);
    }
    for (at, (value, ty)) in params[2..].iter().zip(SHAPES[plan.shape].0).enumerate() {
        match *ty {
            types::F64 => builder.def_var(floats[at % 2], *value),
            types::I32 => {
                let wide = builder.ins().sextend(types::I64, *value);
                builder.def_var(ints[at], wide);
            }
            _ => builder.def_var(ints[at], *value),
        }
    }
    let zero = builder.ins().iconst(types::I64, 0);
    for at in 0..8 {
        builder.ins().stack_store(types::I64, zero, slot, 8 * at);
    }
    let (memory, depth) = (params[0], params[1]);
    let mut body =
        BodyBuilder { builder, module, scope, random, ints, floats, memory, depth, slot, loops: 0 };
    body.statements(plan.size);
    let result = match SHAPES[plan.shape].1 {
        types::F64 => body.float(),
        _ => {
            let (a, b) = (body.int(), body.int());
            body.builder.ins().bxor(a, b)
        }
    };
    body.builder.ins().return_(&[result]);
    body.builder.finalize(body.module.target_config());
}

impl BodyBuilder<'_, '_> {
    /// Adds statements of this total size.
    fn statements(&mut self, size: u32) {
        let mut left = size;
        while left > 0 {
            let inner = (left - 1).min(1 + self.random.below(8));
            left -= 1;
            match self.random.below(20) {
                0..6 => self.arithmetic(),
                6..8 => self.float_arithmetic(),
                8..12 => self.access(),
                12..14 if inner > 0 => {
                    self.branch(inner);
                    left -= inner;
                }
                14 if inner > 0 && self.loops < 2 => {
                    self.count(inner);
                    left -= inner;
                }
                15 if inner > 1 => {
                    self.switch(inner);
                    left -= inner;
                }
                16..19 => self.call(),
                _ => self.global(),
            }
        }
    }

    fn int(&mut self) -> Value {
        let variable = *self.random.choose(&self.ints);
        self.builder.use_var(variable)
    }

    fn float(&mut self) -> Value {
        let variable = *self.random.choose(&self.floats);
        self.builder.use_var(variable)
    }

    fn set_int(&mut self, value: Value) {
        let variable = *self.random.choose(&self.ints);
        self.builder.def_var(variable, value);
    }

    fn set_float(&mut self, value: Value) {
        let variable = *self.random.choose(&self.floats);
        self.builder.def_var(variable, value);
    }

    fn arithmetic(&mut self) {
        let (a, b, small) = (self.int(), self.int(), i64::from(self.random.below(1000)));
        let kind = self.random.below(9);
        let ins = self.builder.ins();
        let value = match kind {
            0 => ins.iadd(a, b),
            1 => ins.isub(a, b),
            2 => ins.imul(a, b),
            3 => ins.bxor(a, b),
            4 => ins.iadd_imm_s(a, small),
            5 => ins.rotl_imm_s(a, small % 64),
            6 => ins.ushr_imm_s(a, small % 64),
            7 => {
                let odd = ins.bor_imm_s(b, 1);
                self.builder.ins().udiv(a, odd)
            }
            _ => {
                let less = ins.icmp(IntCC::SignedLessThan, a, b);
                self.builder.ins().select(less, a, b)
            }
        };
        self.set_int(value);
    }

    fn float_arithmetic(&mut self) {
        let (a, b) = (self.float(), self.float());
        let kind = self.random.below(6);
        let value = match kind {
            0 => self.builder.ins().fadd(a, b),
            1 => self.builder.ins().fmul(a, b),
            2 => self.builder.ins().fsub(a, b),
            3 => self.builder.ins().fdiv(a, b),
            4 => {
                let int = self.builder.ins().fcvt_to_sint_sat(types::I64, a);
                self.set_int(int);
                return;
            }
            _ => {
                let int = self.int();
                self.builder.ins().fcvt_from_sint(types::F64, int)
            }
        };
        self.set_float(value);
    }

    /// Reads or writes memory, at an index that is within bounds.
    fn access(&mut self) {
        let flags = MemFlagsData::new();
        let (pointer, writable) = match self.random.below(5) {
            0 | 1 => (self.memory, true),
            2 => (self.address(self.scope.memory), true),
            3 => (self.address(self.scope.constants), false),
            _ => {
                let (value, offset) = (self.int(), 8 * self.random.below(8) as i32);
                self.builder.ins().stack_store(types::I64, value, self.slot, offset);
                let offset = 8 * self.random.below(8) as i32;
                let loaded = self.builder.ins().stack_load(types::I64, types::I64, self.slot, offset);
                self.set_int(loaded);
                return;
            }
        };
        let index = self.int();
        let index = self.builder.ins().band_imm_s(index, (MEMORY as i64 - 1) & !7);
        let place = self.builder.ins().iadd(pointer, index);
        if writable && self.random.below(2) == 0 {
            let value = self.int();
            self.builder.ins().store(flags, value, place, 0);
        } else {
            let value = self.builder.ins().load(types::I64, flags, place, 0);
            self.set_int(value);
        }
    }

    fn address(&mut self, data: cranelift_module::DataId) -> Value {
        let global = self.module.declare_data_in_func(data, self.builder.func);
        self.builder.ins().symbol_value(types::I64, global)
    }

    fn branch(&mut self, size: u32) {
        let condition = if self.random.below(4) == 0 {
            let (a, b) = (self.float(), self.float());
            self.builder.ins().fcmp(FloatCC::LessThan, a, b)
        } else {
            let (a, b) = (self.int(), self.int());
            self.builder.ins().icmp(IntCC::UnsignedLessThan, a, b)
        };
        let [yes, no, after] = [(); 3].map(|()| self.builder.create_block());
        self.builder.ins().brif(condition, yes, &[], no, &[]);
        for (block, size) in [(yes, size.div_ceil(2)), (no, size / 2)] {
            self.builder.switch_to_block(block);
            self.builder.seal_block(block);
            self.statements(size);
            self.builder.ins().jump(after, &[]);
        }
        self.builder.switch_to_block(after);
        self.builder.seal_block(after);
    }

    fn count(&mut self, size: u32) {
        let counter = self.builder.declare_var(types::I64);
        let start = self.builder.ins().iconst(types::I64, i64::from(1 + self.random.below(6)));
        self.builder.def_var(counter, start);
        let [head, after] = [(); 2].map(|()| self.builder.create_block());
        self.builder.ins().jump(head, &[]);
        self.builder.switch_to_block(head);
        self.loops += 1;
        self.statements(size);
        self.loops -= 1;
        let count = self.builder.use_var(counter);
        let count = self.builder.ins().iadd_imm_s(count, -1);
        self.builder.def_var(counter, count);
        self.builder.ins().brif(count, head, &[], after, &[]);
        self.builder.seal_block(head);
        self.builder.switch_to_block(after);
        self.builder.seal_block(after);
    }

    fn switch(&mut self, size: u32) {
        let value = self.int();
        let value = self.builder.ins().band_imm_s(value, 15);
        let cases = 3 + self.random.below(8);
        let after = self.builder.create_block();
        let blocks: Vec<_> = (0..=cases).map(|_| self.builder.create_block()).collect();
        let mut switch = Switch::new();
        for (case, block) in blocks[1..].iter().enumerate() {
            switch.set_entry(case as u128, *block);
        }
        switch.emit(&mut self.builder, value, blocks[0]);
        for block in blocks {
            self.builder.switch_to_block(block);
            self.builder.seal_block(block);
            self.statements((size / (cases + 1)).max(1));
            self.builder.ins().jump(after, &[]);
        }
        self.builder.switch_to_block(after);
        self.builder.seal_block(after);
    }

    /// Adds a call of `labs`, or a call of a generated function that runs only if more calls may be
    /// nested.
    fn call(&mut self) {
        if self.random.below(8) == 0 {
            let value = self.int();
            let callee = self.module.declare_func_in_func(self.scope.imported, self.builder.func);
            let call = self.builder.ins().call(callee, &[value]);
            let result = self.builder.inst_results(call)[0];
            return self.set_int(result);
        }
        let [yes, after] = [(); 2].map(|()| self.builder.create_block());
        self.builder.ins().brif(self.depth, yes, &[], after, &[]);
        self.builder.switch_to_block(yes);
        self.builder.seal_block(yes);
        let depth = self.builder.ins().iadd_imm_s(self.depth, -1);
        let mut arguments = vec![self.memory, depth];
        let indirect = self.scope.table.filter(|_| self.random.below(5) == 0);
        let (callee, plan) = *self.random.choose(&self.scope.callees);
        let shape = if indirect.is_some() { 0 } else { plan.shape };
        for ty in SHAPES[shape].0 {
            let argument = match *ty {
                types::F64 => self.float(),
                types::I32 => {
                    let wide = self.int();
                    self.builder.ins().ireduce(types::I32, wide)
                }
                _ => self.int(),
            };
            arguments.push(argument);
        }
        let call = if let Some((table, len)) = indirect {
            let (_, plan) =
                self.scope.callees.iter().find(|(_, plan)| plan.shape == 0).expect("the table has an entry");
            let signature = self.builder.import_signature(plan.signature(self.module));
            let entry = 8 * self.random.below(len) as i32;
            let table = self.address(table);
            let callee = self.builder.ins().load(types::I64, MemFlagsData::trusted(), table, entry);
            self.builder.ins().call_indirect(signature, callee, &arguments)
        } else {
            let callee = self.module.declare_func_in_func(callee, self.builder.func);
            self.builder.ins().call(callee, &arguments)
        };
        let result = self.builder.inst_results(call)[0];
        match SHAPES[shape].1 {
            types::F64 => self.set_float(result),
            _ => self.set_int(result),
        }
        self.builder.ins().jump(after, &[]);
        self.builder.switch_to_block(after);
        self.builder.seal_block(after);
    }

    /// Reads a run-time object.
    fn global(&mut self) {
        let global = *self.random.choose(&self.scope.globals);
        let address = self.address(global);
        let value = self.builder.ins().load(types::I64, MemFlagsData::new(), address, 0);
        self.set_int(value);
    }
}
