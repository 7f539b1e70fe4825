//! From bytes to a module, every byte checked.
//!
//! Invariant: what comes out keeps the invariants of [`Module`] (see `module`), whatever went in; only whether its functions
//! are valid IR is left to the verifier.

use std::collections::HashSet;

use super::write::{PreviousComment, code_settings};
use crate::body::wire::{ByteReader, ByteWriter, DecodeResult, unzigzag};
use crate::body::{Body, CheckScratch};
use crate::comments::{Anchor, CommentMark, Comments, ModuleAnchor, ModuleComment};
use crate::data::{DataAddress, DataObject, Init, MAX_ALIGN};
use crate::function::{Code, CodeReloc, CodeTarget, Function, MachineCode};
use crate::limits::MAX_ZEROS;
use crate::module::Module;
use crate::relocs;
use crate::settings::{ModuleSettings, Setting, TargetLine};
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

/// The module in `content` and `notes`.
pub(super) fn module(mut content: ByteReader<'_>, mut notes: ByteReader<'_>) -> DecodeResult<Module> {
    let mut reading = ContentReader::default();
    // The code's settings are a part of those in the notes, and are compared with them below.
    let settings_start = content.clone();
    skip_settings(&mut content)?;
    let settings_len = settings_start.left() - content.left();
    reading.symbols(&mut content)?;
    let count = content.count()?;
    let mut functions = Vec::with_capacity(count.min(reading.symbols.len()));
    for _ in 0..count {
        functions.push(reading.function(&mut content)?);
    }
    let mut data = Vec::new();
    for _ in 0..content.count()? {
        data.push(reading.data(&mut content)?);
    }
    check_numbers(reading.symbols.len(), &functions, &data, &content)?;
    for (symbol, defined) in reading.symbols.iter().zip(&reading.defined) {
        if (symbol.linkage != Linkage::Import) != *defined {
            return Err(content.error("a symbol is defined and imported, or neither"));
        }
    }
    content.end()?;

    let name = notes.str()?.into();
    let settings = module_settings(&mut notes)?;
    let mut of_code = ByteWriter::default();
    code_settings(&mut of_code, &settings);
    if settings_start.clone().raw(settings_len)? != of_code.0 {
        return Err(notes.error("other settings than those of the code"));
    }
    let mut names = HashSet::with_capacity(reading.symbols.len());
    for symbol in &mut reading.symbols {
        if symbol.linkage == Linkage::Local {
            symbol.name = notes.str()?.into();
        }
        symbol.line = notes.u32()?;
        let text = &*symbol.name;
        // A name is that of one symbol. Keys of globals are names of another kind, and may be any text; only what is local
        // may have no name.
        let global = symbol.kind == SymbolKind::Global;
        let anonymous = symbol.linkage == Linkage::Local && text.is_empty();
        let fits = global || anonymous || !text.is_empty() && !text.contains('\0');
        if !fits || !anonymous && !names.insert((text, global)) {
            return Err(notes.error("a name that cannot be linked by, or has another symbol"));
        }
    }
    drop(names);
    for function in &mut functions {
        function.line = notes.u32()?;
        function.comments = comments(&mut notes, function.line)?;
    }
    for datum in &mut data {
        datum.line = notes.u32()?;
    }
    let mut outside = Vec::new();
    for _ in 0..notes.count()? {
        outside.push(reading.module_comment(&mut notes)?);
    }
    notes.end()?;
    Ok(Module { name, source: None, settings, symbols: reading.symbols, functions, data, comments: outside })
}

/// Symbols are numbered in the order of functions, then of data, each followed by what it is the first to refer to.
fn check_numbers(
    symbols: usize,
    functions: &[Function],
    data: &[DataObject],
    content: &ByteReader<'_>,
) -> DecodeResult<()> {
    let mut next = 0;
    let mut meet = |symbol: SymbolId| {
        next += usize::from(symbol.index() == next);
        symbol.index() < next
    };
    let mut ordered = true;
    for function in functions {
        ordered &= meet(function.symbol);
        match &function.code {
            Code::Ir(body) => ordered &= body.references().iter().all(|symbol| meet(*symbol)),
            Code::Machine(code) => {
                for reloc in &code.relocs {
                    if let CodeTarget::Symbol(symbol) = reloc.target {
                        ordered &= meet(symbol);
                    }
                }
            }
        }
    }
    for datum in data {
        ordered &= meet(datum.symbol);
        ordered &= datum.addresses.iter().all(|address| meet(address.symbol));
    }
    if ordered && next == symbols {
        Ok(())
    } else {
        Err(content.error("symbols that are not numbered in order of use"))
    }
}

#[derive(Default)]
struct ContentReader<'b> {
    symbols: Vec<Symbol>,
    /// The types of functions as they were written. They have one encoding, so that equal ones have equal bytes.
    signatures: Vec<Option<&'b [u8]>>,
    /// Whether a definition of the symbol was met.
    defined: Vec<bool>,
    scratch: CheckScratch,
}

impl<'b> ContentReader<'b> {
    fn symbols(&mut self, content: &mut ByteReader<'b>) -> DecodeResult<()> {
        let count = content.count()?;
        if count >= u32::MAX as usize {
            return Err(content.error("too many symbols"));
        }
        self.symbols.reserve_exact(count);
        self.signatures.reserve_exact(count);
        for _ in 0..count {
            let kind = match content.byte()? {
                0 => SymbolKind::Function,
                1 => SymbolKind::Data,
                2 => SymbolKind::Global,
                _ => return Err(content.error("not a kind of symbol")),
            };
            let linkage = match content.byte()? {
                0 => Linkage::Import,
                1 => Linkage::Local,
                2 => Linkage::Hidden,
                3 => Linkage::Export,
                4 => Linkage::Preemptible,
                _ => return Err(content.error("not a linkage")),
            };
            if kind == SymbolKind::Global && linkage != Linkage::Import {
                return Err(content.error("a global that is defined"));
            }
            let name = if linkage == Linkage::Local { "".into() } else { content.str()?.into() };
            let typed = content.bool()?;
            let before = content.clone();
            let signature = if typed { Some(content.signature()?) } else { None };
            self.signatures.push(if typed { Some(before.until(content)) } else { None });
            if signature.is_some() && kind != SymbolKind::Function {
                return Err(content.error("data with the type of a function"));
            }
            self.symbols.push(Symbol { name, kind, linkage, signature, line: 0 });
        }
        self.defined = vec![false; count];
        Ok(())
    }

    fn symbol(&self, reader: &mut ByteReader<'_>) -> DecodeResult<SymbolId> {
        let index = reader.index(self.symbols.len(), "no such symbol")?;
        // There are fewer than 2^32 of them.
        Ok(SymbolId::from_u32(index as u32))
    }

    /// The symbol that a definition is of.
    fn define(&mut self, reader: &mut ByteReader<'_>, kind: SymbolKind) -> DecodeResult<SymbolId> {
        let id = self.symbol(reader)?;
        let symbol = &self.symbols[id.index()];
        if symbol.kind != kind || symbol.linkage == Linkage::Import || self.defined[id.index()] {
            return Err(reader.error("a definition of an import, of another kind, or a second one"));
        }
        self.defined[id.index()] = true;
        Ok(id)
    }

    fn function(&mut self, content: &mut ByteReader<'_>) -> DecodeResult<Function> {
        let symbol = self.define(content, SymbolKind::Function)?;
        let code = match content.byte()? {
            0 => Code::Ir(self.body(content)?),
            1 => Code::Machine(self.machine(content)?),
            _ => return Err(content.error("neither IR nor machine code")),
        };
        let fits = match (&code, self.signatures[symbol.index()]) {
            // A body starts with its type.
            (Code::Ir(body), Some(declared)) => body.as_bytes().starts_with(declared),
            (Code::Machine(_), Some(_)) => true,
            (_, None) => false,
        };
        if !fits {
            return Err(content.error("a function of another type than its symbol"));
        }
        Ok(Function { symbol, code, line: 0, comments: Comments::new() })
    }

    fn body(&mut self, content: &mut ByteReader<'_>) -> DecodeResult<Body> {
        let base = content.u32()?;
        let count = content.count()?;
        let mut references = Vec::with_capacity(count);
        for _ in 0..count {
            references.push(self.symbol(content)?);
        }
        let length = content.count()?;
        let offset = content.offset();
        let bytes = content.raw(length)?;
        let reader = ByteReader::at(bytes, offset);
        Body::check(reader, bytes, references.into(), base, &mut self.scratch)
    }

    fn machine(&self, content: &mut ByteReader<'_>) -> DecodeResult<MachineCode> {
        let align = align(content)?;
        let bytes: Box<[u8]> = content.bytes()?.into();
        let len = u32::try_from(bytes.len()).ok().filter(|len| *len != 0);
        let len = len.ok_or_else(|| content.error("code that is empty or has 4 GiB"))?;
        let mut relocs = Vec::new();
        for _ in 0..content.count()? {
            let offset = content.u32()?;
            let kind = relocs::named(content.str()?);
            let kind = kind.ok_or_else(|| content.error("not a relocation"))?;
            let addend = content.int()?;
            let target = match content.byte()? {
                0 => CodeTarget::Symbol(self.symbol(content)?),
                1 => CodeTarget::LibCall(content.libcall()?),
                2 => CodeTarget::Here(content.u32()?),
                _ => return Err(content.error("not a target of a relocation")),
            };
            let last = relocs.last().map_or(0, |last: &CodeReloc| last.offset);
            if offset >= len || offset < last {
                return Err(content.error("a relocation outside of its code or out of order"));
            }
            relocs.push(CodeReloc { offset, kind, target, addend });
        }
        Ok(MachineCode { bytes, align, relocs })
    }

    fn data(&mut self, content: &mut ByteReader<'_>) -> DecodeResult<DataObject> {
        let symbol = self.define(content, SymbolKind::Data)?;
        let writable = content.bool()?;
        let align = align(content)?;
        let section = content.str()?;
        if section.contains('\0') {
            return Err(content.error("a section's name with a zero byte"));
        }
        let section = (!section.is_empty()).then(|| section.into());
        let init = match content.byte()? {
            0 => Init::Zeros(content.uint()?),
            1 => Init::Bytes(content.bytes()?.to_vec()),
            _ => return Err(content.error("neither zeros nor bytes")),
        };
        if init.len() > MAX_ZEROS {
            return Err(content.error("a datum of more than 2^40 bytes"));
        }
        let mut addresses = Vec::new();
        let mut end = 0;
        for _ in 0..content.count()? {
            let offset = content.uint()?;
            let address = DataAddress { offset, symbol: self.symbol(content)?, addend: content.int()? };
            let next = offset.checked_add(8).filter(|next| offset >= end && *next <= init.len());
            end = next.ok_or_else(|| content.error("an address outside of its datum or over another"))?;
            let zero = |bytes: &Vec<u8>| bytes[offset as usize..end as usize].iter().all(|byte| *byte == 0);
            if !matches!(&init, Init::Bytes(bytes) if zero(bytes)) {
                return Err(content.error("an address over other content"));
            }
            addresses.push(address);
        }
        if let (Init::Bytes(bytes), true) = (&init, addresses.is_empty())
            && bytes.iter().all(|byte| *byte == 0)
        {
            return Err(content.error("zeros as bytes"));
        }
        Ok(DataObject { symbol, writable, align, init, section, addresses, line: 0 })
    }

    fn module_comment(&self, notes: &mut ByteReader<'_>) -> DecodeResult<ModuleComment> {
        let kind = notes.byte()?;
        let number = notes.u32()?;
        let anchor = match (kind, number) {
            (0, 0) => ModuleAnchor::Header,
            (1, number) if (number as usize) < self.symbols.len() => {
                ModuleAnchor::Above(SymbolId::from_u32(number))
            }
            (2, 0) => ModuleAnchor::End,
            _ => return Err(notes.error("not a place of a comment")),
        };
        let line = notes.u32()?;
        // An empty one is an empty line.
        let text = match notes.clone().str()? {
            "" => notes.str()?.into(),
            _ => comment_text(notes)?,
        };
        Ok(ModuleComment { anchor, line, text })
    }
}

fn align(reader: &mut ByteReader<'_>) -> DecodeResult<u32> {
    let align = reader.u32()?;
    if align.is_power_of_two() && align <= MAX_ALIGN {
        Ok(align)
    } else {
        Err(reader.error("not an alignment"))
    }
}

/// The comments of a function on `line`: all of their texts are checked at once.
fn comments(notes: &mut ByteReader<'_>, line: u32) -> DecodeResult<Comments> {
    let count = notes.count()?;
    if count == 0 {
        return Ok(Comments::new());
    }
    let text = notes.str()?;
    if u32::try_from(text.len()).is_err() || memchr::memchr(b'\n', text.as_bytes()).is_some() {
        return Err(notes.error("not comments"));
    }
    let mut marks = Vec::with_capacity(count);
    let (mut start, mut before) = (0, PreviousComment::new(line));
    for _ in 0..count {
        let code = notes.uint()?;
        let kind = (code >> 1 & 3) as usize;
        let number = distant(notes, &mut before.numbers[kind], code >> 3)?;
        let anchor = match (kind, number) {
            (0, 0) => Anchor::Declarations,
            (1, number) => Anchor::Block(number),
            (2, number) => Anchor::Inst(number),
            (3, 0) => Anchor::End,
            _ => return Err(notes.error("not a place of a comment")),
        };
        let line = notes.uint()?;
        let line = distant(notes, &mut before.line, line)?;
        let length = notes.uint()?;
        let rest = &text.as_bytes()[start..];
        let own = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        // What starts with a `;` starts on the boundary of a character.
        let Some([b';', .., last] | [last @ b';']) = own else {
            return Err(notes.error("not a comment"));
        };
        start += own.map_or(0, <[u8]>::len);
        let blank = if last.is_ascii() {
            last.is_ascii_whitespace() || *last == 0xb
        } else {
            blank_before(text, start)
        };
        if blank {
            return Err(notes.error("not a comment"));
        }
        marks.push(CommentMark { anchor, trailing: code & 1 != 0, line, end: start as u32 });
    }
    if start != text.len() {
        return Err(notes.error("more text than the comments have"));
    }
    Ok(Comments::of(text.to_owned(), marks))
}

/// The number that is so far from the one before.
#[inline]
fn distant(notes: &ByteReader<'_>, before: &mut u32, distance: u64) -> DecodeResult<u32> {
    let number =
        i64::from(*before).checked_add(unzigzag(distance)).and_then(|number| u32::try_from(number).ok());
    *before = number.ok_or_else(|| notes.error("an integer of more than 32 bits"))?;
    Ok(*before)
}

/// Whether a blank ends at `end`, or a character goes on there.
#[cold]
fn blank_before(text: &str, end: usize) -> bool {
    text.get(..end).is_none_or(|text| text.ends_with(char::is_whitespace))
}

/// A comment must not end early when it is printed.
fn comment_text(notes: &mut ByteReader<'_>) -> DecodeResult<Box<str>> {
    let text = notes.str()?;
    if !text.starts_with(';') || text.contains('\n') || text.trim_end() != text {
        return Err(notes.error("not a comment"));
    }
    Ok(text.into())
}

/// A word of a header line, which is read back by blanks.
fn word(notes: &mut ByteReader<'_>) -> DecodeResult<Box<str>> {
    let text = notes.str()?;
    if text.is_empty() || text.contains(|c: char| c.is_ascii_whitespace() || c == ';') {
        return Err(notes.error("not a word of a header line"));
    }
    Ok(text.into())
}

/// A line that directs programs that execute files.
fn directive(notes: &mut ByteReader<'_>) -> DecodeResult<Box<str>> {
    let text = notes.str()?;
    let mut words = text.split(' ');
    let known = matches!(words.next(), Some("test" | "feature"));
    if !known
        || words.any(str::is_empty)
        || text.contains(|c: char| c.is_ascii_whitespace() && c != ' ' || c == ';')
    {
        return Err(notes.error("not a header line"));
    }
    Ok(text.into())
}

fn setting_value(notes: &mut ByteReader<'_>) -> DecodeResult<Option<Box<str>>> {
    if notes.bool()? {
        let text = notes.str()?;
        if text.contains(|c: char| c.is_ascii_whitespace() || c == ';') {
            return Err(notes.error("not a word of a header line"));
        }
        return Ok(Some(text.into()));
    }
    match notes.str()? {
        "" => Ok(None),
        _ => Err(notes.error("a value that is none")),
    }
}

fn settings(notes: &mut ByteReader<'_>) -> DecodeResult<Vec<Setting>> {
    let mut settings = Vec::new();
    for _ in 0..notes.count()? {
        let name = word(notes)?;
        if name.contains('=') {
            return Err(notes.error("not the name of a setting"));
        }
        settings.push(Setting { name, value: setting_value(notes)?, line: notes.u32()? });
    }
    Ok(settings)
}

fn module_settings(notes: &mut ByteReader<'_>) -> DecodeResult<ModuleSettings> {
    let mut read = ModuleSettings { shared: settings(notes)?, ..ModuleSettings::default() };
    for _ in 0..notes.count()? {
        let triple = word(notes)?;
        let line = notes.u32()?;
        read.targets.push(TargetLine { triple, settings: settings(notes)?, line });
    }
    for _ in 0..notes.count()? {
        read.directives.push(directive(notes)?);
    }
    Ok(read)
}

/// Goes past the settings of the code.
fn skip_settings(content: &mut ByteReader<'_>) -> DecodeResult<()> {
    fn list(content: &mut ByteReader<'_>) -> DecodeResult<()> {
        for _ in 0..content.count()? {
            content.str()?;
            content.bool()?;
            content.str()?;
        }
        Ok(())
    }
    list(content)?;
    for _ in 0..content.count()? {
        content.str()?;
        list(content)?;
    }
    Ok(())
}
