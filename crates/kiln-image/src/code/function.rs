//! The answers of the code tables about one function, or one stub.

use std::borrow::Cow;

use super::cursor::Cursor;
use super::format::{HANDLER, HandlerRecord, NO_MODULE};
use super::lines::SourceLine;
use super::part::{Guess, Part, Reader};
use super::piece::Piece;
use super::trap::TrapCode;
use kiln_artifact::record::HandlerKind;

/// A function or a stub that was found in the code tables. Offsets are from the start of the
/// program's code.
///
/// A stub is a jump to a function of the host, to one that is replaceable or to one that is too far
/// away, which the linker or the compiler made. Of a stub only its place and its name are known.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    /// The module's piece, from its start on. Offsets in it are kept, and not slices, because a
    /// function that was found is copied a few times.
    pub(super) piece: &'a [u8],
    pub(super) module: u32,
    /// First byte of the module's code.
    pub(super) module_code: u32,
    pub(super) start: u32,
    pub(super) len: u32,
    /// First byte of the name in the piece.
    pub(super) name: u32,
    pub(super) name_len: u32,
    pub(super) is_stub: bool,
}

/// The lengths in the head of a function's description, and the rest of the description.
#[derive(Clone, Copy)]
struct DescriptionHead<'a> {
    /// Of the streams of traps, calls, stack maps and source locations.
    streams: [usize; 4],
    handlers: usize,
    base_location: u32,
    rest: Cursor<'a>,
}

impl<'a> DescriptionHead<'a> {
    /// Returns a part without reading those before it.
    fn part(&self, number: usize) -> Option<Part<'a>> {
        let before = self.streams.iter().take(number).map(|&len| Part::len(len));
        let skipped = before.fold(self.handlers.saturating_mul(HANDLER), usize::saturating_add);
        let mut rest = self.rest;
        rest.bytes(skipped)?;
        Part::read(&mut rest, *self.streams.get(number)?)
    }
}

/// The numbers of parts.
const TRAPS: usize = 0;
const SOURCES: usize = 3;

/// The parts of a function's description.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) handlers: &'a [HandlerRecord],
    pub(super) traps: Part<'a>,
    pub(super) calls: Part<'a>,
    pub(super) maps: Part<'a>,
    pub(super) sources: Part<'a>,
    base_location: u32,
}

/// A call, found by its return address.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    frame_offset: Option<u32>,
    handlers: &'a [HandlerRecord],
    /// First byte of the module's code.
    module_code: u32,
}

/// The live references on the stack at a call, found by its return address.
#[derive(Clone, Copy, Debug)]
pub struct StackMap<'a> {
    span: u32,
    roots: &'a [u8],
}

/// A live reference on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Bytes upwards from the stack pointer at the call.
    pub offset: u32,
    /// Size of the value in bytes.
    pub size: u32,
}

/// The references of a stack map, in the order in which the compiler listed them.
#[derive(Clone, Debug)]
pub struct Roots<'a>(Cursor<'a>);

/// A range of code with a source location. Offsets are from the start of the program's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// First byte.
    pub start: u32,
    /// End, exclusive.
    pub end: u32,
    /// The client's source location (Cranelift's `SourceLoc`).
    pub location: u32,
}

/// The ranges of a function that have a source location, in order.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    reader: Option<Reader<'a>>,
    start: u32,
}

/// The exception handlers of a call, in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct Handlers<'a> {
    records: std::slice::Iter<'a, HandlerRecord>,
    module_code: u32,
}

impl<'a> Function<'a> {
    /// Returns the number of the module in the link. `None` for a stub that all modules share.
    pub fn module(&self) -> Option<u32> {
        Some(self.module).filter(|&number| number != NO_MODULE)
    }

    /// Returns whether this is a stub.
    pub fn is_stub(&self) -> bool {
        self.is_stub
    }

    /// Returns the position of the slot through which the stub of a replaceable function jumps, in
    /// the slot array. `None` for other stubs, and for functions.
    pub fn slot(&self) -> Option<u32> {
        if !self.is_stub {
            return None;
        }
        self.after_name()?.uint()?.checked_sub(1)
    }

    /// Returns the name of the module, if the linker was given one.
    pub fn module_name(&self) -> Option<&'a str> {
        std::str::from_utf8(Piece::read(self.piece)?.name()?.0).ok().filter(|name| !name.is_empty())
    }

    /// Returns the name of the function, also if it is private; empty if it is anonymous. The name
    /// of a stub is that of what it leads to.
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    pub(super) fn name_bytes(&self) -> &'a [u8] {
        let start = self.name as usize;
        self.piece.get(start..start + self.name_len as usize).unwrap_or_default()
    }

    /// Returns the offset of its first byte.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Returns the number of bytes of its code.
    #[expect(clippy::len_without_is_empty, reason = "a function that was found is not empty")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns the rest of the description.
    fn after_name(&self) -> Option<Cursor<'a>> {
        Some(Cursor(self.piece.get(self.name as usize + self.name_len as usize..)?))
    }

    fn head(&self) -> Option<DescriptionHead<'a>> {
        let mut rest = self.after_name().filter(|_| !self.is_stub)?;
        let (traps, calls, maps) = (rest.len()?, rest.len()?, rest.len()?);
        let handlers = rest.len()?;
        let sources = rest.len()?;
        let base_location = if sources == 0 { 0 } else { rest.uint()? };
        Some(DescriptionHead { streams: [traps, calls, maps, sources], handlers, base_location, rest })
    }

    /// Finds the parts of the description, each at its end if `None`.
    pub(super) fn parts(&self) -> Option<Parts<'a>> {
        let DescriptionHead { streams: [traps, calls, maps, sources], handlers, base_location, mut rest } =
            self.head()?;
        Some(Parts {
            handlers: rest.records(handlers)?,
            traps: Part::read(&mut rest, traps)?,
            calls: Part::read(&mut rest, calls)?,
            maps: Part::read(&mut rest, maps)?,
            sources: Part::read(&mut rest, sources)?,
            base_location,
        })
    }

    /// Returns an offset of the program's code from the function's start; `None` if it is before it
    /// or after its end.
    fn relative(&self, offset: u32) -> Option<u32> {
        offset.checked_sub(self.start).filter(|&relative| relative <= self.len)
    }

    /// Guesses where the entries of an offset from the function's start are.
    fn guess(&self, offset: u32) -> Guess {
        Guess::new(offset, self.len)
    }

    /// Returns the client's source location (Cranelift's `SourceLoc`) of the instruction that has a
    /// byte at `offset`.
    pub fn source_at(&self, offset: u32) -> Option<u32> {
        let (head, offset) = (self.head()?, self.relative(offset)?);
        head.part(SOURCES)?
            .seek(head.base_location, self.guess(offset), |end| end <= offset)?
            .find_source(offset)
    }

    /// Returns the ranges of code that have a source location, in order, up to the first that is
    /// malformed.
    pub fn sources(&self) -> Sources<'a> {
        let parts = self.parts();
        Sources { reader: parts.map(|parts| parts.sources.whole(parts.base_location)), start: self.start }
    }

    /// Returns the place in a file that a source location of the function's module stands for.
    /// `None` if the module has no lines, or none for the location.
    pub fn line_of(&self, location: u32) -> Option<SourceLine<'a>> {
        Piece::read(self.piece)?.lines()?.find(location)
    }

    /// Returns the reason for which the instruction that starts at `offset` may trap.
    pub fn trap_at(&self, offset: u32) -> Option<TrapCode> {
        let (head, offset) = (self.head()?, self.relative(offset)?);
        let reader = head.part(TRAPS)?.seek(0, self.guess(offset), |before| before < offset)?;
        reader.find_trap(offset).map(TrapCode::from_raw)
    }

    /// Returns the call that returns to `offset`. It may be the end of the function, if the callee
    /// never returns.
    pub fn call_at(&self, offset: u32) -> Option<Call<'a>> {
        let (parts, offset) = (self.parts()?, self.relative(offset)?);
        let mut reader = parts.calls.seek(0, self.guess(offset), |before| before < offset)?;
        loop {
            let call = reader.call()?;
            if call.offset >= offset {
                let first = usize::try_from(call.first_handler).ok()?;
                let end = first.checked_add(usize::try_from(call.handlers).ok()?)?;
                let handlers = parts.handlers.get(first..end)?;
                let (frame_offset, module_code) = (call.frame_offset, self.module_code);
                return (call.offset == offset).then_some(Call { frame_offset, handlers, module_code });
            }
        }
    }

    /// Returns the live references during the call that returns to `offset`.
    pub fn stack_map_at(&self, offset: u32) -> Option<StackMap<'a>> {
        let (parts, offset) = (self.parts()?, self.relative(offset)?);
        let mut reader = parts.maps.seek(0, self.guess(offset), |before| before < offset)?;
        loop {
            let map = reader.map()?;
            if map.offset >= offset {
                return (map.offset == offset).then_some(StackMap { span: map.span, roots: map.roots });
            }
        }
    }
}

/// Returns the name of a stub for debuggers and profilers: that of the function, if the address of
/// the stub is the function's, and otherwise the name that the entry of a PLT has in other tools.
pub fn name_of_stub<'a>(stub: &Function<'a>) -> Cow<'a, str> {
    match (stub.slot(), stub.module()) {
        (Some(_), None) => stub.name().into(),
        _ => format!("{}@plt", stub.name()).into(),
    }
}

impl<'a> Call<'a> {
    /// Returns the number of bytes from the frame pointer down to the stack pointer at the call, if
    /// the compiler recorded it: it does for calls with handlers.
    pub fn frame_offset(&self) -> Option<u32> {
        self.frame_offset
    }

    /// Returns the exception handlers. The first that matches wins.
    pub fn handlers(&self) -> Handlers<'a> {
        Handlers { records: self.handlers.iter(), module_code: self.module_code }
    }
}

/// An exception handler of a call, in the terms of Cranelift's exception tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handler {
    /// The kind, which says what `value` is.
    pub kind: HandlerKind,
    /// Tag, stack offset or register; 0 for `Default`.
    pub value: u32,
    /// The offset where execution continues; 0 for the context kinds.
    pub target: u32,
}

impl Iterator for Handlers<'_> {
    type Item = Handler;

    fn next(&mut self) -> Option<Handler> {
        let record = self.records.next()?;
        let kind = HandlerKind::from_code(record.kind)?;
        let target = match kind {
            HandlerKind::Tag | HandlerKind::Default => self.module_code.checked_add(record.target.get())?,
            HandlerKind::ContextStack | HandlerKind::ContextRegister => 0,
        };
        Some(Handler { kind, value: record.value.get(), target })
    }
}

impl Iterator for Sources<'_> {
    type Item = SourceRange;

    fn next(&mut self) -> Option<SourceRange> {
        let source = self.reader.as_mut()?.source()?;
        let (start, end) = (self.start.checked_add(source.start)?, self.start.checked_add(source.end)?);
        Some(SourceRange { start, end, location: source.location })
    }
}

impl<'a> StackMap<'a> {
    /// Returns the number of bytes of stack, upwards from the stack pointer, that the map covers.
    pub fn span(&self) -> u32 {
        self.span
    }

    /// Returns the live references.
    pub fn roots(&self) -> Roots<'a> {
        Roots(Cursor(self.roots))
    }
}

impl Iterator for Roots<'_> {
    type Item = Root;

    fn next(&mut self) -> Option<Root> {
        Some(Root { offset: self.0.uint()?, size: self.0.uint()? })
    }
}
