//! `.dynamic`, which tells a dynamic linker where the tables are, and the strings of the dynamic
//! tables.

use std::ops::Range;

use object::elf;

use super::dynamic_symbols::DynamicSymbols;
use super::layout::FileLayout;
use super::options::ImageOptions;
use super::relocations::Relocations;
use super::strings::Strings;
use crate::elf64::{RELA, RELR, SYMBOL};
use crate::link::LinkError;

/// Finds a range of the file.
type RangeOf = for<'l> fn(&'l FileLayout<'_>) -> &'l Range<usize>;

/// The value of an entry of `.dynamic`.
#[derive(Clone, Copy)]
enum EntryValue {
    Number(u64),
    /// The address of a range, known once the file is laid out.
    Start(RangeOf),
    /// The length of a range.
    Len(RangeOf),
}

/// The entries of `.dynamic`, and the strings of `.dynstr` with their offsets.
pub(super) struct DynamicSection {
    entries: Vec<(i64, EntryValue)>,
    /// Offsets of the names of undefined symbols, in order of the symbols.
    pub(super) undefined: Vec<u32>,
    /// Offsets of the names of exports, in order of the symbols.
    pub(super) exports: Vec<u32>,
    /// The version that the image needs, if its relocations are packed.
    pub(super) version: Option<Version>,
    /// `.dynstr`.
    pub(super) strings: Vec<u8>,
}

/// A version that the image needs of a library: offsets of names.
#[derive(Clone, Copy)]
pub(super) struct Version {
    pub(super) library: u32,
    pub(super) name: u32,
}

/// The C library, and its version that says that its loader reads packed relocations. One that does
/// not have it would leave pointers wrong.
const LIBC: &str = "libc.so.6";
pub(super) const VERSION: &str = "GLIBC_ABI_DT_RELR";

impl DynamicSection {
    /// Makes the entries for these symbols and relocations.
    ///
    /// # Errors
    ///
    /// [`LinkError::TooLarge`] if the names take more than 4 GiB.
    pub(super) fn new(
        symbols: &DynamicSymbols<'_, '_>,
        relocations: &Relocations,
        options: &ImageOptions,
        needs_libc: bool,
    ) -> Result<Self, LinkError> {
        let mut strings = Strings::new();
        let undefined = symbols.undefined.iter().map(|(name, _)| strings.add(name)).collect();
        let exports = symbols.exports.iter().map(|export| strings.add(export.name)).collect();
        let mut entries = Vec::new();
        let is_packed = relocations.packed.len() > 0;
        let mut libraries: Vec<&str> = options.needed.iter().map(|name| &**name).collect();
        if needs_libc {
            libraries.push("libm.so.6");
        }
        if needs_libc || is_packed {
            libraries.push(LIBC);
        }
        let mut version = None;
        for (index, library) in libraries.iter().enumerate() {
            if libraries[..index].contains(library) {
                continue;
            }
            let name = strings.add(library);
            if *library == LIBC && is_packed {
                version = Some(Version { library: name, name: strings.add(VERSION) });
            }
            entries.push((elf::DT_NEEDED, EntryValue::Number(name.into())));
        }
        if let Some(soname) = &options.soname {
            entries.push((elf::DT_SONAME, EntryValue::Number(strings.add(soname).into())));
        }
        entries.extend([
            (elf::DT_GNU_HASH, EntryValue::Start(|layout| &layout.gnu_hash)),
            (elf::DT_STRTAB, EntryValue::Start(|layout| &layout.dynstr)),
            (elf::DT_SYMTAB, EntryValue::Start(|layout| &layout.dynsym)),
            (elf::DT_STRSZ, EntryValue::Len(|layout| &layout.dynstr)),
            (elf::DT_SYMENT, EntryValue::Number(SYMBOL as u64)),
        ]);
        if relocations.rela > 0 {
            entries.extend([
                (elf::DT_RELA, EntryValue::Start(|layout| &layout.rela)),
                (elf::DT_RELASZ, EntryValue::Len(|layout| &layout.rela)),
                (elf::DT_RELAENT, EntryValue::Number(RELA as u64)),
                (elf::DT_RELACOUNT, EntryValue::Number(relocations.relative as u64)),
            ]);
        }
        if is_packed {
            entries.extend([
                (elf::DT_RELR, EntryValue::Start(|layout| &layout.relr)),
                (elf::DT_RELRSZ, EntryValue::Len(|layout| &layout.relr)),
                (elf::DT_RELRENT, EntryValue::Number(RELR as u64)),
                (elf::DT_VERSYM, EntryValue::Start(|layout| &layout.versym)),
                (elf::DT_VERNEED, EntryValue::Start(|layout| &layout.verneed)),
                (elf::DT_VERNEEDNUM, EntryValue::Number(1)),
            ]);
        }
        let mut flags = elf::DF_BIND_NOW;
        if relocations.text > 0 {
            entries.push((elf::DT_TEXTREL, EntryValue::Number(0)));
            flags |= elf::DF_TEXTREL;
        }
        entries.extend([
            (elf::DT_FLAGS, EntryValue::Number(flags.into())),
            (elf::DT_FLAGS_1, EntryValue::Number(elf::DF_1_NOW.into())),
            (elf::DT_NULL, EntryValue::Number(0)),
        ]);
        Ok(Self { entries, undefined, exports, version, strings: strings.finish()? })
    }

    /// Number of entries, including `DT_NULL`, which ends the list.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the tag and the value of each entry.
    pub(super) fn entries(&self, layout: &FileLayout<'_>) -> impl Iterator<Item = (i64, u64)> {
        self.entries.iter().map(move |&(tag, value)| match value {
            EntryValue::Number(number) => (tag, number),
            EntryValue::Start(range) => (tag, layout.address(range(layout))),
            EntryValue::Len(range) => (tag, range(layout).len() as u64),
        })
    }
}
