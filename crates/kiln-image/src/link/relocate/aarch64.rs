//! aarch64: ELF for the Arm 64-bit Architecture, section 5.7; instruction encodings from the Arm
//! Architecture Reference Manual.
//!
//! A slot access is a pair `adrp xn, page; ldr xt, [xn, #lo12]`, each with a relocation. Each is
//! relaxed if, and only if, the symbol has no slot, so either both are relaxed or neither is.

use kiln_artifact::RelocKind;

use super::site::{PatchAddresses, PatchError, PatchSite, Use, distance, read32, write32};

const CALL_REACH: u64 = 1 << 27;
const PAGE_REACH: u64 = 1 << 32;

fn is_adrp(word: u32) -> bool {
    word & 0x9f00_0000 == 0x9000_0000
}

/// Whether this is a 64-bit `ldr xt, [xn, #imm]` whose target is not `xzr`: the register number of
/// `xzr` means `sp` in `add`.
fn is_ldr(word: u32) -> bool {
    word & 0xffc0_0000 == 0xf940_0000 && word & 31 != 31
}

/// Whether this is a 64-bit `add xd, xn, #imm` without a shift.
fn is_add(word: u32) -> bool {
    word & 0xffc0_0000 == 0x9100_0000
}

/// Whether this is `b` or `bl`.
fn is_branch(word: u32) -> bool {
    word & 0x7c00_0000 == 0x1400_0000
}

pub(super) fn classify(kind: RelocKind, text: &[u8], offset: usize, addend: i64) -> Result<Use, PatchError> {
    let word = read32(text, offset).ok_or(PatchError::Instruction)?;
    let (fits, usage) = match kind {
        RelocKind::A64Call26 => (is_branch(word), Use::Call),
        RelocKind::A64AdrGotPage21 => (is_adrp(word) && addend == 0, Use::Slot { relaxable: true }),
        RelocKind::A64Ld64GotLo12 => (is_ldr(word) && addend == 0, Use::Slot { relaxable: true }),
        RelocKind::A64AdrPrelPg21 => (is_adrp(word), Use::Direct),
        RelocKind::A64AddLo12 => (is_add(word), Use::Direct),
        RelocKind::A64Ld64Lo12 => (is_ldr(word), Use::Direct),
        _ => return Err(PatchError::Foreign),
    };
    if fits { Ok(usage) } else { Err(PatchError::Instruction) }
}

fn branch(word: u32, distance: i64) -> Result<u32, PatchError> {
    if distance % 4 != 0 {
        return Err(PatchError::Misaligned);
    }
    Ok(word & 0xfc00_0000 | (distance >> 2) as u32 & 0x03ff_ffff)
}

fn adrp(word: u32, target: u64, address: u64) -> Result<u32, PatchError> {
    let pages = (distance(target & !0xfff, address & !0xfff, PAGE_REACH)? >> 12) as u32;
    Ok(word & 0x9f00_001f | (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5)
}

fn add(word: u32, target: u64) -> u32 {
    word & 0xffc0_03ff | (target as u32 & 0xfff) << 10
}

fn ldr(word: u32, slot: u64) -> Result<u32, PatchError> {
    if !slot.is_multiple_of(8) {
        return Err(PatchError::Misaligned);
    }
    Ok(word & 0xffc0_03ff | (slot as u32 & 0xfff) >> 3 << 10)
}

pub(super) fn patch(kind: RelocKind, site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    classify(kind, site.text, site.offset, site.addend)?;
    let word = read32(site.text, site.offset).ok_or(PatchError::Instruction)?;
    let symbol =
        targets.symbol.map(|symbol| symbol.wrapping_add_signed(site.addend)).ok_or(PatchError::Unreachable);
    let word = match kind {
        RelocKind::A64Call26 => {
            let direct = symbol.and_then(|symbol| distance(symbol, site.address, CALL_REACH));
            let distance = match (direct, targets.stub) {
                (Ok(distance), _) => distance,
                (Err(_), Some(stub)) => distance(stub, site.address, CALL_REACH)?,
                (Err(error), None) => return Err(error),
            };
            branch(word, distance)?
        }
        RelocKind::A64AdrGotPage21 => adrp(word, targets.slot.map_or(symbol, Ok)?, site.address)?,
        RelocKind::A64Ld64GotLo12 => match targets.slot {
            Some(slot) => ldr(word, slot)?,
            None => add(0x9100_0000 | word & 0x3ff, symbol?),
        },
        RelocKind::A64AdrPrelPg21 => adrp(word, symbol?, site.address)?,
        RelocKind::A64AddLo12 => add(word, symbol?),
        RelocKind::A64Ld64Lo12 => ldr(word, symbol?)?,
        _ => return Err(PatchError::Foreign),
    };
    write32(site.text, site.offset, word)
}

/// Whether the 8 bytes at `offset` are those that `ldr xt, .+8; b .+12` before them loads and jumps
/// over. The target is not `xzr`: its register number means `sp` in `add`.
pub(super) fn is_address_load(text: &[u8], offset: usize) -> bool {
    let word = |before: usize| read32(text, offset.checked_sub(before)?);
    word(8).is_some_and(|ldr| ldr & 0xffff_ffe0 == 0x5800_0040 && ldr & 31 != 31)
        && word(4) == Some(0x1400_0003)
}

/// Replaces the load, the jump and the 8 bytes by `adrp xt, page; add xt, xt, #lo12` or, from a
/// slot, `ldr` instead of `add`, and by two no-ops.
pub(super) fn relax_address(site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    const NOP: u32 = 0xd503_201f;
    let start = site.offset.checked_sub(8).ok_or(PatchError::Instruction)?;
    let register = read32(site.text, start).ok_or(PatchError::Instruction)? & 31;
    let both = register << 5 | register;
    let (page, second) = match (targets.symbol, targets.slot) {
        (Some(symbol), _) => {
            let symbol = symbol.wrapping_add_signed(site.addend);
            (symbol, add(0x9100_0000 | both, symbol))
        }
        (None, Some(slot)) => (slot, ldr(0xf940_0000 | both, slot)?),
        (None, None) => return Err(PatchError::Unreachable),
    };
    let first = adrp(0x9000_0000 | register, page, site.address.wrapping_sub(8))?;
    for (index, word) in [first, second, NOP, NOP].into_iter().enumerate() {
        write32(site.text, start + 4 * index, word)?;
    }
    Ok(())
}

/// Writes `bti c; adrp x16, slot; ldr x16, [x16, #slot]; br x16`, with `add` instead of `ldr` if
/// the symbol has no slot. `bti c` makes it a target of indirect calls where pages are guarded, and
/// does nothing elsewhere.
pub(super) fn write_stub(site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    let (page, second) = match (targets.slot, targets.symbol) {
        (Some(slot), _) => (slot, ldr(0xf940_0210, slot)?),
        (None, Some(symbol)) => (symbol, add(0x9100_0210, symbol)),
        (None, None) => return Err(PatchError::Unreachable),
    };
    write32(site.text, site.offset, 0xd503_245f)?;
    write32(site.text, site.offset + 4, adrp(0x9000_0010, page, site.address + 4)?)?;
    write32(site.text, site.offset + 8, second)?;
    write32(site.text, site.offset + 12, 0xd61f_0200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(word: u32, kind: RelocKind, address: u64, targets: PatchAddresses) -> Result<u32, PatchError> {
        let mut text = word.to_le_bytes();
        patch(kind, PatchSite { text: &mut text, offset: 0, address, addend: 0 }, targets)?;
        Ok(u32::from_le_bytes(text))
    }

    // Expected words were assembled by hand from the manual's encodings.
    #[test]
    fn calls() {
        let to = |symbol| PatchAddresses { symbol: Some(symbol), ..PatchAddresses::default() };
        // bl +0x1000
        assert_eq!(run(0x9400_0000, RelocKind::A64Call26, 0x1000, to(0x2000)).unwrap(), 0x9400_0400);
        // b -4
        assert_eq!(run(0x1400_0000, RelocKind::A64Call26, 0x1000, to(0xffc)).unwrap(), 0x17ff_ffff);
        assert_eq!(run(0x9400_0000, RelocKind::A64Call26, 0x1000, to(0x1002)), Err(PatchError::Misaligned));
        let far = PatchAddresses { symbol: Some(0x1000 + (1 << 27)), stub: Some(0x1010), slot: None };
        assert_eq!(run(0x9400_0000, RelocKind::A64Call26, 0x1000, far).unwrap(), 0x9400_0004);
        let lost = run(0x9400_0000, RelocKind::A64Call26, 0x1000, PatchAddresses { stub: None, ..far });
        assert_eq!(lost, Err(PatchError::OutOfRange { distance: 1 << 27, limit: 1 << 27 }));
        assert!(run(0x9400_0000, RelocKind::A64Call26, 0x1000, to(0xffc + (1 << 27))).is_ok());
    }

    #[test]
    fn a_pair_reads_the_slot() {
        let targets = PatchAddresses { symbol: None, slot: Some(0x1234_5678), stub: None };
        // adrp x3, 0x12345000 from page 0x1000: 0x12344 pages, immlo 0, immhi 0x48d1
        assert_eq!(run(0x9000_0003, RelocKind::A64AdrGotPage21, 0x1008, targets).unwrap(), 0x9009_1a23);
        // ldr x4, [x3, #0x678]
        assert_eq!(run(0xf940_0064, RelocKind::A64Ld64GotLo12, 0x100c, targets).unwrap(), 0xf943_3c64);
    }

    #[test]
    fn a_pair_is_relaxed() {
        let targets = PatchAddresses { symbol: Some(0x3abc), slot: None, stub: None };
        // adrp x3, 2 pages: immlo 2, immhi 0
        assert_eq!(run(0x9000_0003, RelocKind::A64AdrGotPage21, 0x1008, targets).unwrap(), 0xd000_0003);
        // add x4, x3, #0xabc
        assert_eq!(run(0xf940_0064, RelocKind::A64Ld64GotLo12, 0x100c, targets).unwrap(), 0x912a_f064);
        assert_eq!(run(0x9100_0064, RelocKind::A64AddLo12, 0x100c, targets).unwrap(), 0x912a_f064);
        assert_eq!(
            run(0xb940_0064, RelocKind::A64Ld64GotLo12, 0x100c, targets),
            Err(PatchError::Instruction)
        );
    }

    #[test]
    fn an_address_in_code_becomes_a_distance() {
        let words = [0x5800_0043u32, 0x1400_0003, 0, 0];
        let mut text: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(is_address_load(&text, 8) && !is_address_load(&text, 12) && !is_address_load(&text, 0));
        let site = PatchSite { text: &mut text, offset: 8, address: 0x1010, addend: 1 };
        relax_address(site, PatchAddresses { symbol: Some(0x3abb), ..PatchAddresses::default() }).unwrap();
        let words: Vec<_> = text.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        // adrp x3, 2 pages; add x3, x3, #0xabc
        assert_eq!(words, [0xd000_0003, 0x912a_f063, 0xd503_201f, 0xd503_201f]);
    }

    #[test]
    fn a_stub() {
        let mut text = [0xaa; 16];
        let site = PatchSite { text: &mut text, offset: 0, address: 0x1000, addend: 0 };
        write_stub(site, PatchAddresses { slot: Some(0x2008), ..PatchAddresses::default() }).unwrap();
        let words: Vec<_> = text.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        // bti c; adrp x16, 1 page; ldr x16, [x16, #8]; br x16
        assert_eq!(words, [0xd503_245f, 0xb000_0010, 0xf940_0610, 0xd61f_0200]);
    }
}
