//! A program in execution, and the calls into it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use cranelift_codegen::data_value::DataValue;
use kiln_ir::SymbolId;

use super::error::InterpretError;
use super::machine::Machine;
use super::memory::Memory;
use super::program::{LinkedProgram, Resolved};
use super::run::run;

/// A program in execution.
pub struct Process<'p> {
    program: &'p LinkedProgram,
    machine: Machine<'p>,
    fuel: u64,
}

impl std::fmt::Debug for Process<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("fuel", &self.fuel).finish_non_exhaustive()
    }
}

impl<'p> Process<'p> {
    /// Starts the program: puts its data and its run-time objects into memory. `object` returns the
    /// bytes of a run-time object by its key. A run-time object is aligned to 16 bytes.
    pub fn new(program: &'p LinkedProgram, object: &mut dyn FnMut(&str) -> Vec<u8>) -> Self {
        let mut memory = Memory::default();
        let mut objects = Vec::with_capacity(program.data.len() + program.keys.len());
        for data in &program.data {
            objects.push(memory.allocate(data.bytes.clone(), data.align, true));
        }
        for key in &program.keys {
            objects.push(memory.allocate(object(key), 16, true));
        }
        let mut machine = Machine::new(program, memory, objects);
        for (number, data) in program.data.iter().enumerate() {
            for &(offset, symbol, addend) in &data.pointers {
                // A symbol that no module defines is null, and traps when it is used.
                let address = machine.address(&program.resolved[symbol as usize]);
                let address = address.map_or(0, |address| address.wrapping_add_signed(addend));
                let object = machine.memory.object_mut(machine.objects[number]);
                if let Some(site) = object.bytes.get_mut(offset..offset.saturating_add(8)) {
                    site.copy_from_slice(&address.to_ne_bytes());
                }
            }
            machine.memory.object_mut(machine.objects[number]).writable = data.writable;
        }
        Self { program, machine, fuel: 100_000_000 }
    }

    /// Lets each call execute at most `fuel` instructions instead of 100,000,000.
    #[must_use]
    pub fn with_fuel(self, fuel: u64) -> Self {
        Self { fuel, ..self }
    }

    /// Calls the visible function `name`.
    ///
    /// # Errors
    ///
    /// [`InterpretError`]; memory keeps what the call wrote before the error.
    pub fn call(&mut self, name: &str, arguments: &[DataValue]) -> Result<Vec<DataValue>, InterpretError> {
        let number = *self.program.names.get(name).ok_or(InterpretError::NoFunction)?;
        self.call_number(number, arguments)
    }

    /// Calls function `symbol` of module `module`, or the definition that overrides it.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Process::call`].
    ///
    /// # Panics
    ///
    /// If there is no such symbol.
    pub fn call_symbol(
        &mut self,
        module: usize,
        symbol: SymbolId,
        arguments: &[DataValue],
    ) -> Result<Vec<DataValue>, InterpretError> {
        self.call_number(self.program.numbers[module][symbol.index()], arguments)
    }

    fn call_number(
        &mut self,
        number: u32,
        arguments: &[DataValue],
    ) -> Result<Vec<DataValue>, InterpretError> {
        let Resolved::Function(function) = self.program.resolved[number as usize] else {
            return Err(InterpretError::NoFunction);
        };
        let function = &self.program.functions[function];
        let (machine, fuel) = (&mut self.machine, self.fuel);
        // Cranelift's interpreter panics at an instruction that it does not implement.
        quietly(|| catch_unwind(AssertUnwindSafe(|| run(machine, function, arguments, fuel)))).unwrap_or_else(
            |payload| {
                let text = payload.downcast_ref::<&str>().map(ToString::to_string);
                let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                Err(InterpretError::Unsupported(text.unwrap_or_else(|| "an instruction".into()).into()))
            },
        )
    }

    /// Returns the bytes of a run-time object.
    pub fn global(&self, key: &str) -> Option<&[u8]> {
        let index = self.program.keys.iter().position(|other| **other == *key)?;
        Some(self.object(self.program.data.len() + index))
    }

    /// Returns the bytes of a visible data object. Pointers in it are addresses of the interpreter.
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        let number = *self.program.names.get(name)?;
        match self.program.resolved[number as usize] {
            Resolved::Object(object) => Some(self.object(object)),
            _ => None,
        }
    }

    fn object(&self, number: usize) -> &[u8] {
        &self.machine.memory.object(self.machine.objects[number]).bytes
    }
}

thread_local! {
    /// Whether a panic of this thread is expected.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; its panics are not printed.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = work();
    QUIET.set(before);
    result
}
