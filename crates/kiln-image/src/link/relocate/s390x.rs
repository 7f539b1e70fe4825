//! s390x: ELF ABI s390x supplement, "Relocation"; encodings from the z/Architecture Principles of
//! Operation.
//!
//! Everything is big-endian. Distances are in halfwords (2 bytes) from the start of the
//! instruction. The patch site is two bytes after the start, so the addend is 2.

use kiln_artifact::RelocKind;

use super::site::{PatchAddresses, PatchError, PatchSite, Use, distance};

const REACH: u64 = 1 << 32;

/// Whether the patch site is the operand of `lgrl r, target`, a pc-relative load of 8 bytes.
fn is_lgrl(text: &[u8], offset: usize) -> bool {
    offset >= 2 && text[offset - 2] == 0xc4 && text[offset - 1] & 0x0f == 0x08
}

/// Whether the patch site is the operand of `brasl r, target` or `brcl mask, target`.
fn is_branch(text: &[u8], offset: usize) -> bool {
    offset >= 2 && text[offset - 2] == 0xc0 && matches!(text[offset - 1] & 0x0f, 0x04 | 0x05)
}

pub(super) fn classify(kind: RelocKind, text: &[u8], offset: usize, addend: i64) -> Result<Use, PatchError> {
    match kind {
        RelocKind::S390xPlt32Dbl if is_branch(text, offset) => Ok(Use::Call),
        RelocKind::S390xPlt32Dbl => Err(PatchError::Instruction),
        RelocKind::S390xPc32Dbl => Ok(Use::Direct),
        RelocKind::S390xGotEnt => Ok(Use::Slot { relaxable: addend == 2 && is_lgrl(text, offset) }),
        _ => Err(PatchError::Foreign),
    }
}

/// Returns the distance in halfwords, as the instruction encodes it.
fn halfwords(target: u64, address: u64) -> Result<[u8; 4], PatchError> {
    let distance = distance(target, address, REACH)?;
    if distance % 2 != 0 {
        return Err(PatchError::Misaligned);
    }
    Ok(((distance >> 1) as i32).to_be_bytes())
}

pub(super) fn patch(kind: RelocKind, site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    let reach = |target: Option<u64>| {
        halfwords(target.ok_or(PatchError::Unreachable)?.wrapping_add_signed(site.addend), site.address)
    };
    let direct = reach(targets.symbol);
    let bytes = match classify(kind, site.text, site.offset, site.addend)? {
        Use::Slot { relaxable } => match (direct, targets.slot) {
            (Ok(bytes), _) if relaxable => {
                // larl r, target
                site.text[site.offset - 2] = 0xc0;
                site.text[site.offset - 1] &= 0xf0;
                bytes
            }
            (_, Some(_)) => reach(targets.slot)?,
            (Err(error), None) => return Err(error),
            (Ok(_), None) => return Err(PatchError::Unreachable),
        },
        Use::Call => match (direct, targets.stub) {
            (Ok(bytes), _) => bytes,
            (Err(_), Some(_)) => reach(targets.stub)?,
            (Err(error), None) => return Err(error),
        },
        _ => direct?,
    };
    let operand = site.text.get_mut(site.offset..).and_then(|rest| rest.first_chunk_mut());
    *operand.ok_or(PatchError::Instruction)? = bytes;
    Ok(())
}

/// Writes `lgrl %r1, slot; br %r1`. `%r1` is the ABI's scratch register for stubs.
pub(super) fn write_stub(site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    let [a, b, c, d] = halfwords(targets.slot.ok_or(PatchError::Unreachable)?, site.address)?;
    let code = site.text.get_mut(site.offset..).and_then(|rest| rest.first_chunk_mut::<8>());
    *code.ok_or(PatchError::Instruction)? = [0xc4, 0x18, a, b, c, d, 0x07, 0xf1];
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(code: [u8; 6], kind: RelocKind, targets: PatchAddresses) -> Result<[u8; 6], PatchError> {
        let mut text = code;
        patch(kind, PatchSite { text: &mut text, offset: 2, address: 0x1002, addend: 2 }, targets)?;
        Ok(text)
    }

    #[test]
    fn lgrl_reads_the_slot_or_becomes_larl() {
        let lgrl = [0xc4, 0x38, 0, 0, 0, 0];
        let slot = PatchAddresses { slot: Some(0x3000), ..PatchAddresses::default() };
        assert_eq!(run(lgrl, RelocKind::S390xGotEnt, slot).unwrap(), [0xc4, 0x38, 0, 0, 0x10, 0]);
        let both = PatchAddresses { symbol: Some(0x2000), ..slot };
        assert_eq!(run(lgrl, RelocKind::S390xGotEnt, both).unwrap(), [0xc0, 0x30, 0, 0, 0x08, 0]);
        // `larl` cannot make an odd address
        let odd = PatchAddresses { symbol: Some(0x2001), ..slot };
        assert_eq!(run(lgrl, RelocKind::S390xGotEnt, odd).unwrap(), [0xc4, 0x38, 0, 0, 0x10, 0]);
    }

    #[test]
    fn brasl() {
        let targets = PatchAddresses { symbol: Some(0xf00), ..PatchAddresses::default() };
        let text = run([0xc0, 0xe5, 0, 0, 0, 0], RelocKind::S390xPlt32Dbl, targets).unwrap();
        assert_eq!(text, [0xc0, 0xe5, 0xff, 0xff, 0xff, 0x80]);
        let stub = PatchAddresses { stub: Some(0x1100), ..PatchAddresses::default() };
        let text = run([0xc0, 0xe5, 0, 0, 0, 0], RelocKind::S390xPlt32Dbl, stub).unwrap();
        assert_eq!(text, [0xc0, 0xe5, 0, 0, 0, 0x80]);
    }

    #[test]
    fn a_stub() {
        let mut text = [0xaa; 8];
        let site = PatchSite { text: &mut text, offset: 0, address: 0x1000, addend: 0 };
        write_stub(site, PatchAddresses { slot: Some(0x2000), ..PatchAddresses::default() }).unwrap();
        assert_eq!(text, [0xc4, 0x18, 0, 0, 0x08, 0, 0x07, 0xf1]);
    }
}
