//! x86-64: System V ABI, AMD64 supplement, section 4.4 and appendix B.2 (relaxation of
//! `GOTPCRELX`).
//!
//! The patched bytes are a displacement of four bytes, which is relative to the next instruction.
//! An addend of -4 means that no immediate follows the displacement. The bytes before the
//! displacement identify the instruction: in `lea` and `mov` they are REX, opcode and a ModRM byte
//! of the form `00 reg 101`, which is never `e8` or `e9`, the opcodes of `call` and `jmp`.

use kiln_artifact::RelocKind;

use super::site::{PatchAddresses, PatchError, PatchSite, Use, distance};

const REACH: u64 = 1 << 31;
const LEA: u8 = 0x8d;
const MOV: u8 = 0x8b;

/// Whether the displacement at `offset` is the memory operand of an instruction `REX.W opcode /r`.
fn is_load(text: &[u8], offset: usize, opcode: u8) -> bool {
    offset >= 3 && {
        let (rex, op, modrm) = (text[offset - 3], text[offset - 2], text[offset - 1]);
        rex & 0xf8 == 0x48 && op == opcode && modrm & 0xc7 == 0x05
    }
}

/// Whether the displacement at `offset` is the target of a `call` or `jmp`.
fn is_branch(text: &[u8], offset: usize) -> bool {
    offset >= 1 && matches!(text[offset - 1], 0xe8 | 0xe9)
}

pub(super) fn classify(kind: RelocKind, text: &[u8], offset: usize, addend: i64) -> Result<Use, PatchError> {
    match kind {
        RelocKind::X86Pc32 if is_branch(text, offset) && addend == -4 => Ok(Use::Call),
        RelocKind::X86Pc32 if is_load(text, offset, LEA) && addend == -4 => Ok(Use::AddressOrSlot),
        RelocKind::X86Pc32 => Ok(Use::Direct),
        RelocKind::X86GotPc32 => Ok(Use::Slot { relaxable: addend == -4 && is_load(text, offset, MOV) }),
        _ => Err(PatchError::Foreign),
    }
}

/// Writes the displacement.
fn store(site: &mut PatchSite<'_>, distance: i64) -> Result<(), PatchError> {
    let offset = site.offset;
    let bytes =
        site.text.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()).ok_or(PatchError::Instruction)?;
    *bytes = (distance as i32).to_le_bytes();
    Ok(())
}

pub(super) fn patch(
    kind: RelocKind,
    mut site: PatchSite<'_>,
    targets: PatchAddresses,
) -> Result<(), PatchError> {
    let reach = |target: Option<u64>, site: &PatchSite<'_>| {
        let target = target.ok_or(PatchError::Unreachable)?;
        distance(target.wrapping_add_signed(site.addend), site.address, REACH)
    };
    let usage = classify(kind, site.text, site.offset, site.addend)?;
    let direct = reach(targets.symbol, &site);
    let distance = match usage {
        Use::Slot { relaxable: false } => reach(targets.slot, &site)?,
        Use::Slot { relaxable: true } => match direct {
            Ok(distance) => {
                site.text[site.offset - 2] = LEA;
                distance
            }
            Err(error) if targets.slot.is_none() => return Err(error),
            Err(_) => reach(targets.slot, &site)?,
        },
        Use::AddressOrSlot => match direct {
            Ok(distance) => distance,
            Err(error) if targets.slot.is_none() => return Err(error),
            Err(_) => {
                site.text[site.offset - 2] = MOV;
                reach(targets.slot, &site)?
            }
        },
        Use::Call => match direct {
            Ok(distance) => distance,
            Err(error) if targets.stub.is_none() => return Err(error),
            Err(_) => reach(targets.stub, &site)?,
        },
        _ => direct?,
    };
    store(&mut site, distance)
}

/// Whether the 8 bytes at `offset` are the operand of `movabs`.
pub(super) fn is_address_load(text: &[u8], offset: usize) -> bool {
    offset >= 2 && text[offset - 2] & 0xfe == 0x48 && text[offset - 1] & 0xf8 == 0xb8
}

/// Replaces `movabs reg, address`, ten bytes, by `lea reg, [rip + symbol]` or `mov reg, [rip +
/// slot]` and a no-op of three bytes.
pub(super) fn relax_address(site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    const NOP: [u8; 3] = [0x0f, 0x1f, 0x00];
    let start = site.offset.checked_sub(2).ok_or(PatchError::Instruction)?;
    let code = site.text.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<10>());
    let code = code.ok_or(PatchError::Instruction)?;
    let (opcode, target) = match (targets.symbol, targets.slot) {
        (Some(symbol), _) => (LEA, symbol.wrapping_add_signed(site.addend)),
        (None, Some(slot)) => (MOV, slot),
        (None, None) => return Err(PatchError::Unreachable),
    };
    // The displacement ends five bytes after the start of the site.
    let distance = distance(target, site.address.wrapping_add(5), REACH)?;
    // The register's highest bit moves from REX.B to REX.R.
    let (rex, register) = (0x48 | (code[0] & 1) << 2, code[1] & 7);
    code[..3].copy_from_slice(&[rex, opcode, register << 3 | 0x05]);
    code[3..7].copy_from_slice(&(distance as i32).to_le_bytes());
    code[7..].copy_from_slice(&NOP);
    Ok(())
}

/// Writes `jmp [rip + slot]` and two `int3`.
pub(super) fn write_stub(mut site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    let slot = targets.slot.ok_or(PatchError::Unreachable)?;
    let distance = distance(slot, site.address.wrapping_add(6), REACH)?;
    let code = site.text.get_mut(site.offset..).and_then(|rest| rest.first_chunk_mut::<8>());
    *code.ok_or(PatchError::Instruction)? = [0xff, 0x25, 0, 0, 0, 0, 0xcc, 0xcc];
    site.offset += 2;
    store(&mut site, distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        code: &[u8],
        offset: usize,
        kind: RelocKind,
        targets: PatchAddresses,
    ) -> Result<Vec<u8>, PatchError> {
        let mut text = code.to_vec();
        patch(
            kind,
            PatchSite { text: &mut text, offset, address: 0x1000 + offset as u64, addend: -4 },
            targets,
        )?;
        Ok(text)
    }

    const FAR: u64 = 0x1_0000_0000;

    #[test]
    fn a_slot_access_in_reach_becomes_lea() {
        let targets = PatchAddresses { symbol: Some(0x2000), slot: Some(0x3000), stub: None };
        // mov r11, [rip+..]
        let text = run(&[0x4c, 0x8b, 0x1d, 0, 0, 0, 0], 3, RelocKind::X86GotPc32, targets).unwrap();
        assert_eq!(text, [0x4c, 0x8d, 0x1d, 0xf9, 0x0f, 0, 0]); // 0x2000 - 0x1007
    }

    #[test]
    fn a_slot_access_out_of_reach_stays_mov() {
        let targets = PatchAddresses { symbol: Some(FAR), slot: Some(0x3000), stub: None };
        let text = run(&[0x48, 0x8b, 0x05, 0, 0, 0, 0], 3, RelocKind::X86GotPc32, targets).unwrap();
        assert_eq!(text, [0x48, 0x8b, 0x05, 0xf9, 0x1f, 0, 0]);
    }

    #[test]
    fn other_instructions_are_not_relaxed() {
        let targets = PatchAddresses { symbol: Some(0x2000), slot: Some(0x3000), stub: None };
        // call [rip+..]; cmp rax, [rip+..]; mov eax, [rip+..] without REX.W
        for code in [[0x90, 0xff, 0x15], [0x48, 0x3b, 0x05], [0x44, 0x8b, 0x05]] {
            let bytes = [code[0], code[1], code[2], 0, 0, 0, 0];
            let text = run(&bytes, 3, RelocKind::X86GotPc32, targets).unwrap();
            assert_eq!(text, [code[0], code[1], code[2], 0xf9, 0x1f, 0, 0]);
        }
    }

    #[test]
    fn lea_of_an_undefined_symbol_becomes_mov() {
        let targets = PatchAddresses { symbol: None, slot: Some(0x3000), stub: None };
        let text = run(&[0x48, 0x8d, 0x05, 0, 0, 0, 0], 3, RelocKind::X86Pc32, targets).unwrap();
        assert_eq!(text, [0x48, 0x8b, 0x05, 0xf9, 0x1f, 0, 0]);
    }

    #[test]
    fn a_call_out_of_reach_takes_the_stub() {
        let targets = PatchAddresses { symbol: Some(FAR), slot: None, stub: Some(0x1800) };
        let text = run(&[0xe8, 0, 0, 0, 0], 1, RelocKind::X86Pc32, targets).unwrap();
        assert_eq!(text, [0xe8, 0xfb, 0x07, 0, 0]);
        let error = run(&[0xe8, 0, 0, 0, 0], 1, RelocKind::X86Pc32, PatchAddresses { stub: None, ..targets })
            .unwrap_err();
        assert_eq!(error, PatchError::OutOfRange { distance: FAR as i64 - 0x1005, limit: 1 << 31 });
    }

    #[test]
    fn the_range_is_exact() {
        let at = |symbol: u64| {
            run(
                &[0xe8, 0, 0, 0, 0],
                1,
                RelocKind::X86Pc32,
                PatchAddresses { symbol: Some(symbol), ..PatchAddresses::default() },
            )
        };
        assert_eq!(at(0x1005 + 0x7fff_ffff).unwrap()[1..], [0xff, 0xff, 0xff, 0x7f]);
        assert!(at(0x1005 + 0x8000_0000).is_err());
        assert_eq!(at(0x1005u64.wrapping_sub(0x8000_0000)).unwrap()[1..], [0, 0, 0, 0x80]);
        assert!(at(0x1004u64.wrapping_sub(0x8000_0000)).is_err());
    }

    #[test]
    fn an_address_in_code_becomes_a_distance() {
        let run = |code: [u8; 10], targets| {
            let mut text = code;
            assert!(is_address_load(&text, 2));
            let site = PatchSite { text: &mut text, offset: 2, address: 0x1002, addend: 4 };
            relax_address(site, targets).map(|()| text)
        };
        let none = PatchAddresses::default();
        // movabs r11, .. becomes lea r11, [rip + 0x2004 - 0x1007]
        let code = [0x49, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0];
        let text = run(code, PatchAddresses { symbol: Some(0x2000), ..none }).unwrap();
        assert_eq!(text, [0x4c, 0x8d, 0x1d, 0xfd, 0x0f, 0, 0, 0x0f, 0x1f, 0]);
        // movabs rcx, .. becomes mov rcx, [rip + 0x3000 - 0x1007]
        let code = [0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0];
        let text = run(code, PatchAddresses { slot: Some(0x3000), ..none }).unwrap();
        assert_eq!(text, [0x48, 0x8b, 0x0d, 0xf9, 0x1f, 0, 0, 0x0f, 0x1f, 0]);
        assert!(run(code, PatchAddresses { symbol: Some(FAR), ..none }).is_err());
        assert_eq!(run(code, none), Err(PatchError::Unreachable));
        // mov eax, imm32; a site at the start of the code
        assert!(!is_address_load(&[0x90, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0], 2));
        assert!(!is_address_load(&[0; 8], 0));
    }

    #[test]
    fn a_stub_jumps_through_its_slot() {
        let mut text = [0; 8];
        let site = PatchSite { text: &mut text, offset: 0, address: 0x1000, addend: 0 };
        write_stub(site, PatchAddresses { slot: Some(0x3000), ..PatchAddresses::default() }).unwrap();
        assert_eq!(text, [0xff, 0x25, 0xfa, 0x1f, 0, 0, 0xcc, 0xcc]);
    }
}
