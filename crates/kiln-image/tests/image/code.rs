//! Code tables: each answer is that of the artifact, also in a loaded image and from altered bytes.

use std::collections::HashMap;

use kiln_artifact::debug::{Line, LineWriter};
use kiln_artifact::record::{Handler, HandlerKind, Linkage, SourceFile, StackMap, StackMapEntry};
use kiln_artifact::stream::{CallSite, SourceRange, StreamWriter, Trap};
use kiln_artifact::{Artifact, Contents, Table};
use kiln_globals::GlobalTable;
use kiln_image::code::{CODE_TABLES_VERSION, CodeTables, Function, TrapCode, name_of_stub};
use kiln_image::link::{Addresses, Area, Definitions, Output, plan_in_memory};
use kiln_image::{Image, ImageInfo, ImageOptions, write_image};

use crate::support::{self, Module, TO_I64};

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % u64::from(limit)) as u32
    }
}

/// Adds a function of `len` bytes to a module, with about `entries` entries in each of its tables.
fn function(module: &mut Module, name: &str, len: u32, entries: u32, random: &mut Random) {
    module.function(name, Linkage::Local, TO_I64, &vec![0xc3; len as usize], &[]);
    let Contents {
        functions, traps, source_ranges, call_sites, handlers, stack_maps, stack_map_entries, ..
    } = &mut module.contents;
    let record = functions.last_mut().unwrap();
    let start = record.start.get();
    record.base_location = random.below(u32::MAX).into();
    record.traps_start = (traps.len() as u32).into();
    record.source_ranges_start = (source_ranges.len() as u32).into();
    record.call_sites_start = (call_sites.len() as u32).into();
    record.handlers_start = (handlers.len() as u32).into();
    let mut writers = [(); 3].map(|()| StreamWriter::default());
    let step = (len / entries.max(1)).max(2);
    let mut at = 0;
    for _ in 0..entries {
        let end = at + random.below(step);
        if end >= len {
            break;
        }
        if random.below(3) > 0 {
            writers[0].trap(Trap { offset: at, code: 1 + random.below(255) as u8 });
        }
        if random.below(4) > 0 {
            let location = if random.below(9) == 0 { random.below(u32::MAX) } else { random.below(99) };
            writers[1].source_range(SourceRange { start: at, end, location });
        }
        let return_offset = end + 1;
        if random.below(3) > 0 {
            let count = random.below(4) * random.below(2);
            let frame_offset = (count > 0).then(|| random.below(1 << 20));
            writers[2].call_site(CallSite { return_offset, frame_offset, handlers: count });
            for kind in 0..count {
                let (value, target) = (random.below(u32::MAX).into(), (start + random.below(len)).into());
                handlers.push(Handler { value, target, kind: kind as u8, reserved: [0; 3] });
            }
        }
        if random.below(3) > 0 {
            let count = random.below(5) * random.below(5);
            stack_maps.push(StackMap {
                return_offset: (start + return_offset).into(),
                span: random.below(1 << 12).into(),
                entries_start: (stack_map_entries.len() as u32).into(),
                entries_len: count.into(),
            });
            let entry = |_| StackMapEntry { offset: random.below(1 << 12).into(), size: 8.into() };
            stack_map_entries.extend((0..count).map(entry));
        }
        at = end + 1;
    }
    let [a, b, c] = writers.map(StreamWriter::finish);
    traps.extend(a);
    source_ranges.extend(b);
    call_sites.extend(c);
}

/// Gives a module `count` lines, in three files.
fn lines(module: &mut Module, count: u32, random: &mut Random) {
    for (name, directory) in [("a.lang", "/src"), ("folder/b.lang", ""), ("c.lang", "/src")] {
        let (name, directory) = (module.contents.string(name), module.contents.string(directory));
        module.contents.source_files.push(SourceFile { name, directory, ..SourceFile::default() });
    }
    let mut writer = LineWriter::default();
    let mut location = 0;
    for _ in 0..count {
        let largest = if random.below(20) == 0 { 1 << 20 } else { 3 };
        location += 1 + random.below(largest);
        let line = if random.below(20) == 0 { random.below(1 << 30) } else { random.below(100) };
        writer.line(Line { location, file: random.below(3), line, column: random.below(200) });
    }
    module.contents.lines = writer.finish();
}

/// Two modules with functions of many sizes, the first with lines; the second begins with one that
/// has many entries.
fn artifacts(many: u32) -> Vec<Artifact> {
    let mut random = Random(1);
    let (mut a, mut b) = (Module::new(), Module::new());
    for number in 0..40 {
        let len = 1 + random.below(4000);
        let name = if number % 7 == 0 { String::new() } else { format!("f{number}") };
        function(&mut a, &name, len, random.below(200), &mut random);
    }
    lines(&mut a, many, &mut random);
    function(&mut b, "large", 1 + 20 * many, many, &mut random);
    function(&mut b, "small", 40, 3, &mut random);
    vec![a.finish(), b.finish(), Module::new().finish()]
}

fn image(artifacts: &[Artifact]) -> Vec<u8> {
    let module_names = vec!["first.clif".into()];
    let options = ImageOptions { module_names, ..ImageOptions::default() };
    write_image(artifacts, &GlobalTable::new(), &options).unwrap()
}

/// An artifact's description of a return address.
type AtReturn = (Option<u32>, Vec<(u32, u32, HandlerKind)>);

/// Compares all answers about a function with its artifact. `code` is the offset of the module's
/// code.
fn compare(artifact: &Artifact, number: usize, code: u32, found: &Function<'_>) {
    let record = &artifact.functions()[number];
    let (start, len) = (record.start.get(), record.len.get());
    let name = artifact.name(&artifact.symbols()[record.symbol.get() as usize]);
    assert_eq!((found.name(), found.start(), found.len()), (name, code + start, len));
    let mut traps = HashMap::new();
    artifact.traps_of(number).for_each(|trap| {
        traps.entry(trap.offset).or_insert(TrapCode::from_raw(trap.code));
    });
    let mut sources = vec![None; len as usize];
    for range in artifact.source_ranges_of(number) {
        sources[(range.start - start) as usize..(range.end - start) as usize].fill(Some(range.location));
    }
    let mut calls: HashMap<u32, AtReturn> = HashMap::new();
    for (site, handlers) in artifact.call_sites_of(number) {
        let handler = |handler: &Handler| {
            let kind = HandlerKind::from_code(handler.kind).unwrap();
            let target = if handler.kind < 2 { code + handler.target.get() } else { 0 };
            (handler.value.get(), target, kind)
        };
        let handlers = handlers.iter().map(handler).collect();
        calls.entry(site.return_offset).or_insert((site.frame_offset, handlers));
    }
    let mut maps = HashMap::new();
    for map in artifact.stack_maps() {
        let at = map.return_offset.get();
        if at > start && at <= start + len {
            let first = map.entries_start.get() as usize;
            let entries = &artifact.stack_map_entries()[first..first + map.entries_len.get() as usize];
            let roots: Vec<_> = entries.iter().map(|entry| (entry.offset.get(), entry.size.get())).collect();
            maps.entry(at).or_insert((map.span.get(), roots));
        }
    }
    let ranges = artifact.source_ranges_of(number);
    let ranges = ranges.map(|range| (code + range.start, code + range.end, range.location));
    assert!(ranges.eq(found.sources().map(|range| (range.start, range.end, range.location))), "{name}");
    for offset in start..=start + len {
        let at = code + offset;
        let expected = sources.get((offset - start) as usize).copied().flatten();
        assert_eq!(found.source_at(at), expected, "{name} {at}");
        assert_eq!(found.trap_at(at), traps.get(&offset).copied(), "{name} {at}");
        let call = found.call_at(at).map(|call| {
            let handlers = call.handlers().map(|handler| (handler.value, handler.target, handler.kind));
            (call.frame_offset(), handlers.collect::<Vec<_>>())
        });
        assert_eq!(call, calls.get(&offset).cloned(), "{name} {at}");
        let map = found
            .stack_map_at(at)
            .map(|map| (map.span(), map.roots().map(|root| (root.offset, root.size)).collect::<Vec<_>>()));
        assert_eq!(map, maps.get(&offset).cloned(), "{name} {at}");
    }
}

#[test]
fn every_answer_is_that_of_the_artifact() {
    let artifacts = artifacts(3000);
    let bytes = image(&artifacts);
    let info = ImageInfo::parse(&bytes).unwrap();
    let tables = info.code_tables().unwrap();
    let text = info.sections.iter().find(|section| &*section.name == ".text").unwrap();
    let mut all = tables.functions();
    let mut code = 0;
    let (mut entries, mut owner) = ([0; 4], vec![None; text.size as usize]);
    for (number, artifact) in artifacts.iter().enumerate() {
        for function in 0..artifact.functions().len() {
            let found = all.next().unwrap();
            assert_eq!(found.module(), Some(number as u32));
            assert_eq!(found.module_name(), (number == 0).then_some("first.clif"));
            compare(artifact, function, code, &found);
            owner[found.start() as usize..(found.start() + found.len()) as usize].fill(Some(found.start()));
            assert_eq!(found.source_at(found.start().wrapping_sub(1)), None);
            assert_eq!(found.trap_at(found.start() + found.len() + 1), None);
        }
        let functions = 0..artifact.functions().len();
        entries[0] += artifact.traps().count();
        entries[1] += artifact.source_ranges().count();
        entries[2] += functions.map(|number| artifact.call_sites_of(number).count()).sum::<usize>();
        entries[3] += artifact.stack_maps().len();
        code = (code + artifact.text().len() as u32).next_multiple_of(16);
    }
    assert!(all.next().is_none() && entries.iter().all(|&count| count > 3000), "{entries:?}");
    for (offset, owner) in owner.iter().enumerate() {
        assert_eq!(tables.find(offset as u32).map(|found| found.start()), *owner, "{offset}");
        let located = info.locate(text.address + offset as u64);
        assert_eq!(located.map(|place| place.start() - text.address), owner.map(u64::from));
        assert_eq!(located.map(|place| place.offset()), owner.map(|start| offset as u32 - start));
    }
    for outside in [text.address - 1, text.address + text.size, 0, u64::MAX] {
        assert!(info.locate(outside).is_none(), "{outside:#x}");
    }
    let sizes = tables.sizes();
    let section = info.sections.iter().find(|section| &*section.name == ".kiln.code").unwrap();
    assert_eq!((sizes.total as u64, sizes.functions), (section.size, 42));
    assert!(section.loaded && !section.writable && !section.executable);
    let names: usize = tables.functions().map(|found| found.name().len()).sum();
    assert_eq!(sizes.names, names + "first.clif".len());
    // A record, seven lengths of a byte or more, and a guide.
    assert!((42 * 15..42 * 40).contains(&sizes.index()), "{sizes:?}");
    assert!(sizes.checkpoints * 4 < sizes.traps + sizes.calls + sizes.stack_maps + sizes.source_locations);
}

#[test]
fn tables_in_memory_say_the_same() {
    for many in [0, 1, 3, 20, 300, 3000] {
        let artifacts = artifacts(many);
        let names = ["first.clif"];
        let definitions = Definitions::new(&artifacts);
        let plan = plan_in_memory(&artifacts, &names, &definitions, &|_| None).unwrap();
        assert_eq!(plan.layout()[Area::EhFrameHdr].size, 0);
        let bytes = |area: Area| vec![0x55; plan.layout()[area].size as usize];
        let mut code_tables = bytes(Area::CodeTables);
        let output = Output {
            text: &mut bytes(Area::Text),
            eh_frame: &mut bytes(Area::EhFrame),
            eh_frame_hdr: &mut [],
            code_tables: &mut code_tables,
            rodata: &mut bytes(Area::Rodata),
            relro: &mut bytes(Area::Relro),
            data: &mut bytes(Area::Data),
        };
        plan.emit(&Addresses::default(), output).unwrap();
        let tables = CodeTables::read(&code_tables).unwrap();
        let mut all = tables.functions();
        let mut code = 0;
        for artifact in &artifacts {
            for function in 0..artifact.functions().len() {
                compare(artifact, function, code, &all.next().unwrap());
            }
            code = (code + artifact.text().len() as u32).next_multiple_of(16);
        }
        assert!(all.next().is_none());
        let file = image(&artifacts);
        let exact = ImageInfo::parse(&file).unwrap().code_tables().unwrap().sizes();
        let sizes = tables.sizes();
        assert!(sizes.total >= exact.total && sizes.total * 4 <= exact.total * 5, "{sizes:?} {exact:?}");
        let lines = |tables: &CodeTables<'_>| {
            let first = tables.functions().next().unwrap();
            (0..9000)
                .step_by(7)
                .map(|at| first.line_of(at).map(|at| (at.line, at.column)))
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&tables), lines(&ImageInfo::parse(&file).unwrap().code_tables().unwrap()));
    }
}

#[test]
fn lines_are_those_of_the_artifact() {
    // Few lines have no checkpoint.
    for count in [0, 1, 2, 15, 16, 17, 18, 33, 5000] {
        let (artifacts, mut random) = (artifacts(count), Random(count.into()));
        let bytes = image(&artifacts);
        let info = ImageInfo::parse(&bytes).unwrap();
        let tables = info.code_tables().unwrap();
        let [first, last] =
            [0, 1].map(|module| tables.functions().find(|f| f.module() == Some(module)).unwrap());
        let entries: Vec<_> = artifacts[0].lines().collect();
        assert_eq!(entries.len(), count as usize);
        let near = entries.iter().flat_map(|entry| [entry.location.wrapping_sub(1), entry.location]);
        let any = (0..200).map(|_| random.below(u32::MAX) >> random.below(32));
        for location in near.chain(any).chain([0, u32::MAX - 1]) {
            let found = first.line_of(location).map(|at| (at.file, at.directory, at.line, at.column));
            let after = entries.partition_point(|entry| entry.location <= location);
            let expected = after.checked_sub(1).map(|at| entries[at]).map(|entry| {
                let file = &artifacts[0].source_files()[entry.file as usize];
                let (name, directory) = artifacts[0].source_file_name(file);
                (name, directory, entry.line, entry.column)
            });
            let is_none = location == u32::MAX;
            assert_eq!(found, expected.filter(|_| !is_none), "{count} {location}");
            assert_eq!(last.line_of(location), None);
        }
        assert_eq!(first.line_of(u32::MAX), None);
        let sizes = tables.sizes();
        let stream = artifacts[0].table_bytes(Table::Lines).len();
        assert!(if count == 0 { sizes.lines == 0 } else { sizes.lines > stream + 24 }, "{sizes:?}");
    }
}

#[test]
fn a_loaded_image_says_where_an_address_is() {
    let (artifacts, names) = (support::program(), vec!["a".into(), "b".into()]);
    let options = ImageOptions { module_names: names, ..ImageOptions::default() };
    let bytes = write_image(&artifacts, &support::table(), &options).unwrap();
    let loaded = Image::from_bytes(&bytes).unwrap().bind_array(&[1, 2, 3]).unwrap();
    let place = loaded.locate(loaded.address("add3").unwrap().wrapping_add(4)).unwrap();
    assert_eq!(
        (place.name(), place.offset(), place.module(), place.module_name()),
        ("add3", 4, Some(0), Some("a"))
    );
    assert_eq!(place.start(), loaded.address("add3").unwrap() as u64);
    let add8 = loaded.address("add8").unwrap();
    assert_eq!(loaded.locate(add8).map(|place| (place.name(), place.module())), Some(("add8", Some(1))));
    let names: Vec<_> = loaded.code_tables().unwrap().functions().map(|found| found.name()).collect();
    assert!(names.contains(&"local") && names.contains(&"hidden"), "private functions have names, too");
    let text = loaded.text();
    for outside in [text.start.wrapping_sub(1), text.end, std::ptr::null(), loaded.base()] {
        assert!(loaded.locate(outside).is_none());
    }
    // The stub of `host_double` is at the end, after all functions.
    let stub = text.end.wrapping_sub(8);
    for at in 0..8 {
        let place = loaded.locate(stub.wrapping_add(at)).unwrap();
        assert_eq!((place.name(), place.start(), place.offset()), ("host_double", stub as u64, at as u32));
        assert_eq!((place.is_stub(), place.module(), place.module_name()), (true, None, None));
        assert_eq!((place.source(), place.trap(), place.call().is_none()), (None, None, true));
    }
    assert!(loaded.locate(stub.wrapping_sub(1)).is_none(), "a gap");
    assert!(loaded.locate_call(stub.wrapping_add(6)).is_none(), "no call returns to a stub");
    let stubs: Vec<_> = loaded.code_tables().unwrap().stubs().collect();
    assert_eq!(stubs.iter().map(name_of_stub).collect::<Vec<_>>(), ["host_double@plt"]);
    let last = loaded.code_tables().unwrap().functions().last().unwrap();
    let end = text.start.wrapping_add((last.start() + last.len()) as usize);
    assert!(loaded.locate(end).is_none());
    assert_eq!(loaded.locate_call(end).map(|place| place.name()), Some(last.name()));
}

/// Asks for everything at some places, and everything that `functions` lists.
fn ask(bytes: &[u8]) {
    let Some(tables) = CodeTables::read(bytes) else { return };
    let ask = |function: Function<'_>, at: u32| {
        let _ = (function.name(), function.module_name(), function.source_at(at), function.trap_at(at));
        let line = function.line_of(at).map_or(0, |line| line.file.len() + line.directory.len());
        assert!(line <= 2 * bytes.len());
        let handlers = function.call_at(at).map_or(0, |call| call.handlers().count());
        let roots = function.stack_map_at(at).map_or(0, |map| map.roots().count());
        assert!(handlers.max(roots) <= bytes.len());
    };
    tables.stubs().for_each(|stub| assert!(stub.is_stub() && name_of_stub(&stub).len() <= bytes.len() + 4));
    for at in (0..4000).step_by(37).chain([u32::MAX, 1 << 31]) {
        tables.find(at).into_iter().for_each(|function| ask(function, at));
    }
    let mut count = 0;
    for function in tables.functions() {
        count += 1;
        assert!(function.sources().count() <= bytes.len());
        for at in [function.start(), function.start().saturating_add(function.len() / 2)] {
            ask(function, at);
        }
    }
    assert!(count <= bytes.len(), "{count} functions of {} bytes", bytes.len());
    let _ = tables.sizes();
}

#[test]
fn altered_tables_do_no_harm() {
    let mut random = Random(2);
    let mut module = Module::new();
    (0..3).for_each(|number| function(&mut module, "name", 400, 30 * number, &mut random));
    lines(&mut module, 20, &mut random);
    let image = image(&[module.finish()]);
    let info = ImageInfo::parse(&image).unwrap();
    let section = info.sections.iter().find(|section| &*section.name == ".kiln.code").unwrap();
    let bytes = &image[section.offset as usize..][..section.size as usize];
    ask(bytes);
    assert!(CodeTables::read(bytes).is_some());
    for at in 0..bytes.len() {
        assert!(CodeTables::read(&bytes[..at]).is_none(), "{at}");
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x10] {
            let mut altered = bytes.to_vec();
            altered[at] = value;
            ask(&altered);
        }
    }
    // Many bytes at once, and heads that say that everything which follows is tables.
    for _ in 0..4000 {
        let mut altered = bytes.to_vec();
        for _ in 0..1 + random.below(8) {
            let at = random.below(altered.len() as u32) as usize;
            altered[at] = random.below(256) as u8;
        }
        altered[..12].copy_from_slice(&bytes[..12]);
        ask(&altered);
        let noise = (0..random.below(200)).map(|_| random.below(256) as u8 >> random.below(8));
        let mut noise: Vec<u8> = bytes[..8].iter().copied().chain([0; 4]).chain(noise).collect();
        let len = noise.len() as u32;
        noise[8..12].copy_from_slice(&len.to_le_bytes());
        ask(&noise);
    }
}

#[test]
fn a_call_at_the_end_of_a_function_is_not_of_the_next_one() {
    let mut module = Module::new();
    for name in ["first", "second"] {
        module.function(name, Linkage::Export, TO_I64, &[0x90; 16], &[]);
    }
    // The return addresses of two calls, each the end of its function.
    module.contents.stack_maps = [16, 32]
        .map(|end: u32| StackMap {
            return_offset: end.into(),
            span: (8 * end).into(),
            entries_start: 0.into(),
            entries_len: 0.into(),
        })
        .to_vec();
    let image = image(&[module.finish()]);
    let info = ImageInfo::parse(&image).unwrap();
    let tables = info.code_tables().unwrap();
    let span = |at: u32, end: u32| tables.find(at).unwrap().stack_map_at(end).map(|map| map.span());
    assert_eq!([span(15, 16), span(16, 16), span(31, 32)], [Some(128), None, Some(256)]);
    let text = info.sections.iter().find(|section| &*section.name == ".text").unwrap().address;
    let name = |end| info.locate_call(text + end).map(|place| (place.name(), place.stack_map().is_some()));
    assert_eq!([name(16), name(32)], [Some(("first", true)), Some(("second", true))]);
}

#[test]
fn modules_that_share_a_piece_do_not_multiply_it() {
    let count = 1000_u32;
    let mut bytes = b"KCod".to_vec();
    // A shift and a number for each two records, all zero.
    let guide = 4 + 2 * count;
    let piece = 16 + 12 * count + guide;
    let len = piece + 4 + 8 * count + guide + 9;
    [CODE_TABLES_VERSION, len, count].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    (0..count)
        .for_each(|number| [number, number, piece].iter().for_each(|word| bytes.extend(word.to_le_bytes())));
    bytes.resize(piece as usize, 0);
    bytes.extend(count.to_le_bytes());
    (0..count).for_each(|number| {
        [number, 4 + 8 * count + guide + 2].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    });
    bytes.resize(bytes.len() + guide as usize, 0);
    // No name of the module, no lines; a function of 9 bytes without anything.
    bytes.extend([0, 0, 9, 0, 0, 0, 0, 0, 0]);
    let tables = CodeTables::read(&bytes).unwrap();
    assert_eq!(tables.functions().count(), count as usize);
    ask(&bytes);
}
