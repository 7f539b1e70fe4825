//! Workloads: modules to compile, and their text for the front end.

use std::path::Path;
use std::sync::Arc;

use cranelift_codegen::ir;
use cranelift_codegen::isa::OwnedTargetIsa;
use kiln::globals::GlobalTable;
use kiln::ir::{Function, Linkage, Module, Source, SymbolKind, Target, parse};
use rayon::prelude::*;

use crate::generate;
use crate::setup::Failure;

/// Modules, and everything made from them that is not measured.
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) modules: Vec<Module>,
    /// The functions of all modules in Cranelift's form.
    ir: Vec<ir::Function>,
    /// The code generator of each module.
    pub(crate) isas: Vec<OwnedTargetIsa>,
    /// The text of each module.
    pub(crate) sources: Vec<Arc<Source>>,
    pub(crate) globals: GlobalTable,
    /// Whether the functions can be run.
    pub(crate) runs: bool,
}

impl Workload {
    /// Generates a program from a seed.
    pub(crate) fn generated(functions: u32) -> Result<Self, Failure> {
        const SEED: u64 = 0x006b_696c_6e00;
        let target = Target::host();
        let modules = generate::modules(functions, SEED, &target)?;
        let sources =
            modules.iter().map(|module| Arc::new(Source::new(module.name.clone(), print(module)))).collect();
        Self::new(format!("generated program (seed {SEED:#x})"), target, modules, sources, true)
    }

    /// Reads the `.clif` files of `folder`, in order of their names.
    pub(crate) fn corpus(folder: &Path) -> Result<Self, Failure> {
        let list = std::fs::read_dir(folder)
            .map_err(|error| format!("cannot read the corpus {}: {error}", folder.display()))?;
        let mut files = Vec::new();
        for entry in list {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "clif") {
                files.push(path);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(format!("the corpus {} holds no .clif file", folder.display()).into());
        }
        let sources = files
            .iter()
            .map(|path| {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                Ok(Arc::new(Source::new(path.display().to_string(), text)))
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let target = Target::host();
        let modules = sources
            .par_iter()
            .map(|source| parse(source.clone(), &target))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|faults| faults.first().map_or_else(String::new, ToString::to_string))?;
        Self::new(format!("corpus {}", folder.display()), target, modules, sources, false)
    }

    fn new(
        name: String,
        target: Target,
        modules: Vec<Module>,
        sources: Vec<Arc<Source>>,
        runs: bool,
    ) -> Result<Self, Failure> {
        let isas = modules.iter().map(|module| target.isa(&module.settings)).collect::<Result<_, _>>()?;
        let mut globals = GlobalTable::new();
        for key in modules.iter().flat_map(Module::globals) {
            globals.intern(key);
        }
        let functions = modules.iter().flat_map(|module| &module.functions);
        let ir = functions.map(|function| function.ir().ok_or("machine code in a module"));
        let ir = ir.collect::<Result<_, _>>()?;
        Ok(Self { name, target, modules, ir, isas, sources, globals, runs })
    }

    /// Returns every function with the number of its module, in order.
    pub(crate) fn functions(&self) -> impl Iterator<Item = (usize, &Function, &ir::Function)> {
        let modules = self.modules.iter().enumerate();
        let functions = modules
            .flat_map(|(number, module)| module.functions.iter().map(move |function| (number, function)));
        functions.zip(&self.ir).map(|((number, function), ir)| (number, function, ir))
    }

    /// Returns the number of definitions that an image of the program exports.
    pub(crate) fn exports(&self) -> usize {
        let exported =
            |linkage| matches!(linkage, Linkage::Export | Linkage::Preemptible | Linkage::Replaceable);
        let symbols = self.modules.iter().flat_map(|module| &module.symbols);
        symbols.filter(|symbol| symbol.kind != SymbolKind::Global && exported(symbol.linkage)).count()
    }

    /// Describes the numbers of modules, functions and instructions, for people.
    pub(crate) fn describe(&self) -> String {
        let mut sizes: Vec<usize> = self.functions().map(|(.., ir)| ir.dfg.num_insts()).collect();
        sizes.sort_unstable();
        let at =
            |percent: usize| sizes.get(sizes.len() * percent / 100).or(sizes.last()).copied().unwrap_or(0);
        format!(
            "{} modules, {} functions, {} instructions of IR (median {}, 90 % {}, 99 % {}, largest {})",
            self.modules.len(),
            sizes.len(),
            sizes.iter().sum::<usize>(),
            at(50),
            at(90),
            at(99),
            at(100),
        )
    }
}

/// Prints the functions as plain CLIF, which both front ends read.
fn print(module: &Module) -> String {
    let mut text = String::new();
    for function in &module.functions {
        let ir = function.ir().expect("generated as IR");
        let mut printed = ir.display().to_string();
        // Cranelift prints an internal number for the symbol of a global value, and cannot read it
        // back.
        let names: Vec<_> = ir.params.user_named_funcs().iter().collect();
        for (number, name) in names.into_iter().rev() {
            printed =
                printed.replace(&format!("symbol colocated {number}"), &format!("symbol colocated {name}"));
            printed = printed.replace(&format!("symbol {number}"), &format!("symbol {name}"));
        }
        text.push_str(&printed);
        text.push('\n');
    }
    text
}
