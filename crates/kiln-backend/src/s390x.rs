//! Makes code for s390x position independent.
//!
//! Cranelift's code generator has no GOT slots for s390x: the address of a symbol that is not
//! marked as colocated becomes eight bytes in code, which would have to be written when the code is
//! loaded. [`use_slots`] replaces every such address by an access to the symbol's slot. Encodings
//! are from the z/Architecture Principles of Operation.

use kiln_artifact::RelocKind;

use crate::compiled::FunctionReloc;
use crate::error::CompileErrorKind;

/// `lg %rd, 0(%r1)` after the address, with `rd` 0.
const LOAD: [u8; 6] = [0xe3, 0x00, 0x10, 0x00, 0x00, 0x04];
/// `bras %r1, .+12`, which puts the address of the eight bytes into `%r1` and jumps over them.
const SKIP: [u8; 4] = [0xa7, 0x15, 0x00, 0x06];
/// `brcl 0, 0` and `bcr 0, 0`: no-ops of six and of two bytes.
const NOP6: [u8; 6] = [0xc0, 0x04, 0, 0, 0, 0];
const NOP2: [u8; 2] = [0x07, 0x00];

/// Replaces every absolute address in `code`, and the instructions around it, by an access to the
/// symbol's slot, of the same length.
///
/// # Errors
///
/// An error for an address that is not loaded by the expected instructions, or that has an offset
/// of 2 GiB or more.
pub(crate) fn use_slots(code: &mut [u8], relocs: &mut [FunctionReloc]) -> Result<(), CompileErrorKind> {
    for reloc in relocs.iter_mut().filter(|reloc| reloc.kind == RelocKind::Abs64) {
        let fail = |what| Err(CompileErrorKind::Relocation(format!("an absolute address {what}").into()));
        let start = (reloc.offset as usize).checked_sub(SKIP.len());
        let Some(site) = start.and_then(|start| code.get_mut(start..start + 18)) else {
            return fail("outside of an instruction");
        };
        // The register `rd`, in the upper four bits.
        let target = site[13] & 0xf0;
        let load = [LOAD[0], target, LOAD[2], LOAD[3], LOAD[4], LOAD[5]];
        if site[..4] != SKIP || site[12..] != load || target <= 0x10 {
            return fail("that is not loaded into a register");
        }
        let Ok(addend) = i32::try_from(reloc.addend) else {
            return fail("with an offset of 2 GiB or more");
        };
        // lgrl %rd, slot
        site[..6].copy_from_slice(&[0xc4, target | 0x08, 0, 0, 0, 0]);
        if addend == 0 {
            site[6..].copy_from_slice(&[NOP6, NOP6].concat());
        } else {
            // lgfi %r1, addend
            site[6..8].copy_from_slice(&[0xc0, 0x11]);
            site[8..12].copy_from_slice(&addend.to_be_bytes());
            // la %rd, 0(%r1, %rd)
            site[12..16].copy_from_slice(&[0x41, target | 0x01, target, 0]);
            site[16..].copy_from_slice(&NOP2);
        }
        // The distance is relative to the start of the instruction, two bytes before the site.
        reloc.offset -= 2;
        (reloc.kind, reloc.call, reloc.addend) = (RelocKind::S390xGotEnt, None, 2);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiled::RelocTarget;

    /// Runs [`use_slots`] on the code that Cranelift emits for the address of a symbol in `%r4`.
    fn run(addend: i64) -> Result<(Vec<u8>, FunctionReloc), CompileErrorKind> {
        let mut code = [&SKIP[..], &[0; 8], &[0xe3, 0x40, 0x10, 0, 0, 0x04]].concat();
        let (kind, target) = (RelocKind::Abs64, RelocTarget::Symbol(3));
        let mut relocs = [FunctionReloc { offset: 4, kind, call: None, target, addend, flags: 0 }];
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
    fn an_offset_is_added_to_the_address_in_the_slot() {
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
            let (kind, target) = (RelocKind::Abs64, RelocTarget::Here(0));
            let mut relocs = [FunctionReloc { offset, kind, call: None, target, addend: 0, flags: 0 }];
            assert!(use_slots(&mut code.clone(), &mut relocs).is_err());
        }
    }
}
