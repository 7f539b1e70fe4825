//! Aliases, imports, machine code and debugging information: items that modules from elsewhere need more than people do.
//!
//! As in `notation`, each function reads one item, the cursor standing behind its keyword, and gives it by value.

use std::borrow::Cow;

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::function::FunctionParameters;
use cranelift_codegen::ir::{
    self, LibCall, RelSourceLoc, Signature, SourceLoc, Value, ValueLabel, ValueLabelAssignments,
    ValueLabelStart,
};
use cranelift_codegen::isa::CallConv;
use cranelift_reader::{ParseOptions, parse_test};

use super::cursor::{Cursor, Token};
use super::notation::hex;
use crate::data::MAX_ALIGN;
use crate::diagnostic::one_line;
use crate::relocs;
use crate::symbol::{Linkage, SymbolKind};

/// `symbol %name = "any name"`, or `anonymous %name`.
pub(super) struct Alias<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) line: u32,
    /// What it stands for; `None` if that has no name.
    pub(super) of: Option<Box<str>>,
}

/// `import function %name(i64)`, `import data %name`.
pub(super) struct Import<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) line: u32,
    pub(super) kind: SymbolKind,
    pub(super) signature: Option<Signature>,
}

/// `code %name(i64) { .. }`, names not resolved.
pub(super) struct CodeItem<'t> {
    pub(super) linkage: Linkage,
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    pub(super) line: u32,
    pub(super) signature: Signature,
    pub(super) align: u32,
    pub(super) bytes: Vec<u8>,
    /// In the order of the text.
    pub(super) relocs: Vec<RelocItem<'t>>,
}

/// `reloc x86_pcrel4 at 3 %name - 4`.
pub(super) struct RelocItem<'t> {
    pub(super) at: usize,
    pub(super) offset: u32,
    pub(super) kind: Reloc,
    pub(super) target: Target<'t>,
    pub(super) addend: i64,
}

/// What a relocation refers to.
pub(super) enum Target<'t> {
    /// A name, and its line.
    Name(Cow<'t, str>, u32),
    Routine(LibCall),
    Here(u32),
}

/// `debug %name { .. }`.
pub(super) struct Debug<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) at: usize,
    base: Option<SourceLoc>,
    labels: Option<Vec<(u32, usize, Label)>>,
}

/// What is said about a value.
enum Label {
    Nothing,
    Start(ValueLabelStart),
    Alias(RelSourceLoc, u32),
}

/// Reads `symbol`, or `anonymous` if not `named`.
pub(super) fn alias<'t>(cursor: &mut Cursor<'t>, named: bool) -> Token<Alias<'t>> {
    let (at, name) = cursor.name()?;
    let line = cursor.line_of(at);
    let of = if named {
        cursor.expect(b'=', "`=` and the symbol's name")?;
        let text = cursor.text("a symbol's name")?;
        if text.contains('\0') {
            let message = "a symbol's name holds no zero byte".to_owned();
            return Err(cursor.fault_at(at, cursor.at - at, message));
        }
        Some(text)
    } else {
        None
    };
    Ok(Alias { name, at, line, of })
}

/// Reads an import.
pub(super) fn import<'t>(cursor: &mut Cursor<'t>, call_conv: CallConv) -> Token<Import<'t>> {
    let kind = if cursor.word("function") {
        SymbolKind::Function
    } else if cursor.word("data") {
        SymbolKind::Data
    } else {
        return Err(cursor.unexpected("`function` or `data`"));
    };
    let (at, name) = cursor.name()?;
    let line = cursor.line_of(at);
    let signed = kind == SymbolKind::Function && cursor.rest().trim_start_matches(' ').starts_with('(');
    let signature = if signed { Some(signature(cursor, call_conv)?) } else { None };
    Ok(Import { name, at, line, kind, signature })
}

/// Reads machine code.
pub(super) fn code<'t>(
    cursor: &mut Cursor<'t>,
    linkage: Linkage,
    call_conv: CallConv,
) -> Token<CodeItem<'t>> {
    let (at, name) = cursor.name()?;
    let line = cursor.line_of(at);
    let signature = signature(cursor, call_conv)?;
    let mut item =
        CodeItem { linkage, name, at, line, signature, align: 1, bytes: Vec::new(), relocs: Vec::new() };
    cursor.expect(b'{', "`{`")?;
    loop {
        if cursor.word("align") {
            let (number_at, number) = cursor.integer()?;
            item.align = align(cursor, number_at, number)?;
        } else if cursor.word("bytes") {
            let bytes = if cursor.eat(b'#') { hex(cursor)? } else { cursor.string()?.1 };
            item.bytes.extend_from_slice(&bytes);
        } else if cursor.word("reloc") {
            item.relocs.push(reloc(cursor)?);
        } else {
            return Err(cursor.unexpected("`align`, `bytes` or `reloc`"));
        }
        if cursor.eat(b'}') {
            break;
        }
        cursor.expect(b',', "`,` or `}`")?;
    }
    let length = item.name.len();
    if item.bytes.is_empty() {
        return Err(cursor.fault_at(at, length, "machine code must not be empty".to_owned()));
    }
    for reloc in &item.relocs {
        if reloc.offset as usize >= item.bytes.len() {
            let message = format!("offset {} lies outside of the code", reloc.offset);
            return Err(cursor.fault_at(reloc.at, 1, message));
        }
    }
    // Stable: two at one place stay as they are.
    item.relocs.sort_by_key(|reloc| reloc.offset);
    Ok(item)
}

fn reloc<'t>(cursor: &mut Cursor<'t>) -> Token<RelocItem<'t>> {
    cursor.trivia();
    let (kind_at, word) = (cursor.at, cursor.peek_word());
    let Some(kind) = relocs::named(word) else {
        return Err(cursor.unexpected("a kind of relocation"));
    };
    cursor.at += word.len();
    if !cursor.word("at") {
        return Err(cursor.unexpected("`at`"));
    }
    let offset = number(cursor)?;
    let target = if cursor.word("here") {
        Target::Here(number(cursor)?)
    } else if cursor.word("routine") {
        cursor.trivia();
        let word = cursor.peek_word();
        let Ok(call) = word.parse() else { return Err(cursor.unexpected("a routine, such as `CeilF32`")) };
        cursor.at += word.len();
        Target::Routine(call)
    } else {
        let (at, name) = cursor.name()?;
        Target::Name(name, cursor.line_of(at))
    };
    let addend = cursor.addend()?;
    Ok(RelocItem { at: kind_at, offset, kind, target, addend })
}

fn number(cursor: &mut Cursor<'_>) -> Token<u32> {
    let value = cursor.integer_in(0, i128::from(u32::MAX), "at most 32 bits")?;
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}

/// The alignment that stood at `at`.
pub(super) fn align(cursor: &Cursor<'_>, at: usize, number: i128) -> Token<u32> {
    u32::try_from(number).ok().filter(|n| n.is_power_of_two() && *n <= MAX_ALIGN).ok_or_else(|| {
        let message = format!("{number} is not an alignment: a power of two up to {MAX_ALIGN}");
        cursor.fault_at(at, cursor.at - at, message)
    })
}

/// Reads a signature, which ends with the line or before a brace, as Cranelift's reader reads that of a function.
fn signature(cursor: &mut Cursor<'_>, call_conv: CallConv) -> Token<Signature> {
    let rest = cursor.rest();
    let end = rest.find(['\n', ';', '{', '}', '"']).unwrap_or(rest.len());
    let text = rest[..end].trim();
    let at = cursor.at + (rest[..end].len() - rest[..end].trim_start().len());
    let function = format!("function %f{text} {{\nblock0:\n    trap user1\n}}");
    let options = ParseOptions { default_calling_convention: call_conv, ..ParseOptions::default() };
    let read = crate::guard::guard(|| parse_test(&function, options));
    let function = match read {
        Ok(Ok(file)) => file.functions.into_iter().next().map(|(function, _)| function),
        Ok(Err(error)) => {
            let message = one_line(&error.message);
            return Err(cursor.fault_at(at, text.len(), message));
        }
        Err(_) => None,
    };
    let function = function
        .ok_or_else(|| cursor.fault_at(at, text.len(), "expected the type of a function".to_owned()))?;
    cursor.at += end;
    Ok(function.signature.clone())
}

/// Reads debugging information.
pub(super) fn debug<'t>(cursor: &mut Cursor<'t>) -> Token<Debug<'t>> {
    let (at, name) = cursor.name()?;
    let mut item = Debug { name, at, base: None, labels: None };
    cursor.expect(b'{', "`{`")?;
    loop {
        if cursor.word("base") {
            item.base = Some(SourceLoc::new(location(cursor)?));
        } else if cursor.word("labels") {
            item.labels.get_or_insert_default();
        } else {
            cursor.trivia();
            let value_at = cursor.at;
            let value = value(cursor)?;
            let label = if cursor.word("label") {
                let label = ValueLabel::from_u32(number(cursor)?.min(u32::MAX - 1));
                Label::Start(ValueLabelStart { label, from: RelSourceLoc::new(location(cursor)?) })
            } else if cursor.word("alias") {
                let of = value_number(cursor)?;
                Label::Alias(RelSourceLoc::new(location(cursor)?), of)
            } else {
                Label::Nothing
            };
            item.labels.get_or_insert_default().push((value, value_at, label));
        }
        if cursor.eat(b'}') {
            return Ok(item);
        }
        cursor.expect(b',', "`,` or `}`")?;
    }
}

fn value(cursor: &mut Cursor<'_>) -> Token<u32> {
    let word = cursor.peek_word();
    let number = word.strip_prefix('v').and_then(|digits| digits.parse().ok());
    let Some(number) = number.filter(|number| *number != u32::MAX) else {
        return Err(cursor.unexpected("`base`, `labels` or a value"));
    };
    cursor.at += word.len();
    Ok(number)
}

fn value_number(cursor: &mut Cursor<'_>) -> Token<u32> {
    cursor.trivia();
    value(cursor)
}

/// `@12`, in hexadecimal; `@-` is none.
fn location(cursor: &mut Cursor<'_>) -> Token<u32> {
    if !cursor.eat(b'@') {
        return Err(cursor.unexpected("a source location (`@12`)"));
    }
    if cursor.rest().starts_with('-') {
        cursor.at += 1;
        return Ok(u32::MAX);
    }
    let word = cursor.peek_word();
    match u32::from_str_radix(word, 16) {
        Ok(number) => {
            cursor.at += word.len();
            Ok(number)
        }
        Err(_) => Err(cursor.unexpected("a hexadecimal number of at most 32 bits")),
    }
}

impl Debug<'_> {
    /// Adds what it says to the function, or gives the place of a value that the function does not have.
    pub(super) fn apply(&self, function: &mut ir::Function) -> Result<(), usize> {
        if let Some(base) = self.base {
            rebase(function, base);
        }
        let Some(labels) = &self.labels else { return Ok(()) };
        let values = function.dfg.num_values();
        let map = function.dfg.values_labels.get_or_insert_default();
        for (value, at, label) in labels {
            let known =
                |value: u32| if (value as usize) < values { Ok(Value::from_u32(value)) } else { Err(*at) };
            let value = known(*value)?;
            match label {
                Label::Nothing => {
                    map.insert(value, ValueLabelAssignments::Starts(Vec::new()));
                }
                Label::Start(start) => {
                    let starts =
                        map.entry(value).or_insert_with(|| ValueLabelAssignments::Starts(Vec::new()));
                    match starts {
                        ValueLabelAssignments::Starts(starts) => starts.push(start.clone()),
                        ValueLabelAssignments::Alias { .. } => return Err(*at),
                    }
                }
                Label::Alias(from, of) => {
                    let alias = ValueLabelAssignments::Alias { from: *from, value: known(*of)? };
                    map.insert(value, alias);
                }
            }
        }
        Ok(())
    }
}

/// Counts the source locations of a function from `base`.
fn rebase(function: &mut ir::Function, base: SourceLoc) {
    let insts: Vec<_> =
        function.layout.blocks().flat_map(|block| function.layout.block_insts(block)).collect();
    let locations: Vec<_> = insts.iter().map(|inst| function.srcloc(*inst)).collect();
    // A base is set once and for all.
    let names: Vec<_> = function.params.user_named_funcs().values().cloned().collect();
    function.params = FunctionParameters::new();
    for name in names {
        function.params.ensure_user_func_name(name);
    }
    if !base.is_default() {
        function.params.ensure_base_srcloc(base);
    }
    for (inst, location) in insts.into_iter().zip(locations) {
        if !location.is_default() {
            function.set_srcloc(inst, location);
        }
    }
}
