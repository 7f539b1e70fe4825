//! s390x: ELF ABI s390x supplement, "Relocation"; encodings from the z/Architecture Principles of Operation.
//!
//! Everything is big-endian. Distances count halfwords from the start of the instruction, which is two bytes before
//! the place: hence the addend of 2.

use kiln_artifact::RelocKind;

use super::{Ends, Fault, Site, Use, distance};

const REACH: u64 = 1 << 32;

/// `lgrl r, place`: load 8 bytes, pc-relative.
fn is_lgrl(text: &[u8], at: usize) -> bool {
    at >= 2 && text[at - 2] == 0xc4 && text[at - 1] & 0x0f == 0x08
}

/// `brasl r, place` or `brcl mask, place`.
fn is_branch(text: &[u8], at: usize) -> bool {
    at >= 2 && text[at - 2] == 0xc0 && matches!(text[at - 1] & 0x0f, 0x04 | 0x05)
}

pub(super) fn classify(kind: RelocKind, text: &[u8], at: usize, addend: i64) -> Result<Use, Fault> {
    match kind {
        RelocKind::S390xPlt32Dbl if is_branch(text, at) => Ok(Use::Call),
        RelocKind::S390xPlt32Dbl => Err(Fault::Instruction),
        RelocKind::S390xPc32Dbl => Ok(Use::Direct),
        RelocKind::S390xGotEnt => Ok(Use::Slot { relaxable: addend == 2 && is_lgrl(text, at) }),
        _ => Err(Fault::Foreign),
    }
}

fn halfwords(target: u64, place: u64) -> Result<[u8; 4], Fault> {
    let distance = distance(target, place, REACH)?;
    if distance % 2 != 0 {
        return Err(Fault::Misaligned);
    }
    Ok(((distance >> 1) as i32).to_be_bytes())
}

pub(super) fn patch(kind: RelocKind, site: Site<'_>, ends: Ends) -> Result<(), Fault> {
    let reach = |target: Option<u64>| {
        halfwords(target.ok_or(Fault::Unreachable)?.wrapping_add_signed(site.addend), site.place)
    };
    let direct = reach(ends.symbol);
    let bytes = match classify(kind, site.text, site.at, site.addend)? {
        Use::Slot { relaxable } => match (direct, ends.slot) {
            (Ok(bytes), _) if relaxable => {
                // larl r, place
                site.text[site.at - 2] = 0xc0;
                site.text[site.at - 1] &= 0xf0;
                bytes
            }
            (_, Some(_)) => reach(ends.slot)?,
            (Err(fault), None) => return Err(fault),
            (Ok(_), None) => return Err(Fault::Unreachable),
        },
        Use::Call => match (direct, ends.stub) {
            (Ok(bytes), _) => bytes,
            (Err(_), Some(_)) => reach(ends.stub)?,
            (Err(fault), None) => return Err(fault),
        },
        _ => direct?,
    };
    let place = site.text.get_mut(site.at..).and_then(|rest| rest.first_chunk_mut());
    *place.ok_or(Fault::Instruction)? = bytes;
    Ok(())
}

/// `lgrl %r1, slot; br %r1`. `%r1` is the ABI's scratch register for stubs.
pub(super) fn write_stub(site: Site<'_>, ends: Ends) -> Result<(), Fault> {
    let [a, b, c, d] = halfwords(ends.slot.ok_or(Fault::Unreachable)?, site.place)?;
    let code = site.text.get_mut(site.at..).and_then(|rest| rest.first_chunk_mut::<8>());
    *code.ok_or(Fault::Instruction)? = [0xc4, 0x18, a, b, c, d, 0x07, 0xf1];
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(code: [u8; 6], kind: RelocKind, ends: Ends) -> Result<[u8; 6], Fault> {
        let mut text = code;
        patch(kind, Site { text: &mut text, at: 2, place: 0x1002, addend: 2 }, ends)?;
        Ok(text)
    }

    #[test]
    fn lgrl_reads_the_slot_or_becomes_larl() {
        let lgrl = [0xc4, 0x38, 0, 0, 0, 0];
        let slot = Ends { slot: Some(0x3000), ..Ends::default() };
        assert_eq!(run(lgrl, RelocKind::S390xGotEnt, slot).unwrap(), [0xc4, 0x38, 0, 0, 0x10, 0]);
        let both = Ends { symbol: Some(0x2000), ..slot };
        assert_eq!(run(lgrl, RelocKind::S390xGotEnt, both).unwrap(), [0xc0, 0x30, 0, 0, 0x08, 0]);
        // `larl` cannot make an odd address
        let odd = Ends { symbol: Some(0x2001), ..slot };
        assert_eq!(run(lgrl, RelocKind::S390xGotEnt, odd).unwrap(), [0xc4, 0x38, 0, 0, 0x10, 0]);
    }

    #[test]
    fn brasl() {
        let ends = Ends { symbol: Some(0xf00), ..Ends::default() };
        let text = run([0xc0, 0xe5, 0, 0, 0, 0], RelocKind::S390xPlt32Dbl, ends).unwrap();
        assert_eq!(text, [0xc0, 0xe5, 0xff, 0xff, 0xff, 0x80]);
        let stub = Ends { stub: Some(0x1100), ..Ends::default() };
        let text = run([0xc0, 0xe5, 0, 0, 0, 0], RelocKind::S390xPlt32Dbl, stub).unwrap();
        assert_eq!(text, [0xc0, 0xe5, 0, 0, 0, 0x80]);
    }

    #[test]
    fn a_stub() {
        let mut text = [0xaa; 8];
        let site = Site { text: &mut text, at: 0, place: 0x1000, addend: 0 };
        write_stub(site, Ends { slot: Some(0x2000), ..Ends::default() }).unwrap();
        assert_eq!(text, [0xc4, 0x18, 0, 0, 0x08, 0, 0x07, 0xf1]);
    }
}
