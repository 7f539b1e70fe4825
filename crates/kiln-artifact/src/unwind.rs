//! Checks unwind information before an unwinder may see it.
//!
//! The system's unwinder trusts the tables that are registered with it: bytes that it does not
//! understand make it abort the process. So the CIE and every row are checked once, when an
//! artifact is checked. The checks accept more instructions than code generators write, but no
//! expressions, except for the expression that says whether return addresses are signed on aarch64.
//! Source: DWARF 5, section 6.4; Linux Standard Base, section 10.6.

/// The largest depth to which saved states may nest (`remember_state`).
const MAX_REMEMBERED: u32 = 16;
/// An upper bound of the register numbers of all targets.
const MAX_REGISTER: u64 = 256;

/// Whether `bytes` are a common information entry (CIE) with augmentation `zR`, 4-byte pc-relative
/// pointers, and valid rows.
pub(crate) fn is_common_entry(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let len_fits = [u32::from_le_bytes(*len), u32::from_be_bytes(*len)].contains(&(rest.len() as u32));
    // Id 0, version 1, augmentation `zR`.
    let Some(rest) = rest.strip_prefix(b"\0\0\0\0\x01zR\0").filter(|_| len_fits) else { return false };
    let mut cursor = Cursor(rest);
    // Factors of code and data, return address register.
    let factors = [cursor.leb(), cursor.leb()].iter().all(Option::is_some) && cursor.byte().is_some();
    // One byte of augmentation: pc-relative, 4 bytes, signed.
    factors && cursor.byte() == Some(1) && cursor.byte() == Some(0x1b) && are_rows(cursor.0)
}

/// Whether `bytes` are call frame instructions that any unwinder can follow.
pub(crate) fn are_rows(bytes: &[u8]) -> bool {
    let mut cursor = Cursor(bytes);
    let mut remembered = 0;
    while let Some(op) = cursor.byte() {
        if cursor.row(op, &mut remembered).is_none() {
            return false;
        }
    }
    true
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    /// Reads a LEB128 number of at most 9 bytes, and returns its value as if it were unsigned.
    fn leb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn register(&mut self) -> Option<()> {
        self.leb().filter(|&register| register < MAX_REGISTER).map(drop)
    }

    /// Skips the operands of the instruction `op`; returns `None` if the instruction is not
    /// accepted.
    fn row(&mut self, op: u8, remembered: &mut u32) -> Option<()> {
        match (op >> 6, op & 0x3f) {
            // advance_loc, restore
            (1 | 3, _) => Some(()),
            // offset
            (2, _) => self.leb().map(drop),
            // nop, and the switch of signed return addresses on aarch64
            (_, 0x00 | 0x2d) => Some(()),
            // advance_loc1, 2, 4
            (_, 0x02) => self.skip(1),
            (_, 0x03) => self.skip(2),
            (_, 0x04) => self.skip(4),
            // offset_extended, def_cfa, their signed forms, val_offset and its signed form
            (_, 0x05 | 0x0c | 0x11 | 0x12 | 0x14 | 0x15) => {
                self.register()?;
                self.leb().map(drop)
            }
            // restore_extended, undefined, same_value, def_cfa_register
            (_, 0x06..=0x08 | 0x0d) => self.register(),
            // register
            (_, 0x09) => {
                self.register()?;
                self.register()
            }
            // remember_state, restore_state
            (_, 0x0a) => {
                *remembered += 1;
                (*remembered <= MAX_REMEMBERED).then_some(())
            }
            (_, 0x0b) => {
                *remembered = remembered.checked_sub(1)?;
                Some(())
            }
            // def_cfa_offset, its signed form, GNU_args_size
            (_, 0x0e | 0x13 | 0x2e) => self.leb().map(drop),
            // val_expression of one byte: `lit0` or `lit1`
            (_, 0x16) => {
                self.register()?;
                (self.byte()? == 1 && matches!(self.byte()?, 0x30 | 0x31)).then_some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry that Cranelift writes for x86-64.
    const ENTRY: &[u8] = b"\x14\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0";

    #[test]
    fn an_entry_with_any_decisive_byte_altered_is_refused() {
        assert!(is_common_entry(ENTRY));
        for index in (0..12).chain(15..17) {
            let mut bytes = ENTRY.to_vec();
            bytes[index] ^= 0x15;
            assert!(!is_common_entry(&bytes), "byte {index}");
        }
        for len in 0..ENTRY.len() {
            assert!(!is_common_entry(&ENTRY[..len]), "cut to {len} bytes");
        }
    }

    #[test]
    fn rows_that_end_early_or_mean_nothing_are_refused() {
        assert!(are_rows(b"\x41\x0e\x10\x86\x02\x43\x0d\x06\x0a\x0b\x16\x22\x01\x31\0\0"));
        for bad in [
            &b"\x0e"[..],
            b"\x0b",
            b"\x04\x01\x02",
            b"\x0f\x01\x30",
            b"\x10\x01\x01\x30",
            b"\x0c\x80\x80\x01",
            b"\x0d\xff\x7f",
            b"\x0e\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x16\x22\x01\x06",
            b"\x3f",
            &[0x0a; 17],
        ] {
            assert!(!are_rows(bad), "{bad:x?}");
        }
    }
}
