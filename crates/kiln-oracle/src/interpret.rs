//! An interpreter of whole programs: an oracle that shares nothing with the code generator.
//!
//! [`LinkedProgram`] is modules that were linked, [`Process`] is one execution of it: memory lives as long as the process, so calls
//! see what calls before them wrote. Instructions are executed by Cranelift's interpreter; symbols, data, run-time objects
//! and calls across modules are added here.
//!
//! What Cranelift's interpreter does not know, it panics at; that becomes [`InterpretError::Unsupported`]. What is known to be missing or wrong
//! in version 0.135.8, and is left alone by [`crate::generate`]:
//!
//! - `avg_round` panics on vectors, and overflows on scalars;
//! - `srem` of the least number and -1 traps, while machines give 0;
//! - `bitcast` between a vector and a scalar panics, and so do big-endian lanes;
//! - `x86_*`, `blendv`, `try_call`, `get_frame_pointer` and its like, dynamic stack slots and `stack_switch` panic.

mod access;
mod machine;
mod memory;

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{self, UserExternalName, UserFuncName};
use kiln_ir::{Init, Linkage, Module, SymbolId, SymbolKind};

use self::machine::Machine;
use self::memory::Memory;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InterpretError {
    /// The interpreter does not know something.
    #[error("not supported: {0}")]
    Unsupported(Box<str>),
    /// The program trapped.
    #[error("{0}")]
    Trapped(Box<str>),
    /// The program executed more instructions than it may.
    #[error("out of fuel")]
    Fuel,
    /// There is no visible function of this name.
    #[error("there is no such function")]
    NoFunction,
}

/// What a symbol stands for.
#[derive(Clone, Copy, Debug)]
enum Item {
    /// Number of a function.
    Function(usize),
    /// Number of a datum, or number of data plus number of a global.
    Object(usize),
    /// Nobody defines it.
    Missing,
}

/// The code of a function. All access to it is here.
fn code_of(function: &kiln_ir::Function) -> Option<ir::Function> {
    function.ir()
}

/// A datum, with pointers by program-wide number.
#[derive(Debug)]
struct Datum {
    bytes: Vec<u8>,
    align: u64,
    writable: bool,
    /// Offset, symbol, addend.
    pointers: Vec<(usize, u32, i64)>,
}

/// Modules that were linked with each other.
#[derive(Debug)]
pub struct LinkedProgram {
    functions: Vec<ir::Function>,
    data: Vec<Datum>,
    /// Keys of globals, in order of first use.
    keys: Vec<Box<str>>,
    /// What each program-wide number stands for.
    items: Vec<Item>,
    /// Numbers of visible names.
    names: HashMap<Box<str>, u32>,
    /// Program-wide number by module and symbol.
    numbers: Vec<Vec<u32>>,
}

impl LinkedProgram {
    /// Links `modules` by name. A definition takes the place of a preemptible one; of several preemptible ones the first counts.
    /// Whether they fit together is for [`kiln_ir::check_program`] to say.
    pub fn new(modules: &[&Module]) -> Self {
        let mut names: HashMap<Box<str>, u32> = HashMap::new();
        let mut keys: Vec<Box<str>> = Vec::new();
        let mut globals: HashMap<&str, u32> = HashMap::new();
        let mut items = Vec::new();
        let mut numbers = Vec::with_capacity(modules.len());
        let fresh = |items: &mut Vec<Item>| {
            items.push(Item::Missing);
            items.len() as u32 - 1
        };
        for module in modules {
            let mut own = Vec::with_capacity(module.symbols.len());
            for symbol in &module.symbols {
                own.push(match (symbol.kind, symbol.linkage) {
                    (SymbolKind::Global, _) => *globals.entry(&symbol.name).or_insert_with(|| {
                        keys.push(symbol.name.clone());
                        fresh(&mut items)
                    }),
                    (_, Linkage::Local) => fresh(&mut items),
                    _ => *names.entry(symbol.name.clone()).or_insert_with(|| fresh(&mut items)),
                });
            }
            numbers.push(own);
        }

        let mut functions = Vec::new();
        let mut data = Vec::new();
        // Whether the definition of a number gives way to another.
        let mut weak: HashMap<u32, bool> = HashMap::new();
        let mut wins = |number: u32, module: &Module, symbol: SymbolId| {
            let gives_way = module.symbol(symbol).linkage == Linkage::Preemptible;
            let counts = weak.get(&number).is_none_or(|&other| other && !gives_way);
            if counts {
                weak.insert(number, gives_way);
            }
            counts
        };
        for (module, numbers) in modules.iter().zip(&numbers) {
            for function in &module.functions {
                let number = numbers[function.symbol.index()];
                if wins(number, module, function.symbol) {
                    // Machine code is nothing that can be interpreted.
                    let Some(code) = code_of(function) else { continue };
                    items[number as usize] = Item::Function(functions.len());
                    functions.push(renumbered(code, number, numbers));
                }
            }
            for datum in &module.data {
                let number = numbers[datum.symbol.index()];
                if wins(number, module, datum.symbol) {
                    items[number as usize] = Item::Object(data.len());
                    let bytes = match &datum.init {
                        Init::Zeros(len) => vec![0; usize::try_from(*len).unwrap_or(0)],
                        Init::Bytes(bytes) => bytes.clone(),
                    };
                    let pointers = datum.addresses.iter().map(|address| {
                        let offset = usize::try_from(address.offset).unwrap_or(usize::MAX);
                        (offset, numbers[address.symbol.index()], address.addend)
                    });
                    let pointers = pointers.collect();
                    let (align, writable) = (u64::from(datum.align), datum.writable);
                    data.push(Datum { bytes, align, writable, pointers });
                }
            }
        }
        for (at, key) in keys.iter().enumerate() {
            items[globals[&**key] as usize] = Item::Object(data.len() + at);
        }
        Self { functions, data, keys, items, names, numbers }
    }

    /// Keys of the run-time objects that the program uses.
    pub fn globals(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &**key)
    }

    /// The visible name of a number, for messages.
    fn name(&self, number: u32) -> &str {
        self.names.iter().find(|(_, at)| **at == number).map_or("a local function", |(name, _)| name)
    }
}

/// `function` with program-wide numbers for names.
fn renumbered(mut function: ir::Function, number: u32, numbers: &[u32]) -> ir::Function {
    function.name = UserFuncName::user(0, number);
    let names: Vec<_> =
        function.params.user_named_funcs().iter().map(|(at, name)| (at, name.index)).collect();
    // Two steps, since a name may not stand for two references even for a moment.
    let far = |at: usize| UserExternalName { namespace: u32::MAX, index: at as u32 };
    for (at, (reference, _)) in names.iter().enumerate() {
        function.params.reset_user_func_name(*reference, far(at));
    }
    for (reference, index) in names {
        // What text declares and does not use may have any number.
        let index = numbers.get(index as usize).copied().unwrap_or(u32::MAX);
        function.params.reset_user_func_name(reference, UserExternalName { namespace: 0, index });
    }
    function
}

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
    /// Puts data into memory, and run-time objects, whose bytes `object` gives by key. An object is aligned to 16 bytes.
    pub fn new(program: &'p LinkedProgram, object: &mut dyn FnMut(&str) -> Vec<u8>) -> Self {
        let mut memory = Memory::default();
        let mut objects = Vec::with_capacity(program.data.len() + program.keys.len());
        for datum in &program.data {
            objects.push(memory.allocate(datum.bytes.clone(), datum.align, true));
        }
        for key in &program.keys {
            objects.push(memory.allocate(object(key), 16, true));
        }
        let mut machine = Machine::new(program, memory, objects);
        for (number, datum) in program.data.iter().enumerate() {
            for &(offset, symbol, addend) in &datum.pointers {
                // What nobody defines is null, and traps when it is used.
                let address = machine.address(&program.items[symbol as usize]);
                let address = address.map_or(0, |address| address.wrapping_add_signed(addend));
                let object = machine.memory.object_mut(machine.objects[number]);
                if let Some(place) = object.bytes.get_mut(offset..offset.saturating_add(8)) {
                    place.copy_from_slice(&address.to_ne_bytes());
                }
            }
            machine.memory.object_mut(machine.objects[number]).writable = datum.writable;
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
    /// [`InterpretError`]; memory keeps what was written until then.
    pub fn call(&mut self, name: &str, arguments: &[DataValue]) -> Result<Vec<DataValue>, InterpretError> {
        let number = *self.program.names.get(name).ok_or(InterpretError::NoFunction)?;
        self.call_number(number, arguments)
    }

    /// Calls function `symbol` of module `module`, or what takes its place.
    ///
    /// # Errors
    ///
    /// As for [`Process::call`].
    ///
    /// # Panics
    ///
    /// When there is no such symbol.
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
        let Item::Function(function) = self.program.items[number as usize] else {
            return Err(InterpretError::NoFunction);
        };
        let function = &self.program.functions[function];
        let (machine, fuel) = (&mut self.machine, self.fuel);
        // Cranelift's interpreter panics at what it does not implement.
        quietly(|| catch_unwind(AssertUnwindSafe(|| machine.run(function, arguments, fuel)))).unwrap_or_else(
            |payload| {
                let text = payload.downcast_ref::<&str>().map(ToString::to_string);
                let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                Err(InterpretError::Unsupported(text.unwrap_or_else(|| "an instruction".into()).into()))
            },
        )
    }

    /// The bytes of a run-time object.
    pub fn global(&self, key: &str) -> Option<&[u8]> {
        let at = self.program.keys.iter().position(|other| **other == *key)?;
        Some(self.object(self.program.data.len() + at))
    }

    /// The bytes of a visible datum. Pointers among them are addresses of the interpreter.
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        let number = *self.program.names.get(name)?;
        match self.program.items[number as usize] {
            Item::Object(object) => Some(self.object(object)),
            _ => None,
        }
    }

    fn object(&self, number: usize) -> &[u8] {
        &self.machine.memory.object(self.machine.objects[number]).bytes
    }
}

thread_local! {
    /// Whether a panic of this thread is part of the plan.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`, of whose panics nothing is printed.
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
