//! Tables for debuggers, as streams: lines, places of labelled values, names of labels.
//!
//! | stream | an entry |
//! |---|---|
//! | lines, of the module | `location`; `file`; `line`; `column` |
//! | labels, of a function | `label`; `start`; length; place |
//! | variables, of a function | `label`; encoding and size, a byte each; length of the name; name |
//!
//! A location is written as the difference from the one before it, and so are a label, and a start
//! from the end of the range before it if that has the same label. A line is written as the
//! zigzag-encoded difference. A place is a register's number times 2, or the zigzag-encoded offset
//! from the frame's address times 2, plus 1. Integers are LEB128.
//!
//! The labels of a function begin with the labels of its parameters: their number, then each label,
//! in order of the parameters. Parameters without a label are left out.
//!
//! A label is a number of the client's for values that are the same variable. Where its values are
//! depends on the code, and the names do not: so code that is used again in a new module keeps its
//! labels, and gets the names that they have in the new module.

use crate::Artifact;
use crate::layout::Table;
use crate::record::{LabelledFunction, SourceFile};
use crate::stream::{StreamReader, unzigzag, write_uint, zigzag};

/// The place in a source file that locations from `location` on stand for, up to that of the next
/// entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The first of the client's source locations; never [`NONE`](crate::record::NONE).
    pub location: u32,
    /// Index of the file.
    pub file: u32,
    /// The line, counted from 1; 0 if there is none.
    pub line: u32,
    /// The column in bytes, counted from 1; 0 if there is none.
    pub column: u32,
}

/// A range of code in which a value with a label is in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelRange {
    /// The label.
    pub label: u32,
    /// First byte.
    pub start: u32,
    /// End, exclusive.
    pub end: u32,
    /// The place.
    pub place: Place,
}

/// The place of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The register with this number in DWARF.
    Register(u16),
    /// The stack, this number of bytes upwards from the canonical frame address (CFA).
    Frame(i32),
}

impl Place {
    /// The largest distance from the frame's address that has an encoding, in bytes.
    pub const MAX_DISTANCE: i64 = 1 << 29;

    fn code(self) -> u32 {
        match self {
            Self::Register(number) => u32::from(number) << 1,
            Self::Frame(offset) => zigzag(offset) << 1 | 1,
        }
    }

    fn of_code(code: u32) -> Option<Self> {
        match code & 1 {
            0 => u16::try_from(code >> 1).ok().map(Self::Register),
            _ => Some(Self::Frame(unzigzag(code >> 1))),
        }
    }
}

/// The name of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// The label.
    pub label: u32,
    /// The name, not empty, without zero bytes.
    pub name: &'a str,
    /// The encoding of its bytes.
    pub encoding: Encoding,
    /// The size in bytes, from 1 to 16.
    pub size: u8,
}

/// The encoding of the bytes of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// A signed integer.
    Signed = 0,
    /// An unsigned integer.
    Unsigned = 1,
    /// A floating-point number.
    Float = 2,
    /// An address.
    Address = 3,
}

impl Encoding {
    /// Returns the encoding with this code, or `None` if there is none.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Signed, Self::Unsigned, Self::Float, Self::Address].get(usize::from(code)).copied()
    }
}

/// Writes the lines of a module.
#[derive(Clone, Debug, Default)]
pub struct LineWriter {
    bytes: Vec<u8>,
    location: u32,
    line: u32,
}

impl LineWriter {
    /// Adds an entry.
    ///
    /// # Panics
    ///
    /// If its location is less than that of the entry before it.
    pub fn line(&mut self, entry: Line) {
        let Line { location, file, line, column } = entry;
        let step = location.checked_sub(self.location).expect("lines are in ascending order");
        write_uint(&mut self.bytes, step);
        write_uint(&mut self.bytes, file);
        write_uint(&mut self.bytes, zigzag(line.wrapping_sub(self.line) as i32));
        write_uint(&mut self.bytes, column);
        (self.location, self.line) = (location, line);
    }

    /// Returns the bytes of the stream.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Writes the labels of a function. Offsets are relative to the function's start.
#[derive(Clone, Debug, Default)]
pub struct LabelWriter {
    parameters: Vec<u32>,
    bytes: Vec<u8>,
    label: u32,
    end: u32,
}

impl LabelWriter {
    /// Sets the labels of the function's parameters, in order.
    pub fn parameters(&mut self, labels: Vec<u32>) {
        self.parameters = labels;
    }

    /// Adds a range.
    ///
    /// # Panics
    ///
    /// If its label is less than that of the range before it; if the labels are the same and it
    /// starts before that range ends; if it ends before it starts.
    pub fn range(&mut self, range: LabelRange) {
        let LabelRange { label, start, end, place } = range;
        let step = label.checked_sub(self.label).expect("labels are in ascending order");
        let from = if step == 0 { self.end } else { 0 };
        write_uint(&mut self.bytes, step);
        write_uint(&mut self.bytes, start.checked_sub(from).expect("ranges are in ascending order"));
        write_uint(&mut self.bytes, end.checked_sub(start).expect("a range ends after its start"));
        write_uint(&mut self.bytes, place.code());
        (self.label, self.end) = (label, end);
    }

    /// Returns the bytes of the part; none if there is neither a range nor a parameter.
    pub fn finish(self) -> Vec<u8> {
        let Self { parameters, bytes, .. } = self;
        if parameters.is_empty() && bytes.is_empty() {
            return bytes;
        }
        let mut part = Vec::with_capacity(bytes.len() + 1 + 2 * parameters.len());
        write_uint(&mut part, parameters.len() as u32);
        parameters.iter().for_each(|label| write_uint(&mut part, *label));
        part.extend(bytes);
        part
    }
}

/// Appends a variable to the part of a function, whose last variable has the label `before`; 0 for
/// the first.
///
/// # Panics
///
/// If its label is less than `before`, or its name has 4 GiB or more.
pub fn write_variable(bytes: &mut Vec<u8>, before: u32, variable: Variable<'_>) {
    let Variable { label, name, encoding, size } = variable;
    write_uint(bytes, label.checked_sub(before).expect("variables are in ascending order"));
    bytes.extend([encoding as u8, size]);
    write_uint(bytes, u32::try_from(name.len()).expect("a name of less than 4 GiB"));
    bytes.extend_from_slice(name.as_bytes());
}

macro_rules! stream {
    ($(#[$doc:meta])* $name:ident gives $entry:ty, |$this:ident| $read:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name<'a> {
            reader: StreamReader<'a>,
            label: u32,
            broken: bool,
        }

        impl<'a> $name<'a> {
            /// Makes a reader of a part. `location` is what its first line or its offsets are
            /// relative to.
            pub(crate) fn new(bytes: &'a [u8], location: u32) -> Self {
                Self { reader: StreamReader::new(bytes, location), label: 0, broken: false }
            }

            /// Whether reading stopped at an entry that is incomplete or not valid.
            pub(crate) fn is_broken(&self) -> bool {
                self.broken
            }

            fn label(&mut self) -> Option<u32> {
                let step = self.reader.uint()?;
                if step != 0 {
                    self.reader.offset_from_zero();
                }
                self.label = self.label.checked_add(step)?;
                Some(self.label)
            }
        }

        impl<'a> Iterator for $name<'a> {
            type Item = $entry;

            fn next(&mut self) -> Option<$entry> {
                if self.broken || self.reader.bytes.is_empty() {
                    return None;
                }
                let $this = &mut *self;
                let entry = (|| $read)();
                self.broken = entry.is_none();
                entry
            }
        }
    };
}

stream! {
    /// The lines of a module, in order of their locations.
    Lines gives Line, |this| {
        // A location has the place of a label: both are numbers of the client's.
        let location = this.label()?;
        let file = this.reader.uint()?;
        Some(Line { location, file, line: this.reader.differing()?, column: this.reader.uint()? })
    }
}

stream! {
    /// The ranges of a function's labels, in order of labels, then of offset.
    LabelRanges gives LabelRange, |this| {
        let label = this.label()?;
        let function = this.reader.location;
        let start = function.checked_add(this.reader.step()?)?;
        let end = function.checked_add(this.reader.step()?)?;
        Some(LabelRange { label, start, end, place: Place::of_code(this.reader.uint()?)? })
    }
}

stream! {
    /// The variables of a function, in order of their labels.
    Variables gives Variable<'a>, |this| {
        let label = this.label()?;
        let (encoding, size) = (Encoding::from_code(this.reader.byte()?)?, this.reader.byte()?);
        let len = usize::try_from(this.reader.uint()?).ok()?;
        let (name, rest) = this.reader.bytes.split_at_checked(len)?;
        this.reader.bytes = rest;
        Some(Variable { label, name: std::str::from_utf8(name).ok()?, encoding, size })
    }
}

/// Splits a function's part of the labels in the labels of parameters and the bytes of the ranges.
/// `None` if it is not whole.
pub(crate) fn split_parameters(part: &[u8]) -> Option<(Vec<u32>, &[u8])> {
    if part.is_empty() {
        return Some((Vec::new(), part));
    }
    let mut reader = StreamReader::new(part, 0);
    let count = reader.uint()?;
    // Each has a byte or more, so a wrong number ends at the end of the part.
    let labels = (0..count).map(|_| reader.uint()).collect::<Option<Vec<u32>>>()?;
    Some((labels, reader.bytes))
}

impl Artifact {
    /// Returns the source files that the module's lines are in. The first is the file of the module
    /// as a whole.
    pub fn source_files(&self) -> &[SourceFile] {
        self.records(Table::SourceFiles)
    }

    /// Returns the name of a source file, and the folder that it is relative to, which may be
    /// empty.
    pub fn source_file_name(&self, file: &SourceFile) -> (&str, &str) {
        (self.str(file.name), self.str(file.directory))
    }

    /// Returns the places that source locations stand for, in order of locations.
    pub fn lines(&self) -> Lines<'_> {
        Lines::new(self.table_bytes(Table::Lines), 0)
    }

    /// Returns the functions whose values have labels, or whose labels have names.
    pub fn labelled_functions(&self) -> &[LabelledFunction] {
        self.records(Table::LabelledFunctions)
    }

    /// Returns the places of the labelled values of the function with this index.
    ///
    /// # Panics
    ///
    /// If there is no such function.
    pub fn labels_of(&self, function: usize) -> LabelRanges<'_> {
        let start = self.functions()[function].start.get();
        let part = self.labels_stream_of(function);
        LabelRanges::new(split_parameters(part).map_or(&[], |(_, ranges)| ranges), start)
    }

    /// Returns the labels of the parameters of the function with this index, in order. A debugger
    /// shows their variables as the function's arguments.
    ///
    /// # Panics
    ///
    /// If there is no such function.
    pub fn parameters_of(&self, function: usize) -> Vec<u32> {
        split_parameters(self.labels_stream_of(function)).map_or_else(Vec::new, |(labels, _)| labels)
    }

    /// Returns a function's part of the stream of labels, as [`LabelWriter`] wrote it.
    ///
    /// # Panics
    ///
    /// If there is no such function.
    pub fn labels_stream_of(&self, function: usize) -> &[u8] {
        assert!(function < self.functions().len(), "no function {function}");
        self.labelled(function).map_or(&[], |record| self.labels_part(record))
    }

    /// Returns the variables of the function with this index.
    ///
    /// # Panics
    ///
    /// If there is no such function.
    pub fn variables_of(&self, function: usize) -> Variables<'_> {
        assert!(function < self.functions().len(), "no function {function}");
        let part = self.labelled(function).map_or(&[][..], |record| self.variables_part(record));
        Variables::new(part, 0)
    }

    /// Returns the index of a function's record in the table of functions with labels.
    fn labelled(&self, function: usize) -> Option<usize> {
        let number = |record: &LabelledFunction| record.function.get() as usize;
        self.labelled_functions().binary_search_by_key(&function, number).ok()
    }

    /// Returns the labels of the record with this index.
    pub(crate) fn labels_part(&self, record: usize) -> &[u8] {
        self.labelled_part(record, Table::Labels, |record| record.labels_start.get())
    }

    /// Returns the variables of the record with this index.
    pub(crate) fn variables_part(&self, record: usize) -> &[u8] {
        self.labelled_part(record, Table::Variables, |record| record.variables_start.get())
    }

    fn labelled_part(&self, record: usize, table: Table, start: fn(&LabelledFunction) -> u32) -> &[u8] {
        let (records, bytes) = (self.labelled_functions(), self.table_bytes(table));
        let end = records.get(record + 1).map_or(bytes.len(), |next| start(next) as usize);
        &bytes[start(&records[record]) as usize..end]
    }
}
