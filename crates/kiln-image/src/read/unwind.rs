//! The check of `.eh_frame` before it is given to the unwinder of the process, which believes all
//! that it says.
//!
//! An unwinder looks for the entry of an address in all entries of all registered sections. So each
//! entry must be whole, and must be about code of the image. The instructions in an entry are
//! followed only to unwind a call of that code, and whoever calls it trusts it. They are not read
//! here, so that the time does not depend on the size of functions.
//!
//! Format: Linux Standard Base Core, "Exception Frames". What the linker writes is accepted:
//! entries with 4-byte lengths, CIEs with augmentation `zR` and 4-byte pc-relative pointers.

use std::ops::Range;

/// The pointers of entries: `DW_EH_PE_pcrel | DW_EH_PE_sdata4`.
const POINTERS: u8 = 0x1b;

/// Returns whether the section of `bytes` at `address` has whole entries that are about code in
/// `text`. All are distances from the load address.
pub(crate) fn is_section(bytes: &[u8], address: u64, text: &Range<u64>) -> bool {
    check(bytes, address, text).is_some()
}

fn check(bytes: &[u8], address: u64, text: &Range<u64>) -> Option<()> {
    let mut cies: Vec<usize> = Vec::new();
    let mut at = 0;
    loop {
        let len = word(bytes, at)? as usize;
        let (body, end) = (at + 4, (at + 4).checked_add(len)?);
        if len == 0 {
            return (body == bytes.len()).then_some(());
        }
        let entry = bytes.get(body..end)?;
        let id = word(entry, 0)?;
        if id == 0 {
            check_cie(entry.get(4..)?)?;
            cies.push(at);
        } else {
            let cie = body.checked_sub(id as usize)?;
            if cies.last() != Some(&cie) && cies.binary_search(&cie).is_err() {
                return None;
            }
            // The sum wraps if the bytes are hostile; then it is in no code.
            let start = (address + body as u64 + 4).wrapping_add_signed(i64::from(word(entry, 4)? as i32));
            let code_end = start.checked_add(word(entry, 8)?.into())?;
            if start < text.start || code_end > text.end || *entry.get(12)? != 0 {
                return None;
            }
        }
        at = end;
    }
}

/// Checks the fields of a CIE after its identifier.
fn check_cie(fields: &[u8]) -> Option<()> {
    let mut rest = fields.strip_prefix(&[1, b'z', b'R', 0])?;
    // Alignments of code and data, LEB128, and the register of the return address, one byte.
    for _ in 0..2 {
        let len = rest.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
        rest = &rest[len..];
    }
    rest.get(1..)?.starts_with(&[1, POINTERS]).then_some(())
}

/// Returns the number at `at`, in the byte order of this machine.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
