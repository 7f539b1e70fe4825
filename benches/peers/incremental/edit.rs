//! Changed programs: a function with a different constant, and several copies of a program.

use cranelift_codegen::ir::immediates::Imm64;
use cranelift_codegen::ir::{self, InstructionData, Opcode, types};
use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::ir::{Body, Code, Linkage, Module, SymbolKind};

use crate::setup::Failure;
use crate::workload::Workload;

/// A constant in a function, which is changed to another number for each build.
pub(super) struct Edit {
    pub(super) module: usize,
    pub(super) function: usize,
    pub(super) ir: ir::Function,
    pub(super) inst: ir::Inst,
    pub(super) number: i64,
}

impl Edit {
    /// Finds a constant that changes machine code, in the middle of the program, in a function of
    /// middle size.
    pub(super) fn find(workload: &Workload, artifacts: &[Artifact]) -> Result<Self, Failure> {
        let compiler = Compiler::new(workload.target.clone());
        let middle = workload.modules.len() / 2;
        for module in (middle..workload.modules.len()).chain(0..middle) {
            let functions = workload.modules[module].functions.iter().enumerate();
            let mut candidates: Vec<Self> = functions
                .filter_map(|(function, defined)| {
                    let ir = defined.ir()?;
                    let inst = constant(&ir)?;
                    Some(Self { module, function, ir, inst, number: 0x5_0000 })
                })
                .collect();
            candidates.sort_by_key(|edit| edit.ir.dfg.num_insts());
            let start = candidates.len() / 2;
            candidates.rotate_left(start);
            for mut edit in candidates {
                let mut modules = [workload.modules[module].clone()];
                edit.change(&mut modules[0])?;
                if compiler.compile(&modules)?.artifacts[0] != artifacts[module] {
                    return Ok(edit);
                }
            }
        }
        Err("no function has a constant that can be changed".into())
    }

    pub(super) fn change(&mut self, module: &mut Module) -> Result<(), Failure> {
        self.number += 1;
        let imm = Imm64::new(self.number);
        self.ir.dfg.insts[self.inst] = InstructionData::UnaryImm { opcode: Opcode::Iconst, imm };
        module.functions[self.function].code = Code::Ir(Body::new(&self.ir)?);
        Ok(())
    }
}

/// Returns the last integer constant of 32 or 64 bits in a function.
pub(super) fn constant(function: &ir::Function) -> Option<ir::Inst> {
    let insts = function.layout.blocks().flat_map(|block| function.layout.block_insts(block));
    let constants = insts.filter(|&inst| {
        let is_constant = function.dfg.insts[inst].opcode() == Opcode::Iconst;
        is_constant
            && matches!(function.dfg.value_type(function.dfg.first_result(inst)), types::I32 | types::I64)
    });
    constants.last()
}

/// Makes `times` copies of the program, each with other names.
pub(super) fn repeat(modules: &[Module], times: usize) -> Vec<Module> {
    let seen_by_others = |symbol: &&kiln::ir::Symbol| {
        symbol.kind != SymbolKind::Global && !matches!(symbol.linkage, Linkage::Import | Linkage::Local)
    };
    let defined = modules.iter().flat_map(|module| &module.symbols).filter(seen_by_others);
    let defined: std::collections::HashSet<&str> = defined.map(|symbol| &*symbol.name).collect();
    let copy = |number: usize| {
        let defined = &defined;
        modules.iter().cloned().map(move |mut module| {
            module.name = format!("{}, copy {number}", module.name).into();
            for symbol in &mut module.symbols {
                let named = symbol.kind != SymbolKind::Global && symbol.linkage != Linkage::Local;
                if named && defined.contains(&*symbol.name) {
                    symbol.name = format!("{}_copy_{number}", symbol.name).into();
                }
            }
            module
        })
    };
    modules.iter().cloned().chain((1..times).flat_map(copy)).collect()
}
