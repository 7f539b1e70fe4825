//! Sizes and packed fields of ELF64 records, for the writer, the readers and the loader.
//!
//! Constants that `object::elf` defines are taken from there; this file adds the values that it
//! does not define.

use object::Endianness;
use object::elf;

/// Size of the file header in bytes.
pub(crate) const FILE_HEADER: usize = size_of::<elf::FileHeader64<Endianness>>();
/// The address that an image is made for is a multiple of this, if it is not 0. No image is that
/// large, so the first address of any image tells.
pub(crate) const BASE_ALIGN: u64 = 1 << 32;
/// Size of a program header in bytes.
pub(crate) const PROGRAM_HEADER: usize = size_of::<elf::ProgramHeader64<Endianness>>();
/// Size of a section header in bytes.
#[cfg(feature = "load")]
pub(crate) const SECTION_HEADER: usize = size_of::<elf::SectionHeader64<Endianness>>();
/// Size of a symbol in bytes.
pub(crate) const SYMBOL: usize = size_of::<elf::Sym64<Endianness>>();
/// Size of a relocation with addend in bytes.
pub(crate) const RELA: usize = size_of::<elf::Rela64<Endianness>>();
/// Size of an entry of the dynamic section in bytes.
pub(crate) const DYNAMIC: usize = size_of::<elf::Dyn64<Endianness>>();
/// Size of an entry of a table of packed relative relocations in bytes.
pub(crate) const RELR: usize = size_of::<elf::Relr64<Endianness>>();
/// Size of a note's header, which precedes the owner, in bytes.
pub(crate) const NOTE_HEADER: usize = size_of::<elf::NoteHeader64<Endianness>>();
/// Alignment of a note, in bytes.
#[cfg(feature = "write")]
pub(crate) const NOTE_ALIGN: usize = 4;
/// Alignment of the note of properties, in bytes.
#[cfg(feature = "write")]
pub(crate) const PROPERTY_ALIGN: usize = 8;
/// Size of the description of one version that is needed of one library, in bytes.
#[cfg(feature = "write")]
pub(crate) const VERNEED: usize =
    size_of::<elf::Verneed<Endianness>>() + size_of::<elf::Vernaux<Endianness>>();
/// Alignment of tables of symbols and relocations, in bytes.
#[cfg(feature = "write")]
pub(crate) const TABLE_ALIGN: usize = 8;
/// Size of the header of a GNU hash table in bytes.
#[cfg(feature = "load")]
pub(crate) const GNU_HASH_HEADER: usize = size_of::<elf::GnuHashHeader<Endianness>>();

/// Permissions of a segment that is read and executed.
pub(crate) const READ_EXECUTE: u32 = elf::PF_R | elf::PF_X;
/// Permissions of a segment that is read and written.
pub(crate) const READ_WRITE: u32 = elf::PF_R | elf::PF_W;

/// `st_info` of a symbol, from its binding (`STB_*`) and type (`STT_*`).
#[cfg(feature = "write")]
pub(crate) fn symbol_info(binding: u8, kind: u8) -> u8 {
    binding << 4 | kind
}

/// The type (`STT_*`) in `st_info` of a symbol.
pub(crate) fn symbol_type(info: u8) -> u8 {
    info & 15
}

/// `r_info` of a relocation, from its symbol's index and its type.
#[cfg(any(feature = "write", feature = "load"))]
pub(crate) fn rela_info(symbol: u32, kind: u32) -> u64 {
    u64::from(symbol) << 32 | u64::from(kind)
}
