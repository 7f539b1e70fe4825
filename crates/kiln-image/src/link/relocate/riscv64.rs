//! riscv64: RISC-V ELF psABI, "Relocations"; encodings from the unprivileged ISA manual.
//!
//! A pc-relative access is a pair: an `auipc` with the high 20 bits of the distance, and an
//! instruction with the low 12 bits. The relocation of the second instruction names the *`auipc`*,
//! not the target. The low part is signed, so the high part is rounded. A slot access (`auipc; ld`)
//! is relaxed to `auipc; addi` if, and only if, the symbol has no slot.

use kiln_artifact::RelocKind;

use super::site::{PatchAddresses, PatchError, PatchSite, Use, read32, write32};

/// The limit that errors report, in bytes. The real range is asymmetric because the high part is
/// rounded: -2^31 - 2^11 to 2^31 - 2^11 - 1.
const REACH: u64 = 1 << 31;

fn is_auipc(word: u32) -> bool {
    word & 0x7f == 0x17
}

fn is_jalr(word: u32) -> bool {
    word & 0x707f == 0x67
}

fn is_ld(word: u32) -> bool {
    word & 0x707f == 0x3003
}

pub(super) fn classify(kind: RelocKind, text: &[u8], offset: usize, _addend: i64) -> Result<Use, PatchError> {
    let word = read32(text, offset).ok_or(PatchError::Instruction)?;
    let (fits, usage) = match kind {
        RelocKind::RvCallPlt => (is_auipc(word) && read32(text, offset + 4).is_some_and(is_jalr), Use::Call),
        RelocKind::RvGotHi20 => (is_auipc(word), Use::Slot { relaxable: true }),
        RelocKind::RvPcrelHi20 => (is_auipc(word), Use::Direct),
        // I-type instructions: loads, `addi` and similar instructions, `jalr`.
        RelocKind::RvPcrelLo12I => (matches!(word & 0x7f, 0x03 | 0x07 | 0x13 | 0x1b | 0x67), Use::Pair),
        _ => return Err(PatchError::Foreign),
    };
    if fits { Ok(usage) } else { Err(PatchError::Instruction) }
}

/// Returns the high and the low part of the distance, shifted to their positions in the
/// instructions.
fn split(target: u64, address: u64) -> Result<(u32, u32), PatchError> {
    let distance = target.wrapping_sub(address) as i64;
    let high = distance.wrapping_add(0x800) >> 12;
    if !(-(1 << 19)..1 << 19).contains(&high) {
        return Err(PatchError::OutOfRange { distance, limit: REACH });
    }
    Ok(((high as u32) << 12, (distance as u32 & 0xfff) << 20))
}

/// Puts the high part into an instruction.
fn high(word: u32, high: u32) -> u32 {
    word & 0xfff | high
}

/// Puts the low part into an instruction.
fn low(word: u32, low: u32) -> u32 {
    word & 0x000f_ffff | low
}

/// Returns the address that a pair computes, and whether it is a relaxed slot access.
fn target(kind: RelocKind, addend: i64, targets: PatchAddresses) -> Result<(u64, bool), PatchError> {
    let symbol = targets.symbol.map(|symbol| symbol.wrapping_add_signed(addend));
    match (kind, targets.slot, symbol) {
        (RelocKind::RvGotHi20, Some(slot), _) => Ok((slot.wrapping_add_signed(addend), false)),
        (RelocKind::RvGotHi20, None, Some(symbol)) => Ok((symbol, true)),
        (RelocKind::RvPcrelHi20, _, Some(symbol)) => Ok((symbol, false)),
        (RelocKind::RvGotHi20 | RelocKind::RvPcrelHi20, _, None) => Err(PatchError::Unreachable),
        _ => Err(PatchError::Instruction),
    }
}

pub(super) fn patch(kind: RelocKind, site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    classify(kind, site.text, site.offset, site.addend)?;
    let word = read32(site.text, site.offset).ok_or(PatchError::Instruction)?;
    if kind != RelocKind::RvCallPlt {
        let (target, _) = target(kind, site.addend, targets)?;
        return write32(site.text, site.offset, high(word, split(target, site.address)?.0));
    }
    let direct = targets.symbol.ok_or(PatchError::Unreachable);
    let direct = direct.and_then(|symbol| split(symbol.wrapping_add_signed(site.addend), site.address));
    let (hi, lo) = match (direct, targets.stub) {
        (Ok(parts), _) => parts,
        (Err(_), Some(stub)) => split(stub, site.address)?,
        (Err(error), None) => return Err(error),
    };
    let jalr = read32(site.text, site.offset + 4).ok_or(PatchError::Instruction)?;
    write32(site.text, site.offset, high(word, hi))?;
    write32(site.text, site.offset + 4, low(jalr, lo))
}

/// The relocation of the high part, an `auipc`, that a low part belongs to.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct High {
    pub(in super::super) kind: RelocKind,
    /// The virtual address of the `auipc`.
    pub(in super::super) address: u64,
    pub(in super::super) addend: i64,
}

/// Patches the low part of a pair.
pub(in super::super) fn patch_low(
    text: &mut [u8],
    offset: usize,
    auipc: High,
    targets: PatchAddresses,
) -> Result<(), PatchError> {
    let word = read32(text, offset).ok_or(PatchError::Instruction)?;
    let (target, relaxed) = target(auipc.kind, auipc.addend, targets)?;
    let word = match (auipc.kind, relaxed) {
        (RelocKind::RvGotHi20, _) if !is_ld(word) => return Err(PatchError::Instruction),
        (RelocKind::RvGotHi20, true) => word & !0x707f | 0x13, // addi
        _ => word,
    };
    write32(text, offset, low(word, split(target, auipc.address)?.1))
}

/// Writes `auipc t3, slot; ld t3, slot(t3); jr t3`.
pub(super) fn write_stub(site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    let (hi, lo) = split(targets.slot.ok_or(PatchError::Unreachable)?, site.address)?;
    write32(site.text, site.offset, high(0x0000_0e17, hi))?;
    write32(site.text, site.offset + 4, low(0x000e_3e03, lo))?;
    write32(site.text, site.offset + 8, 0x000e_0067)?;
    write32(site.text, site.offset + 12, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &[u8], offset: usize) -> u32 {
        read32(text, offset).unwrap()
    }

    #[test]
    fn a_call_splits_the_distance_with_rounding() {
        // auipc ra, 0; jalr ra, 0(ra)
        let code = [0x0000_0097u32, 0x0000_80e7].map(u32::to_le_bytes).concat();
        let mut text = code.clone();
        let targets = PatchAddresses { symbol: Some(0x1000 + 0x1800), ..PatchAddresses::default() };
        patch(
            RelocKind::RvCallPlt,
            PatchSite { text: &mut text, offset: 0, address: 0x1000, addend: 0 },
            targets,
        )
        .unwrap();
        // 0x1800 = 2 * 0x1000 - 0x800
        assert_eq!((word(&text, 0), word(&text, 4)), (0x0000_2097, 0x8000_80e7));
        let far = PatchAddresses { symbol: Some(0x1000 + 0x7fff_f800), ..PatchAddresses::default() };
        let mut text = code.clone();
        let site = PatchSite { text: &mut text, offset: 0, address: 0x1000, addend: 0 };
        assert!(matches!(patch(RelocKind::RvCallPlt, site, far), Err(PatchError::OutOfRange { .. })));
        let near = PatchAddresses { symbol: Some(0x1000 + 0x7fff_f7ff), ..PatchAddresses::default() };
        let mut text = code;
        patch(
            RelocKind::RvCallPlt,
            PatchSite { text: &mut text, offset: 0, address: 0x1000, addend: 0 },
            near,
        )
        .unwrap();
        assert_eq!((word(&text, 0), word(&text, 4)), (0x7fff_f097, 0x7ff0_80e7));
    }

    #[test]
    fn a_slot_access_and_its_relaxed_form() {
        // auipc a0, 0; ld a0, 0(a0)
        let code = [0x0000_0517u32, 0x0005_3503].map(u32::to_le_bytes).concat();
        let auipc = High { kind: RelocKind::RvGotHi20, address: 0x1000, addend: 0 };
        let run = |targets: PatchAddresses| {
            let mut text = code.clone();
            patch(
                RelocKind::RvGotHi20,
                PatchSite { text: &mut text, offset: 0, address: 0x1000, addend: 0 },
                targets,
            )
            .unwrap();
            patch_low(&mut text, 4, auipc, targets).unwrap();
            (word(&text, 0), word(&text, 4))
        };
        assert_eq!(
            run(PatchAddresses { slot: Some(0x3010), ..PatchAddresses::default() }),
            (0x0000_2517, 0x0105_3503)
        );
        // addi a0, a0, 0x10
        assert_eq!(
            run(PatchAddresses { symbol: Some(0x3010), ..PatchAddresses::default() }),
            (0x0000_2517, 0x0105_0513)
        );
    }

    #[test]
    fn a_stub() {
        let mut text = [0xaa; 16];
        let site = PatchSite { text: &mut text, offset: 0, address: 0x1000, addend: 0 };
        write_stub(site, PatchAddresses { slot: Some(0x2ff8), ..PatchAddresses::default() }).unwrap();
        // 0x1ff8 = 2 * 0x1000 - 8
        assert_eq!(
            [0, 4, 8, 12].map(|offset| word(&text, offset)),
            [0x0000_2e17, 0xff8e_3e03, 0x000e_0067, 0]
        );
    }
}
