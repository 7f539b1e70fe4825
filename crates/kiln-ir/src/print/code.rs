//! Prints the machine code that a client supplied.

use std::fmt::Write as _;

use cranelift_codegen::ir::Signature;

use super::names::Names;
use crate::function::{CodeTarget, MachineCode};
use crate::relocs;
use crate::symbol::SymbolId;

/// The number of bytes on a line.
const LINE: usize = 32;

/// Writes the item from its keyword to its closing brace.
pub(super) fn write(
    code: &MachineCode,
    names: &Names,
    symbol: SymbolId,
    signature: Option<&Signature>,
    out: &mut String,
) -> Result<(), String> {
    let MachineCode { bytes, align, relocs } = code;
    let signature = signature.ok_or("machine code without a type")?;
    if let Some(ty) = signature
        .params
        .iter()
        .chain(&signature.returns)
        .map(|param| param.value_type)
        .find(|ty| ty.is_dynamic_vector())
    {
        return Err(format!("a parameter or result of the type {ty}"));
    }
    let _ = write!(out, "code {}{signature} {{\n    align {align}", names.text(symbol));
    for chunk in bytes.chunks(LINE) {
        out.push_str(",\n    bytes #");
        for byte in chunk {
            let _ = write!(out, "{byte:02x}");
        }
    }
    for reloc in relocs {
        let kind = relocs::name(reloc.kind)
            .ok_or_else(|| format!("the relocation at {} is of a kind that is not linked", reloc.offset))?;
        let _ = write!(out, ",\n    reloc {kind} at {} ", reloc.offset);
        let _ = match reloc.target {
            CodeTarget::Symbol(target) => write!(out, "{}", names.text(target)),
            CodeTarget::LibCall(call) => write!(out, "routine {call}"),
            CodeTarget::Here(offset) => write!(out, "here {offset}"),
        };
        if reloc.addend != 0 {
            let sign = if reloc.addend < 0 { '-' } else { '+' };
            let _ = write!(out, " {sign} {}", reloc.addend.unsigned_abs());
        }
    }
    out.push_str("\n}");
    Ok(())
}
