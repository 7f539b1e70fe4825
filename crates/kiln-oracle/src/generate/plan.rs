//! A program before any of it is built: functions, data objects, pointers, entries.
//!
//! Invariants, which make every program terminate and give the same result everywhere:
//! - A function calls only functions with a higher number, and none that another overrides. So
//!   there is no recursion.
//! - A function executes about [`PlannedFunction::cap`] instructions at most, calls included.
//! - Every byte of a data object is either plain or part of a pointer, for as long as the program
//!   runs. So no address is read as a number.

use cranelift_codegen::ir::{Signature, Type, types};
use cranelift_module::{DataId, FuncId, Linkage};

use super::program::Entry;

/// The scalar types.
pub(super) const SCALARS: [Type; 7] =
    [types::I8, types::I16, types::I32, types::I64, types::I128, types::F32, types::F64];
/// The vector types.
pub(super) const VECTORS: [Type; 6] =
    [types::I8X16, types::I16X8, types::I32X4, types::I64X2, types::F32X4, types::F64X2];

/// A function to be built.
#[derive(Clone, Debug)]
pub(super) struct PlannedFunction {
    /// The name; `None` if it is anonymous.
    pub(super) name: Option<String>,
    pub(super) module: usize,
    pub(super) linkage: Linkage,
    pub(super) signature: Signature,
    /// The number of instructions that a call may execute.
    pub(super) cap: u64,
    /// The seed of its body.
    pub(super) seed: u64,
    /// Whether it is replaceable; its linkage is then `Export`.
    pub(super) replaceable: bool,
    /// Whether it is the second of two definitions of a name. One of them overrides the other.
    /// Callers use the number of the first.
    pub(super) second: bool,
}

/// The item that a pointer in data points to, by its number in the plan.
#[derive(Clone, Copy, Debug)]
pub(super) enum PointerTarget {
    Function(usize),
    /// A data object, and the number that is added to its address.
    Data(usize, i64),
    /// A run-time object, and the number that is added to its address.
    Global(usize, i64),
}

/// A data object to be built.
#[derive(Clone, Debug)]
pub(super) struct PlannedData {
    /// The name; `None` if it is anonymous.
    pub(super) name: Option<String>,
    pub(super) module: usize,
    pub(super) linkage: Linkage,
    pub(super) writable: bool,
    pub(super) align: Option<u32>,
    /// The initial content; `None` if all bytes are zero.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) len: u32,
    /// The offset of the first plain byte, and the number of plain bytes.
    pub(super) plain: (u32, u32),
    /// The pointers, each with its offset.
    pub(super) pointers: Vec<(u32, PointerTarget)>,
}

/// A run-time object.
#[derive(Clone, Debug)]
pub(super) struct PlannedGlobal {
    pub(super) key: String,
    pub(super) bytes: Vec<u8>,
}

/// A program, not yet built.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) modules: usize,
    /// The functions of the program. The first one to three are always visible to the host.
    pub(super) functions: Vec<PlannedFunction>,
    pub(super) data: Vec<PlannedData>,
    pub(super) globals: Vec<PlannedGlobal>,
    pub(super) entries: Vec<Entry>,
}

/// Whether module `from` can name a symbol that `module` defines with this linkage.
pub(super) fn visible(linkage: Linkage, module: usize, from: usize) -> bool {
    module == from || linkage != Linkage::Local
}

impl Plan {
    /// Returns the name of the function that computes the checksum of a module's data.
    pub(super) fn checksum(module: usize) -> String {
        format!("checksum{module}")
    }
}

/// The host's ids of the items of a plan; `None` for those that are not visible there.
pub(super) struct HostIds {
    pub(super) functions: Vec<Option<FuncId>>,
    pub(super) data: Vec<Option<DataId>>,
    pub(super) globals: Vec<DataId>,
}
