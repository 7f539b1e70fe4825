//! Checks machine code that a client defines.

use cranelift_module::{FuncId, ModuleDeclarations, ModuleReloc, ModuleRelocTarget};

use super::error::{BuildError, CodeError};
use super::pending::{PendingCode, PendingTarget, declared};
use crate::data::MAX_ALIGN;
use crate::function::CodeTarget;
use crate::relocs;

/// Returns the machine code of function `id`, whose name is `name`.
pub(super) fn machine_code(
    declarations: &ModuleDeclarations,
    id: FuncId,
    name: &str,
    align: u64,
    bytes: &[u8],
    relocs: &[ModuleReloc],
) -> Result<PendingCode, BuildError> {
    let fault = |reason| BuildError::Code { name: name.into(), reason };
    let align = u32::try_from(align).ok().filter(|align| align.is_power_of_two() && *align <= MAX_ALIGN);
    let align = align.ok_or_else(|| fault(CodeError::Align))?;
    let len =
        u32::try_from(bytes.len()).ok().filter(|len| *len != 0).ok_or_else(|| fault(CodeError::Size))?;
    let mut pending = Vec::with_capacity(relocs.len());
    for ModuleReloc { offset, kind, name: target, addend } in relocs {
        if *offset >= len {
            return Err(fault(CodeError::RelocOutside(*offset)));
        }
        if relocs::name(*kind).is_none() {
            return Err(fault(CodeError::RelocKind(*offset)));
        }
        let target = match target {
            ModuleRelocTarget::User { namespace, index } => {
                let target = declared(declarations, *namespace, *index);
                let missing = || BuildError::Undeclared { referrer: name.into() };
                PendingTarget::Declared(target.ok_or_else(missing)?)
            }
            ModuleRelocTarget::LibCall(call) => PendingTarget::Other(CodeTarget::LibCall(*call)),
            ModuleRelocTarget::FunctionOffset(function, here) if *function == id => {
                PendingTarget::Other(CodeTarget::Here(*here))
            }
            ModuleRelocTarget::FunctionOffset(..) | ModuleRelocTarget::KnownSymbol(_) => {
                return Err(fault(CodeError::RelocTarget(*offset)));
            }
        };
        pending.push((*offset, *kind, target, *addend));
    }
    pending.sort_by_key(|(offset, ..)| *offset);
    Ok(PendingCode::Machine { bytes: bytes.into(), align, relocs: pending })
}
