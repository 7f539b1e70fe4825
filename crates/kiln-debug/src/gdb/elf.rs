//! Writes ELF files that describe code in memory.
//!
//! A file has one section for each range of code, without content and at the code's address; the
//! unwind rows at theirs; the symbol table, and the client's DWARF sections. Only code and rows are
//! flagged as allocated: a debugger handles an allocated section as part of the process, and of
//! sections at address 0 lldb checks each against all others (dstogov/ir#129).
//!
//! The file is of the type for executables, so symbols have addresses, not offsets, and a debugger
//! relocates nothing.

use std::ops::Range;

use super::rows;
use crate::describe::Code;
use crate::machine::{FLAGS, MACHINE};

/// Sizes of the structures of a 64-bit file.
const HEADER: usize = 64;
const SECTION: usize = 64;
const SYMBOL: usize = 24;

/// The most ranges of code in a file: section numbers from 0xff00 on have another meaning.
pub(crate) const MAX_RANGES: usize = 0xf000;

const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
const ALLOC: u64 = 2;
const EXECUTABLE: u64 = 4;

/// A file in memory.
#[derive(Debug)]
pub(crate) struct Elf {
    pub(crate) bytes: Box<[u8]>,
    /// The number of code ranges, whose sections are the first.
    ranges: usize,
    symbols: Range<usize>,
    /// The place of the rows in the file, and the address to which they are relocated.
    rows: (Range<usize>, usize),
}

/// Writes a description of `code`. At most [`MAX_RANGES`] ranges are described.
pub(crate) fn write(code: &Code<'_>) -> Elf {
    let ranges = &code.ranges[..code.ranges.len().min(MAX_RANGES)];
    let names = code.functions.iter().map(|function| function.name.len() + 1).sum::<usize>();
    let dwarf = code.dwarf.iter().map(|(_, bytes)| bytes.len() + SECTION + 24).sum::<usize>();
    let rows_len = code.rows.iter().map(|section| section.bytes.len()).sum::<usize>();
    let mut file = File {
        bytes: Vec::with_capacity(
            HEADER
                + code.functions.len() * SYMBOL
                + names
                + dwarf
                + rows_len
                + (ranges.len() + 6) * SECTION
                + 256,
        ),
        headers: Vec::with_capacity((ranges.len() + 6 + code.dwarf.len()) * SECTION),
        names: vec![0],
        count: 0,
    };
    file.bytes.resize(HEADER, 0);
    file.section(Header::default());
    let text = file.name(".text");
    for range in ranges {
        file.section(Header {
            name: text,
            kind: SHT_NOBITS,
            flags: ALLOC | EXECUTABLE,
            address: range.start as u64,
            offset: HEADER as u64,
            size: range.len() as u64,
            align: 16,
            ..Header::default()
        });
    }
    let rows = file.rows(code);
    let symbols = file.symbols(code, ranges);
    for (name, content) in code.dwarf {
        let (kind, align) = if name.starts_with(".note.") { (SHT_NOTE, 4) } else { (SHT_PROGBITS, 1) };
        let name = file.name(name);
        let (offset, size) = file.content(content, align);
        file.section(Header { name, kind, offset, size, align: align as u64, ..Header::default() });
    }
    Elf { bytes: file.finish(), ranges: ranges.len(), symbols, rows }
}

impl Elf {
    /// Takes what it says about `range` out: its section, its symbols and its rows. The file must
    /// not be registered.
    pub(crate) fn forget(&mut self, range: &Range<usize>) {
        let word =
            |bytes: &[u8], at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let inside = |address: u64| range.contains(&(address as usize));
        let headers = word(&self.bytes, 40) as usize;
        for number in 1..=self.ranges {
            let header = headers + number * SECTION;
            if inside(word(&self.bytes, header + 16)) {
                // No longer of the code: neither flags, nor address, nor size.
                self.bytes[header + 4..header + 24].fill(0);
                self.bytes[header + 32..header + 40].fill(0);
            }
        }
        for symbol in self.symbols.clone().step_by(SYMBOL).skip(1) {
            if inside(word(&self.bytes, symbol + 8)) {
                self.bytes[symbol..symbol + SYMBOL].fill(0);
            }
        }
        rows::forget(&mut self.bytes[self.rows.0.clone()], self.rows.1, range);
    }
}

/// A section header.
#[derive(Clone, Copy, Default)]
struct Header {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
    align: u64,
    entry_size: u64,
}

/// A file that is being written.
struct File {
    bytes: Vec<u8>,
    headers: Vec<u8>,
    names: Vec<u8>,
    count: u16,
}

impl File {
    /// Adds a section header, and returns its number.
    fn section(&mut self, header: Header) -> u16 {
        let Header { name, kind, flags, address, offset, size, link, info, align, entry_size } = header;
        self.headers.extend([name, kind].into_iter().flat_map(u32::to_ne_bytes));
        self.headers.extend([flags, address, offset, size].into_iter().flat_map(u64::to_ne_bytes));
        self.headers.extend([link, info].into_iter().flat_map(u32::to_ne_bytes));
        self.headers.extend([align, entry_size].into_iter().flat_map(u64::to_ne_bytes));
        self.count += 1;
        self.count - 1
    }

    /// Adds the name of a section.
    fn name(&mut self, name: &str) -> u32 {
        let at = self.names.len() as u32;
        self.names.extend(name.bytes());
        self.names.push(0);
        at
    }

    /// Adds content, and returns its offset and size.
    fn content(&mut self, content: &[u8], align: usize) -> (u64, u64) {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let at = self.bytes.len() as u64;
        self.bytes.extend(content);
        (at, content.len() as u64)
    }

    /// Adds the section of rows, and returns the place of its content and its address.
    fn rows(&mut self, code: &Code<'_>) -> (Range<usize>, usize) {
        let Some((address, content)) = rows::join(code.rows) else { return (0..0, 0) };
        let (offset, size) = self.content(&content, 8);
        let name = self.name(".eh_frame");
        self.section(Header {
            name,
            kind: SHT_PROGBITS,
            flags: ALLOC,
            address: address as u64,
            offset,
            size,
            align: 1,
            ..Header::default()
        });
        (offset as usize..(offset + size) as usize, address)
    }

    /// Adds the symbol table and its names, and returns the place of the symbols.
    fn symbols(&mut self, code: &Code<'_>, ranges: &[Range<usize>]) -> Range<usize> {
        let mut order: Vec<(usize, u16)> = (1..).zip(ranges).map(|(n, range)| (range.start, n)).collect();
        order.sort_unstable();
        let mut names = vec![0];
        let (offset, _) = self.content(&[0; SYMBOL], 8);
        for function in code.functions {
            let section = order.partition_point(|&(start, _)| start <= function.address);
            // A symbol whose section is not known is absolute.
            let section = section.checked_sub(1).map_or(0xfff1, |index| order[index].1);
            self.bytes.extend((names.len() as u32).to_ne_bytes());
            // A global function.
            self.bytes.extend([0x12, 0]);
            self.bytes.extend(section.to_ne_bytes());
            self.bytes.extend((function.address as u64).to_ne_bytes());
            self.bytes.extend((function.size as u64).to_ne_bytes());
            names.extend(function.name.bytes().map(|byte| if byte == 0 { b'?' } else { byte }));
            names.push(0);
        }
        let end = self.bytes.len();
        let (names_at, names_len) = self.content(&names, 1);
        let (symtab, strtab) = (self.name(".symtab"), self.name(".strtab"));
        let link = u32::from(self.count) + 1;
        self.section(Header {
            name: symtab,
            kind: SHT_SYMTAB,
            offset,
            size: end as u64 - offset,
            link,
            // The number of the first global symbol.
            info: 1,
            align: 8,
            entry_size: SYMBOL as u64,
            ..Header::default()
        });
        self.section(Header {
            name: strtab,
            kind: SHT_STRTAB,
            offset: names_at,
            size: names_len,
            align: 1,
            ..Header::default()
        });
        offset as usize..end
    }

    /// Adds the names of sections, the headers, and the header of the file.
    fn finish(mut self) -> Box<[u8]> {
        let name = self.name(".shstrtab");
        let names = std::mem::take(&mut self.names);
        let (offset, size) = self.content(&names, 1);
        let last =
            self.section(Header { name, kind: SHT_STRTAB, offset, size, align: 1, ..Header::default() });
        let headers = std::mem::take(&mut self.headers);
        let (headers_at, _) = self.content(&headers, 8);
        let class = if cfg!(target_endian = "little") { 1 } else { 2 };
        let mut header = vec![0x7f, b'E', b'L', b'F', 2, class, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // An executable.
        header.extend([2, MACHINE].into_iter().flat_map(u16::to_ne_bytes));
        header.extend(1u32.to_ne_bytes());
        // No entry point, no program headers.
        header.extend([0, 0, headers_at].into_iter().flat_map(u64::to_ne_bytes));
        header.extend(FLAGS.to_ne_bytes());
        let sizes = [HEADER as u16, 56, 0, SECTION as u16, self.count, last];
        header.extend(sizes.into_iter().flat_map(u16::to_ne_bytes));
        self.bytes[..HEADER].copy_from_slice(&header);
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

    use super::*;
    use crate::describe::{Function, Section};

    /// Rows of code at these ranges, for a section at `at`.
    fn rows(at: usize, ranges: &[Range<usize>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(20u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend([1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0, 0, 0, 0, 0, 0, 0]);
        for range in ranges {
            let start = bytes.len();
            bytes.extend(16u32.to_ne_bytes());
            bytes.extend((start as u32 + 4).to_ne_bytes());
            bytes.extend((range.start.wrapping_sub(at + start + 8) as i32).to_ne_bytes());
            bytes.extend((range.len() as u32).to_ne_bytes());
            bytes.extend([0; 4]);
        }
        bytes.extend([0; 4]);
        bytes
    }

    /// The ranges that a file has: of sections of code, of functions by name, and of rows.
    type Known = (Vec<Range<u64>>, Vec<(String, Range<u64>)>, Vec<Range<u64>>);

    fn known(file: &Elf) -> Known {
        use gimli::{BaseAddresses, CieOrFde, EhFrame, NativeEndian, UnwindSection as _};
        let read = object::File::parse(&*file.bytes).unwrap();
        let code = read.sections().filter(|section| section.kind() != object::SectionKind::Metadata);
        let code = code.filter(|section| section.name() == Ok(".text") && section.size() > 0);
        let code = code.map(|section| section.address()..section.address() + section.size());
        let named = read.symbols().map(|symbol| {
            let start = symbol.address();
            (symbol.name().unwrap().to_owned(), start..start + symbol.size())
        });
        let section = read.section_by_name(".eh_frame").unwrap();
        let frame = EhFrame::new(section.data().unwrap(), NativeEndian);
        let bases = BaseAddresses::default().set_eh_frame(section.address());
        let (mut entries, mut described) = (frame.entries(&bases), Vec::new());
        while let Some(entry) = entries.next().unwrap() {
            if let CieOrFde::Fde(entry) = entry {
                let entry = entry.parse(EhFrame::cie_from_offset).unwrap();
                described.push(entry.initial_address()..entry.end_address());
            }
        }
        let described = described.into_iter().filter(|range| !range.is_empty()).collect();
        let named = named.filter(|(name, range)| !name.is_empty() || !range.is_empty()).collect();
        (code.collect(), named, described)
    }

    /// Each part is forgotten in turn. Then the file says nothing about it, and about the others
    /// what it said before.
    #[test]
    fn nothing_is_left_of_a_part_that_is_forgotten() {
        let ranges: Vec<Range<usize>> =
            [0x1000..0x1040, 0x1040..0x1050, 0x3000..0x3010, 0x1_0000..0x1_0010].into();
        let names = ["one", "two", "three", "four"];
        let functions = names.iter().zip(&ranges);
        let mut functions: Vec<Function<'_>> = functions
            .map(|(name, range)| Function { name, address: range.start, size: range.len() })
            .collect();
        // A part may have more than one function.
        functions[0].size = 16;
        functions.push(Function { name: "inside", address: 0x1030, size: 16 });
        let section = rows(0x2000, &ranges);
        let rows = [Section { address: 0x2000, bytes: &section }];
        let code = Code { functions: &functions, ranges: &ranges, rows: &rows, ..Code::default() };
        let all = known(&write(&code));
        assert_eq!((all.0.len(), all.1.len(), all.2.len()), (4, 5, 4));
        for forgotten in &ranges {
            let mut file = write(&code);
            file.forget(forgotten);
            let stays = |range: &Range<u64>| !forgotten.contains(&(range.start as usize));
            let (code, named, described) = all.clone();
            let left: Known = (
                code.into_iter().filter(stays).collect(),
                named.into_iter().filter(|(_, range)| stays(range)).collect(),
                described.into_iter().filter(stays).collect(),
            );
            assert_eq!(known(&file), left, "without {forgotten:x?}");
        }
    }
}
