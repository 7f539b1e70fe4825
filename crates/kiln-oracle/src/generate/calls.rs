//! Calls of other functions, direct and indirect, and the end of a function.

use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use cranelift_codegen::isa::CallConv;
use cranelift_module::Module;

use super::body::Body;
use super::plan::{PlannedFunction, PointerTarget, visible};

impl<M: Module> Body<'_, '_, M> {
    /// Returns the numbers of the functions that may be called here.
    fn callees(&self) -> Vec<usize> {
        let left = self.plan.functions[self.me].cap.saturating_sub(self.cost);
        let later = self.plan.functions.iter().enumerate().skip(self.me + 1);
        let fits = |number: usize, function: &PlannedFunction| {
            // The other definition of this function's name cannot be called: that would be
            // recursion.
            let replaces = number == self.me + 1 && function.second;
            !function.second && !replaces && function.cap * self.times <= left
        };
        later.filter(|(number, function)| fits(*number, function)).map(|(number, _)| number).collect()
    }

    pub(super) fn call(&mut self) {
        let callees = self.callees();
        let seen = |number: &usize| {
            let function = &self.plan.functions[*number];
            visible(function.linkage, function.module, self.module)
        };
        let direct: Vec<usize> = callees.iter().copied().filter(seen).collect();
        let pointers = self.pointers(
            |target| matches!(target, PointerTarget::Function(number) if callees.contains(&number)),
        );
        let kind = self.random.below(4);
        let (callee, address) = if kind == 0 && !pointers.is_empty() {
            let (data, offset, target) = *self.random.choose(&pointers);
            let PointerTarget::Function(callee) = target else { return };
            (callee, Some(self.load_pointer(data, offset)))
        } else if !direct.is_empty() {
            let callee = *self.random.choose(&direct);
            let address = match kind {
                1 => Some(self.function_address(callee)),
                2 => {
                    // The code selects the address of one of two functions of the same type.
                    let signature = &self.plan.functions[callee].signature;
                    let same = |number: &usize| self.plan.functions[*number].signature == *signature;
                    let others: Vec<usize> = direct.iter().copied().filter(same).collect();
                    let other = *self.random.choose(&others);
                    self.afford(self.plan.functions[other].cap);
                    let (a, b) = (self.function_address(callee), self.function_address(other));
                    let condition = self.condition();
                    Some(self.builder.ins().select(condition, a, b))
                }
                _ => None,
            };
            (callee, address)
        } else {
            return;
        };
        self.afford(self.plan.functions[callee].cap);
        let signature = self.plan.functions[callee].signature.clone();
        let arguments: Vec<Value> =
            signature.params.iter().map(|param| self.pick(param.value_type)).collect();
        let call = match address {
            Some(address) => {
                let signature = self.builder.import_signature(signature.clone());
                self.builder.ins().call_indirect(signature, address, &arguments)
            }
            None => {
                let callee = self.ids.functions[callee].expect("what is visible is declared");
                let callee = self.host.declare_func_in_func(callee, self.builder.func);
                self.builder.ins().call(callee, &arguments)
            }
        };
        let results = self.builder.inst_results(call).to_vec();
        for (value, ty) in results.into_iter().zip(signature.returns.iter().map(|param| param.value_type)) {
            if self.random.once_in(2) {
                self.set(ty, value);
            } else {
                self.scope.push((ty, value));
            }
        }
    }

    /// Whether the module can name a function.
    pub(super) fn sees(&self, function: usize) -> bool {
        let function = &self.plan.functions[function];
        visible(function.linkage, function.module, self.module)
    }

    pub(super) fn function_address(&mut self, function: usize) -> Value {
        let function = self.ids.functions[function].expect("what is visible is declared");
        let function = self.host.declare_func_in_func(function, self.builder.func);
        self.builder.ins().func_addr(types::I64, function)
    }

    /// Ends the function: by a return, or by a tail call of a function that returns the same types.
    pub(super) fn end(&mut self) {
        let own = self.plan.functions[self.me].signature.clone();
        if own.call_conv == CallConv::Tail && self.random.once_in(2) {
            let fits = |number: &usize| {
                let other = &self.plan.functions[*number];
                other.signature.call_conv == CallConv::Tail
                    && other.signature.returns == own.returns
                    && visible(other.linkage, other.module, self.module)
            };
            let others: Vec<usize> = self.callees().into_iter().filter(fits).collect();
            if !others.is_empty() {
                let callee = *self.random.choose(&others);
                self.afford(self.plan.functions[callee].cap);
                let signature = self.plan.functions[callee].signature.clone();
                let arguments: Vec<Value> =
                    signature.params.iter().map(|param| self.pick(param.value_type)).collect();
                if self.random.once_in(2) {
                    let address = self.function_address(callee);
                    let signature = self.builder.import_signature(signature);
                    self.builder.ins().return_call_indirect(signature, address, &arguments);
                } else {
                    let callee = self.ids.functions[callee].expect("what is visible is declared");
                    let callee = self.host.declare_func_in_func(callee, self.builder.func);
                    self.builder.ins().return_call(callee, &arguments);
                }
                return;
            }
        }
        // The compiler removes a value that is not used, so the result depends on nearly all
        // values.
        let sum = self.fold();
        let mut values = Vec::with_capacity(own.returns.len());
        let mut returned = false;
        for param in &own.returns {
            values.push(match param.value_type {
                types::I64 => {
                    returned = true;
                    sum
                }
                ty => self.pick(ty),
            });
        }
        if !returned || self.random.once_in(4) {
            self.keep_in_memory(sum);
        }
        self.builder.ins().return_(&values);
    }

    /// Adds code that combines all variables and the newest values into one number.
    fn fold(&mut self) -> Value {
        let mut values: Vec<(Type, Value)> = Vec::new();
        if self.afford(6 * self.variables.len() as u64) {
            for index in 0..self.variables.len() {
                let (ty, variable) = self.variables[index];
                values.push((ty, self.builder.use_var(variable)));
            }
        }
        values.extend(self.scope.iter().rev().take(10));
        let mut sum = self.constant(types::I64);
        for (ty, value) in values {
            let bits = self.bits(ty, value);
            let factor = self.builder.ins().iconst(types::I64, 0x0100_0000_01b3);
            sum = self.builder.ins().imul(sum, factor);
            sum = self.builder.ins().bxor(sum, bits);
        }
        sum
    }
}
