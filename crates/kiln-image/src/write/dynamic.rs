//! The dynamic symbol table: undefined symbols first, then exports in the order that the GNU hash table wants.

use kiln_artifact::record::{Linkage, SymbolKind};
use kiln_globals::SlotKey;
use object::elf;

use crate::link::{Area, Plan};

/// The name under which an image exports its external slots.
pub(crate) const SLOTS_SYMBOL: &str = "kiln_slots";
pub(crate) const BLOOM_SHIFT: u32 = 26;

/// A symbol that the image defines for everybody.
#[derive(Clone, Copy)]
pub(crate) struct Export<'a> {
    pub(crate) name: &'a str,
    pub(crate) function: bool,
    pub(crate) signature: Option<&'a str>,
    pub(crate) area: Area,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) hash: u32,
}

/// What is needed to reserve the tables.
pub(crate) struct DynamicSymbols<'p, 'a> {
    /// Names of undefined symbols, with their slots, in slot order.
    pub(crate) undefined: Vec<(&'p str, u32)>,
    pub(crate) exports: Vec<Export<'a>>,
    pub(crate) buckets: u32,
    pub(crate) bloom: u32,
}

impl<'p, 'a> DynamicSymbols<'p, 'a> {
    pub(crate) fn new(plan: &'p Plan<'a>) -> Self {
        let undefined = plan.slots().keys().iter().enumerate().filter_map(|(number, key)| match key {
            SlotKey::Symbol(name) => Some((&**name, number as u32)),
            SlotKey::Global(_) => None,
        });
        let visible = |linkage| matches!(linkage, Linkage::Export | Linkage::Preemptible);
        let export = |name: &'a str| Export {
            name,
            function: false,
            signature: None,
            area: Area::Slots,
            offset: 0,
            size: 0,
            hash: elf::gnu_hash(name.as_bytes()),
        };
        let mut exports: Vec<Export<'a>> = plan
            .definitions()
            .filter(|definition| visible(definition.linkage))
            .map(|definition| Export {
                function: definition.kind == SymbolKind::Function,
                signature: definition.signature,
                area: definition.area,
                offset: definition.offset,
                size: definition.size,
                ..export(definition.name)
            })
            .collect();
        if !plan.slots().is_empty() {
            exports.push(Export { size: 8 * plan.slots().len() as u64, ..export(SLOTS_SYMBOL) });
        }
        let count = exports.len() as u32;
        let buckets = count.div_ceil(2).max(1);
        let bloom = (count / 5).next_power_of_two().max(1);
        Self { undefined: undefined.collect(), exports: by_bucket(&exports, buckets), buckets, bloom }
    }

    /// Index of the first export in the symbol table.
    pub(crate) fn first_export(&self) -> u32 {
        1 + self.undefined.len() as u32
    }
}

/// The exports by ascending bucket; those of one bucket stay in their order.
fn by_bucket<'a>(exports: &[Export<'a>], buckets: u32) -> Vec<Export<'a>> {
    // Where the next export of each bucket goes.
    let mut next = vec![0u32; buckets as usize + 1];
    for export in exports {
        next[(export.hash % buckets) as usize + 1] += 1;
    }
    for bucket in 1..next.len() {
        next[bucket] += next[bucket - 1];
    }
    let mut sorted = exports.to_vec();
    for export in exports {
        let place = &mut next[(export.hash % buckets) as usize];
        sorted[*place as usize] = *export;
        *place += 1;
    }
    sorted
}
