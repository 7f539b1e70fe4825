//! Cranelift's interpreter over a whole program: an oracle that shares nothing with the code generator.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{Function, LibCall, UserExternalName, UserFuncName};
use cranelift_interpreter::environment::FunctionStore;
use cranelift_interpreter::interpreter::{Interpreter, InterpreterError, InterpreterState, LibCallValues};
use cranelift_interpreter::step::{ControlFlow, CraneliftTrap, StepError};
use kiln::ir::{Linkage, Module, SymbolId};

/// Why there is no result.
pub(crate) enum Error {
    /// The interpreter does not know something.
    Unsupported(String),
    /// The program trapped.
    Trapped(String),
}

/// The functions of all modules, numbered through the program, so that calls cross module borders.
pub(crate) struct Program {
    functions: Vec<Function>,
    /// Program-wide number by module and symbol.
    numbers: Vec<Vec<u32>>,
}

impl Program {
    /// Renumbers the functions of `modules`.
    pub(crate) fn new(modules: &[&Module]) -> Self {
        let mut names: HashMap<&str, u32> = HashMap::new();
        let mut next = 0;
        let mut fresh = || {
            next += 1;
            next - 1
        };
        let mut numbers = Vec::with_capacity(modules.len());
        for module in modules {
            let symbols = module.symbols.iter();
            let own = symbols.map(|symbol| match symbol.linkage {
                Linkage::Local => fresh(),
                _ => *names.entry(&*symbol.name).or_insert_with(&mut fresh),
            });
            numbers.push(own.collect::<Vec<u32>>());
        }
        let mut functions: Vec<Function> = Vec::new();
        // Position among the functions, and whether the definition gives way to another.
        let mut chosen: HashMap<u32, (usize, bool)> = HashMap::new();
        for (module, numbers) in modules.iter().zip(&numbers) {
            for function in &module.functions {
                let Some(original) = function.ir() else { continue };
                let mut copy = original.clone();
                copy.name = UserFuncName::user(0, numbers[function.symbol.index()]);
                for (reference, name) in original.params.user_named_funcs() {
                    if let Some(&index) = numbers.get(name.index as usize) {
                        copy.params.reset_user_func_name(reference, UserExternalName { namespace: 0, index });
                    }
                }
                let number = numbers[function.symbol.index()];
                let weak = module.symbol(function.symbol).linkage == Linkage::Preemptible;
                match chosen.get(&number).copied() {
                    None => {
                        chosen.insert(number, (functions.len(), weak));
                        functions.push(copy);
                    }
                    Some((at, true)) if !weak => {
                        chosen.insert(number, (at, weak));
                        functions[at] = copy;
                    }
                    Some(_) => {}
                }
            }
        }
        Self { functions, numbers }
    }

    /// Calls a function of a module.
    pub(crate) fn call(
        &self,
        module: usize,
        symbol: SymbolId,
        arguments: &[DataValue],
    ) -> Result<Vec<DataValue>, Error> {
        let number = self.numbers[module][symbol.index()];
        // The interpreter panics at what it does not implement.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let result = catch_unwind(AssertUnwindSafe(|| self.interpret(number, arguments)));
        std::panic::set_hook(hook);
        result.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            Err(Error::Unsupported(text.unwrap_or_else(|| "an instruction".into())))
        })
    }

    fn interpret(&self, number: u32, arguments: &[DataValue]) -> Result<Vec<DataValue>, Error> {
        let mut store = FunctionStore::default();
        for function in &self.functions {
            store.add(function.name.to_string(), function);
        }
        let name = UserFuncName::user(0, number).to_string();
        let state = InterpreterState::default().with_function_store(store).with_libcall_handler(libcall);
        let mut interpreter = Interpreter::new(state).with_fuel(Some(100_000_000));
        match interpreter.call_by_name(&name, arguments) {
            Ok(ControlFlow::Return(values)) => Ok(values.to_vec()),
            Ok(ControlFlow::Trap(trap)) => Err(Error::Trapped(trap.to_string())),
            Ok(_) => Err(Error::Unsupported("its control flow".into())),
            Err(InterpreterError::StepError(StepError::UnknownFunction(_))) => {
                Err(Error::Unsupported("a call to a function of the host".into()))
            }
            Err(InterpreterError::FuelExhausted) => {
                Err(Error::Trapped("out of fuel after 100,000,000 steps".into()))
            }
            Err(error) => Err(Error::Unsupported(error.to_string())),
        }
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
        _ => panic!("library call {call}"),
    };
    Ok([result].into_iter().collect())
}
