//! Accessors of the tables that are divided by functions: traps, source locations, calls, handlers.
//!
//! A function's part of such a table starts where its [`FunctionRecord`] says, and ends where the
//! part of the next function starts.

use zerocopy::little_endian::U32;

use crate::Artifact;
use crate::layout::Table;
use crate::record::{FunctionRecord, Handler, SectionKind, SymbolRecord};
use crate::stream::{CallSite, CallSites, SourceRange, SourceRanges, Trap, Traps};

/// A function, and its parts of the tables that are divided by functions.
#[derive(Clone, Copy, Debug)]
pub struct FunctionParts<'a> {
    /// Its record.
    pub record: &'a FunctionRecord,
    /// Its stream of traps, as [`StreamWriter`](crate::stream::StreamWriter) wrote it.
    pub traps: &'a [u8],
    /// Its stream of calls.
    pub call_sites: &'a [u8],
    /// Its stream of source locations.
    pub source_ranges: &'a [u8],
    /// Its entries of the exception tables.
    pub handlers: &'a [Handler],
}

impl Artifact {
    /// Returns each function with its parts of the tables, in order of functions. This is faster
    /// than to ask for the parts of each function by its number.
    #[inline]
    pub fn functions_with_parts(&self) -> impl ExactSizeIterator<Item = FunctionParts<'_>> {
        let functions = self.functions();
        let [traps, source_ranges, call_sites] =
            [Table::Traps, Table::SourceRanges, Table::CallSites].map(|table| self.table_bytes(table));
        let handlers = self.handlers();
        functions.iter().enumerate().map(move |(number, record)| {
            let next = functions.get(number + 1);
            // Most modules have nothing in some of the tables.
            let part = |of: fn(&FunctionRecord) -> U32, len: usize| match len {
                0 => 0..0,
                _ => of(record).get() as usize..next.map_or(len, |next| of(next).get() as usize),
            };
            FunctionParts {
                record,
                traps: &traps[part(|record| record.traps_start, traps.len())],
                source_ranges: &source_ranges[part(|record| record.source_ranges_start, source_ranges.len())],
                call_sites: &call_sites[part(|record| record.call_sites_start, call_sites.len())],
                handlers: &handlers[part(|record| record.handlers_start, handlers.len())],
            }
        })
    }

    /// Returns the machine code of the function that this symbol stands for, before it is linked.
    /// `None` if the symbol does not exist, or is not a function that the module defines.
    ///
    /// A symbol has the same number as in the IR. So with `kiln_ir::ClientIds` this is the code of
    /// a function by the id that the client has for it.
    pub fn code(&self, symbol: usize) -> Option<&[u8]> {
        let symbol = self.symbols().get(symbol).filter(|symbol| symbol.section() == SectionKind::Text)?;
        let start = usize::try_from(symbol.offset.get()).ok()?;
        self.text().get(start..start.checked_add(usize::try_from(symbol.size.get()).ok()?)?)
    }

    /// Returns the machine code of the function that the module defines under `name`, before it is
    /// linked. Private names count, too.
    pub fn code_of(&self, name: &str) -> Option<&[u8]> {
        let mut symbols = self.symbols().iter().enumerate();
        let is_definition = |symbol: &SymbolRecord| symbol.section() == SectionKind::Text;
        let found = symbols.find(|(_, symbol)| is_definition(symbol) && self.name(symbol) == name);
        self.code(found?.0)
    }

    /// Returns the traps of all functions, in order of offset.
    pub fn traps(&self) -> impl Iterator<Item = Trap> {
        (0..self.functions().len()).flat_map(|function| self.traps_of(function))
    }

    /// Returns the traps of the function with this index, in order of offset.
    ///
    /// # Panics
    ///
    /// If there is no such function.
    pub fn traps_of(&self, function: usize) -> Traps<'_> {
        let record = &self.functions()[function];
        Traps::new(self.stream_of(function, Table::Traps), record.start.get(), 0)
    }

    /// Returns the source locations of all functions, in order of offset.
    pub fn source_ranges(&self) -> impl Iterator<Item = SourceRange> {
        (0..self.functions().len()).flat_map(|function| self.source_ranges_of(function))
    }

    /// Returns the source locations of the function with this index, in order of offset.
    ///
    /// # Panics
    ///
    /// If there is no such function.
    pub fn source_ranges_of(&self, function: usize) -> SourceRanges<'_> {
        let record = &self.functions()[function];
        let stream = self.stream_of(function, Table::SourceRanges);
        SourceRanges::new(stream, record.start.get(), record.base_location.get())
    }

    /// Returns the calls of all functions, in order of return address, each with its exception
    /// handlers.
    pub fn call_sites(&self) -> impl Iterator<Item = (CallSite, &[Handler])> {
        (0..self.functions().len()).flat_map(|function| self.call_sites_of(function))
    }

    /// Returns the calls of the function with this index, in order of return address, each with its
    /// exception handlers.
    ///
    /// # Panics
    ///
    /// If there is no such function.
    pub fn call_sites_of(&self, function: usize) -> impl Iterator<Item = (CallSite, &[Handler])> {
        let record = &self.functions()[function];
        let mut handlers = self.handlers_of(function);
        let sites = CallSites::new(self.stream_of(function, Table::CallSites), record.start.get(), 0);
        sites.map(move |site| {
            let (own, rest) = handlers.split_at(site.handlers as usize);
            handlers = rest;
            (site, own)
        })
    }

    /// Returns the entries of the exception tables of all functions.
    #[inline]
    pub fn handlers(&self) -> &[Handler] {
        self.records(Table::Handlers)
    }

    /// Returns the entries of the exception tables of the function with this index.
    ///
    /// # Panics
    ///
    /// If there is no such function.
    pub fn handlers_of(&self, function: usize) -> &[Handler] {
        let (start, end) = self.part_of(function, Table::Handlers);
        &self.handlers()[start..end]
    }

    /// Returns a function's part of one of the streams, as [`StreamWriter`] wrote it.
    ///
    /// # Panics
    ///
    /// If there is no such function, or the table is not a stream.
    ///
    /// [`StreamWriter`]: crate::stream::StreamWriter
    pub fn stream_of(&self, function: usize, table: Table) -> &[u8] {
        let (start, end) = self.part_of(function, table);
        &self.table_bytes(table)[start..end]
    }

    /// Returns the start and end of a function's part of `table`: in bytes, or in records for
    /// handlers.
    pub(crate) fn part_of(&self, function: usize, table: Table) -> (usize, usize) {
        let start = |function: &FunctionRecord| match table {
            Table::Traps => function.traps_start.get() as usize,
            Table::SourceRanges => function.source_ranges_start.get() as usize,
            Table::CallSites => function.call_sites_start.get() as usize,
            Table::Handlers => function.handlers_start.get() as usize,
            _ => panic!("{} are not divided by functions", table.name()),
        };
        let functions = self.functions();
        (
            start(&functions[function]),
            functions.get(function + 1).map_or_else(|| self.parts_len(table), start),
        )
    }

    /// Returns the total length of all functions' parts of `table`: in bytes, or in records for
    /// handlers.
    pub(crate) fn parts_len(&self, table: Table) -> usize {
        match table {
            Table::Handlers => self.handlers().len(),
            _ => self.table_bytes(table).len(),
        }
    }
}
