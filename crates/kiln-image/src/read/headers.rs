//! The ELF header and the program headers of an image.
//!
//! Section headers are not read here: tools move and remove them, and loading does not need them.

use std::ops::Range;

use object::Endianness;
use object::elf;

use super::number::Numbers;
use crate::arch::Arch;
use crate::elf64::{BASE_ALIGN, FILE_HEADER, PROGRAM_HEADER};
use crate::error::LoadError;

/// The most program headers that an image may have. The writer makes fewer than 16, and `patchelf`
/// may add one each time.
const MAX_HEADERS: usize = 64;

/// An entry of the program header table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramHeader {
    /// `PT_*`.
    pub(crate) kind: u32,
    /// `PF_*`.
    pub(crate) flags: u32,
    /// First byte in the file.
    pub(crate) offset: u64,
    /// First byte in memory, from the load address on.
    pub(crate) address: u64,
    pub(crate) file_len: u64,
    pub(crate) mem_len: u64,
    pub(crate) align: u64,
    /// The position of the entry in the file, for errors.
    pub(crate) at: u64,
}

/// The headers of an image.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    pub(crate) arch: Arch,
    /// The address that the image is made for, or 0. Addresses in the file count from 0; those of
    /// `list` and of all that is read later count from here.
    pub(crate) base: u64,
    pub(crate) list: Vec<ProgramHeader>,
    /// Parts of the file that were read already.
    #[cfg_attr(not(feature = "load"), expect(dead_code, reason = "the loader maps them"))]
    pub(crate) parts: Vec<FilePart>,
}

/// A part of a file that was read, so that its pages need not be mapped into the memory of the
/// process just to be checked.
#[derive(Clone, Debug)]
pub(crate) struct FilePart {
    pub(crate) offset: u64,
    pub(crate) bytes: Box<[u8]>,
}

impl Headers {
    /// Reads the headers of an image that is in memory as a whole.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Result<Self, LoadError> {
        let (arch, table) = Self::table(bytes)?;
        let range = usize::try_from(table.start).ok().zip(usize::try_from(table.end).ok());
        let found = range.and_then(|(start, end)| bytes.get(start..end));
        let Some(found) = found else { return Err(bad_table()) };
        Ok(Self::entries(arch, table.start, found))
    }

    /// Checks the ELF header at the start of `head`. Returns the architecture, and the range of the
    /// file that has the program headers.
    pub(super) fn table(head: &[u8]) -> Result<(Arch, Range<u64>), LoadError> {
        let fail = |what, offset| Err(LoadError::malformed(what, offset));
        if head.len() < FILE_HEADER || !head.starts_with(&elf::ELFMAG) || head[4] != elf::ELFCLASS64 {
            return fail("no 64-bit ELF header", 0);
        }
        let endian = match head[5] {
            elf::ELFDATA2LSB => Endianness::Little,
            elf::ELFDATA2MSB => Endianness::Big,
            _ => return fail("unknown byte order", 5),
        };
        let header = Numbers { bytes: head, endian };
        // The header was found to be long enough.
        let half = |at| header.u16(at).unwrap_or_default();
        let Some(arch) = Arch::from_elf_machine(half(18)) else {
            return fail("unknown machine", 18);
        };
        if endian != arch.endian() {
            return fail("byte order that the machine does not have", 5);
        }
        if half(16) != elf::ET_DYN {
            return fail("an ELF file that is not a shared object", 16);
        }
        let (start, count) = (header.u64(32).unwrap_or_default(), usize::from(half(56)));
        let end = start.checked_add((count * PROGRAM_HEADER) as u64);
        match end {
            Some(end) if half(54) as usize == PROGRAM_HEADER && (1..=MAX_HEADERS).contains(&count) => {
                Ok((arch, start..end))
            }
            _ => Err(bad_table()),
        }
    }

    /// Reads the program headers in `table`, which begins at `start` of the file.
    pub(super) fn entries(arch: Arch, start: u64, table: &[u8]) -> Self {
        let entry = |(number, entry): (usize, &[u8])| {
            let numbers = Numbers { bytes: entry, endian: arch.endian() };
            // Every entry has all its bytes.
            let word = |at| numbers.u32(at).unwrap_or_default();
            let long = |at| numbers.u64(at).unwrap_or_default();
            ProgramHeader {
                kind: word(0),
                flags: word(4),
                offset: long(8),
                address: long(16),
                file_len: long(32),
                mem_len: long(40),
                align: long(48),
                at: start + (number * PROGRAM_HEADER) as u64,
            }
        };
        let mut list: Vec<_> = table.chunks_exact(PROGRAM_HEADER).enumerate().map(entry).collect();
        let loaded = list.iter().filter(|header| header.kind == elf::PT_LOAD && header.mem_len > 0);
        let first = loaded.map(|header| header.address).min().unwrap_or_default();
        // Whatever is not there becomes an address far behind the others, and is refused.
        let base = first / BASE_ALIGN * BASE_ALIGN;
        for header in &mut list {
            header.address = header.address.wrapping_sub(base);
        }
        Self { arch, base, list, parts: Vec::new() }
    }

    /// Returns the headers of one kind.
    pub(super) fn of_kind(&self, kind: u32) -> impl Iterator<Item = &ProgramHeader> {
        self.list.iter().filter(move |header| header.kind == kind)
    }
}

/// Returns the error for a table of program headers that is not in the file.
pub(super) fn bad_table() -> LoadError {
    LoadError::malformed("bad program header table", 32)
}
