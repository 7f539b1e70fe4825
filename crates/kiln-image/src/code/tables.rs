//! The tables as a whole: finding a function.

use zerocopy::FromBytes;

use super::cursor::Cursor;
use super::format::{CODE_TABLES_VERSION, FUNCTION, FunctionRecord, Head, MAGIC, ModuleRecord, STUB};
use super::function::Function;
use super::guide::Guide;
use super::piece::Piece;

/// The code tables of a linked program, in an image or in memory.
///
/// The bytes may be anything: a method returns what they say, or `None`, and reads nothing else. It
/// is safe in a signal handler.
#[derive(Clone, Copy, Debug)]
pub struct CodeTables<'a> {
    bytes: &'a [u8],
    modules: &'a [ModuleRecord],
    guide: Guide<'a>,
}

/// The sizes of the parts of code tables, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableSizes {
    /// The number of functions.
    pub functions: usize,
    /// The bytes of their code.
    pub code: usize,
    /// All tables.
    pub total: usize,
    /// Names of functions, stubs and modules.
    pub names: usize,
    /// Traps.
    pub traps: usize,
    /// Calls.
    pub calls: usize,
    /// Exception handlers.
    pub handlers: usize,
    /// Stack maps.
    pub stack_maps: usize,
    /// Source locations.
    pub source_locations: usize,
    /// Lines and files of modules.
    pub lines: usize,
    /// Checkpoints of all streams.
    pub checkpoints: usize,
}

impl TableSizes {
    /// Returns the rest: the index, and the heads of descriptions.
    pub fn index(&self) -> usize {
        let streams = self.traps + self.calls + self.stack_maps + self.source_locations;
        let rest = streams + self.lines + self.names + self.handlers + self.checkpoints;
        self.total.saturating_sub(rest)
    }

    /// Returns the parts by their names, in bytes. Together they are all tables.
    pub fn parts(&self) -> [(&'static str, usize); 9] {
        [
            ("index", self.index()),
            ("names", self.names),
            ("traps", self.traps),
            ("calls", self.calls),
            ("handlers", self.handlers),
            ("stack maps", self.stack_maps),
            ("source locations", self.source_locations),
            ("lines", self.lines),
            ("checkpoints", self.checkpoints),
        ]
    }
}

/// Returns the function or the stub that a record describes.
#[inline]
fn function<'a>(piece: &Piece<'a>, module: &ModuleRecord, record: &FunctionRecord) -> Option<Function<'a>> {
    let description = record.description.get();
    let mut rest = Cursor(piece.bytes.get(usize::try_from(description & !STUB).ok()?..)?);
    let (len, name_len) = (rest.uint()?, rest.uint()?);
    // The tables are shorter than 4 GiB.
    let name = (piece.bytes.len() - rest.0.len()) as u32;
    rest.bytes(usize::try_from(name_len).ok()?)?;
    let module_code = module.code.get();
    let start = module_code.checked_add(record.start.get())?;
    start.checked_add(len)?;
    Some(Function {
        piece: piece.bytes,
        module: module.number.get(),
        module_code,
        start,
        len,
        name,
        name_len,
        is_stub: description & STUB != 0,
    })
}

impl<'a> CodeTables<'a> {
    /// Finds the tables at the start of `bytes`; `None` if they are not tables of this version. The
    /// time does not depend on their length, because nothing else is checked.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, _) = Head::ref_from_prefix(bytes).ok()?;
        if head.magic != MAGIC || head.version.get() != CODE_TABLES_VERSION {
            return None;
        }
        let bytes = bytes.get(..usize::try_from(head.len.get()).ok()?)?;
        let mut cursor = Cursor(bytes.get(size_of::<Head>()..)?);
        let modules: &[_] = cursor.records(usize::try_from(head.modules.get()).ok()?)?;
        Some(Self { bytes, modules, guide: Guide::read(&mut cursor, modules.len())? })
    }

    /// Returns the length of the tables whose first bytes these are, as [`read`](Self::read) finds
    /// it.
    pub fn len_of(head: &[u8; 16]) -> Option<u32> {
        let head = Head::ref_from_bytes(head).ok()?;
        (head.magic == MAGIC && head.version.get() == CODE_TABLES_VERSION).then_some(head.len.get())
    }

    #[inline]
    fn piece(&self, module: &ModuleRecord) -> Option<Piece<'a>> {
        Piece::read(self.bytes.get(usize::try_from(module.piece.get()).ok()?..)?)
    }

    /// Returns the function or the stub that has a byte at `offset` of the program's code. `None`
    /// for gaps.
    #[inline]
    pub fn find(&self, offset: u32) -> Option<Function<'a>> {
        let around = self.guide.around(offset, self.modules.len());
        let module = last(self.modules.get(around)?, |module| module.code.get() <= offset)?;
        let piece = self.piece(module)?;
        let inside = offset.checked_sub(module.code.get())?;
        let around = piece.guide.around(inside, piece.functions.len());
        let record = last(piece.functions.get(around)?, |function| function.start.get() <= inside)?;
        let function = function(&piece, module, record)?;
        (offset.checked_sub(function.start)? < function.len).then_some(function)
    }

    /// Returns all functions, in order of their code, up to the first record that is malformed. The
    /// time is in proportion to the length of the tables, whatever they are.
    pub fn functions(&self) -> impl Iterator<Item = Function<'a>> + use<'a> {
        self.all().filter(|function| !function.is_stub)
    }

    /// Returns all stubs, as [`functions`](Self::functions) returns functions.
    pub fn stubs(&self) -> impl Iterator<Item = Function<'a>> + use<'a> {
        self.all().filter(Function::is_stub)
    }

    fn all(&self) -> impl Iterator<Item = Function<'a>> + use<'a> {
        let tables = *self;
        let mut end = 0;
        let pieces = tables.modules.iter().map(move |module| {
            let piece = tables.piece(module)?;
            // Pieces follow each other, so no two modules share records.
            let start = usize::try_from(module.piece.get()).ok().filter(|&start| start >= end)?;
            end = start + size_of_val(piece.functions);
            Some((module, piece))
        });
        let functions = pieces.flat_map(|piece| {
            let count = piece.as_ref().map_or(1, |(_, piece)| piece.functions.len());
            (0..count).map(move |number| {
                let (module, piece) = piece.as_ref()?;
                function(piece, module, piece.functions.get(number)?)
            })
        });
        functions.map_while(|function| function)
    }

    /// Measures the parts. This reads all functions.
    pub fn sizes(&self) -> TableSizes {
        let mut sizes = TableSizes { total: self.bytes.len(), ..TableSizes::default() };
        for module in self.modules {
            let Some(piece) = self.piece(module) else { continue };
            let (lines, checkpoints) = piece.lines().map_or((0, 0), |lines| lines.lens());
            sizes.names += piece.name().map_or(0, |(name, _)| name.len());
            sizes.lines += lines;
            sizes.checkpoints += checkpoints;
        }
        for function in self.all() {
            sizes.functions += usize::from(!function.is_stub);
            sizes.names += function.name_bytes().len();
            let Some(parts) = function.parts() else { continue };
            sizes.code = sizes.code.saturating_add(function.len as usize);
            sizes.handlers += size_of_val(parts.handlers);
            let [traps, calls, maps, sources] =
                [parts.traps, parts.calls, parts.maps, parts.sources].map(|part| {
                    let (stream, checkpoints) = part.lens();
                    sizes.checkpoints += checkpoints;
                    stream
                });
            sizes.traps += traps;
            sizes.calls += calls;
            sizes.stack_maps += maps;
            sizes.source_locations += sources;
        }
        sizes
    }
}

/// Returns the last record before which, and of which, `early` is true.
fn last<T>(records: &[T], early: impl Fn(&T) -> bool) -> Option<&T> {
    records.get(records.partition_point(early).checked_sub(1)?)
}

/// A record of a function is as short as the format says.
const _: () = assert!(FUNCTION == 8);
