//! Bytes that are not an artifact, or an altered one: either they are refused, or every accessor
//! works.

use kiln_artifact::debug::{self, Encoding, LabelRange, LabelWriter, Line, LineWriter, Place, Variable};
use kiln_artifact::record::{
    FunctionRecord, Handler, HandlerKind, LabelledFunction, Linkage, NONE, NamedData, PatchableCall, Reloc,
    ResolvedCall, SectionKind, SourceFile, StackMap, StackMapEntry, SymbolKind, SymbolRecord,
};
use kiln_artifact::stream::{CallSite, SourceRange, StreamWriter, Trap};
use kiln_artifact::{Artifact, Contents, RelocKind, Table};
use proptest::prelude::*;

/// The CIE that Cranelift writes for x86-64.
const CIE: &[u8] = b"\x14\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0";

/// An artifact with something in every table.
fn artifact() -> Artifact {
    let mut contents = Contents::default();
    contents.summary.triple = contents.string("x86_64-unknown-linux-gnu");
    contents.summary.producer = contents.string("a test");
    contents.summary.zeroed_size = 64.into();
    contents.features = vec![contents.string("has_sse3")];
    contents.signatures = vec![contents.string("(i64) -> i64 system_v")];
    let symbol = |contents: &mut Contents, name, kind, linkage, section, size: u64, signature: u32| {
        let name = contents.string(name);
        let record = SymbolRecord {
            name,
            offset: 0.into(),
            size: size.into(),
            signature: signature.into(),
            kind: kind as u8,
            linkage: linkage as u8,
            section: section as u8,
            libcall: 0,
        };
        contents.symbols.push(record);
    };
    symbol(&mut contents, "f", SymbolKind::Function, Linkage::Export, SectionKind::Text, 16, 0);
    symbol(&mut contents, "d", SymbolKind::Data, Linkage::Local, SectionKind::ReadOnly, 8, NONE);
    symbol(&mut contents, "key", SymbolKind::Global, Linkage::Import, SectionKind::Undefined, 0, NONE);
    contents.text = vec![0x90; 16];
    contents.read_only = vec![0; 16];
    contents.writable = vec![0; 8];
    let len = |count: usize| u32::try_from(count).unwrap();
    contents.cie = CIE.to_vec();
    contents.unwind = b"\x41\x0e\x10\x86\x02".to_vec();
    contents.functions = vec![FunctionRecord {
        symbol: 0.into(),
        start: 0.into(),
        len: 16.into(),
        unwind_start: 0.into(),
        unwind_len: len(contents.unwind.len()).into(),
        references_start: 0.into(),
        references_len: 2.into(),
        align: 16.into(),
        base_location: NONE.into(),
        ..Default::default()
    }];
    contents.references = vec![2.into(), 1.into()];
    contents.resolved_calls = vec![ResolvedCall {
        original: [0; 8],
        addend: (-4).into(),
        offset: 9.into(),
        symbol: 0.into(),
        kind: RelocKind::X86Pc32 as u8,
        reserved: [0; 3],
    }];
    let reloc = |kind: RelocKind, symbol: u32| Reloc {
        offset: 4.into(),
        addend: (-4).into(),
        symbol: symbol.into(),
        kind: kind as u8,
        flags: 0,
        reserved: [0; 2],
    };
    contents.text_relocs = vec![reloc(RelocKind::X86GotPc32, 2)];
    contents.read_only_relocs = vec![reloc(RelocKind::Abs64, 0)];
    contents.writable_relocs = vec![Reloc { offset: 0.into(), ..reloc(RelocKind::Abs64, 1) }];
    let mut traps = StreamWriter::default();
    traps.trap(Trap { offset: 3, code: 1 });
    contents.traps = traps.finish();
    let mut ranges = StreamWriter::default();
    ranges.source_range(SourceRange { start: 0, end: 8, location: 7 });
    contents.source_ranges = ranges.finish();
    let mut sites = StreamWriter::default();
    sites.call_site(CallSite { return_offset: 8, frame_offset: None, handlers: 1 });
    contents.call_sites = sites.finish();
    let kind = HandlerKind::Default as u8;
    contents.handlers = vec![Handler { value: 0.into(), target: 9.into(), kind, reserved: [0; 3] }];
    contents.stack_maps = vec![StackMap {
        return_offset: 8.into(),
        span: 16.into(),
        entries_start: 0.into(),
        entries_len: 1.into(),
    }];
    contents.stack_map_entries = vec![StackMapEntry { offset: 0.into(), size: 8.into() }];
    contents.patchable_calls = vec![PatchableCall { end: 8.into(), len: 5.into() }];
    contents.nops = vec![0x90];
    contents.read_only.resize(40, 7);
    contents.writable.resize(24, 8);
    let name = contents.string("records");
    let run = |section: SectionKind, start: u64, len: u64| NamedData {
        name,
        start: start.into(),
        len: len.into(),
        align: 8.into(),
        section: section as u8,
        reserved: [0; 3],
    };
    contents.named_data = vec![
        run(SectionKind::ReadOnly, 16, 12),
        run(SectionKind::ReadOnly, 32, 8),
        run(SectionKind::Writable, 8, 16),
    ];
    contents.source_files = vec![SourceFile {
        name: contents.string("a.lang"),
        directory: contents.string("/src"),
        language: 2.into(),
        reserved: [0; 2],
    }];
    let mut lines = LineWriter::default();
    lines.line(Line { location: 7, file: 0, line: 300, column: 5 });
    lines.line(Line { location: 9, file: 0, line: 2, column: 0 });
    contents.lines = lines.finish();
    let mut labels = LabelWriter::default();
    labels.parameters(vec![4, u32::MAX - 1]);
    labels.range(LabelRange { label: 0, start: 2, end: 5, place: Place::Register(300) });
    labels.range(LabelRange { label: 0, start: 5, end: 9, place: Place::Frame(-24) });
    labels.range(LabelRange { label: 4, start: 1, end: 16, place: Place::Frame(1 << 29) });
    contents.labels = labels.finish();
    for (before, label, name, encoding) in [(0, 0, "x", Encoding::Signed), (0, 4, "pi", Encoding::Float)] {
        debug::write_variable(&mut contents.variables, before, Variable { label, name, encoding, size: 8 });
    }
    contents.labelled_functions =
        vec![LabelledFunction { function: 0.into(), labels_start: 0.into(), variables_start: 0.into() }];
    contents.finish()
}

/// Uses every accessor and follows every index. The sum does not matter: the reads must not panic.
fn read_all(artifact: &Artifact) -> usize {
    let mut sum =
        artifact.triple().len() + artifact.producer().len() + artifact.cie().len() + artifact.nops().len();
    sum += artifact
        .features()
        .chain(artifact.signatures())
        .chain(artifact.globals())
        .map(str::len)
        .sum::<usize>();
    for symbol in artifact.symbols() {
        sum += artifact.name(symbol).len() + symbol.kind() as usize + symbol.linkage() as usize;
        sum += symbol.signature().and_then(|index| artifact.signature(index)).map_or(0, str::len);
        let section = match symbol.section() {
            SectionKind::Text => artifact.text(),
            SectionKind::ReadOnly => artifact.read_only(),
            SectionKind::Writable => artifact.writable(),
            SectionKind::Undefined | SectionKind::Zeroed => continue,
        };
        let start = symbol.offset.get() as usize;
        sum += section[start..start + symbol.size.get() as usize].len();
    }
    for function in artifact.functions() {
        let (start, unwind) = (function.start.get() as usize, function.unwind_start.get() as usize);
        sum += artifact.text()[start..start + function.len.get() as usize].len();
        sum += artifact.unwind()[unwind..unwind + function.unwind_len.get() as usize].len();
        sum += artifact.symbols()[function.symbol.get() as usize].size.get() as usize;
        let references = function.references_start.get() as usize;
        for symbol in &artifact.references()[references..references + function.references_len.get() as usize]
        {
            sum += artifact.symbols()[symbol.get() as usize].kind as usize;
        }
    }
    for call in artifact.resolved_calls() {
        let offset = call.offset.get() as usize;
        sum += call.original[..call.kind().width()].len();
        sum += artifact.text()[offset..offset + call.kind().width()].len();
        sum += artifact.symbols()[call.symbol.get() as usize].kind as usize;
    }
    for run in artifact.named_data() {
        let section = match run.section() {
            SectionKind::ReadOnly => artifact.read_only(),
            _ => artifact.writable(),
        };
        let start = run.start.get() as usize;
        sum += artifact.section_name(run).len() + section[start..start + run.len.get() as usize].len();
    }
    for symbol in artifact.symbols() {
        // As a linker does: each symbol moves with the run that it is in.
        let (section, offset) = (symbol.section(), symbol.offset.get());
        if let Some(run) = artifact.named_data_at(section, offset) {
            let run = &artifact.named_data()[run];
            assert!(offset + symbol.size.get() <= run.start.get() + run.len.get());
            sum += usize::try_from(offset - run.start.get()).unwrap();
        } else if matches!(section, SectionKind::ReadOnly | SectionKind::Writable) {
            assert!(offset + symbol.size.get() <= artifact.unnamed_len(section));
        }
    }
    let sections = [
        (artifact.text_relocs(), artifact.text()),
        (artifact.read_only_relocs(), artifact.read_only()),
        (artifact.writable_relocs(), artifact.writable()),
    ];
    for (relocs, section) in sections {
        for reloc in relocs {
            let offset = reloc.offset.get() as usize;
            sum += section[offset..offset + reloc.kind().width()].len();
            sum += artifact.symbols()[reloc.symbol.get() as usize].kind as usize;
        }
    }
    for (site, handlers) in artifact.call_sites() {
        assert_eq!(site.handlers as usize, handlers.len());
        sum += handlers.len();
    }
    for map in artifact.stack_maps() {
        let start = map.entries_start.get() as usize;
        sum += artifact.stack_map_entries()[start..start + map.entries_len.get() as usize].len();
    }
    for file in artifact.source_files() {
        sum += artifact.source_file_name(file).0.len();
    }
    for line in artifact.lines() {
        sum += artifact.source_files()[line.file as usize].language.get() as usize;
    }
    for (index, function) in artifact.functions().iter().enumerate() {
        let end = function.start.get() + function.len.get();
        sum += artifact.parameters_of(index).len();
        for range in artifact.labels_of(index) {
            assert!(function.start.get() <= range.start && range.start <= range.end && range.end <= end);
        }
        sum += artifact.variables_of(index).map(|variable| variable.name.len()).sum::<usize>();
    }
    sum + artifact.traps().count() + artifact.source_ranges().count() + artifact.patchable_calls().len()
}

#[test]
fn bytes_round_trip() {
    let artifact = artifact();
    assert!(read_all(&artifact) > 0);
    assert!(Table::ALL.iter().all(|&table| !artifact.table_bytes(table).is_empty()), "every table is tested");
    let again = Artifact::from_bytes(artifact.as_bytes()).unwrap();
    assert!(again == artifact);
}

#[test]
fn an_artifact_after_other_bytes_is_the_same_artifact() {
    let artifact = artifact();
    let buffer = [b"something else", artifact.as_bytes()].concat();
    let again = Artifact::from_buffer(buffer.clone(), 14).unwrap();
    assert!(again == artifact);
    assert_eq!(read_all(&again), read_all(&artifact));
    assert_eq!(again.text(), artifact.text());
    for start in [0, 13, 15, buffer.len(), buffer.len() + 1, usize::MAX] {
        assert!(Artifact::from_buffer(buffer.clone(), start).is_err(), "start {start}");
    }
}

#[test]
fn tables_for_debuggers_come_back() {
    let artifact = artifact();
    let lines = [(7, 300, 5), (9, 2, 0)];
    assert!(artifact.lines().map(|line| (line.location, line.line, line.column)).eq(lines));
    let ranges =
        [(0, 2, 5, Place::Register(300)), (0, 5, 9, Place::Frame(-24)), (4, 1, 16, Place::Frame(1 << 29))];
    let found = artifact.labels_of(0).map(|range| (range.label, range.start, range.end, range.place));
    assert_eq!(found.collect::<Vec<_>>(), ranges);
    assert_eq!(artifact.parameters_of(0), [4, u32::MAX - 1]);
    let variables: Vec<_> = artifact.variables_of(0).map(|v| (v.label, v.name, v.encoding)).collect();
    assert_eq!(variables, [(0, "x", Encoding::Signed), (4, "pi", Encoding::Float)]);
}

#[test]
fn tables_for_debuggers_are_checked() {
    let malformed = |what: &str, table: Table, record: u32| {
        format!("malformed artifact: {what} in {}, record {record}", table.name())
    };
    // Lines: location 7, file 0, line 300 (two bytes), column 5; then 2 more, file 0, .., ...
    assert_eq!(altered(Table::Lines, 1, &[1]), malformed("unknown source file", Table::Lines, 0));
    assert_eq!(altered(Table::Lines, 5, &[0]), malformed("a location out of order", Table::Lines, 1));
    assert_eq!(altered(Table::Lines, 9, &[0x80]), malformed("an entry that is not whole", Table::Lines, 0));
    let none = altered(Table::Lines, 0, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]);
    assert_eq!(none, malformed("a location out of order", Table::Lines, 0));
    let name = altered(Table::SourceFiles, 4, &[0]);
    assert_eq!(name, malformed("an empty name, or one with a zero byte", Table::SourceFiles, 0));
    // Labels: two parameters, label 4 and one of five bytes that is almost `NONE`; label 0, start
    // 2, length 3, register 300 (two bytes); ...
    let outside = malformed("an entry that is not whole, or outside of its function", Table::Labels, 0);
    assert_eq!(altered(Table::Labels, 9, &[15]), outside);
    assert_eq!(altered(Table::Labels, 8, &[0x7f]), outside);
    assert_eq!(altered(Table::Labels, 0, &[0x7f]), outside);
    assert_eq!(altered(Table::Labels, 2, &[0xff]), outside);
    let len = artifact().table_bytes(Table::Labels).len();
    assert_eq!(altered(Table::Labels, len - 1, &[0x80]), outside);
    // Variables: label 0, encoding, size, length, "x"; label 4, ...
    let wrong = "a variable that is not whole, or has no name, no size or another's label";
    for (offset, value) in [(1, 4), (2, 0), (2, 17), (3, 0), (3, 100), (4, 0), (4, 0xff), (5, 0)] {
        let found = altered(Table::Variables, offset, &[value]);
        assert_eq!(found, malformed(wrong, Table::Variables, 0), "{offset} {value}");
    }
    let table = Table::LabelledFunctions;
    let unknown = malformed("an unknown function, or one out of order", table, 0);
    assert_eq!(altered(table, 0, &[1]), unknown);
    let order = malformed("parts of functions out of order", table, 0);
    assert_eq!((altered(table, 4, &[1]), altered(table, 8, &[1])), (order.clone(), order));
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let bytes = artifact().as_bytes().to_vec();
    for len in 0..bytes.len() {
        assert!(Artifact::from_bytes(&bytes[..len]).is_err(), "cut to {len} bytes");
    }
    assert!(Artifact::from_bytes([&bytes[..], b"\0"].concat()).is_err());
}

#[test]
fn errors_say_where() {
    let mut bytes = artifact().as_bytes().to_vec();
    let text = Artifact::from_bytes(b"no artifact".as_slice()).unwrap_err().to_string();
    assert_eq!(text, "malformed artifact: not a Kiln artifact in header, record 0");
    bytes[8] = 99;
    let error = Artifact::from_bytes(bytes).unwrap_err();
    assert_eq!((error.table(), error.record()), ("header", 0));
}

#[test]
fn tables_fill_the_artifact() {
    // The last field of the header is the length of the last table.
    let last = 24 + 4 * (Table::ALL.len() - 1);
    for (by, what) in [(-1, "bytes after the last table"), (1, "table outside the artifact")] {
        let mut bytes = artifact().as_bytes().to_vec();
        bytes[last] = bytes[last].wrapping_add_signed(by);
        let text = Artifact::from_bytes(bytes).unwrap_err().to_string();
        assert_eq!(text, format!("malformed artifact: {what} in header, record 0"));
    }
}

/// The message for [`artifact`] with `value` written at `offset` of `table`.
fn altered(table: Table, offset: usize, value: &[u8]) -> String {
    let artifact = artifact();
    let mut bytes = artifact.as_bytes().to_vec();
    let start = artifact.table_bytes(table).as_ptr() as usize - artifact.as_bytes().as_ptr() as usize;
    bytes[start + offset..][..value.len()].copy_from_slice(value);
    Artifact::from_bytes(bytes).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

#[test]
fn named_data_is_checked() {
    const RECORD: usize = size_of::<NamedData>();
    let name_len = |len: u32| altered(Table::NamedData, 4, &len.to_le_bytes());
    let start = |run: usize, start: u64| altered(Table::NamedData, run * RECORD + 8, &start.to_le_bytes());
    let len = |run: usize, len: u64| altered(Table::NamedData, run * RECORD + 16, &len.to_le_bytes());
    let align = |align: u32| altered(Table::NamedData, 24, &align.to_le_bytes());
    let section = |run: usize, code: u8| altered(Table::NamedData, run * RECORD + 28, &[code]);
    let malformed = |what: &str, run: u32| format!("malformed artifact: {what} in named data, record {run}");
    assert_eq!(name_len(7), "accepted");
    assert_eq!(name_len(0), malformed("an empty name, or one with a zero byte", 0));
    assert_eq!(name_len(u32::MAX), malformed("string outside the string table", 0));
    for code in [0, 1, 4, 9] {
        assert_eq!(section(0, code), malformed("a section that cannot have named data", 0));
    }
    for wrong in [0, 3, 8192, 1 << 31] {
        assert_eq!(align(wrong), malformed("an alignment that is not a power of two up to 4096", 0));
    }
    assert_eq!(align(32), malformed("a start that is not a multiple of the alignment", 0));
    assert_eq!(start(1, 48), malformed("range outside its section", 1));
    assert_eq!(start(1, u64::MAX - 7), malformed("range outside its section", 1));
    assert_eq!(len(1, 9), malformed("range outside its section", 1));
    // Overlapping, touching, out of order, writable before read-only.
    assert_eq!(start(1, 24), malformed("not after the run before it", 1));
    assert_eq!(len(0, 16), malformed("not after the run before it", 1));
    // The symbol `d` is before the first run: it may end at its start, and not later.
    let size = |size: u64| altered(Table::Symbols, size_of::<SymbolRecord>() + 16, &size.to_le_bytes());
    assert_eq!(size(16), "accepted");
    assert!(size(17).contains("range outside its section, or across the border"), "{}", size(17));
    assert!(start(0, 8).contains("across the border"), "a relocation at 4 would be cut");
    assert_eq!(section(2, SectionKind::ReadOnly as u8), malformed("not after the run before it", 2));
}

#[test]
fn modules_are_aligned_to_a_page_at_most() {
    // The alignments of the four kinds of section, behind two names and a size.
    for place in [24, 28, 32, 36] {
        let align = |align: u32| altered(Table::Summary, place, &align.to_le_bytes());
        assert_eq!(align(4096), "accepted");
        for wrong in [0, 3, 8192, 1 << 31] {
            let message = "an alignment that is not a power of two up to 4096 in summary, record 0";
            assert_eq!(align(wrong), format!("malformed artifact: {message}"));
        }
    }
}

#[test]
fn replaceable_symbols_and_flags_of_relocations_are_checked() {
    const SYMBOL: usize = size_of::<SymbolRecord>();
    let replaceable = [Linkage::Replaceable as u8];
    let malformed = |what: &str, table: &str, record: u32| {
        format!("malformed artifact: {what} in {table}, record {record}")
    };
    let not_code = "a replaceable symbol that is not a function with a type";
    assert_eq!(altered(Table::Symbols, 29, &replaceable), "accepted");
    assert_eq!(altered(Table::Symbols, SYMBOL + 29, &replaceable), malformed(not_code, "symbols", 1));
    // A type, kind and linkage in one: `f` without a type.
    let untyped = [0xff, 0xff, 0xff, 0xff, SymbolKind::Function as u8, Linkage::Replaceable as u8];
    assert_eq!(altered(Table::Symbols, 24, &untyped), malformed(not_code, "symbols", 0));
    let unknown = |table| malformed("unknown flags", table, 0);
    let both = Reloc::TAKES_ADDRESS | Reloc::OWN;
    assert_eq!(altered(Table::TextRelocs, 21, &[both]), "accepted");
    assert_eq!(altered(Table::TextRelocs, 21, &[4]), unknown("text relocations"));
    assert_eq!(altered(Table::ReadOnlyRelocs, 21, &[Reloc::OWN]), unknown("read-only relocations"));
}

#[test]
fn tables_that_describe_code_are_checked() {
    let number = |table, offset, value: u32| altered(table, offset, &value.to_le_bytes());
    let malformed =
        |what: &str, table: Table| format!("malformed artifact: {what} in {}, record 0", table.name());
    let broken = "an entry that is not whole, or outside of its function";
    // Offsets are those of fields of the first record, or of bytes of a stream.
    let function = Table::Functions;
    assert_eq!(number(function, 0, 3), malformed("unknown symbol", function));
    assert_eq!(number(function, 4, 1), malformed("range outside the code", function));
    assert_eq!(number(function, 16, 6), malformed("unwind rows outside their table", function));
    assert_eq!(number(function, 16, 2), malformed("unwind rows that unwinders cannot follow", function));
    assert_eq!(number(function, 24, 3), malformed("references outside their table", function));
    for (offset, table) in
        [(36, Table::Traps), (40, Table::SourceRanges), (44, Table::CallSites), (48, Table::Handlers)]
    {
        assert_eq!(number(function, offset, 1), malformed("parts of functions out of order", table));
    }
    assert_eq!(altered(Table::Traps, 0, &[16]), "accepted");
    assert_eq!(altered(Table::Traps, 0, &[17]), malformed(broken, Table::Traps));
    assert_eq!(altered(Table::Traps, 1, &[0x80]), "accepted", "the code of a trap is not an integer");
    // The length of a range, and whether there is a gap before it, which is not there.
    assert_eq!(altered(Table::SourceRanges, 0, &[16 << 1]), "accepted");
    for head in [17 << 1, 8 << 1 | 1] {
        assert_eq!(altered(Table::SourceRanges, 0, &[head]), malformed(broken, Table::SourceRanges));
    }
    assert_eq!(altered(Table::CallSites, 2, &[0x81]), malformed(broken, Table::CallSites));
    assert_eq!(altered(Table::CallSites, 2, &[0]), malformed("wrong number of handlers", Table::CallSites));
    assert_eq!(number(Table::Handlers, 4, 16), "accepted");
    assert_eq!(number(Table::Handlers, 4, 17), malformed("offset outside the code", Table::Handlers));
    assert_eq!(number(Table::StackMaps, 12, 2), malformed("entries outside their table", Table::StackMaps));
    assert_eq!(number(Table::References, 0, 3), malformed("unknown symbol", Table::References));
    let call = Table::ResolvedCalls;
    assert_eq!(number(call, 16, 12), "accepted");
    assert_eq!(number(call, 16, 13), malformed("patch site outside the code", call));
    assert_eq!(number(call, 20, 3), malformed("unknown symbol", call));
    assert_eq!(number(Table::PatchableCalls, 4, 8), "accepted");
    assert_eq!(
        number(Table::PatchableCalls, 4, 9),
        malformed("starts before the code", Table::PatchableCalls)
    );
}

/// The message for an artifact whose contents `change` alters: two functions of 8 bytes each, with
/// two records in every table that must be in order.
fn in_order(change: impl FnOnce(&mut Contents)) -> String {
    let mut contents = Contents::default();
    let names = [contents.string("f"), contents.string("g")];
    let symbol = |start: u64| SymbolRecord {
        name: names[usize::from(start > 0)],
        offset: start.into(),
        size: 8.into(),
        signature: NONE.into(),
        kind: SymbolKind::Function as u8,
        linkage: Linkage::Export as u8,
        section: SectionKind::Text as u8,
        libcall: 0,
    };
    contents.symbols = vec![symbol(0), symbol(8)];
    contents.text = vec![0x90; 16];
    contents.cie = CIE.to_vec();
    contents.unwind = vec![0; 2];
    contents.references = vec![0.into(), 1.into()];
    contents.stack_map_entries = vec![StackMapEntry { offset: 0.into(), size: 8.into() }; 2];
    for n in 0..2u32 {
        contents.functions.push(FunctionRecord {
            symbol: n.into(),
            start: (8 * n).into(),
            len: 8.into(),
            unwind_start: n.into(),
            unwind_len: 1.into(),
            references_start: n.into(),
            references_len: 1.into(),
            align: 1.into(),
            ..Default::default()
        });
        contents.text_relocs.push(Reloc {
            offset: u64::from(8 * n).into(),
            addend: 0.into(),
            symbol: n.into(),
            kind: RelocKind::X86Pc32 as u8,
            flags: 0,
            reserved: [0; 2],
        });
        contents.resolved_calls.push(ResolvedCall {
            original: [0; 8],
            addend: 0.into(),
            offset: (8 * n + 4).into(),
            symbol: n.into(),
            kind: RelocKind::X86Pc32 as u8,
            reserved: [0; 3],
        });
        contents.stack_maps.push(StackMap {
            return_offset: (8 * n + 4).into(),
            span: 8.into(),
            entries_start: n.into(),
            entries_len: 1.into(),
        });
        contents.patchable_calls.push(PatchableCall { end: (8 * n + 4).into(), len: 1.into() });
    }
    change(&mut contents);
    // `finish` panics with the message that a reader of the bytes gets.
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| contents.finish()));
    made.map_or_else(
        |panic| panic.downcast_ref::<String>().unwrap().rsplit(": ").next().unwrap().to_owned(),
        |_| "accepted".to_owned(),
    )
}

#[test]
fn records_are_in_the_order_of_the_code_and_share_no_parts() {
    assert_eq!(in_order(|_| ()), "accepted");
    let misplaced = |table: Table| format!("before the record in front of it in {}, record 1", table.name());
    assert_eq!(in_order(|contents| contents.text_relocs.swap(0, 1)), misplaced(Table::TextRelocs));
    assert_eq!(in_order(|contents| contents.resolved_calls.swap(0, 1)), misplaced(Table::ResolvedCalls));
    assert_eq!(in_order(|contents| contents.patchable_calls.swap(0, 1)), misplaced(Table::PatchableCalls));
    assert_eq!(
        in_order(|contents| {
            let maps = &mut contents.stack_maps;
            (maps[0].return_offset, maps[1].return_offset) = (maps[1].return_offset, maps[0].return_offset);
        }),
        misplaced(Table::StackMaps)
    );
    // Equal places are in order.
    assert_eq!(in_order(|contents| contents.text_relocs[1].offset = 0.into()), "accepted");
    // A part that two records name would be read twice, and a table of them over and over.
    let shared = |what: &str, table: Table| format!("{what} in {}, record 1", table.name());
    assert_eq!(
        in_order(|contents| contents.functions[1].unwind_start = 0.into()),
        shared("unwind rows that another function has", Table::Functions)
    );
    assert_eq!(
        in_order(|contents| contents.functions[1].references_start = 0.into()),
        shared("references that another function has", Table::Functions)
    );
    assert_eq!(
        in_order(|contents| contents.stack_maps[1].entries_start = 0.into()),
        shared("entries that another stack map has", Table::StackMaps)
    );
    // An empty part may be anywhere.
    assert_eq!(
        in_order(|contents| {
            contents.functions[1].unwind_start = 0.into();
            contents.functions[1].unwind_len = 0.into();
        }),
        "accepted"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// Overwrites any few bytes with any values: no panic, in checking or in reading.
    #[test]
    fn altered_bytes_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = artifact().as_bytes().to_vec();
        for (index, value) in changes {
            let offset = index.index(bytes.len());
            bytes[offset] = value;
        }
        if let Ok(artifact) = Artifact::from_bytes(bytes) {
            read_all(&artifact);
        }
    }

    /// Sets any 4 bytes to a value near a limit.
    #[test]
    fn fields_near_limits_do_no_harm(index in any::<prop::sample::Index>(), value in prop_oneof![
        Just(u32::MAX), Just(u32::MAX - 1), Just(1 << 31), 0u32..64,
    ]) {
        let mut bytes = artifact().as_bytes().to_vec();
        let offset = index.index(bytes.len() - 4);
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        if let Ok(artifact) = Artifact::from_bytes(bytes) {
            read_all(&artifact);
        }
    }
}
