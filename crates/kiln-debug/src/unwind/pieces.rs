//! Sections in pieces, for a libgcc that loses a part of some ranges.
//!
//! libgcc 13.1 to 14.2 keeps ranges of code in a tree whose inner nodes have separators: the first
//! address of an entry, less one, that was there when a node was split. They stay when that entry
//! goes. If a later range has such an address inside, only the part up to it is found (GCC's
//! PR119151, mended later). Code that comes and goes makes such ranges: 2 of 100 in
//! a test with random changes.
//!
//! So the end of a range is looked up when it is registered. If it is not found, the rows are
//! registered in pieces that end at the separators, in sections of their own. A function may be in
//! two pieces: the second one begins with what its rows say at that address. A later separator is
//! in no piece, because it is the first address of one. Nobody runs the code yet.

use std::ops::Range;

/// A section of its own: it ends with a zero.
pub(super) type Piece = Box<[u64]>;

/// A row description, or a part of one.
#[derive(Clone, Debug)]
struct Part<'a> {
    code: Range<usize>,
    /// The first address of the whole.
    start: usize,
    cie: Cie<'a>,
    instructions: &'a [u8],
}

/// The entry that row descriptions share: `zR` is its augmentation.
#[derive(Clone, Copy, Debug)]
struct Cie<'a> {
    /// Up to the encoding of addresses.
    head: &'a [u8],
    instructions: &'a [u8],
    factor: usize,
    is_offset: bool,
}

/// The unwinder, as pieces need it.
pub(super) trait Unwinder {
    /// Whether it finds rows for an address.
    fn finds(&mut self, pc: usize) -> bool;

    /// Registers a section.
    ///
    /// # Safety
    ///
    /// It is well formed, and stays until it is removed.
    unsafe fn add(&mut self, section: *const u8);

    /// Takes a section back.
    ///
    /// # Safety
    ///
    /// It was added.
    unsafe fn remove(&mut self, section: *const u8);
}

/// Registers a section in pieces, if the unwinder does not find all of its code. It is registered
/// already, and is taken back if there are pieces. A section of a form that is not known stays.
///
/// # Safety
///
/// The section is well formed, its code does not run yet, and pieces stay until they are removed.
pub(super) unsafe fn mend(section: *const u8, unwinder: &mut impl Unwinder) -> Vec<Piece> {
    // SAFETY: the caller promises it.
    let Some(mut parts) = (unsafe { parts(section) }) else { return Vec::new() };
    parts.sort_unstable_by_key(|part| part.code.start);
    let Some(first) = lost_after_start(&parts, unwinder) else { return Vec::new() };
    // SAFETY: the caller has registered it.
    unsafe { unwinder.remove(section) };
    let (mut pieces, mut cut) = (Vec::new(), first);
    loop {
        let after = split(&mut parts, cut);
        let piece = write(&parts);
        // SAFETY: `write` makes a well-formed section.
        unsafe { unwinder.add(piece.as_ptr().cast()) };
        pieces.push(piece);
        parts = after;
        let rest = write(&parts);
        // SAFETY: as above. It stays, or is taken back at once.
        unsafe { unwinder.add(rest.as_ptr().cast()) };
        match lost_after_start(&parts, unwinder) {
            Some(lost) => {
                // SAFETY: it was just added.
                unsafe { unwinder.remove(rest.as_ptr().cast()) };
                cut = lost;
            }
            None => {
                pieces.push(rest);
                return pieces;
            }
        }
    }
}

/// Returns the first address that is not found. `None` if even the first of all is not: no cut
/// mends that.
fn lost_after_start(parts: &[Part<'_>], unwinder: &mut impl Unwinder) -> Option<usize> {
    let start = parts.first()?.code.start;
    first_lost(parts, unwinder).filter(|&lost| lost > start)
}

/// Returns the first address that is not found, which comes after a separator.
fn first_lost(parts: &[Part<'_>], unwinder: &mut impl Unwinder) -> Option<usize> {
    let lost = parts.iter().find(|part| !unwinder.finds(part.code.end - 1))?;
    let (mut found, mut lost) = (lost.code.start, lost.code.end - 1);
    if !unwinder.finds(found) {
        return Some(found);
    }
    while lost - found > 1 {
        let middle = found + (lost - found) / 2;
        if unwinder.finds(middle) {
            found = middle;
        } else {
            lost = middle;
        }
    }
    Some(lost)
}

/// Takes what is at `cut` and after it out.
fn split<'a>(parts: &mut Vec<Part<'a>>, cut: usize) -> Vec<Part<'a>> {
    let position = parts.partition_point(|part| part.code.start < cut);
    let mut after = parts.split_off(position);
    if let Some(last) = parts.last_mut().filter(|last| last.code.end > cut) {
        after.insert(0, Part { code: cut..last.code.end, ..last.clone() });
        last.code.end = cut;
    }
    after
}

/// Writes a section, with addresses that are absolute.
fn write(parts: &[Part<'_>]) -> Piece {
    let mut bytes = Vec::new();
    let mut last: Option<(*const u8, usize)> = None;
    for part in parts {
        let Cie { head, instructions, .. } = part.cie;
        let cie = match last {
            Some((known, at)) if known == head.as_ptr() => at,
            _ => {
                let at = bytes.len();
                entry(&mut bytes, |bytes| {
                    bytes.extend([0; 4]);
                    bytes.extend(head);
                    bytes.push(0);
                    bytes.extend(instructions);
                });
                last = Some((head.as_ptr(), at));
                at
            }
        };
        entry(&mut bytes, |bytes| {
            bytes.extend(((bytes.len() - cie) as u32).to_ne_bytes());
            bytes.extend(part.code.start.to_ne_bytes());
            bytes.extend(part.code.len().to_ne_bytes());
            bytes.push(0);
            part.rows(bytes);
        });
    }
    bytes.extend([0; 4]);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.as_chunks::<8>().0.iter().map(|&word| u64::from_ne_bytes(word)).collect()
}

/// Appends an entry: its length, its content, and what fills it up.
fn entry(bytes: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    content(bytes);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let len = (bytes.len() - start - 4) as u32;
    bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

impl Part<'_> {
    /// Appends the instructions, as if the whole began where the part begins: what comes before is
    /// said at once.
    fn rows(&self, bytes: &mut Vec<u8>) {
        let (mut at, mut rest) = (self.start, self.instructions);
        while let Some((step, len)) = instruction(rest, self.cie.factor) {
            let (this, after) = rest.split_at(len);
            rest = after;
            let Some(step) = step else {
                bytes.extend(this);
                continue;
            };
            let from = at.max(self.code.start);
            at += step;
            if at > from {
                bytes.push(ADVANCE_LOC4);
                bytes.extend((((at - from) / self.cie.factor) as u32).to_ne_bytes());
            }
        }
    }
}

const ADVANCE_LOC4: u8 = 4;

/// Returns how many bytes of code the first instruction advances, if it does, and its length.
/// `None` at the end, and at one that is not known.
fn instruction(bytes: &[u8], factor: usize) -> Option<(Option<usize>, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let numbers = |count: usize| {
        let mut at = 0;
        for _ in 0..count {
            at += rest.get(at..)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
        }
        Some(at)
    };
    // An expression is its length and its bytes.
    let block = |at: usize| {
        let (len, used) = uleb(rest.get(at..)?)?;
        at.checked_add(used)?.checked_add(len).filter(|&end| end <= rest.len())
    };
    let len = match (first >> 6, first & 0x3f) {
        (1, step) => return Some((Some(usize::from(step) * factor), 1)),
        (2, _) => numbers(1)?,
        (3, _) => 0,
        (_, 2) => return Some((Some(usize::from(*rest.first()?) * factor), 2)),
        (_, 3) => {
            let step = u16::from_ne_bytes(*rest.first_chunk()?);
            return Some((Some(usize::from(step) * factor), 3));
        }
        (_, ADVANCE_LOC4) => {
            let step = u32::from_ne_bytes(*rest.first_chunk()?);
            return Some((Some(step as usize * factor), 5));
        }
        (_, 0 | 0x0a | 0x0b | 0x2d) => 0,
        (_, 6..=8 | 0x0d | 0x0e | 0x13 | 0x2e) => numbers(1)?,
        (_, 5 | 9 | 0x0c | 0x11 | 0x12 | 0x14 | 0x15 | 0x2f) => numbers(2)?,
        (_, 0x0f) => block(0)?,
        (_, 0x10 | 0x16) => block(numbers(1)?)?,
        _ => return None,
    };
    Some((None, 1 + len))
}

/// Returns a number, and its length.
fn uleb(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut value, mut shift) = (0usize, 0);
    for (position, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value, position + 1));
        }
        shift += 7;
    }
    None
}

/// Returns the row descriptions of a section, or `None` if one has a form that is not known.
///
/// # Safety
///
/// It is well formed, ends with a zero, and lives as long as the result.
unsafe fn parts<'a>(section: *const u8) -> Option<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    let mut at = section;
    loop {
        // SAFETY: the caller promises it: each entry begins with its length, and a zero ends all.
        let len = unsafe { at.cast::<u32>().read_unaligned() } as usize;
        if len == 0 {
            return Some(parts);
        }
        // SAFETY: as above.
        let entry = unsafe { std::slice::from_raw_parts(at.add(4), len) };
        let back = u32::from_ne_bytes(*entry.first_chunk()?) as usize;
        if back != 0 {
            // SAFETY: the number says how far back the shared entry is.
            let cie = unsafe {
                let cie = at.add(4).sub(back);
                std::slice::from_raw_parts(cie.add(4), cie.cast::<u32>().read_unaligned() as usize)
            };
            let cie = Cie::read(cie)?;
            let (code, rest) = cie.code(entry.get(4..)?)?;
            let (augmentation, used) = uleb(rest)?;
            let instructions = rest.get(used..)?.get(augmentation..)?;
            let is_known = all_known(instructions, cie.factor) && augmentation == 0;
            if !is_known {
                return None;
            }
            if !code.is_empty() {
                parts.push(Part { start: code.start, code, cie, instructions });
            }
        }
        at = at.wrapping_add(4 + len);
    }
}

/// Whether all instructions are known.
fn all_known(mut instructions: &[u8], factor: usize) -> bool {
    while !instructions.is_empty() {
        let Some((_, len)) = instruction(instructions, factor) else { return false };
        instructions = &instructions[len..];
    }
    true
}

impl<'a> Cie<'a> {
    /// Reads an entry from its number on, which is zero.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.get(4..)?;
        let rest = head.strip_prefix(&[1, b'z', b'R', 0])?;
        let (factor, used) = uleb(rest)?;
        let rest = rest.get(used..)?;
        let (_, used) = uleb(rest)?;
        // The column of the return address, and one byte of augmentation.
        let [_, 1, encoding, instructions @ ..] = rest.get(used..)? else { return None };
        let is_offset = match encoding {
            0 => false,
            // Relative to itself, signed, 4 bytes.
            0x1b => true,
            _ => return None,
        };
        let head = &head[..head.len() - instructions.len() - 1];
        Some(Self { head, instructions, factor: factor.max(1), is_offset })
    }

    /// Reads the addresses of a row description, which are at the start of `bytes`.
    fn code(&self, bytes: &'a [u8]) -> Option<(Range<usize>, &'a [u8])> {
        let (start, len, rest) = if self.is_offset {
            let (offset, rest) = bytes.split_first_chunk()?;
            let (len, rest) = rest.split_first_chunk()?;
            let start = bytes.as_ptr().addr().wrapping_add_signed(i32::from_ne_bytes(*offset) as isize);
            (start, u32::from_ne_bytes(*len) as usize, rest)
        } else {
            let (start, rest) = bytes.split_first_chunk()?;
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from_ne_bytes(*start), usize::from_ne_bytes(*len), rest)
        };
        Some((start..start.checked_add(len)?, rest))
    }
}

#[cfg(test)]
mod tests {
    use gimli::{BaseAddresses, EhFrame, EndianSlice, NativeEndian, UnwindContext, UnwindSection as _};

    use super::*;

    /// Finds code up to the next separator.
    struct Model {
        separators: Vec<usize>,
        /// The sections, and the ranges of their code.
        sections: Vec<(*const u8, Range<usize>)>,
    }

    impl Unwinder for Model {
        fn finds(&mut self, pc: usize) -> bool {
            let inside = |range: &Range<usize>| {
                range.contains(&pc) && !self.separators.iter().any(|at| (range.start..pc).contains(at))
            };
            self.sections.iter().any(|(_, range)| inside(range))
        }

        unsafe fn add(&mut self, section: *const u8) {
            // SAFETY: the caller promises it.
            let parts = unsafe { parts(section) }.unwrap();
            let start = parts.iter().map(|part| part.code.start).min().unwrap();
            let end = parts.iter().map(|part| part.code.end).max().unwrap();
            self.sections.push((section, start..end));
        }

        unsafe fn remove(&mut self, section: *const u8) {
            self.sections.retain(|(known, _)| *known != section);
        }
    }

    /// Two functions of 64 bytes with rows of each kind of advance, a state that is remembered, and
    /// an expression.
    fn section(start: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        entry(&mut bytes, |bytes| {
            bytes.extend([0; 4]);
            bytes.extend([1, b'z', b'R', 0, 1, 0x78, 16, 1, 0, 0x0c, 7, 8, 0x90, 1]);
        });
        for function in 0..2 {
            entry(&mut bytes, |bytes| {
                bytes.extend((bytes.len() as u32).to_ne_bytes());
                bytes.extend((start + 64 * function).to_ne_bytes());
                bytes.extend(64usize.to_ne_bytes());
                bytes.extend([0, 0x41, 0x0e, 16, 0x86, 2, 2, 3, 0x0d, 6, 0x0a, 3]);
                bytes.extend(9u16.to_ne_bytes());
                bytes.extend([0x83, 3, 0x4a, 0x10, 12, 2, 0x77, 0, 4]);
                bytes.extend(5u32.to_ne_bytes());
                bytes.extend([0x0b, 0x41, 0x2e, 0x81, 1, 0x4f, 0x0c, 7, 8, 0xc6]);
            });
        }
        bytes.extend([0; 4]);
        bytes
    }

    /// Returns the text of what the rows of a section say about an address.
    fn row(section: &[u8], pc: usize) -> Option<String> {
        let frames = EhFrame::from(EndianSlice::new(section, NativeEndian));
        let bases = BaseAddresses::default();
        let mut context = UnwindContext::new();
        let fde = frames.fde_for_address(&bases, pc as u64, EhFrame::cie_from_offset).ok()?;
        let row = fde.unwind_info_for_address(&frames, &bases, &mut context, pc as u64).unwrap();
        let rules: Vec<_> = row
            .registers()
            .map(|(register, rule)| match rule {
                // Where the expression is does not matter.
                gimli::RegisterRule::Expression(expression) => {
                    let start = expression.offset;
                    format!("{register:?} {:x?}", &section[start..start + expression.length])
                }
                rule => format!("{register:?} {rule:?}"),
            })
            .collect();
        Some(format!("{:?} {rules:?} {}", row.cfa(), row.saved_args_size()))
    }

    #[test]
    fn pieces_say_at_each_address_what_the_whole_says() {
        const START: usize = 0x10_0000;
        let whole = section(START);
        let all: Vec<_> = (START..START + 128).map(|pc| row(&whole, pc).unwrap()).collect();
        assert!(all[..64].iter().collect::<std::collections::HashSet<_>>().len() > 6, "rows differ");
        let twos = (START..START + 127).flat_map(|at| [vec![at], vec![at, (at + 13).min(START + 126)]]);
        for separators in twos {
            let mut model = Model { separators, sections: Vec::new() };
            // SAFETY: the section is well formed, and stays.
            let pieces = unsafe {
                model.add(whole.as_ptr());
                mend(whole.as_ptr(), &mut model)
            };
            assert_eq!(pieces.len(), model.sections.len());
            let count = model.separators.iter().collect::<std::collections::HashSet<_>>().len();
            assert_eq!(pieces.len(), count + 1, "{:x?}", model.separators);
            for (pc, expected) in (START..).zip(&all) {
                assert!(model.finds(pc), "{pc:x} with {:x?}", model.separators);
                let of_pc: Vec<String> = pieces
                    .iter()
                    .filter_map(|piece| {
                        let bytes: Vec<u8> = piece.iter().flat_map(|word| word.to_ne_bytes()).collect();
                        row(&bytes, pc)
                    })
                    .collect();
                assert_eq!(of_pc, std::slice::from_ref(expected), "{pc:x} with {:x?}", model.separators);
            }
        }
    }

    #[test]
    fn a_section_that_is_found_or_not_known_stays() {
        let mut whole = section(0x10_0000);
        let mut model = Model { separators: vec![0x20_0000], sections: Vec::new() };
        // SAFETY: the section is well formed, and stays.
        unsafe { model.add(whole.as_ptr()) };
        // SAFETY: as above.
        assert!(unsafe { mend(whole.as_ptr(), &mut model) }.is_empty());
        model.separators = vec![0x10_0010];
        // An instruction that is not known.
        let at = whole.windows(3).position(|bytes| bytes == [0x0d, 6, 0x0a]).unwrap() + 2;
        whole[at] = 0x1c;
        // SAFETY: as above.
        assert!(unsafe { mend(whole.as_ptr(), &mut model) }.is_empty());
        assert_eq!(model.sections.len(), 1);
    }
}
