//! Makes the tables of one module from its artifact: first their size, then their bytes.
//!
//! Streams of traps, calls, lines and source locations are copied. Checkpoints are a function of a
//! stream's length, so the size of those is known without reading them. Stack maps are written
//! anew, so [`ModuleTables::measure`] reads them once to know their length. Code in memory has
//! tables of a size that [`ModuleTables::bound`] finds without looking at each function's streams.

use kiln_artifact::record::StackMap;
use kiln_artifact::{Artifact, FunctionParts, Table};
use smallvec::SmallVec;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::format::{
    CHECKPOINT, CODE_TABLES_VERSION, Checkpoint, FUNCTION, FileRecord, FunctionRecord, HANDLER, HEAD,
    HandlerRecord, Head, MAGIC, MODULE, ModuleRecord, STRIDE, checkpoints,
};
use super::part::{Part, Reader};
use super::sink::{Count, Sink, Write, put, uint_len};
use super::stubs::StubRow;
use super::{guide, stubs};

/// The sizes of a module's tables.
#[derive(Debug, Default)]
pub(crate) struct ModuleTables {
    /// The length of its piece, in bytes; 0 if it has no functions.
    pub(crate) len: u64,
    /// Lengths of the stack maps of each function, if they were measured.
    functions: Option<SmallVec<[u32; 2]>>,
}

/// Returns the length of the head of tables of so many pieces, in bytes.
pub(crate) fn head_len(pieces: usize) -> u64 {
    (HEAD + MODULE * pieces + guide::len(pieces)) as u64
}

/// Writes the head of tables of `len` bytes. `modules` has the offset of the code, the number and
/// the offset of the piece of each module that has functions, and of the shared stubs.
pub(crate) fn write_head(len: u32, modules: impl Iterator<Item = [u32; 3]>, out: &mut [u8]) {
    let Some((head, rest)) = out.split_at_mut_checked(HEAD) else { return };
    let modules: SmallVec<[[u32; 3]; 2]> = modules.collect();
    let (mut records, guide) = rest.split_at_mut(MODULE * modules.len());
    let count = U32::new(modules.len() as u32);
    let fields =
        Head { magic: MAGIC, version: U32::new(CODE_TABLES_VERSION), len: U32::new(len), modules: count };
    head.copy_from_slice(fields.as_bytes());
    guide::write(modules.iter().map(|[code, ..]| *code), guide);
    for [code, number, piece] in modules {
        let record = ModuleRecord { code: code.into(), number: number.into(), piece: piece.into() };
        put(&mut records, record.as_bytes());
    }
}

/// A function, with all that its description has.
struct Described<'a> {
    artifact: &'a Artifact,
    name: &'a [u8],
    parts: FunctionParts<'a>,
    maps: &'a [StackMap],
}

/// Returns the functions of a module, in order.
fn described(artifact: &Artifact) -> impl Iterator<Item = Described<'_>> {
    let (mut maps, symbols) = (artifact.stack_maps(), artifact.symbols());
    artifact.functions_with_parts().map(move |parts| {
        let record = parts.record;
        let mut own: &[StackMap] = &[];
        if !maps.is_empty() {
            let (start, end) = (record.start.get(), record.start.get() + record.len.get());
            // The return address of the last call of a function may be the start of the next one.
            let cut =
                |maps: &'_ [StackMap], at: u32| maps.partition_point(|map| map.return_offset.get() <= at);
            maps = &maps[cut(maps, start)..];
            (own, maps) = maps.split_at(cut(maps, end));
        }
        let name = artifact.name_bytes(&symbols[record.symbol.get() as usize]);
        Described { artifact, name, parts, maps: own }
    })
}

/// Writes what comes before the part of a module's lines. Returns the stream of the lines, which is
/// empty if the module has none.
fn put_lines_head<'a>(artifact: &'a Artifact, sink: &mut impl Sink) -> &'a [u8] {
    let stream = artifact.table_bytes(Table::Lines);
    let files = if stream.is_empty() { &[] } else { artifact.source_files() };
    sink.uint(files.len() as u32);
    if files.is_empty() {
        return &[];
    }
    let mut texts = Count(0);
    let mut records = Vec::with_capacity(files.len());
    for file in files {
        let [name, directory] = <[&str; 2]>::from(artifact.source_file_name(file)).map(|text| {
            let start = U32::new(texts.0 as u32);
            texts.text(text);
            start
        });
        records.push(FileRecord { name, directory });
    }
    sink.uint(stream.len() as u32);
    sink.uint(texts.0 as u32);
    sink.bytes(records.as_bytes());
    for (name, directory) in files.iter().map(|file| artifact.source_file_name(file)) {
        sink.text(name);
        sink.text(directory);
    }
    stream
}

impl Described<'_> {
    /// Returns the length of the stream of stack maps, in bytes.
    fn maps_len(&self) -> u32 {
        let mut maps = Count(0);
        if !self.maps.is_empty() {
            self.put_maps(&mut maps);
        }
        maps.0 as u32
    }

    /// Writes what comes before the handlers.
    fn put_head(&self, maps: u32, sink: &mut impl Sink) {
        let FunctionParts { record, traps, call_sites, source_ranges, handlers } = self.parts;
        sink.uints([record.len.get(), self.name.len() as u32]);
        sink.bytes(self.name);
        let lens = [traps.len(), call_sites.len(), handlers.len(), source_ranges.len()];
        let [traps, calls, handlers, sources] = lens.map(|len| len as u32);
        sink.uints([traps, calls, maps, handlers, sources]);
        if sources > 0 {
            sink.uint(record.base_location.get());
        }
    }

    fn put_maps(&self, sink: &mut impl Sink) {
        let mut before = self.parts.record.start.get();
        for map in self.maps {
            let first = map.entries_start.get() as usize;
            let roots = &self.artifact.stack_map_entries()[first..first + map.entries_len.get() as usize];
            let numbers = || roots.iter().flat_map(|root| [root.offset.get(), root.size.get()]);
            let mut len = Count(0);
            numbers().for_each(|number| len.uint(number));
            sink.uint(map.return_offset.get() - before);
            sink.uint(map.span.get());
            sink.uint(len.0 as u32);
            numbers().for_each(|number| sink.uint(number));
            before = map.return_offset.get();
        }
    }

    /// Writes what comes after the head.
    fn put_parts(&self, maps: u32, out: &mut Write<'_>) {
        let FunctionParts { record, traps, call_sites, source_ranges, handlers } = self.parts;
        for handler in handlers {
            let record = HandlerRecord { value: handler.value, target: handler.target, kind: handler.kind };
            out.bytes(record.as_bytes());
        }
        out.part(traps.len(), 0, |sink| sink.bytes(traps), |reader| reader.trap().map(drop));
        out.part(call_sites.len(), 0, |sink| sink.bytes(call_sites), |reader| reader.call().map(drop));
        out.part(maps as usize, 0, |sink| self.put_maps(sink), |reader| reader.map().map(drop));
        let base = record.base_location.get();
        let read = |reader: &mut Reader<'_>| reader.source().map(drop);
        out.part(source_ranges.len(), base, |sink| sink.bytes(source_ranges), read);
    }
}

impl<'o> Write<'o> {
    fn cut(&mut self, len: usize) -> &'o mut [u8] {
        let (out, rest) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        out
    }

    /// Writes a part whose stream has `len` bytes. `read` reads an entry of it.
    #[inline]
    fn part(
        &mut self,
        len: usize,
        extra: u32,
        stream: impl FnOnce(&mut Write<'_>),
        read: impl Fn(&mut Reader<'_>) -> Option<()>,
    ) {
        if len == 0 {
            return;
        }
        self.streamed(len, extra, stream, read);
    }

    /// Writes a part that is not empty.
    fn streamed(
        &mut self,
        len: usize,
        extra: u32,
        stream: impl FnOnce(&mut Write<'_>),
        read: impl Fn(&mut Reader<'_>) -> Option<()>,
    ) {
        let mut records = self.cut(CHECKPOINT * checkpoints(len));
        let bytes = self.cut(len);
        stream(&mut Write(bytes));
        let mut reader = Reader::whole(bytes, extra);
        let mut next = STRIDE;
        while !records.is_empty() && read(&mut reader).is_some() {
            let (left, offset) = reader.state();
            let position = len - left;
            while position >= next && !records.is_empty() {
                let [position, offset, extra] = [position as u32, offset, reader.extra].map(U32::new);
                put(&mut records, Checkpoint { position, offset, extra }.as_bytes());
                next += STRIDE;
            }
        }
    }
}

/// Returns the length of a part whose stream has `len` bytes.
fn part_len(len: usize) -> u64 {
    Part::len(len) as u64
}

/// Counts everything of a piece but the descriptions of its functions.
fn count_head(artifact: &Artifact, name: &str, rows: &[StubRow<'_>]) -> Count {
    let count = artifact.functions().len() + rows.len();
    let mut total = Count((4 + FUNCTION * count + guide::len(count)) as u64 + stubs::len(rows));
    total.text(name);
    let lines = put_lines_head(artifact, &mut total);
    total.0 += part_len(lines.len());
    total
}

impl ModuleTables {
    /// Measures the tables of a module with these veneers and stubs.
    pub(crate) fn measure(artifact: &Artifact, name: &str, rows: &[StubRow<'_>]) -> Self {
        let functions = artifact.functions().len();
        if functions == 0 {
            return Self::default();
        }
        let mut total = count_head(artifact, name, rows);
        let mut functions = SmallVec::with_capacity(functions);
        for function in described(artifact) {
            let maps = function.maps_len();
            function.put_head(maps, &mut total);
            let FunctionParts { traps, call_sites, source_ranges, handlers, .. } = function.parts;
            total.0 += (HANDLER * handlers.len()) as u64;
            let parts = [traps.len(), call_sites.len(), maps as usize, source_ranges.len()];
            total.0 += parts.map(part_len).iter().sum::<u64>();
            functions.push(maps);
        }
        Self { len: total.0, functions: Some(functions) }
    }

    /// Returns an upper bound of the size of a module's tables, which [`write`](Self::write) then
    /// fills up with zeros. It is exact but for numbers of which another function of the module may
    /// have a longer one.
    pub(crate) fn bound(artifact: &Artifact, name: &str, rows: &[StubRow<'_>]) -> Self {
        let (functions, symbols) = (artifact.functions(), artifact.symbols());
        if functions.is_empty() {
            return Self::default();
        }
        let mut total = count_head(artifact, name, rows);
        // Stack maps may share their entries, so only reading them bounds their length.
        let mut maps = Count(0);
        if !artifact.stack_maps().is_empty() {
            described(artifact).for_each(|function| function.put_maps(&mut maps));
        }
        let [traps, calls, sources] = [Table::Traps, Table::CallSites, Table::SourceRanges]
            .map(|table| artifact.table_bytes(table).len() as u64);
        let handlers = artifact.handlers().len() as u64;
        let longest = [artifact.text().len() as u64, traps, calls, maps.0, handlers, sources];
        let numbers: u64 = longest.iter().map(|&len| uint_len(len as u32)).sum();
        let base = if sources > 0 { uint_len(u32::MAX) } else { 0 };
        total.0 += (numbers + base) * functions.len() as u64 + HANDLER as u64 * handlers;
        // A part with `n` checkpoints is longer than `n` strides.
        let streams = [traps, calls, maps.0, sources];
        total.0 += streams.map(|len| len + CHECKPOINT as u64 * (len / STRIDE as u64)).iter().sum::<u64>();
        for function in functions {
            let len = artifact.name_bytes(&symbols[function.symbol.get() as usize]).len();
            total.0 += uint_len(len as u32) + len as u64;
        }
        Self { len: total.0, functions: None }
    }

    /// Writes the piece of the module that was measured, with the same name and stubs, which are in
    /// order.
    ///
    /// # Panics
    ///
    /// If `out` is not as long as was measured.
    pub(crate) fn write(&self, artifact: &Artifact, name: &str, rows: &[StubRow<'_>], out: &mut [u8]) {
        assert_eq!(out.len() as u64, self.len, "as long as was measured");
        if out.is_empty() {
            return;
        }
        let len = out.len();
        let starts = artifact.functions().iter().map(|function| function.start.get());
        let count = starts.len() + rows.len();
        let (mut index, rest) = out.split_at_mut(4 + FUNCTION * count);
        put(&mut index, &(count as u32).to_le_bytes());
        let (guide, rest) = rest.split_at_mut(guide::len(count));
        if rows.is_empty() {
            guide::write(starts, guide);
        } else {
            guide::write(stubs::merged(starts, rows).into_iter(), guide);
        }
        let mut out = Write(rest);
        out.text(name);
        let lines = put_lines_head(artifact, &mut out);
        out.part(lines.len(), 0, |sink| sink.bytes(lines), |reader| reader.line().map(drop));
        let mut rows = rows.iter().peekable();
        for (number, function) in described(artifact).enumerate() {
            while let Some(row) = rows.next_if(|row| row.start < function.parts.record.start.get()) {
                row.write(len - out.0.len(), &mut index, &mut out);
            }
            let maps = match &self.functions {
                Some(lens) => lens[number],
                None => function.maps_len(),
            };
            let description = U32::new((len - out.0.len()) as u32);
            put(&mut index, FunctionRecord { start: function.parts.record.start, description }.as_bytes());
            function.put_head(maps, &mut out);
            function.put_parts(maps, &mut out);
        }
        rows.for_each(|row| row.write(len - out.0.len(), &mut index, &mut out));
        assert!(out.0.is_empty() || self.functions.is_none(), "as long as was measured");
        out.0.fill(0);
    }
}
