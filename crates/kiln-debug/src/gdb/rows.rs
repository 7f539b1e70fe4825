//! Joins sections of unwind rows into one, which is all that a debugger reads of a file.

use std::borrow::Cow;
use std::ops::Range;

use crate::describe::Section;

/// Joins sections. Returns the address for which the result is relocated, and the result. `None` if
/// there are no rows.
///
/// Of several sections, rows are left out whose addresses are neither absolute nor signed offsets
/// of 4 bytes, or are too far from the first section.
pub(super) fn join<'a>(sections: &[Section<'a>]) -> Option<(usize, Cow<'a, [u8]>)> {
    let sections: Vec<&Section<'a>> = sections.iter().filter(|section| section.bytes.len() > 4).collect();
    match *sections {
        [] => None,
        [only] => Some((only.address, Cow::Borrowed(only.bytes))),
        [first, ..] => {
            let mut joined = Vec::with_capacity(sections.iter().map(|section| section.bytes.len()).sum());
            for section in &sections {
                append(&mut joined, first.address, section);
            }
            joined.extend([0; 4]);
            Some((first.address, joined.into()))
        }
    }
}

/// Appends a section to rows that are relocated to `base`, without the zero that ends it.
fn append(joined: &mut Vec<u8>, base: usize, section: &Section<'_>) {
    let start = joined.len();
    let moved = section.address.wrapping_sub(base.wrapping_add(start)) as i64;
    for entry in Entries::new(section.bytes) {
        let at = joined.len();
        if at - start != entry.bytes.start {
            // An entry was left out, and distances to CIEs must stay as they are.
            return;
        }
        joined.extend(&section.bytes[entry.bytes.clone()]);
        match entry.address {
            Some(Address::Offset(field, value)) => {
                let value = i64::from(value).checked_add(moved).and_then(|value| i32::try_from(value).ok());
                let Some(value) = value else { return joined.truncate(at) };
                let field = start + field;
                joined[field..field + 4].copy_from_slice(&value.to_ne_bytes());
            }
            Some(Address::Absolute(..)) => {}
            None if entry.is_cie => {}
            None => return joined.truncate(at),
        }
    }
}

/// Takes the rows of code that begins in `range` out of rows that are relocated to `address`: their
/// code becomes empty.
pub(super) fn forget(rows: &mut [u8], address: usize, range: &Range<usize>) {
    let entries: Vec<Entry> = Entries::new(rows).collect();
    for entry in entries {
        let (start, len) = match entry.address {
            Some(Address::Offset(field, value)) => {
                (address.wrapping_add(field).wrapping_add_signed(value as isize), field + 4..field + 8)
            }
            Some(Address::Absolute(field, value)) => (value as usize, field + 8..field + 16),
            None => continue,
        };
        if range.contains(&start)
            && let Some(len) = rows.get_mut(len)
        {
            len.fill(0);
        }
    }
}

/// The address of an FDE: where it is in the section, and its value.
#[derive(Clone, Copy)]
enum Address {
    /// A signed offset of 4 bytes from where it is.
    Offset(usize, i32),
    /// An address of 8 bytes.
    Absolute(usize, u64),
}

/// An entry of a section.
struct Entry {
    bytes: Range<usize>,
    is_cie: bool,
    /// `None` for a CIE, and for an FDE of another form.
    address: Option<Address>,
}

/// The entries of a section, in order, up to the first that is not well formed.
struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    /// Returns the address of the FDE at `start`.
    fn address(&self, start: usize, distance: u32) -> Option<Address> {
        let field = start + 8;
        let cie = (start + 4).checked_sub(distance as usize)?;
        match self.encoding(cie)? {
            // Relative to itself, signed, 4 bytes.
            0x1b => Some(Address::Offset(field, self.word(field)? as i32)),
            0 => Some(Address::Absolute(field, u64::from_ne_bytes(*self.bytes.get(field..)?.first_chunk()?))),
            _ => None,
        }
    }

    /// Returns how a CIE encodes addresses.
    fn encoding(&self, cie: usize) -> Option<u8> {
        // After length and number: the version, the augmentation, which is text.
        let rest = self.bytes.get(cie + 8..)?;
        let (&version, rest) = rest.split_first()?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (augmentation, mut rest) = (&rest[..end], rest.get(end + 1..)?);
        // Two factors, and the column of the return address; the length of the augmentation. Their
        // values do not matter, only the bit that says whether another byte follows.
        let numbers = if augmentation.first() == Some(&b'z') { 4 } else { 3 };
        for number in 0..numbers {
            let len = if number == 2 && version == 1 {
                0
            } else {
                rest.iter().position(|byte| byte & 0x80 == 0)?
            };
            rest = rest.get(len + 1..)?;
        }
        match augmentation {
            b"" => Some(0),
            [b'z', b'R', ..] => rest.first().copied(),
            _ => None,
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let start = self.at;
        let len = self.word(start).filter(|&len| len >= 4 && len != u32::MAX)? as usize;
        let end = start.checked_add(4 + len).filter(|&end| end <= self.bytes.len())?;
        let distance = self.word(start + 4)?;
        self.at = end;
        let is_cie = distance == 0;
        let address = if is_cie { None } else { self.address(start, distance) };
        Some(Entry { bytes: start..end, is_cie, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section with rows for functions at these addresses, relocated to `at`.
    fn section(at: usize, functions: &[usize], absolute: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(20u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend([1, b'z', b'R', 0, 1, 0x78, 16, 1, if absolute { 0 } else { 0x1b }]);
        bytes.resize(24, 0);
        for &function in functions {
            let start = bytes.len();
            bytes.extend((if absolute { 24u32 } else { 16 }).to_ne_bytes());
            bytes.extend((start as u32 + 4).to_ne_bytes());
            if absolute {
                bytes.extend((function as u64).to_ne_bytes());
                bytes.extend(16u64.to_ne_bytes());
            } else {
                bytes.extend((function.wrapping_sub(at + start + 8) as i32).to_ne_bytes());
                bytes.extend(16u32.to_ne_bytes());
            }
            bytes.extend([0; 4]);
        }
        bytes.extend([0; 4]);
        bytes
    }

    /// The functions that have rows in a section, and the sizes of their code.
    fn functions(at: usize, bytes: &[u8]) -> Vec<(usize, u32)> {
        let entries = Entries::new(bytes);
        let word = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
        let function = |entry: Entry| match entry.address? {
            Address::Offset(field, value) => {
                Some((at.wrapping_add(field).wrapping_add_signed(value as isize), word(field + 4)))
            }
            Address::Absolute(field, value) => Some((value as usize, word(field + 8))),
        };
        entries.filter_map(function).collect()
    }

    #[test]
    fn sections_are_joined_and_a_part_is_forgotten() {
        let first = section(0x9000, &[0x1000, 0x1010], false);
        let second = section(0x5000, &[0x2000, 0x2010], false);
        let third = section(0x7000, &[0x3000], true);
        let part = |address, bytes| Section { address, bytes };
        let sections = [part(0x9000, &*first), part(0x5000, &second), part(0x7000, &third)];
        let (at, mut joined) = join(&sections).unwrap();
        let all = [0x1000, 0x1010, 0x2000, 0x2010, 0x3000];
        assert_eq!(functions(at, &joined), all.map(|start| (start, 16)));
        forget(joined.to_mut(), at, &(0x1010..0x2010));
        forget(joined.to_mut(), at, &(0x3000..0x3001));
        let left = [(0x1000, 16), (0x1010, 0), (0x2000, 0), (0x2010, 16), (0x3000, 0)];
        assert_eq!(functions(at, &joined), left);
    }

    #[test]
    fn one_section_is_not_copied() {
        let only = section(0x9000, &[0x1000], false);
        let empty = [0; 4];
        let sections =
            [Section { address: 0x8000, bytes: &empty }, Section { address: 0x9000, bytes: &only }];
        assert!(matches!(join(&sections), Some((0x9000, Cow::Borrowed(_)))));
        assert!(join(&sections[..1]).is_none());
    }

    #[test]
    fn bad_bytes_are_left_out() {
        let good = section(0x9000, &[0x1000], false);
        for len in 0..good.len() {
            let sections =
                [Section { address: 0x8000, bytes: &good[..len] }, Section { address: 0x9000, bytes: &good }];
            let (at, joined) = join(&sections).unwrap();
            let last = functions(at, &joined);
            assert!(last.contains(&(0x1000, 16)), "{len}");
        }
        // A CIE that the entry does not have, and a section that is too far away.
        let mut bad = good.clone();
        bad[28..32].copy_from_slice(&u32::MAX.to_ne_bytes());
        let far = section(1 << 40, &[1 << 40], false);
        let sections = [
            Section { address: 0x9000, bytes: &good },
            Section { address: 0x8000, bytes: &bad },
            Section { address: 1 << 40, bytes: &far },
        ];
        let (at, joined) = join(&sections).unwrap();
        assert_eq!(functions(at, &joined), [(0x1000, 16)]);
    }
}
