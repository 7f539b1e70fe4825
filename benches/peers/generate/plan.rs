//! The functions of the generated program before any body is made, so that modules can call one
//! another.

use cranelift_codegen::ir::{AbiParam, Signature, Type, types};
use cranelift_module::{DataId, FuncId, Linkage, Module as _};
use kiln::ir::ModuleBuilder;
use kiln_oracle::random::Random;

/// The number of functions in a module.
pub(super) const MODULE: u32 = 40;
/// The number of run-time objects that the program uses.
pub(crate) const GLOBALS: u32 = 200;
/// The size in bytes of the memory that a caller passes to every function, and of each module's own
/// memory.
pub(crate) const MEMORY: usize = 512;

/// The types of functions: parameters and result. Every function has two more parameters before
/// these: a pointer to [`MEMORY`] bytes, and the number of calls that may still be nested.
pub(super) const SHAPES: [(&[Type], Type); 4] = [
    (&[types::I64], types::I64),
    (&[types::I64, types::F64], types::I64),
    (&[types::I64, types::I64, types::I32], types::I64),
    (&[types::F64], types::F64),
];

/// The properties of a function that its callers must know.
#[derive(Clone, Copy)]
pub(super) struct FunctionPlan {
    pub(super) index: u32,
    pub(super) shape: usize,
    pub(super) linkage: Linkage,
    /// Number of statements.
    pub(super) size: u32,
}

pub(super) fn plan(index: u32, random: &mut Random) -> FunctionPlan {
    // The sizes are like the sizes of functions in real code: half of all functions have a few
    // instructions, and one in fifty has hundreds.
    let size = match random.below(100) {
        0..50 => 1 + random.below(4),
        50..80 => 4 + random.below(12),
        80..98 => 12 + random.below(40),
        _ => 60 + random.below(140),
    };
    let linkage = match random.below(10) {
        0..4 => Linkage::Export,
        4..6 => Linkage::Hidden,
        _ => Linkage::Local,
    };
    FunctionPlan { index, shape: random.below(SHAPES.len() as u32) as usize, linkage, size }
}

impl FunctionPlan {
    pub(super) fn name(&self) -> String {
        let linkage = match self.linkage {
            Linkage::Export => "export",
            Linkage::Hidden => "hidden",
            _ => "local",
        };
        format!("m{}_f{}_s{}_{linkage}", self.index / MODULE, self.index, self.shape)
    }

    pub(super) fn signature(&self, builder: &ModuleBuilder) -> Signature {
        let mut signature = builder.make_signature();
        signature.params.extend([types::I64, types::I32].map(AbiParam::new));
        signature.params.extend(SHAPES[self.shape].0.iter().copied().map(AbiParam::new));
        signature.returns.push(AbiParam::new(SHAPES[self.shape].1));
        signature
    }
}

/// Whether the function of this name can be called from outside: exported, of type
/// `(i64 memory, i32 depth, i64) -> i64`.
pub(crate) fn is_entry(name: &str) -> bool {
    name.ends_with("_s0_export")
}

/// The functions and data that the bodies of a module can refer to.
pub(super) struct ModuleScope {
    /// This module's functions and some of other modules.
    pub(super) callees: Vec<(FuncId, FunctionPlan)>,
    /// `labs` of the C library.
    pub(super) imported: FuncId,
    pub(super) globals: Vec<DataId>,
    pub(super) constants: DataId,
    pub(super) memory: DataId,
    /// Addresses of functions of shape 0.
    pub(super) table: Option<(DataId, u32)>,
}
