//! Modules linked by name, for the interpreter.
//!
//! Every symbol gets a program-wide number. All symbols with the same visible name share a number;
//! a local symbol has a number of its own. Inside functions, these numbers replace names.

use std::collections::HashMap;

use cranelift_codegen::ir::{self, UserExternalName, UserFuncName};
use kiln_ir::{Init, Linkage, Module, SymbolId, SymbolKind};

/// The definition of a program-wide number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Resolved {
    /// The function with this index.
    Function(usize),
    /// The data object with this index. Indices after the last data object are run-time objects.
    Object(usize),
    /// No definition: no module defines the symbol.
    Missing,
}

/// A data object whose pointers name their targets by program-wide number.
#[derive(Debug)]
pub(super) struct LinkedData {
    pub(super) bytes: Vec<u8>,
    pub(super) align: u64,
    pub(super) writable: bool,
    /// The pointers, each as offset, program-wide number of the symbol, and addend.
    pub(super) pointers: Vec<(usize, u32, i64)>,
}

/// Modules that were linked with each other.
#[derive(Debug)]
pub struct LinkedProgram {
    pub(super) functions: Vec<ir::Function>,
    pub(super) data: Vec<LinkedData>,
    /// Keys of run-time objects, in order of first use.
    pub(super) keys: Vec<Box<str>>,
    /// The definition of each program-wide number.
    pub(super) resolved: Vec<Resolved>,
    /// The program-wide number of each visible name.
    pub(super) names: HashMap<Box<str>, u32>,
    /// The program-wide number of each symbol, by module.
    pub(super) numbers: Vec<Vec<u32>>,
}

impl LinkedProgram {
    /// Links `modules` by name. A definition overrides a preemptible definition; of several
    /// preemptible definitions, the first is taken, and of several replaceable ones the last. This
    /// does not check whether the modules fit together; [`kiln_ir::check_program`] does.
    pub fn new(modules: &[&Module]) -> Self {
        let mut names: HashMap<Box<str>, u32> = HashMap::new();
        let mut keys: Vec<Box<str>> = Vec::new();
        let mut globals: HashMap<&str, u32> = HashMap::new();
        let mut resolved = Vec::new();
        let mut numbers = Vec::with_capacity(modules.len());
        let fresh = |resolved: &mut Vec<Resolved>| {
            resolved.push(Resolved::Missing);
            resolved.len() as u32 - 1
        };
        for module in modules {
            let mut own = Vec::with_capacity(module.symbols.len());
            for symbol in &module.symbols {
                own.push(match (symbol.kind, symbol.linkage) {
                    (SymbolKind::Global, _) => *globals.entry(&symbol.name).or_insert_with(|| {
                        keys.push(symbol.name.clone());
                        fresh(&mut resolved)
                    }),
                    (_, Linkage::Local) => fresh(&mut resolved),
                    _ => *names.entry(symbol.name.clone()).or_insert_with(|| fresh(&mut resolved)),
                });
            }
            numbers.push(own);
        }

        let mut functions = Vec::new();
        let mut data = Vec::new();
        // Whether the definition of a number can be overridden, by number.
        let mut weak: HashMap<u32, bool> = HashMap::new();
        let mut wins = |number: u32, module: &Module, symbol: SymbolId| {
            let linkage = module.symbol(symbol).linkage;
            let is_weak = linkage == Linkage::Preemptible;
            let wins = weak.get(&number).is_none_or(|&other| other && !is_weak);
            let wins = wins || linkage == Linkage::Replaceable;
            if wins {
                weak.insert(number, is_weak);
            }
            wins
        };
        for (module, numbers) in modules.iter().zip(&numbers) {
            for function in &module.functions {
                let number = numbers[function.symbol.index()];
                if wins(number, module, function.symbol) {
                    // Machine code cannot be interpreted.
                    let Some(code) = function.ir() else { continue };
                    resolved[number as usize] = Resolved::Function(functions.len());
                    functions.push(renumbered(code, number, numbers));
                }
            }
            for object in &module.data {
                let number = numbers[object.symbol.index()];
                if wins(number, module, object.symbol) {
                    resolved[number as usize] = Resolved::Object(data.len());
                    let bytes = match &object.init {
                        Init::Zeros(len) => vec![0; usize::try_from(*len).unwrap_or(0)],
                        Init::Bytes(bytes) => bytes.clone(),
                    };
                    let pointers = object.addresses.iter().map(|address| {
                        let offset = usize::try_from(address.offset).unwrap_or(usize::MAX);
                        (offset, numbers[address.symbol.index()], address.addend)
                    });
                    let pointers = pointers.collect();
                    let (align, writable) = (u64::from(object.align), object.writable);
                    data.push(LinkedData { bytes, align, writable, pointers });
                }
            }
        }
        for (index, key) in keys.iter().enumerate() {
            resolved[globals[&**key] as usize] = Resolved::Object(data.len() + index);
        }
        Self { functions, data, keys, resolved, names, numbers }
    }

    /// Returns the keys of the run-time objects that the program uses.
    pub fn globals(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &**key)
    }

    /// Returns the visible name of a number, for messages.
    pub(super) fn name(&self, number: u32) -> &str {
        self.names.iter().find(|(_, other)| **other == number).map_or("a local function", |(name, _)| name)
    }
}

/// Returns `function` with program-wide numbers for names.
fn renumbered(mut function: ir::Function, number: u32, numbers: &[u32]) -> ir::Function {
    function.name = UserFuncName::user(0, number);
    let names: Vec<_> =
        function.params.user_named_funcs().iter().map(|(reference, name)| (reference, name.index)).collect();
    // Two steps, since two references must never have the same name, not even temporarily.
    let unused = |index: usize| UserExternalName { namespace: u32::MAX, index: index as u32 };
    for (index, (reference, _)) in names.iter().enumerate() {
        function.params.reset_user_func_name(*reference, unused(index));
    }
    for (reference, index) in names {
        // A name that a text declares but does not use may have any number.
        let index = numbers.get(index as usize).copied().unwrap_or(u32::MAX);
        function.params.reset_user_func_name(reference, UserExternalName { namespace: 0, index });
    }
    function
}
