//! Finding an export by its name.
//!
//! The hash table is the GNU hash table of the ELF file. Opening an image does not read it, so it
//! may hold anything. A look-up visits few entries of a chain and compares no more bytes than the
//! name has. A chain that is too long comes from names that were chosen to collide or from a
//! malformed table; then the export is searched in a list of all exports that is sorted by name.
//! The list is made once.
//!
//! Format of the hash table: "GNU Hash ELF Sections" in the documentation of binutils.

use object::elf;

use super::tables::{DynamicSymbol, Tables};
use crate::elf64::GNU_HASH_HEADER;

/// The most entries of a chain that a look-up visits. Chains have two entries on average, and with
/// any ten million names that are not chosen to collide, the longest chain has fewer entries than
/// this.
const MAX_STEPS: usize = 32;

/// The result of a look-up in the hash table.
pub(crate) enum Found {
    Export(DynamicSymbol),
    Nothing,
    /// The chain is too long to be searched.
    LongChain,
}

impl<'a> Tables<'a> {
    /// Finds an export through the hash table.
    pub(crate) fn lookup(&self, name: &str) -> Found {
        self.search(name).unwrap_or(Found::Nothing)
    }

    fn search(&self, name: &str) -> Option<Found> {
        let table = self.gnu_hash();
        let (buckets, base) = (table.u32(0)?, table.u32(4)?);
        let (bloom_len, shift) = (table.u32(8)?, table.u32(12)?);
        let hash = elf::gnu_hash(name.as_bytes());
        let bloom = (hash / 64).checked_rem(bloom_len)? as usize;
        let word = table.u64(GNU_HASH_HEADER + 8 * bloom)?;
        if word >> (hash % 64) & word >> (hash.checked_shr(shift).unwrap_or(0) % 64) & 1 == 0 {
            return None;
        }
        // 64-bit sums of 32-bit numbers do not overflow.
        let buckets_start = GNU_HASH_HEADER + 8 * bloom_len as usize;
        let chains_start = buckets_start + 4 * buckets as usize;
        let first = table.u32(buckets_start + 4 * hash.checked_rem(buckets)? as usize)?;
        for step in 0..MAX_STEPS {
            let index = first.checked_add(step as u32)?;
            let chain = table.u32(chains_start + 4 * index.checked_sub(base)? as usize)?;
            if chain | 1 == hash | 1 {
                let symbol = self.dynamic.symbol(index)?;
                if symbol.section != elf::SHN_UNDEF && self.has_name(&symbol, name) {
                    return Some(Found::Export(symbol));
                }
            }
            if chain & 1 != 0 {
                return None;
            }
        }
        Some(Found::LongChain)
    }

    /// Returns whether the symbol has this name. Reads at most one byte more than the name has.
    fn has_name(&self, symbol: &DynamicSymbol, name: &str) -> bool {
        let rest = self.dynamic.dynstr.get(symbol.name as usize..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|after| after.first() == Some(&0))
            && !name.as_bytes().contains(&0)
    }

    /// Returns the name of a symbol that was found by a name of `len` bytes.
    pub(crate) fn name(&self, symbol: &DynamicSymbol, len: usize) -> Option<&'a str> {
        std::str::from_utf8(self.dynamic.dynstr.get(symbol.name as usize..)?.get(..len)?).ok()
    }

    /// Returns the indices of all exports, in order of their names, or an empty list if the tables
    /// are malformed.
    pub(crate) fn sorted_exports(self) -> Box<[u32]> {
        let exports: Option<Vec<_>> =
            self.exports().map(|export| export.map(|(index, _, name)| (name, index))).collect();
        let mut exports = exports.unwrap_or_default();
        exports.sort_unstable();
        exports.into_iter().map(|(_, index)| index).collect()
    }

    /// Finds an export in the list that [`sorted_exports`](Self::sorted_exports) made.
    pub(crate) fn lookup_sorted(&self, sorted: &[u32], name: &str) -> Option<DynamicSymbol> {
        let names = self.dynamic.dynstr;
        // Bytes after the end of a shorter name may be compared, too: the zero that ends it is
        // less than every byte of a name, so the order is right.
        let is_before = |index: u32| {
            let symbol = self.dynamic.symbol(index);
            let rest = symbol.and_then(|symbol| names.get(symbol.name as usize..)).unwrap_or_default();
            let start = &rest[..rest.len().min(name.len())];
            start < name.as_bytes()
        };
        let symbol = self.dynamic.symbol(*sorted.get(sorted.partition_point(|&index| is_before(index)))?)?;
        self.has_name(&symbol, name).then_some(symbol)
    }
}
