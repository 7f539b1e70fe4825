//! Compares debug information, as `gimli` reads it, with the tables of the artifacts.

use std::collections::BTreeMap;
use std::path::Path;

use gimli::{AttributeValue, Dwarf, EndianSlice, Expression, Operation, RunTimeEndian, Unit, constants};
use kiln::artifact::Artifact;
use kiln::artifact::debug::{Line, Place};
use kiln::image::DebugInfo;
use kiln::ir::{DiagnosticKind, Module, Source, Target, parse};
use libtest_mimic::Failed;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::program::{compiled, linked, with_debug};

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;

/// File, line and column of a byte of code; line 0 for none.
type BytePlace = (String, u64, u64);

/// Every function of the test files, on every target that code is generated for.
pub(crate) fn test_files() -> Result<(), Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clif");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    let mut targets = 0;
    for triple in ["x86_64", "aarch64", "riscv64", "s390x"] {
        let target = Target::parse(triple)?;
        if target.isa(&Default::default()).is_err() {
            println!("no code generator for {triple}");
            continue;
        }
        targets += 1;
        let (mut bytes, mut values) = (0, 0);
        for path in &paths {
            let source =
                Source::new(path.display().to_string(), std::fs::read_to_string(path)?).debugged("/src");
            let module = match parse(source.into(), &target) {
                Ok(module) => module,
                Err(faults) if faults[0].kind == DiagnosticKind::OtherTarget => continue,
                Err(faults) => return Err(faults[0].to_string().into()),
            };
            // Some files need instructions that a target lacks.
            let Ok(artifacts) = compiled(&[module], &target) else { continue };
            let checked =
                check(&artifacts).map_err(|error| format!("{triple} {}: {error:?}", path.display()))?;
            bytes += checked.0;
            values += checked.1;
        }
        assert!(bytes > 2000 && values > 200, "{triple}: {bytes} bytes, {values} places of values");
    }
    assert!(targets > 0);
    Ok(())
}

/// Modules whose lines are in several files, one of them shared, and one module without lines.
pub(crate) fn several_files_and_modules() -> Result<(), Failed> {
    let body = "(i64) -> i64 system_v {\nblock0(v0: i64):\n    @10 v1 = iadd v0, v0\n    @20 v2 = imul v1, v0\n    @30 return v2\n}";
    let texts = [
        format!(
            "debug %f {{ base @f, labels, v0 label 7 @0, v1 label 9 @0, v2 label 9 @0, \
             variable 7 \"x\" signed 8, variable 9 \"sum\" unsigned 4 }}\nfunction %f{body}
             lines \"a.lang\" directory=\"/src\" language=28 {{ @f 1, @10 2:3, @30 70000:1 }}
             lines \"sub/b.lang\" directory=\"/other\" {{ @20 9:9 }}"
        ),
        format!("function %g{body}"),
        format!(
            "function %h{body}\nlines \"a.lang\" directory=\"/src\" language=28 {{ @10 5, @20 6, @30 7 }}"
        ),
    ];
    let target = Target::host();
    let read = |text: &String| parse(Source::new("", text.as_str()).into(), &target);
    let modules = texts.iter().map(read).collect::<Result<Vec<Module>, _>>();
    let modules = modules.map_err(|faults| faults[0].to_string())?;
    let artifacts = compiled(&modules, &target)?;
    let (bytes, values) = check(&artifacts)?;
    assert!(bytes > 10 && values >= 2, "{bytes} bytes, {values} places");
    // The same bytes on one thread, and from another process's artifacts.
    let link = || linked(&artifacts, &with_debug(DebugInfo::InImage)).map(|files| files.image);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    assert_eq!(pool.install(link)?, link()?);
    Ok(())
}

/// Checks the image of `artifacts`, whose functions have different names. Returns the numbers of
/// bytes of code and of places of values that were compared.
fn check(artifacts: &[Artifact]) -> Result<(usize, usize), Failed> {
    let image = linked(artifacts, &with_debug(DebugInfo::InImage))?.image;
    let file = object::File::parse(&*image)?;
    let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let dwarf = Dwarf::load(|id| {
        let data = file.section_by_name(id.name()).map(|section| section.data()).transpose();
        data.map(|data| EndianSlice::new(data.unwrap_or_default(), endian))
    })?;
    // The stub of a replaceable function has its name, and another size.
    let symbols = file.symbols();
    let named = symbols.filter_map(|s| Some(((s.name().ok()?.to_owned(), s.size()), s.address())));
    let addresses: BTreeMap<(String, u64), u64> = named.collect();
    let (rows, mut functions) = (rows(&dwarf)?, functions(&dwarf)?);
    let (mut bytes, mut places) = (0, 0);
    for artifact in artifacts {
        let has_lines = !artifact.source_files().is_empty();
        let lines: Vec<Line> = artifact.lines().collect();
        for (number, record) in artifact.functions().iter().enumerate() {
            let symbol = &artifact.symbols()[record.symbol.get() as usize];
            let key = (artifact.name(symbol).to_owned(), u64::from(record.len.get()));
            let Some(&address) = addresses.get(&key) else { continue };
            let found = functions.remove(&address);
            assert_eq!(found.is_some(), has_lines, "{}", artifact.name(symbol));
            let Some(variables) = found else { continue };
            for at in 0..record.len.get() {
                let expected = expected(artifact, &lines, number, at);
                let row = rows.range(..=address + u64::from(at)).next_back();
                let row = row.map_or_else(Default::default, |(_, place)| place.clone());
                let row = if row.1 == 0 { Default::default() } else { row };
                assert_eq!(row, expected, "byte {at} of {}", artifact.name(symbol));
                bytes += 1;
            }
            let start = record.start.get();
            let parameters = artifact.parameters_of(number);
            let mut named: Vec<_> = artifact.variables_of(number).collect();
            let order = |label: u32| parameters.iter().position(|own| *own == label).unwrap_or(usize::MAX);
            named.sort_by_key(|variable| order(variable.label));
            assert!(variables.iter().map(|v| &*v.name).eq(named.iter().map(|v| v.name)));
            for (variable, named) in variables.iter().zip(&named) {
                assert_eq!(variable.size, u64::from(named.size), "{}", named.name);
                assert_eq!(variable.is_parameter, parameters.contains(&named.label), "{}", named.name);
                let ranges = artifact.labels_of(number).filter(|range| range.label == named.label);
                let expected: Vec<_> = ranges
                    .map(|r| {
                        (address + u64::from(r.start - start), address + u64::from(r.end - start), r.place)
                    })
                    .collect();
                assert_eq!(variable.places, expected, "{} of {}", named.name, artifact.name(symbol));
                places += expected.len();
            }
        }
    }
    Ok((bytes, places))
}

/// Returns the place that a byte of a function has by the artifact's tables.
fn expected(artifact: &Artifact, lines: &[Line], number: usize, at: u32) -> BytePlace {
    let record = &artifact.functions()[number];
    let offset = record.start.get() + at;
    let mut ranges = artifact.source_ranges_of(number);
    let first = ranges.clone().map(|range| range.start).min();
    let location = match ranges.find(|range| range.start <= offset && offset < range.end) {
        Some(range) => range.location,
        // The beginning of a function, before its first instruction.
        None if first.is_none_or(|first| offset < first) => record.base_location.get(),
        None => return Default::default(),
    };
    let entry = lines.iter().rev().find(|line| line.location <= location && location != u32::MAX);
    let Some(entry) = entry.filter(|entry| entry.line != 0) else { return Default::default() };
    let (name, directory) = artifact.source_file_name(&artifact.source_files()[entry.file as usize]);
    (format!("{directory}/{name}"), entry.line.into(), entry.column.into())
}

/// Returns the place from each address of a row on.
fn rows(dwarf: &Dwarf<Slice<'_>>) -> Result<BTreeMap<u64, BytePlace>, Failed> {
    let mut found = BTreeMap::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let program = unit.line_program.clone().ok_or("a unit without lines")?;
        let mut rows = program.rows();
        let mut before = None;
        while let Some((header, row)) = rows.next_row()? {
            assert!(before.is_none_or(|before| before <= row.address()), "rows in order");
            before = Some(row.address());
            if row.end_sequence() {
                // The next module may begin here.
                found.entry(row.address()).or_default();
                continue;
            }
            let file = row.file(header).ok_or("a row without file")?;
            let text = |value| Ok::<_, Failed>(dwarf.attr_string(&unit, value)?.to_string()?.to_owned());
            let directory = text(file.directory(header).ok_or("a file without folder")?)?;
            let column = match row.column() {
                gimli::ColumnType::LeftEdge => 0,
                gimli::ColumnType::Column(column) => column.get(),
            };
            let line = row.line().map_or(0, |line| line.get());
            let name = format!("{directory}/{}", text(file.path_name())?);
            found.insert(row.address(), (name, line, column));
        }
    }
    Ok(found)
}

struct FoundVariable {
    name: String,
    size: u64,
    is_parameter: bool,
    /// Start, end, place.
    places: Vec<(u64, u64, Place)>,
}

/// Returns the variables of each function, by its address.
fn functions(dwarf: &Dwarf<Slice<'_>>) -> Result<BTreeMap<u64, Vec<FoundVariable>>, Failed> {
    let mut found = BTreeMap::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let mut tree = unit.entries_tree(None)?;
        let mut children = tree.root()?.children();
        while let Some(node) = children.next()? {
            if node.entry().tag() != constants::DW_TAG_subprogram {
                continue;
            }
            let entry = node.entry();
            let Some(AttributeValue::Addr(start)) = entry.attr_value(constants::DW_AT_low_pc) else {
                return Err("a function without address".into());
            };
            let Some(AttributeValue::Udata(len)) = entry.attr_value(constants::DW_AT_high_pc) else {
                return Err("a function without length".into());
            };
            let mut variables = Vec::new();
            let mut inner = node.children();
            while let Some(child) = inner.next()? {
                let entry = child.entry();
                let text = entry.attr_value(constants::DW_AT_name).ok_or("a variable without name")?;
                let name = dwarf.attr_string(&unit, text)?.to_string()?.to_owned();
                let Some(AttributeValue::UnitRef(ty)) = entry.attr_value(constants::DW_AT_type) else {
                    return Err("a variable without type".into());
                };
                let size = unit.entry(ty)?.attr_value(constants::DW_AT_byte_size);
                let size = size.and_then(|size| size.udata_value()).ok_or("a type without size")?;
                let places = match entry.attr_value(constants::DW_AT_location) {
                    None => Vec::new(),
                    Some(AttributeValue::Exprloc(only)) => vec![(start, start + len, place(only, &unit)?)],
                    Some(list) => {
                        let mut list = dwarf.attr_locations(&unit, list)?.ok_or("not a list")?;
                        let mut places = Vec::new();
                        while let Some(item) = list.next()? {
                            places.push((item.range.begin, item.range.end, place(item.data, &unit)?));
                        }
                        places
                    }
                };
                let is_parameter = entry.tag() == constants::DW_TAG_formal_parameter;
                variables.push(FoundVariable { name, size, is_parameter, places });
            }
            assert!(found.insert(start, variables).is_none(), "two functions at {start:#x}");
        }
    }
    Ok(found)
}

fn place(expression: Expression<Slice<'_>>, unit: &Unit<Slice<'_>>) -> Result<Place, Failed> {
    let mut operations = expression.operations(unit.encoding());
    let first = operations.next()?;
    assert!(operations.next()?.is_none(), "one operation");
    match first {
        Some(Operation::Register { register }) => Ok(Place::Register(register.0)),
        Some(Operation::FrameOffset { offset }) => Ok(Place::Frame(offset.try_into()?)),
        other => Err(format!("not a place: {other:?}").into()),
    }
}
