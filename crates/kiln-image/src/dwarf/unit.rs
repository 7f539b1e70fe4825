//! The compilation unit of one module: its line program, functions, variables and base types.

use std::collections::BTreeMap;

use gimli::constants::{self, DwAte, DwLang};
use gimli::write::{
    Address, AttributeValue, DwarfUnit, Expression, FileId, LineProgram, LineString, Location, LocationList,
    UnitEntryId,
};
use gimli::{Encoding, Format, LineEncoding, Register, RunTimeEndian};
use kiln_artifact::Artifact;
use kiln_artifact::debug::{Encoding as VariableEncoding, LabelRange, Line, Place, Variable};
use kiln_artifact::record::{FunctionRecord, Linkage, NONE, SourceFile};
use object::Endianness;

use super::join::{Part, UnitSections};
use super::section::{Start, TooLarge};
use crate::arch::Arch;

const ENCODING: Encoding = Encoding { format: Format::Dwarf32, version: 5, address_size: 8 };

/// The place of a row of the line program: file, line, column. Line 0 stands for no place.
type RowPlace = (u32, u32, u32);

const NO_PLACE: RowPlace = (0, 0, 0);

/// Returns the address of a byte of code.
fn address(start: Start, offset: u64) -> Address {
    match start {
        Start::Address(address) => Address::Constant(address + offset),
        // The only symbol is that of the section. The program is smaller than 2 GiB.
        Start::Offset(start) => Address::Symbol { symbol: 0, addend: (start + offset) as i64 },
    }
}

/// Makes the unit of a module that has source files, and whose code has this start.
pub(super) fn unit(artifact: &Artifact, start: Start) -> Result<UnitSections, TooLarge> {
    let mut dwarf = DwarfUnit::new(ENCODING);
    let (program, files) = line_program(artifact);
    let lines: Vec<Line> = artifact.lines().collect();
    dwarf.unit.line_program = program;
    head(&mut dwarf, artifact, start);
    dwarf.unit.line_program.begin_sequence(Some(address(start, 0)));
    let mut types = BTreeMap::new();
    let mut rows = Rows { files: &files, last: None };
    for (number, record) in artifact.functions().iter().enumerate() {
        rows.function(&mut dwarf.unit.line_program, artifact, &lines, number);
        function(&mut dwarf, (artifact, start), number, &mut types, || {
            let line = find(&lines, record.base_location.get())?;
            Some((*files.get(line.file as usize)?, line.line))
        });
    }
    dwarf.unit.line_program.end_sequence(artifact.text().len() as u64);
    let endian = match Arch::from_triple(artifact.triple()).map(Arch::endian) {
        Some(Endianness::Big) => RunTimeEndian::Big,
        _ => RunTimeEndian::Little,
    };
    let mut sections = UnitSections::new(Part::new(endian));
    // It fails only for values that are too large for the format.
    dwarf.write(&mut sections).map_err(|_| TooLarge)?;
    Ok(sections)
}

fn line_string(text: &str) -> LineString {
    LineString::String(text.into())
}

/// Returns the line program of a module, without rows, and the numbers of its files.
fn line_program(artifact: &Artifact) -> (LineProgram, Vec<FileId>) {
    let name = |file: &SourceFile| artifact.source_file_name(file);
    let files = artifact.source_files();
    let (first, directory) = files.first().map_or(("", ""), name);
    let (working, first) = (line_string(directory), line_string(first));
    let mut program = LineProgram::new(ENCODING, LineEncoding::default(), working, None, first, None);
    let numbers = files.iter().map(|file| {
        let (name, directory) = name(file);
        let directory = program.add_directory(line_string(directory));
        program.add_file(line_string(name), directory, None)
    });
    let numbers = numbers.collect();
    (program, numbers)
}

/// Describes the module as a whole.
fn head(dwarf: &mut DwarfUnit, artifact: &Artifact, start: Start) {
    let root = dwarf.unit.root();
    let entry = dwarf.unit.get_mut(root);
    let producer = format!("kiln {}, {}", env!("CARGO_PKG_VERSION"), artifact.producer());
    entry.set(constants::DW_AT_producer, string(&producer));
    if let Some(file) = artifact.source_files().first() {
        let (name, directory) = artifact.source_file_name(file);
        if file.language.get() != 0 {
            entry.set(constants::DW_AT_language, AttributeValue::Language(DwLang(file.language.get())));
        }
        entry.set(constants::DW_AT_name, string(name));
        if !directory.is_empty() {
            entry.set(constants::DW_AT_comp_dir, string(directory));
        }
    }
    entry.set(constants::DW_AT_low_pc, AttributeValue::Address(address(start, 0)));
    entry.set(constants::DW_AT_high_pc, AttributeValue::Udata(artifact.text().len() as u64));
}

/// Returns a string that ends at its first zero byte, as DWARF's strings do.
fn string(text: &str) -> AttributeValue {
    AttributeValue::String(text.split('\0').next().unwrap_or_default().into())
}

/// Returns the entry for a source location.
fn find(lines: &[Line], location: u32) -> Option<Line> {
    let after = lines.partition_point(|line| line.location <= location);
    lines.get(after.checked_sub(1)?).copied().filter(|_| location != NONE)
}

/// Writes the rows of functions, in order of their code.
struct Rows<'f> {
    files: &'f [FileId],
    /// The place of the last row.
    last: Option<RowPlace>,
}

impl Rows<'_> {
    fn function(&mut self, program: &mut LineProgram, artifact: &Artifact, lines: &[Line], number: usize) {
        let record = &artifact.functions()[number];
        let place = |location: u32| {
            find(lines, location).map_or(NO_PLACE, |line| (line.file, line.line, line.column))
        };
        let (start, end) = (record.start.get(), record.start.get() + record.len.get());
        if start == end {
            return;
        }
        // A debugger takes the second row of a function as the end of its prologue.
        self.last = None;
        self.row(program, start, place(record.base_location.get()), false);
        let (mut at, mut first) = (start, true);
        for range in artifact.source_ranges_of(number).filter(|range| range.start < range.end) {
            if range.start > at && !first {
                self.row(program, at, NO_PLACE, false);
            }
            if first && range.start > start {
                self.last = None;
            }
            self.row(program, range.start, place(range.location), first);
            (at, first) = (range.end, false);
        }
        if !first && at < end {
            self.row(program, at, NO_PLACE, false);
        }
        let next = artifact.functions().get(number + 1).map(|next| next.start.get());
        if next.is_none_or(|next| next > end) && end < artifact.text().len() as u32 {
            self.row(program, end, NO_PLACE, false);
        }
    }

    /// Adds a row, unless its place is that of the row before it.
    fn row(&mut self, program: &mut LineProgram, offset: u32, place: RowPlace, prologue_end: bool) {
        if self.last == Some(place) {
            return;
        }
        self.last = Some(place);
        let (file, line, column) = place;
        let row = program.row();
        row.address_offset = offset.into();
        row.file = self.files.get(file as usize).copied().unwrap_or(row.file);
        (row.line, row.column) = (line.into(), column.into());
        row.prologue_end = prologue_end;
        program.generate_row();
    }
}

/// The base types of a unit, by encoding and size.
type BaseTypes = BTreeMap<(u8, u8), UnitEntryId>;

/// Adds a function with its variables. `declared` returns its file and line.
fn function(
    dwarf: &mut DwarfUnit,
    (artifact, code): (&Artifact, Start),
    number: usize,
    types: &mut BaseTypes,
    declared: impl FnOnce() -> Option<(FileId, u32)>,
) {
    let record = &artifact.functions()[number];
    if record.len.get() == 0 {
        return;
    }
    let symbol = &artifact.symbols()[record.symbol.get() as usize];
    let mut variables: Vec<_> = artifact.variables_of(number).collect();
    // Parameters come first, in their order, as in a declaration.
    let parameters = if variables.is_empty() { Vec::new() } else { artifact.parameters_of(number) };
    let parameter = |variable: &Variable<'_>| parameters.iter().position(|label| *label == variable.label);
    variables.sort_by_key(|variable| parameter(variable).unwrap_or(usize::MAX));
    let ranges: Vec<_> = if variables.is_empty() { Vec::new() } else { artifact.labels_of(number).collect() };
    let typed: Vec<_> = variables.iter().map(|variable| base_type(dwarf, types, variable)).collect();

    let unit = &mut dwarf.unit;
    let id = unit.add(unit.root(), constants::DW_TAG_subprogram);
    let entry = unit.get_mut(id);
    let name = artifact.name(symbol);
    if !name.is_empty() {
        entry.set(constants::DW_AT_name, string(name));
    }
    if let Some((file, line)) = declared().filter(|(_, line)| *line != 0) {
        entry.set(constants::DW_AT_decl_file, AttributeValue::FileIndex(Some(file)));
        entry.set(constants::DW_AT_decl_line, AttributeValue::Udata(line.into()));
    }
    let start = address(code, record.start.get().into());
    entry.set(constants::DW_AT_low_pc, AttributeValue::Address(start));
    entry.set(constants::DW_AT_high_pc, AttributeValue::Udata(record.len.get().into()));
    if !matches!(symbol.linkage(), Linkage::Local | Linkage::Hidden) {
        entry.set(constants::DW_AT_external, AttributeValue::FlagPresent);
    }
    if !variables.is_empty() {
        // The places of values are relative to the canonical frame address.
        let mut base = Expression::new();
        base.op(constants::DW_OP_call_frame_cfa);
        entry.set(constants::DW_AT_frame_base, AttributeValue::Exprloc(base));
    }
    for (variable, ty) in variables.iter().zip(typed) {
        let from = ranges.partition_point(|range| range.label < variable.label);
        let to = ranges.partition_point(|range| range.label <= variable.label);
        let place = places(dwarf, record, &ranges[from..to]);
        let tag = match parameter(variable) {
            Some(_) => constants::DW_TAG_formal_parameter,
            None => constants::DW_TAG_variable,
        };
        let child = dwarf.unit.add(id, tag);
        let entry = dwarf.unit.get_mut(child);
        entry.set(constants::DW_AT_name, string(variable.name));
        entry.set(constants::DW_AT_type, AttributeValue::UnitRef(ty));
        // Without a place, the debugger says that the variable is optimized out.
        if let Some(place) = place {
            entry.set(constants::DW_AT_location, place);
        }
    }
}

/// Returns the places of a variable: one expression if it is in the same place in the whole
/// function, or else a list.
fn places(dwarf: &mut DwarfUnit, record: &FunctionRecord, ranges: &[LabelRange]) -> Option<AttributeValue> {
    let (start, end) = (record.start.get(), record.start.get() + record.len.get());
    if let [only] = ranges
        && (only.start, only.end) == (start, end)
    {
        return Some(AttributeValue::Exprloc(expression(only.place)));
    }
    let list = ranges.iter().filter(|range| range.start < range.end).map(|range| Location::OffsetPair {
        // The base is that of the unit.
        begin: range.start.into(),
        end: range.end.into(),
        data: expression(range.place),
    });
    let list: Vec<_> = list.collect();
    match list.is_empty() {
        true => None,
        false => Some(AttributeValue::LocationListRef(dwarf.unit.locations.add(LocationList(list)))),
    }
}

fn expression(place: Place) -> Expression {
    let mut expression = Expression::new();
    match place {
        Place::Register(number) => expression.op_reg(Register(number)),
        Place::Frame(offset) => expression.op_fbreg(offset.into()),
    }
    expression
}

/// Returns the base type of a variable.
fn base_type(dwarf: &mut DwarfUnit, types: &mut BaseTypes, variable: &Variable<'_>) -> UnitEntryId {
    let Variable { encoding, size, .. } = *variable;
    *types.entry((encoding as u8, size)).or_insert_with(|| {
        let (ate, name): (DwAte, String) = match encoding {
            VariableEncoding::Signed => (constants::DW_ATE_signed, format!("i{}", 8 * u32::from(size))),
            VariableEncoding::Unsigned => (constants::DW_ATE_unsigned, format!("u{}", 8 * u32::from(size))),
            VariableEncoding::Float => (constants::DW_ATE_float, format!("f{}", 8 * u32::from(size))),
            VariableEncoding::Address => (constants::DW_ATE_address, "address".to_owned()),
        };
        let unit = &mut dwarf.unit;
        let id = unit.add(unit.root(), constants::DW_TAG_base_type);
        let entry = unit.get_mut(id);
        entry.set(constants::DW_AT_name, string(&name));
        entry.set(constants::DW_AT_encoding, AttributeValue::Encoding(ate));
        entry.set(constants::DW_AT_byte_size, AttributeValue::Data1(size));
        id
    })
}
