//! Bytes that are not an artifact, or no longer: refused, or an artifact whose every accessor works.

use kiln_artifact::record::{
    FunctionRecord, Handler, HandlerKind, Linkage, NONE, NamedData, PatchableCall, Reloc, ResolvedCall,
    SectionKind, StackMap, StackMapEntry, SymbolKind, SymbolRecord,
};
use kiln_artifact::stream::{self, CallSite, SourceRange, Trap};
use kiln_artifact::{Artifact, Contents, RelocKind, Table};
use proptest::prelude::*;

/// The common unwind entry that Cranelift writes for x86-64.
const CIE: &[u8] = b"\x14\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0";

/// An artifact with something in every section.
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
        reserved: [0; 3],
    };
    contents.text_relocs = vec![reloc(RelocKind::X86GotPc32, 2)];
    contents.read_only_relocs = vec![reloc(RelocKind::Abs64, 0)];
    contents.writable_relocs = vec![Reloc { offset: 0.into(), ..reloc(RelocKind::Abs64, 1) }];
    let mut traps = stream::StreamWriter::default();
    traps.trap(Trap { offset: 3, code: 1 });
    contents.traps = traps.finish();
    let mut ranges = stream::StreamWriter::default();
    ranges.source_range(SourceRange { start: 0, end: 8, location: 7 });
    contents.source_ranges = ranges.finish();
    let mut sites = stream::StreamWriter::default();
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
    contents.finish()
}

/// Uses every accessor and follows every index; whatever it returns, it must return.
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
        let at = call.offset.get() as usize;
        sum += call.original[..call.kind().width()].len();
        sum += artifact.text()[at..at + call.kind().width()].len();
        sum += artifact.symbols()[call.symbol.get() as usize].kind as usize;
    }
    for run in artifact.named_data() {
        let place =
            if run.section() == SectionKind::ReadOnly { artifact.read_only() } else { artifact.writable() };
        let start = run.start.get() as usize;
        sum += artifact.section_name(run).len() + place[start..start + run.len.get() as usize].len();
    }
    for symbol in artifact.symbols() {
        // What a linker does: each symbol moves with the piece that it lies in.
        let (place, offset) = (symbol.section(), symbol.offset.get());
        if let Some(run) = artifact.named_data_at(place, offset) {
            let run = &artifact.named_data()[run];
            assert!(offset + symbol.size.get() <= run.start.get() + run.len.get());
            sum += usize::try_from(offset - run.start.get()).unwrap();
        } else if matches!(place, SectionKind::ReadOnly | SectionKind::Writable) {
            assert!(offset + symbol.size.get() <= artifact.unnamed_len(place));
        }
    }
    let places = [
        (artifact.text_relocs(), artifact.text()),
        (artifact.read_only_relocs(), artifact.read_only()),
        (artifact.writable_relocs(), artifact.writable()),
    ];
    for (relocs, section) in places {
        for reloc in relocs {
            let at = reloc.offset.get() as usize;
            sum += section[at..at + reloc.kind().width()].len();
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
    sum + artifact.traps().count() + artifact.source_ranges().count() + artifact.patchable_calls().len()
}

#[test]
fn bytes_round_trip() {
    let artifact = artifact();
    assert!(read_all(&artifact) > 0);
    assert!(
        Table::ALL.iter().all(|&section| !artifact.table_bytes(section).is_empty()),
        "every section is tested"
    );
    let again = Artifact::from_bytes(artifact.as_bytes()).unwrap();
    assert!(again == artifact);
}

#[test]
fn an_artifact_behind_other_bytes_is_the_same_artifact() {
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

/// The message for `artifact()` with the bytes of `value` at `at` of `section`.
fn altered(section: Table, at: usize, value: &[u8]) -> String {
    let artifact = artifact();
    let mut bytes = artifact.as_bytes().to_vec();
    let table = artifact.table_bytes(section).as_ptr() as usize - artifact.as_bytes().as_ptr() as usize;
    bytes[table + at..][..value.len()].copy_from_slice(value);
    Artifact::from_bytes(bytes).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

#[test]
fn named_data_is_checked() {
    const RECORD: usize = size_of::<NamedData>();
    let name_len = |len: u32| altered(Table::NamedData, 4, &len.to_le_bytes());
    let start = |run: usize, start: u64| altered(Table::NamedData, run * RECORD + 8, &start.to_le_bytes());
    let len = |run: usize, len: u64| altered(Table::NamedData, run * RECORD + 16, &len.to_le_bytes());
    let align = |align: u32| altered(Table::NamedData, 24, &align.to_le_bytes());
    let place = |run: usize, place: u8| altered(Table::NamedData, run * RECORD + 28, &[place]);
    let malformed = |what: &str, run: u32| format!("malformed artifact: {what} in named data, record {run}");
    assert_eq!(name_len(7), "accepted");
    assert_eq!(name_len(0), malformed("an empty name, or one with a zero byte", 0));
    assert_eq!(name_len(u32::MAX), malformed("string outside the string section", 0));
    for code in [0, 1, 4, 9] {
        assert_eq!(place(0, code), malformed("a section that cannot have named data", 0));
    }
    for wrong in [0, 3, 32] {
        assert_eq!(align(wrong), malformed("an alignment that is not a power of two, or not kept", 0));
    }
    assert_eq!(start(1, 48), malformed("extent outside its section", 1));
    assert_eq!(start(1, u64::MAX - 7), malformed("extent outside its section", 1));
    assert_eq!(len(1, 9), malformed("extent outside its section", 1));
    // Overlapping, touching, out of order, writable before read-only.
    assert_eq!(start(1, 24), malformed("not behind the run before it", 1));
    assert_eq!(len(0, 16), malformed("not behind the run before it", 1));
    // The symbol `d` lies before the first run: it may end there, and not behind it.
    let size = |size: u64| altered(Table::Symbols, size_of::<SymbolRecord>() + 16, &size.to_le_bytes());
    assert_eq!(size(16), "accepted");
    assert!(size(17).contains("extent outside its section, or across the border"), "{}", size(17));
    assert!(start(0, 8).contains("across the border"), "a relocation at 4 would be cut");
    assert_eq!(place(2, SectionKind::ReadOnly as u8), malformed("not behind the run before it", 2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// Any few bytes overwritten with any values: no panic, in checking or in reading.
    #[test]
    fn altered_bytes_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = artifact().as_bytes().to_vec();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(artifact) = Artifact::from_bytes(bytes) {
            read_all(&artifact);
        }
    }

    /// Any 4-byte field at any place set to a value near a limit.
    #[test]
    fn fields_near_limits_do_no_harm(at in any::<prop::sample::Index>(), value in prop_oneof![
        Just(u32::MAX), Just(u32::MAX - 1), Just(1 << 31), 0u32..64,
    ]) {
        let mut bytes = artifact().as_bytes().to_vec();
        let at = at.index(bytes.len() - 4);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        if let Ok(artifact) = Artifact::from_bytes(bytes) {
            read_all(&artifact);
        }
    }
}
