//! Symbol tables and their strings.
//!
//! The tables of `object` put a string that another one ends with inside that, for which they sort all strings, twice. That would take a
//! third of the time of a link, and save a few bytes. So strings stand here in the order in which they are added.

use object::elf::{SHN_UNDEF, Sym64};
use object::{Endianness, U16, U32, U64, pod};

use crate::link::LinkError;

/// Size of a symbol in bytes.
pub(super) const SYMBOL: usize = 24;

/// A string table.
pub(super) struct Strings(Vec<u8>);

impl Strings {
    /// A table that holds the empty string.
    pub(super) fn new() -> Self {
        Self(vec![0])
    }

    /// Adds a string, which holds no zero byte. Where it starts, if the table is not too long.
    pub(super) fn add(&mut self, text: &str) -> u32 {
        let start = self.0.len();
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        start as u32
    }

    /// The bytes of the table.
    ///
    /// # Errors
    ///
    /// [`LinkError::TooLarge`] beyond 4 GiB.
    pub(super) fn finish(self) -> Result<Vec<u8>, LinkError> {
        let (size, limit) = (self.0.len() as u64, u64::from(u32::MAX));
        if size > limit {
            return Err(LinkError::TooLarge { what: "the names of symbols", size, limit });
        }
        Ok(self.0)
    }
}

/// A symbol of a 64-bit file.
pub(super) struct ElfSymbol {
    /// Where its name starts.
    pub(super) name: u32,
    pub(super) info: u8,
    /// Number of its section, or what stands for none.
    pub(super) section: u16,
    pub(super) value: u64,
    pub(super) size: u64,
}

impl ElfSymbol {
    /// The first symbol of every table.
    pub(super) const NULL: Self = Self { name: 0, info: 0, section: SHN_UNDEF, value: 0, size: 0 };

    /// Appends the symbol to a table.
    pub(super) fn write(self, endian: Endianness, table: &mut Vec<u8>) {
        let Self { name, info, section, value, size } = self;
        let symbol = Sym64 {
            st_name: U32::new(endian, name),
            st_info: info,
            st_other: 0, // STV_DEFAULT
            st_shndx: U16::new(endian, section),
            st_value: U64::new(endian, value),
            st_size: U64::new(endian, size),
        };
        table.extend_from_slice(pod::bytes_of(&symbol));
    }
}
