//! Finds the sections of an image that are for debuggers, and moves the addresses in them to where
//! the image is loaded.
//!
//! A debugger that is told about code in memory takes the addresses in DWARF as they are, but those
//! of an image are distances from its load address. The sections that this crate writes have
//! addresses in two places, attributes of the form `DW_FORM_addr` and the operation
//! `DW_LNE_set_address` of line programs; everything else is relative to them. So addresses are
//! changed in place. Making the sections again from what they say would need a reader and a writer
//! of DWARF in each loader.
//!
//! Sections that have forms of another writer, or are compressed, are left out as a whole: names
//! alone are better than wrong lines. Nothing in the input is trusted, and the number of steps is
//! at most in proportion to its length.
//!
//! Format: DWARF 5, sections 6.2 (line programs) and 7.5 (units, abbreviations, forms).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use object::elf::{self, FileHeader64, SectionHeader64};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use object::{Endianness, pod};

use crate::elf64::FILE_HEADER;

/// The most sections of an image that are looked at. An image has a few, and one for each named
/// section.
const MAX_SECTIONS: usize = 0xff00;

/// The section with the build id.
const BUILD_ID: &str = ".note.gnu.build-id";
/// The sections of DWARF that this crate writes.
const DWARF: [&str; 4] = [".debug_abbrev", ".debug_info", ".debug_line", ".debug_loclists"];

/// A section for debuggers: its name and its content.
pub(crate) type DebugSection = (&'static str, Vec<u8>);

/// Reads the sections of an image that are for debuggers, with addresses moved by `base`: the build
/// id, and DWARF if all of it is known. `read` returns a range of the file.
pub(crate) fn debug_sections(base: u64, read: &dyn Fn(Range<u64>) -> Option<Vec<u8>>) -> Vec<DebugSection> {
    let Some((endian, mut sections, is_plain)) = find(read) else { return Vec::new() };
    if !is_plain || relocate(&mut sections, base, endian).is_none() {
        sections.retain(|(name, _)| *name == BUILD_ID);
    }
    sections
}

/// Returns the sections, and whether none of them is compressed.
fn find(read: &dyn Fn(Range<u64>) -> Option<Vec<u8>>) -> Option<(Endianness, Vec<DebugSection>, bool)> {
    let head = read(0..FILE_HEADER as u64)?;
    let header = FileHeader64::<Endianness>::parse(&*head).ok()?;
    let endian = header.endian().ok()?;
    let count = usize::from(header.e_shnum.get(endian)).min(MAX_SECTIONS);
    let bytes =
        read(range(header.e_shoff.get(endian), (count * size_of::<SectionHeader64<Endianness>>()) as u64)?)?;
    let headers: &[SectionHeader64<Endianness>] = pod::slice_from_all_bytes(&bytes).ok()?;
    let content =
        |header: &SectionHeader64<Endianness>| read(range(header.sh_offset(endian), header.sh_size(endian))?);
    let names = content(headers.get(usize::from(header.e_shstrndx.get(endian)))?)?;
    let (mut found, mut is_plain): (Vec<DebugSection>, _) = (Vec::new(), true);
    for header in headers.iter().filter(|header| header.sh_type(endian) != elf::SHT_NOBITS) {
        let name = names.get(header.sh_name(endian) as usize..).unwrap_or_default();
        let is =
            |wanted: &&str| name.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.starts_with(&[0]));
        let Some(name) = DWARF.into_iter().chain([BUILD_ID]).find(is) else { continue };
        if found.iter().any(|(known, _)| *known == name) {
            return None;
        }
        is_plain &= header.sh_flags(endian) & u64::from(elf::SHF_COMPRESSED) == 0;
        found.push((name, content(header)?));
    }
    found.retain(|(_, bytes)| !bytes.is_empty());
    Some((endian, found, is_plain))
}

fn range(start: u64, len: u64) -> Option<Range<u64>> {
    Some(start..start.checked_add(len)?)
}

/// Adds `base` to all addresses. `None` if something is not as this crate writes it; the bytes are
/// then of no use.
fn relocate(sections: &mut [DebugSection], base: u64, endian: Endianness) -> Option<()> {
    let take = |sections: &mut [DebugSection], wanted: &str| {
        let section = sections.iter_mut().find(|(name, _)| *name == wanted);
        section.map(|(_, bytes)| std::mem::take(bytes)).unwrap_or_default()
    };
    let [abbrev, info, line] = [DWARF[0], DWARF[1], DWARF[2]].map(|name| take(sections, name));
    // A unit has an entry for each byte at most, and an entry few attributes without bytes.
    let budget = 8 * (abbrev.len() + info.len() + line.len()) + 1024;
    let mut info = Reader { bytes: info, at: 0, endian, base, budget };
    let mut abbreviations = Reader { bytes: abbrev, at: 0, ..info.empty() };
    info.units(&mut abbreviations)?;
    let mut line = Reader { bytes: line, budget: info.budget, ..info.empty() };
    line.programs()?;
    for (name, bytes) in sections {
        match DWARF.iter().position(|known| known == name) {
            Some(0) => *bytes = std::mem::take(&mut abbreviations.bytes),
            Some(1) => *bytes = std::mem::take(&mut info.bytes),
            Some(2) => *bytes = std::mem::take(&mut line.bytes),
            _ => {}
        }
    }
    Some(())
}

/// The forms of the attributes of an entry, by the code of the abbreviation.
type Abbreviations = HashMap<u64, Vec<u16>>;

/// Reads a section, and changes addresses in it.
struct Reader {
    bytes: Vec<u8>,
    at: usize,
    endian: Endianness,
    base: u64,
    /// The number of steps that are left.
    budget: usize,
}

impl Reader {
    /// Returns a reader of no bytes.
    fn empty(&self) -> Self {
        Self { bytes: Vec::new(), at: 0, endian: self.endian, base: self.base, budget: self.budget }
    }

    fn step(&mut self) -> Option<()> {
        self.budget = self.budget.checked_sub(1)?;
        Some(())
    }

    /// Reads a number of at most 8 bytes.
    fn number(&mut self, len: usize) -> Option<u64> {
        let bytes = self.bytes.get(self.at..)?.get(..len)?;
        self.at += len;
        let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(match self.endian {
            Endianness::Little => bytes.iter().rev().fold(0, add),
            Endianness::Big => bytes.iter().fold(0, add),
        })
    }

    fn byte(&mut self) -> Option<u8> {
        self.number(1).map(|value| value as u8)
    }

    /// Reads an unsigned LEB128 number.
    fn uint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, len: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        self.at = Some(end).filter(|&end| end <= self.bytes.len())?;
        Some(())
    }

    /// Skips a text that ends with a zero.
    fn skip_text(&mut self) -> Option<()> {
        let len = self.bytes.get(self.at..)?.iter().position(|&byte| byte == 0)?;
        self.skip(len as u64 + 1)
    }

    /// Adds the base to the address of 8 bytes that comes next.
    fn move_address(&mut self) -> Option<()> {
        let address = self.number(8)?.wrapping_add(self.base);
        let bytes = match self.endian {
            Endianness::Little => address.to_le_bytes(),
            Endianness::Big => address.to_be_bytes(),
        };
        self.bytes.get_mut(self.at - 8..self.at)?.copy_from_slice(&bytes);
        Some(())
    }

    /// Reads the length of a unit in the 32-bit format, and its version, which must be 5. Returns
    /// the end of the unit.
    fn unit_end(&mut self) -> Option<usize> {
        let len = self.number(4).filter(|&len| len < 0xffff_fff0)?;
        let end = self.at.checked_add(usize::try_from(len).ok()?).filter(|&end| end <= self.bytes.len())?;
        (self.number(2)? == 5).then_some(end)
    }

    /// Moves the addresses of `.debug_info`.
    fn units(&mut self, abbreviations: &mut Self) -> Option<()> {
        let mut known: HashMap<u64, Abbreviations> = HashMap::new();
        while self.at < self.bytes.len() {
            let end = self.unit_end()?;
            let (kind, address_size, offset) = (self.byte()?, self.byte()?, self.number(4)?);
            // `DW_UT_compile`.
            if (kind, address_size) != (1, 8) {
                return None;
            }
            let known = match known.entry(offset) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    abbreviations.at = usize::try_from(offset).ok()?;
                    new.insert(abbreviations.abbreviations()?)
                }
            };
            while self.at < end {
                self.step()?;
                match self.uint()? {
                    0 => {}
                    code => known.get(&code)?.iter().try_for_each(|&form| self.attribute(form))?,
                }
            }
            if self.at != end {
                return None;
            }
        }
        Some(())
    }

    /// Reads the abbreviations of a unit.
    fn abbreviations(&mut self) -> Option<Abbreviations> {
        let mut all = Abbreviations::new();
        loop {
            let code = self.uint()?;
            if code == 0 {
                return Some(all);
            }
            // The tag, and whether an entry has children.
            self.uint()?;
            self.byte()?;
            let mut forms = Vec::new();
            loop {
                self.step()?;
                match (self.uint()?, u16::try_from(self.uint()?).ok()?) {
                    (0, 0) => break,
                    (_, form) => forms.push(form),
                }
            }
            all.insert(code, forms);
        }
    }

    /// Reads an attribute.
    fn attribute(&mut self, form: u16) -> Option<()> {
        self.step()?;
        match form {
            // `addr`
            0x01 => self.move_address(),
            // `flag_present`
            0x19 => Some(()),
            // `data1`, `flag`, `ref1`
            0x0b | 0x0c | 0x11 => self.skip(1),
            // `data2`, `ref2`
            0x05 | 0x12 => self.skip(2),
            // `data4`, `ref4`, `strp`, `sec_offset`, `line_strp`
            0x06 | 0x13 | 0x0e | 0x17 | 0x1f => self.skip(4),
            // `data8`, `ref8`
            0x07 | 0x14 => self.skip(8),
            // `sdata`, `udata`, `ref_udata`
            0x0d | 0x0f | 0x15 => self.uint().map(drop),
            // `string`
            0x08 => self.skip_text(),
            // `exprloc`: expressions of this crate have no addresses.
            0x18 => {
                let len = self.uint()?;
                self.skip(len)
            }
            _ => None,
        }
    }

    /// Moves the addresses of `.debug_line`.
    fn programs(&mut self) -> Option<()> {
        while self.at < self.bytes.len() {
            let end = self.unit_end()?;
            // The sizes of addresses and of segment selectors.
            if (self.byte()?, self.byte()?) != (8, 0) {
                return None;
            }
            let len = self.number(4)?;
            let start = self.at.checked_add(usize::try_from(len).ok()?).filter(|&start| start <= end)?;
            // Five numbers of a byte each, up to the first opcode that is a special one.
            self.skip(5)?;
            let first_special = self.byte()?;
            let mut operands = [0; 256];
            for count in operands.iter_mut().take(usize::from(first_special)).skip(1) {
                *count = self.byte()?;
            }
            self.at = start;
            while self.at < end {
                self.operation(first_special, &operands)?;
            }
            if self.at != end {
                return None;
            }
        }
        Some(())
    }

    /// Reads an operation of a line program.
    fn operation(&mut self, first_special: u8, operands: &[u8; 256]) -> Option<()> {
        self.step()?;
        match self.byte()? {
            // An extended one: its length, and its opcode, of which 2 is `set_address`.
            0 => {
                let len = self.uint()?.checked_sub(1)?;
                match self.byte()? {
                    2 if len == 8 => self.move_address(),
                    2 => None,
                    _ => self.skip(len),
                }
            }
            special if special >= first_special => Some(()),
            // `fixed_advance_pc`
            9 => self.skip(2),
            opcode => (0..operands[usize::from(opcode)]).try_for_each(|_| self.uint().map(drop)),
        }
    }
}
