//! s390x: what Cranelift's code generator leaves out there, so that code is position independent as elsewhere.
//!
//! It knows no slots: the address of a symbol that is not marked as near becomes eight bytes in code, which would have to
//! be written when the code is loaded. [`mark`] says what is near, and [`use_slots`] makes the rest slot accesses.
//! Encodings are from the z/Architecture Principles of Operation.

use cranelift_codegen::ir::{self, ExternalName, GlobalValueData, InstructionData};
use kiln_artifact::RelocKind;
use kiln_ir::{Linkage, Module, SymbolKind};

use crate::error::CompileErrorKind;
use crate::function::FunctionReloc;

/// `lg %rd, 0(%r1)` after the address, with `rd` 0.
const LOAD: [u8; 6] = [0xe3, 0x00, 0x10, 0x00, 0x00, 0x04];
/// `bras %r1, .+12`, which leaves the place of the address in `%r1` and jumps over it.
const SKIP: [u8; 4] = [0xa7, 0x15, 0x00, 0x06];
/// `brcl 0, 0` and `bcr 0, 0`: nothing, in six and in two bytes.
const NOP6: [u8; 6] = [0xc0, 0x04, 0, 0, 0, 0];
const NOP2: [u8; 2] = [0x07, 0x00];

/// Near is what lies in the module itself: `larl` and loads reach it without a slot. Near too are functions that are
/// only called, wherever they are: `brasl` may go through a stub. Whatever the client says, nothing else is.
pub(crate) fn mark(module: &Module, function: &mut ir::Function) {
    let ir::Function { stencil, params, .. } = function;
    let names = params.user_named_funcs();
    let is_own = |name: &ExternalName| {
        let ExternalName::User(name) = *name else { return false };
        names.get(name).and_then(|name| module.symbols.get(name.index as usize)).is_some_and(|symbol| {
            symbol.kind != SymbolKind::Global
                && !matches!(symbol.linkage, Linkage::Import | Linkage::Preemptible)
        })
    };
    for global in stencil.global_values.values_mut() {
        if let GlobalValueData::Symbol { name, colocated, .. } = global {
            *colocated = is_own(name);
        }
    }
    for callee in stencil.dfg.ext_funcs.values_mut() {
        callee.colocated = true;
    }
    for block in stencil.layout.blocks() {
        for inst in stencil.layout.block_insts(block) {
            if let InstructionData::FuncAddr { func_ref, .. } = stencil.dfg.insts[inst] {
                let callee = &mut stencil.dfg.ext_funcs[func_ref];
                callee.colocated = is_own(&callee.name);
            }
        }
    }
}

/// Replaces every absolute address in `code`, and the instructions around it, by an access to the symbol's slot, of the
/// same length.
///
/// # Errors
///
/// An address that is not loaded as expected, or an offset of 2 GiB or more.
pub(crate) fn use_slots(code: &mut [u8], relocs: &mut [FunctionReloc]) -> Result<(), CompileErrorKind> {
    for reloc in relocs.iter_mut().filter(|reloc| reloc.kind == RelocKind::Abs64) {
        let fail = |what| Err(CompileErrorKind::Relocation(format!("an absolute address {what}").into()));
        let start = (reloc.offset as usize).checked_sub(SKIP.len());
        let Some(place) = start.and_then(|start| code.get_mut(start..start + 18)) else {
            return fail("outside of an instruction");
        };
        let target = place[13] & 0xf0; // the register, in the upper half
        let load = [LOAD[0], target, LOAD[2], LOAD[3], LOAD[4], LOAD[5]];
        if place[..4] != SKIP || place[12..] != load || target <= 0x10 {
            return fail("that is not loaded into a register");
        }
        let Ok(addend) = i32::try_from(reloc.addend) else {
            return fail("with an offset of 2 GiB or more");
        };
        place[..6].copy_from_slice(&[0xc4, target | 0x08, 0, 0, 0, 0]); // lgrl %rd, slot
        if addend == 0 {
            place[6..].copy_from_slice(&[NOP6, NOP6].concat());
        } else {
            place[6..8].copy_from_slice(&[0xc0, 0x11]); // lgfi %r1, addend
            place[8..12].copy_from_slice(&addend.to_be_bytes());
            place[12..16].copy_from_slice(&[0x41, target | 0x01, target, 0]); // la %rd, 0(%r1, %rd)
            place[16..].copy_from_slice(&NOP2);
        }
        // The distance counts from the start of the instruction.
        reloc.offset -= 2;
        (reloc.kind, reloc.call, reloc.addend) = (RelocKind::S390xGotEnt, None, 2);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Target;

    /// What Cranelift emits for the address of a symbol in `%r4`, and what becomes of it.
    fn run(addend: i64) -> Result<(Vec<u8>, FunctionReloc), CompileErrorKind> {
        let mut code = [&SKIP[..], &[0; 8], &[0xe3, 0x40, 0x10, 0, 0, 0x04]].concat();
        let (kind, target) = (RelocKind::Abs64, Target::Symbol(3));
        let mut relocs = [FunctionReloc { offset: 4, kind, call: None, target, addend }];
        use_slots(&mut code, &mut relocs)?;
        let [reloc] = relocs;
        Ok((code, reloc))
    }

    // Expected bytes were assembled by hand from the manual's encodings.
    #[test]
    fn an_absolute_address_becomes_a_slot_access() {
        let (code, reloc) = run(0).unwrap();
        // lgrl %r4, 0; brcl 0, 0; brcl 0, 0
        assert_eq!(code, [0xc4, 0x48, 0, 0, 0, 0, 0xc0, 4, 0, 0, 0, 0, 0xc0, 4, 0, 0, 0, 0]);
        assert_eq!((reloc.offset, reloc.kind, reloc.addend), (2, RelocKind::S390xGotEnt, 2));
    }

    #[test]
    fn an_offset_is_added_to_what_the_slot_holds() {
        let (code, reloc) = run(-3).unwrap();
        // lgrl %r4, 0; lgfi %r1, -3; la %r4, 0(%r1, %r4); bcr 0, 0
        let expected =
            [0xc4, 0x48, 0, 0, 0, 0, 0xc0, 0x11, 0xff, 0xff, 0xff, 0xfd, 0x41, 0x41, 0x40, 0, 0x07, 0];
        assert_eq!(code, expected);
        assert_eq!((reloc.offset, reloc.addend), (2, 2));
        assert!(run(1 << 31).is_err());
    }

    #[test]
    fn an_absolute_address_elsewhere_is_refused() {
        for (code, offset) in [(vec![0; 32], 4), (vec![0; 8], 0), (SKIP.repeat(3), 4)] {
            let (kind, target) = (RelocKind::Abs64, Target::Here(0));
            let mut relocs = [FunctionReloc { offset, kind, call: None, target, addend: 0 }];
            assert!(use_slots(&mut code.clone(), &mut relocs).is_err());
        }
    }
}
