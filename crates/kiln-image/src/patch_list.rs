//! `.kiln.patches`: the list of the addresses in code that a loader writes, before the code becomes
//! executable. Only images whose modules reach globals directly have one.
//!
//! A patch is:
//!
//! | bytes | content |
//! |---|---|
//! | 1 to 5 | LEB128, the gap: bytes since the end of the patch before, or the start of the code |
//! | 1 to 5 | LEB128, the source: 0 is the image itself, 2n+1 slot n, 2n+2 slot n plus a number |
//! | 0 or 8 | little-endian: the distance of the address from the load address, or that number |
//!
//! So a patch of a slot takes 2 to 4 bytes as a rule; the relocation for `dlopen` that says the
//! same takes 24. Patches are in order of their places and do not overlap: whatever the bytes are,
//! each takes at least 2 of them and writes 8 bytes that no other one writes.

/// The bytes that a patch writes.
pub(crate) const PATCH_LEN: u64 = 8;
/// The longest number, in bytes.
const MAX_NUMBER: usize = 5;

/// The source of the address in a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchValue {
    /// The load address plus this distance.
    Image(u64),
    /// The value of an external slot plus an addend.
    Slot { slot: u64, addend: u64 },
}

/// A patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Offset in the code, in bytes.
    pub(crate) offset: u64,
    pub(crate) value: PatchValue,
}

/// Appends a patch to `list`. `end` is the end of the patch before it, or 0.
#[cfg(any(feature = "write", test))]
pub(crate) fn push(list: &mut Vec<u8>, end: u64, patch: Patch) {
    let mut number = |mut value: u64| {
        while value >= 0x80 {
            list.push(value as u8 | 0x80);
            value >>= 7;
        }
        list.push(value as u8);
    };
    number(patch.offset - end);
    let rest = match patch.value {
        PatchValue::Image(distance) => {
            number(0);
            Some(distance)
        }
        PatchValue::Slot { slot, addend: 0 } => {
            number(2 * slot + 1);
            None
        }
        PatchValue::Slot { slot, addend } => {
            number(2 * slot + 2);
            Some(addend)
        }
    };
    list.extend(rest.into_iter().flat_map(u64::to_le_bytes));
}

/// The patches of a list, in order. Nothing is assumed about its bytes. The error says what is
/// wrong; it is the last item.
pub(crate) struct Patches<'a> {
    rest: &'a [u8],
    /// The end of the patch before.
    end: u64,
    /// The length of the code, in bytes.
    code_len: u64,
}

impl<'a> Patches<'a> {
    /// Reads a list for code of this length, in bytes.
    pub(crate) fn new(list: &'a [u8], code_len: u64) -> Self {
        Self { rest: list, end: 0, code_len }
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(MAX_NUMBER).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Some(value);
            }
        }
        None
    }

    fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*word))
    }

    fn read(&mut self) -> Result<Patch, &'static str> {
        const BROKEN: &str = "a broken list of patches";
        let gap = self.number().ok_or(BROKEN)?;
        // Both are far below 2^63.
        let offset = self.end + gap;
        self.end = offset + PATCH_LEN;
        if self.end > self.code_len {
            return Err("a patch outside the code");
        }
        let value = match self.number().ok_or(BROKEN)? {
            0 => PatchValue::Image(self.word().ok_or(BROKEN)?),
            what if what % 2 == 1 => PatchValue::Slot { slot: what / 2, addend: 0 },
            what => PatchValue::Slot { slot: what / 2 - 1, addend: self.word().ok_or(BROKEN)? },
        };
        Ok(Patch { offset, value })
    }
}

impl Iterator for Patches<'_> {
    type Item = Result<Patch, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let patch = self.read();
        if patch.is_err() {
            self.rest = &[];
        }
        Some(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> (Vec<Patch>, Vec<u8>) {
        let slot = |slot, addend| PatchValue::Slot { slot, addend };
        let values = [slot(0, 0), slot(1, 5), PatchValue::Image(0x1234), slot((1 << 31) - 1, 0), slot(70, 0)];
        let offsets = [0, 8, 300, 308, 1 << 30];
        let patches: Vec<_> =
            offsets.into_iter().zip(values).map(|(offset, value)| Patch { offset, value }).collect();
        let (mut bytes, mut end) = (Vec::new(), 0);
        for &patch in &patches {
            push(&mut bytes, end, patch);
            end = patch.offset + PATCH_LEN;
        }
        (patches, bytes)
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let (patches, bytes) = list();
        let read: Result<Vec<_>, _> = Patches::new(&bytes, 1 << 31).collect();
        assert_eq!(read, Ok(patches));
        // Most take two bytes.
        assert_eq!(bytes[..2], [0, 1]);
        assert_eq!(Patches::new(&[], 0).count(), 0);
    }

    #[test]
    fn every_list_is_read_in_bounds() {
        let (_, bytes) = list();
        for len in 0..bytes.len() {
            // A list that is cut off has fewer patches, or an error at its end.
            let read: Vec<_> = Patches::new(&bytes[..len], 1 << 31).collect();
            assert!(read.len() < 5 || read[4].is_err(), "{len}");
            assert!(read.iter().rev().skip(1).all(Result::is_ok));
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[at] ^= 1 << bit;
                let mut end = 0;
                for patch in Patches::new(&altered, 1 << 20).flatten() {
                    assert!(patch.offset >= end && patch.offset + PATCH_LEN <= 1 << 20);
                    end = patch.offset + PATCH_LEN;
                }
            }
        }
        let error = |bytes: &[u8], len| Patches::new(bytes, len).find_map(Result::err);
        assert_eq!(error(&[0, 1], 8), None);
        assert_eq!(error(&[0, 1], 7), Some("a patch outside the code"));
        assert_eq!(error(&[0xff; 40], 1 << 31), Some("a broken list of patches"));
        assert_eq!(error(&[0, 0, 1, 2, 3], 8), Some("a broken list of patches"));
    }
}
