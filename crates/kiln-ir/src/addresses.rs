//! Finds constants that are addresses of the process.
//!
//! A compiler that lives in a JIT writes pointers into its code, as `iconst`. Such code is wrong in
//! every other process, so no image may have it; and since its fingerprint differs from run to run,
//! no cache ever has it. A global by key ([`ModuleBuilder::global`](crate::ModuleBuilder::global))
//! does the same without an address.

use cranelift_codegen::ir::{self, InstructionData, SourceLoc, types};

use crate::data::Init;
use crate::function::{Code, Function};
use crate::module::Module;
use crate::symbol::SymbolId;

/// A constant in a module that is an address of the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "module {module}, {}: {place} is an address of this process, so the code is wrong in any other, and is \
     never found in a cache",
    named(.symbol, .name)
)]
#[non_exhaustive]
pub struct AddressConstant {
    /// The module's name.
    pub module: Box<str>,
    /// The function or data object that has the constant.
    pub symbol: SymbolId,
    /// Its name; empty if it is anonymous.
    pub name: Box<str>,
    /// The instruction, numbered as in the canonical form, with its source location if it has one;
    /// or the offset in data or machine code.
    pub place: Box<str>,
    /// The source location that the client gave the instruction.
    pub location: Option<SourceLoc>,
    /// The constant.
    pub value: u64,
}

fn named(symbol: &SymbolId, name: &str) -> String {
    if name.is_empty() {
        format!("symbol {}, which has no name", symbol.as_u32())
    } else {
        format!("`{name}`")
    }
}

/// Returns the constants of `module` that `is_address` says are addresses of the process: integers
/// of 64 bits in IR, every 8 bytes of machine code, and aligned 8 bytes of data. They are in order
/// of functions, then of data objects.
///
/// It is a guess, because a number can be equal to an address by chance. `kiln::find_addresses`
/// knows what is mapped in this process.
///
/// ```
/// use kiln_ir::{Source, Target, address_constants, parse};
///
/// let text = "function %f() -> i64 system_v {
///     block0:
///         v0 = iconst.i64 0x7fff_1234_5678
///         return v0
///     }";
/// let module = parse(Source::new("f.clif", text).into(), &Target::host()).unwrap();
/// let stack = 0x7fff_0000_0000..0x7fff_ffff_ffff;
/// let found = address_constants(&module, &|value| stack.contains(&value));
/// assert_eq!(found.len(), 1);
/// assert_eq!(&*found[0].place, "`v0 = iconst.i64 0x7fff_1234_5678`");
/// ```
pub fn address_constants(module: &Module, is_address: &dyn Fn(u64) -> bool) -> Vec<AddressConstant> {
    let mut found = Vec::new();
    let mut add = |symbol: SymbolId, place: String, location, value| {
        found.push(AddressConstant {
            module: module.name.clone(),
            symbol,
            name: module.symbol(symbol).name.clone(),
            place: place.into(),
            location,
            value,
        });
    };
    let mut scratch = ir::Function::new();
    for Function { symbol, code, .. } in &module.functions {
        match code {
            Code::Ir(body) => {
                body.decode_into(*symbol, &mut scratch);
                for (inst, value) in constants(&scratch) {
                    if is_address(value) {
                        let location = Some(scratch.srcloc(inst)).filter(|at| !at.is_default());
                        let at = location.map(|at| format!(" (at {at})")).unwrap_or_default();
                        let place = format!("`{}`{at}", scratch.dfg.display_inst(inst));
                        add(*symbol, place, location, value);
                    }
                }
            }
            Code::Machine(code) => {
                for (offset, bytes) in code.bytes.windows(8).enumerate() {
                    let value = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
                    if is_address(value) {
                        add(*symbol, format!("{value:#x} at offset {offset:#x}"), None, value);
                    }
                }
            }
        }
    }
    for data in &module.data {
        let Init::Bytes(bytes) = &data.init else { continue };
        for (index, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let value = u64::from_le_bytes(*bytes);
            if is_address(value) {
                add(data.symbol, format!("{value:#x} at offset {:#x}", 8 * index), None, value);
            }
        }
    }
    found
}

/// Returns the constants of 64 bits in a function, in order.
fn constants(function: &ir::Function) -> impl Iterator<Item = (ir::Inst, u64)> {
    let layout = &function.layout;
    let insts = layout.blocks().flat_map(|block| layout.block_insts(block));
    insts.filter_map(|inst| match function.dfg.insts[inst] {
        InstructionData::UnaryImm { imm, .. }
            if function.dfg.value_type(function.dfg.first_result(inst)) == types::I64 =>
        {
            Some((inst, imm.bits() as u64))
        }
        _ => None,
    })
}
