//! Records that share what each must have of its own. With such records, 400 KB would become an
//! image of hundreds of megabytes: every function writes its unwind rows there, and every symbol
//! its name.

use kiln_artifact::record::{
    FunctionRecord, Linkage, NONE, NamedData, SectionKind, StackMap, StackMapEntry, Str, SymbolKind,
    SymbolRecord,
};
use kiln_artifact::{Artifact, Contents, Table};
use zerocopy::IntoBytes;

/// The common unwind entry that Cranelift writes for x86-64.
const CIE: &[u8] = b"\x14\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0";
/// The number of records that share something.
const COUNT: u32 = 1000;
/// The length of what they share.
const LEN: u32 = 5000;
/// The symbol with the long name, and the one without a name.
const NAMED: u32 = 0;
const ANONYMOUS: u32 = 1;

/// The bytes of an artifact that has a symbol, a string and rows of `LEN` bytes, and as many
/// references and entries. Some tables are replaced.
fn with(replaced: &[(Table, &[u8])]) -> Vec<u8> {
    let mut contents = Contents::default();
    let name = contents.string(&"n".repeat(LEN as usize));
    let anonymous = SymbolRecord {
        linkage: Linkage::Local as u8,
        section: SectionKind::Text as u8,
        ..symbol(Str::default())
    };
    contents.symbols = vec![symbol(name), anonymous];
    contents.signatures = vec![name];
    contents.cie = CIE.to_vec();
    contents.unwind = vec![0; LEN as usize];
    contents.references = vec![0.into(); LEN as usize];
    contents.stack_map_entries = vec![StackMapEntry { offset: 0.into(), size: 8.into() }; LEN as usize];
    contents.writable = vec![0; 2 * COUNT as usize];
    let artifact = contents.finish();
    let header = 24 + 4 * Table::ALL.len();
    let (mut bytes, mut tables) = (artifact.as_bytes()[..24].to_vec(), Vec::new());
    for &table in Table::ALL {
        let new = replaced.iter().find(|(name, _)| *name == table).map(|(_, bytes)| *bytes);
        let content = new.unwrap_or(artifact.table_bytes(table));
        bytes.extend((content.len() as u32).to_le_bytes());
        tables.extend_from_slice(content);
    }
    assert_eq!(bytes.len(), header);
    bytes.append(&mut tables);
    let len = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&len.to_le_bytes());
    bytes
}

fn symbol(name: Str) -> SymbolRecord {
    SymbolRecord {
        name,
        offset: 0.into(),
        size: 0.into(),
        signature: NONE.into(),
        kind: SymbolKind::Function as u8,
        linkage: Linkage::Import as u8,
        section: SectionKind::Undefined as u8,
        libcall: 0,
    }
}

fn function(symbol: u32) -> FunctionRecord {
    FunctionRecord { symbol: symbol.into(), align: 1.into(), ..Default::default() }
}

/// The message about an artifact with `count` records made by `record`.
fn message<T: IntoBytes + zerocopy::Immutable>(
    table: Table,
    count: u32,
    record: impl FnMut(u32) -> T,
) -> String {
    let records: Vec<T> = (0..count).map(record).collect();
    let result = Artifact::from_bytes(with(&[(table, records.as_bytes())]));
    result.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

/// The first record that shares something with the one before is refused; a single one is not.
fn refused<T: IntoBytes + zerocopy::Immutable>(table: Table, what: &str, record: impl Fn(u32) -> T) {
    assert_eq!(message(table, 1, &record), "accepted");
    let (message, start) = (message(table, COUNT, &record), format!("malformed artifact: {what} in "));
    assert!(message.starts_with(&(start + table.name())), "{message}");
}

#[test]
fn unwind_rows_and_references_belong_to_one_function() {
    let rows = |start: u32| FunctionRecord {
        unwind_start: start.into(),
        unwind_len: (LEN - COUNT).into(),
        ..function(ANONYMOUS)
    };
    // The same range, ranges that overlap, and ranges that go backwards.
    let shared = "unwind rows that another function has";
    refused(Table::Functions, shared, |_| rows(0));
    refused(Table::Functions, shared, rows);
    refused(Table::Functions, shared, |number| rows(COUNT - number));
    refused(Table::Functions, "references that another function has", |_| FunctionRecord {
        references_len: LEN.into(),
        ..function(ANONYMOUS)
    });
}

#[test]
fn a_symbol_belongs_to_one_function() {
    refused(Table::Functions, "functions that share a symbol", |_| function(NAMED));
    // Without a name there is nothing to write many times.
    assert_eq!(message(Table::Functions, COUNT, |_| function(ANONYMOUS)), "accepted");
}

#[test]
fn entries_belong_to_one_stack_map() {
    refused(Table::StackMaps, "entries that another stack map has", |_| StackMap {
        return_offset: 0.into(),
        span: 8.into(),
        entries_start: 0.into(),
        entries_len: LEN.into(),
    });
}

#[test]
fn texts_are_not_shared() {
    let longer = "strings that are together longer than the string table";
    // The same text, and texts that overlap.
    let text = |number: u32| Str { start: number.into(), len: (LEN - number).into() };
    for step in [0, 1] {
        refused(Table::Symbols, longer, |number| symbol(text(step * number)));
        refused(Table::Signatures, longer, |number| text(step * number));
        refused(Table::Features, longer, |number| text(step * number));
        refused(Table::NamedData, longer, |number| NamedData {
            name: text(step * number),
            start: u64::from(2 * number).into(),
            len: 1.into(),
            align: 1.into(),
            section: SectionKind::Writable as u8,
            reserved: [0; 3],
        });
    }
}

#[test]
fn functions_are_aligned_to_a_page_at_most() {
    for align in [0, 3, 8192, 1 << 31] {
        let function = |_| FunctionRecord { align: align.into(), ..function(ANONYMOUS) };
        let message = message(Table::Functions, 1, function);
        assert!(message.contains("an alignment that is not a power of two up to 4096"), "{message}");
    }
}
