//! The dynamic symbols: those that an image imports and those that it exports.
//!
//! Undefined symbols come first, then exports in the order that the GNU hash table requires: by
//! ascending bucket. Format of the table: "GNU Hash ELF Sections" in the documentation of binutils.
//!
//! Symbols of the host are imported, so `dlopen` fills their slots. Slots of globals are filled by
//! the host, through the exported array `kiln_slots` or through our loader. Globals whose addresses
//! are in code are imported, too, under their keys: see `patches`. Only our loader does
//! two things, which images rarely need with the default settings: it fills pointers in data that
//! refer to globals, and it provides the two helper functions that no C library has
//! (`__cranelift_x86_pshufb`, `__cranelift_probestack`). If `dlopen` loads an image that exports
//! the name of a routine of the C library and also calls that routine, the image calls its own
//! definition.

use std::collections::HashSet;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::{Linkage, SymbolKind};
use kiln_globals::SlotKey;
use object::elf;

use super::options::ImageOptions;
use super::patches::TextPatches;
use crate::base::SLOTS_SYMBOL;
use crate::link::{Area, Definition, Plan, stub_size};

/// The shift of a hash for the second bit of the Bloom filter, as GNU ld chooses it.
pub(super) const BLOOM_SHIFT: u32 = 26;

/// An exported symbol.
#[derive(Clone, Copy)]
pub(super) struct Export<'a> {
    pub(super) name: &'a str,
    /// `STT_*`.
    pub(super) kind: u8,
    pub(super) signature: Option<&'a str>,
    /// Whether it is the object of a global, and the name the key.
    pub(super) is_global: bool,
    pub(super) area: Area,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// The offset of its slot in the slot array, if it is a replaceable function.
    pub(super) slot: Option<u64>,
    /// The GNU hash of its name.
    pub(super) hash: u32,
}

/// The symbols, in order of the table, and the size of their hash table.
pub(super) struct DynamicSymbols<'p, 'a> {
    /// Names of undefined symbols, with their slots, in slot order.
    pub(super) undefined: Vec<(&'p str, u32)>,
    pub(super) exports: Vec<Export<'a>>,
    /// Number of buckets of the hash table.
    pub(super) buckets: u32,
    /// Number of 64-bit words of the Bloom filter.
    pub(super) bloom: u32,
}

/// The names that an image exports.
pub(super) struct ExportList<'o>(Option<HashSet<&'o str, FastHash>>);

impl<'o> ExportList<'o> {
    /// Returns the list of the options.
    pub(super) fn of(options: &'o ImageOptions) -> Self {
        Self(options.exports.as_ref().map(|names| names.iter().map(|name| &**name).collect()))
    }

    /// Whether a name that is visible in the program is exported.
    pub(super) fn accepts(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// Returns whether modules export a symbol of this linkage.
pub(super) fn is_exported(linkage: Linkage) -> bool {
    matches!(linkage, Linkage::Export | Linkage::Preemptible | Linkage::Replaceable)
}

/// Whether a place is in the initial content of thread-local data.
pub(super) fn is_thread_local(plan: &Plan<'_>, area: Area, offset: u64) -> bool {
    area == Area::Relro
        && plan
            .thread_local_section()
            .is_some_and(|section| (section.offset..section.offset + section.size).contains(&offset))
}

/// Returns the area, offset and size of what an export means: of a replaceable function it is the
/// stub, so whoever looks the name up has the address that pointers have, and calls the code that
/// is in force.
fn exported_place(plan: &Plan<'_>, definition: &Definition<'_>) -> (Area, u64, u64) {
    match definition.indirection.and_then(|indirection| indirection.stub) {
        Some(stub) => (Area::Text, stub, stub_size(plan.arch())),
        None => (definition.area, definition.offset, definition.size),
    }
}

impl<'p, 'a> DynamicSymbols<'p, 'a> {
    /// Returns the dynamic symbols of a program that exports what `list` accepts.
    pub(super) fn of(plan: &'p Plan<'a>, patches: &TextPatches, list: &ExportList<'_>) -> Self {
        let undefined = plan.slots().keys().iter().enumerate().filter_map(|(number, key)| match key {
            SlotKey::Symbol(name) | SlotKey::Routine(name) => Some((&**name, number as u32)),
            SlotKey::Global(key) => {
                patches.globals.contains(&(number as u32)).then_some((&**key, number as u32))
            }
        });
        let export = |name: &'a str| Export {
            name,
            kind: elf::STT_OBJECT,
            signature: None,
            is_global: false,
            area: Area::Slots,
            offset: 0,
            size: 0,
            slot: None,
            hash: elf::gnu_hash(name.as_bytes()),
        };
        let mut exports: Vec<Export<'a>> = plan
            .definitions()
            .filter(|definition| is_exported(definition.linkage) && !definition.name.starts_with('\0'))
            .filter(|definition| list.accepts(definition.name))
            .map(|definition| {
                let (area, offset, size) = exported_place(plan, &definition);
                let kind = match definition.kind {
                    SymbolKind::Function => elf::STT_FUNC,
                    _ if is_thread_local(plan, area, offset) => elf::STT_TLS,
                    _ => elf::STT_OBJECT,
                };
                let signature = definition.signature;
                let slot = definition.indirection.and_then(|indirection| indirection.slot);
                let is_global = definition.kind == SymbolKind::Global;
                Export { kind, signature, is_global, area, offset, size, slot, ..export(definition.name) }
            })
            .collect();
        if plan.stored_slots() > 0 {
            exports.push(Export { size: 8 * plan.stored_slots() as u64, ..export(SLOTS_SYMBOL) });
        }
        let count = exports.len() as u32;
        let buckets = count.div_ceil(2).max(1);
        let bloom = (count / 5).next_power_of_two().max(1);
        Self { undefined: undefined.collect(), exports: by_bucket(&exports, buckets), buckets, bloom }
    }

    /// Number of symbols, without the null symbol.
    pub(super) fn len(&self) -> usize {
        self.undefined.len() + self.exports.len()
    }

    /// Index of the first export in the symbol table.
    pub(super) fn first_export(&self) -> u32 {
        1 + self.undefined.len() as u32
    }
}

/// Sorts exports by bucket. Exports of the same bucket keep their order.
fn by_bucket<'a>(exports: &[Export<'a>], buckets: u32) -> Vec<Export<'a>> {
    // The position of the next export of each bucket.
    let mut next = vec![0u32; buckets as usize + 1];
    for export in exports {
        next[(export.hash % buckets) as usize + 1] += 1;
    }
    for bucket in 1..next.len() {
        next[bucket] += next[bucket - 1];
    }
    let mut sorted = exports.to_vec();
    for export in exports {
        let position = &mut next[(export.hash % buckets) as usize];
        sorted[*position as usize] = *export;
        *position += 1;
    }
    sorted
}
