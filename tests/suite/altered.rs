//! Entries with records exchanged or altered, whose checksums were corrected: whatever they hold, a
//! build of the edited module succeeds, and an entry that is found to be wrong costs no more than
//! reuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln::artifact::{Artifact, Table};
use kiln::cache::{DiskStore, Entry, Key, Lineage, Lookup, Store};
use kiln::ir::{Module, Target};
use kiln::{Compiler, Stats, Verify};

use crate::common::{module, shared};
use crate::reuse::Log;

/// Several functions, with at least two records in every table that is in order. `edited` is in the
/// middle, so that functions before and after it are taken from the last build.
fn program(edited: i64) -> Module {
    let one = |n: i64| {
        format!(
            "
function %maps_{n}(i64) -> i64 system_v {{
    ss0 = explicit_slot 16
    fn0 = %outside(i64) -> i64 system_v
    fn1 = colocated %catches_{n}(i64) -> i64 tail
    gv0 = symbol %object_{n}
block0(v0: i64):
@{n}1 v1 = call fn0(v0), stack_map=[i64 @ ss0+0]
@{n}2 v2 = call fn1(v1), stack_map=[i64 @ ss0+0, i32 @ ss0+8]
@{n}3 v3 = symbol_value.i64 gv0
@{n}4 v4 = udiv v3, v2
    v5 = iconst.i64 {n}
    v6 = iadd v4, v5
    return v6
}}
function %catches_{n}(i64) -> i64 tail {{
    sig0 = (i64) -> i64 tail
    fn0 = %outside(i64) -> i64 tail
    fn1 = colocated patchable %hook(i64) preserve_all
block0(v0: i64):
    call fn1(v0)
    try_call fn0(v0), sig0, block1(ret0), [ tag1: block2(exn0), context v0, default: block2(exn0) ]
block1(v1: i64):
    return v1
block2(v2: i64):
    v3 = iconst.i64 {n}
    v4 = iadd v2, v3
    return v4
}}
data %named_{n} section=\"first_{n}\" {{ i64 {n} }}
data %pointers_{n} writable {{ addr %maps_{n}, addr %catches_{n} }}
data %constants_{n} {{ addr %named_{n}, addr %pointers_{n} }}
global %object_{n} = \"key {n}\"
"
        )
    };
    let edited = format!(
        "function %edited(i64) -> i64 tail {{
    fn0 = colocated %catches_1(i64) -> i64 tail
block0(v0: i64):
    v1 = iconst.i64 {edited}
    v2 = iadd v0, v1
    v3 = call fn0(v2)
    return v3
}}"
    );
    module("altered.clif", &format!("{}{edited}{}{}", one(1), one(2), one(3)))
}

/// The tables whose records are in order of an offset.
const ORDERED: [Table; 6] = [
    Table::Functions,
    Table::TextRelocs,
    Table::StackMaps,
    Table::PatchableCalls,
    Table::ResolvedCalls,
    Table::NamedData,
];

/// Bytes of a record of a table; 1 for tables of bytes.
fn record_len(table: Table) -> usize {
    match table {
        Table::Features | Table::Signatures | Table::StackMapEntries | Table::PatchableCalls => 8,
        Table::References => 4,
        Table::Handlers => 12,
        Table::StackMaps => 16,
        Table::Summary => 44,
        Table::TextRelocs | Table::ReadOnlyRelocs | Table::WritableRelocs => 24,
        Table::ResolvedCalls => 28,
        Table::Symbols => 32,
        Table::NamedData => 32,
        Table::Functions => 52,
        _ => 1,
    }
}

/// A store with one entry, which is the last build of every module.
struct One {
    key: Key,
    bytes: Vec<u8>,
    quarantined: AtomicBool,
}

impl Store for One {
    fn get(&self, key: &Key) -> Lookup {
        match *key == self.key {
            true => match Entry::from_bytes(key, self.bytes.clone()) {
                Ok(entry) => Lookup::Hit(entry, kiln::cache::Place::Memory),
                Err(reason) => Lookup::Corrupt(reason),
            },
            false => Lookup::Miss,
        }
    }

    fn put(&self, _: &Key, _: &Entry) -> std::io::Result<()> {
        Ok(())
    }

    fn quarantine(&self, key: &Key, _: &str) -> std::io::Result<()> {
        assert_eq!(*key, self.key);
        self.quarantined.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn latest(&self, _: &Lineage) -> Option<Key> {
        Some(self.key)
    }
}

/// Corrects the checksums of an entry.
fn fit(bytes: &mut [u8]) {
    let body = *blake3::hash(&bytes[104..]).as_bytes();
    bytes[64..96].copy_from_slice(&body);
    let sum = *blake3::hash(&bytes[..96]).as_bytes();
    bytes[96..104].copy_from_slice(&sum[..8]);
}

/// The entry of the first build, the module as edited, and its artifact as built without a cache.
struct Place {
    key: Key,
    entry: Vec<u8>,
    artifact: Artifact,
    edited: Module,
    cold: Vec<Artifact>,
}

/// The result of a build that was offered an altered entry.
struct Outcome {
    told: String,
    stats: Stats,
    right: bool,
    quarantined: bool,
}

impl Place {
    fn new() -> Self {
        let compiler = Compiler::new(Target::host());
        let (old, edited) = (program(1), program(2));
        let (recipe, functions) = compiler.keys(&old).unwrap();
        let artifact = compiler.compile(&[old]).unwrap().artifacts.remove(0);
        let entry = Entry { functions: functions.into(), artifact: artifact.clone(), recipe };
        let cold = compiler.compile(std::slice::from_ref(&edited)).unwrap().artifacts;
        Self { key: entry.recipe.key(), entry: entry.to_bytes(), artifact, edited, cold }
    }

    /// The range of a table in the entry.
    fn place(&self, table: Table) -> std::ops::Range<usize> {
        let whole = self.artifact.as_bytes();
        let part = self.artifact.table_bytes(table);
        let start = self.entry.len() - whole.len() + (part.as_ptr() as usize - whole.as_ptr() as usize);
        start..start + part.len()
    }

    /// Builds the edited module with the entry as `change` leaves it.
    fn build(&self, change: impl FnOnce(&mut [u8])) -> Outcome {
        let mut bytes = self.entry.clone();
        change(&mut bytes);
        fit(&mut bytes);
        let store = Arc::new(One { key: self.key, bytes, quarantined: AtomicBool::new(false) });
        let log = Arc::<Log>::default();
        let compiler = Compiler::new(Target::host()).store(store.clone()).events(log.clone());
        let compiler = compiler.verify(Verify::Nothing);
        let compiled = compiler.compile(std::slice::from_ref(&self.edited)).unwrap();
        Outcome {
            told: log.take(),
            stats: compiled.stats,
            right: compiled.artifacts == self.cold,
            quarantined: store.quarantined.load(Ordering::Relaxed),
        }
    }
}

#[test]
fn exchanged_records_never_fail_a_build() {
    let place = Place::new();
    let sound = place.build(|_| ());
    assert_eq!((sound.stats.compiled_functions, sound.stats.reused_functions), (1, 6), "{}", sound.told);
    assert!(sound.right && !sound.quarantined);
    for &table in Table::ALL {
        let (at, len) = (place.place(table), record_len(table));
        assert_eq!(at.len() % len, 0, "records of {}", table.name());
        let count = at.len() / len;
        assert!(!ORDERED.contains(&table) || count > 1, "one record in {}", table.name());
        let pairs = (1..count).map(|n| (n - 1, n)).chain((1..count).map(|n| (0, n)));
        for (one, other) in pairs {
            let record = |n: usize| at.start + n * len..at.start + (n + 1) * len;
            if place.entry[record(one)] == place.entry[record(other)] {
                continue;
            }
            let Outcome { told, stats, right, quarantined } = place.build(|bytes| {
                let first = bytes[record(one)].to_vec();
                bytes.copy_within(record(other), record(one).start);
                bytes[record(other)].copy_from_slice(&first);
            });
            let what = format!("records {one} and {other} of {}: {told}", table.name());
            if ORDERED.contains(&table) {
                assert!(told.contains("cannot be used") && right, "{what}");
            }
            // An entry that was found to be wrong is not used.
            assert!(right || stats.reused_functions > 0, "{what}");
            assert_eq!(quarantined, stats.corrupt_entries > 0, "{what}");
        }
    }
}

/// Any few bytes of any table, altered to any value: what is accepted may give different code,
/// chosen by the author of the entry, but it never ends a build.
#[test]
fn altered_records_never_fail_a_build() {
    let place = Place::new();
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut refused, mut unfit) = (0, 0);
    let tables: Vec<Table> =
        Table::ALL.iter().copied().filter(|&table| !place.place(table).is_empty()).collect();
    for _ in 0..2000 {
        let mut changes = Vec::new();
        for _ in 0..=next(2) {
            let at = place.place(tables[next(tables.len())]);
            let value = [0, 1, 3, 16, 0x7f, 0x80, 0xff][next(7)];
            changes.push((at.start + next(at.len()), value));
        }
        let outcome = place.build(|bytes| changes.iter().for_each(|&(at, value)| bytes[at] = value));
        refused += usize::from(outcome.told.contains("cannot be used"));
        unfit += usize::from(outcome.quarantined);
        assert!(outcome.right || outcome.stats.reused_functions > 0, "{changes:?}: {}", outcome.told);
    }
    // Both kinds of refusal are reached.
    assert!(refused > 100 && unfit > 10, "{refused} refused, {unfit} unfit");
}

#[test]
fn an_entry_whose_functions_cannot_be_extracted_is_a_miss_that_heals() {
    let (place, folder) = (Place::new(), tempfile::tempdir().unwrap());
    let (disk, log) = (DiskStore::new(folder.path()), Arc::<Log>::default());
    let build = |edited: i64| {
        let compiler = Compiler::new(Target::host()).store(shared(disk.clone())).events(log.clone());
        let compiled = compiler.verify(Verify::Nothing).compile(&[program(edited)]).unwrap();
        let cold = Compiler::new(Target::host()).compile(&[program(edited)]).unwrap();
        assert!(compiled.artifacts == cold.artifacts);
        (compiled.stats.compiled_functions, compiled.stats.corrupt_entries)
    };
    build(1);
    log.take();
    // The first handler continues outside of its function.
    let path = disk.path(&place.key);
    let mut bytes = std::fs::read(&path).unwrap();
    let target = place.place(Table::Handlers).start + 4;
    bytes[target..target + 4].fill(0);
    fit(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    assert!(disk.verify(&mut |_, _| ()).unwrap().broken.is_empty(), "it looks sound by itself");
    let built = build(2);
    let told = log.take();
    assert_eq!(built, (2, 1), "{told}");
    assert!(told.starts_with("1 corrupt, 1 miss: "), "{told}");
    assert!(!path.exists(), "it is in quarantine");
    assert_eq!(build(1), (1, 0), "compiled with the functions of the last build");
    build(1);
    assert!(log.take().contains("1 hit"));
}
