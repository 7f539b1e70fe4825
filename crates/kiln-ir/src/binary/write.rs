//! Writes a module as bytes: its content, which is what a fingerprint hashes, and its notes.
//!
//! Invariant: structs are destructured with every field named. Every field is written to the
//! content or to the notes, and settings to both; so a new field cannot be forgotten in
//! fingerprints or files. Only `source`, the text, is not written.

use cranelift_codegen::ir::LibCall;

use crate::body::wire::{ByteWriter, zigzag};
use crate::comments::{Anchor, Comment, Comments, ModuleAnchor, ModuleComment};
use crate::data::{DataAddress, DataObject, Init};
use crate::function::{Code, CodeReloc, CodeTarget, Function, InlineHint, MachineCode};
use crate::module::Module;
use crate::relocs;
use crate::settings::{ModuleSettings, Setting, TargetLine, is_fixed};
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

/// Writes everything that the module's artifact depends on. `flush` is called after each function
/// and data object, and may remove the bytes written so far.
pub(crate) fn content(module: &Module, out: &mut ByteWriter, flush: &mut dyn FnMut(&mut ByteWriter)) {
    let Module { name: _, source: _, settings, symbols, functions, data, lines, comments: _, ids: _ } =
        module;
    code_settings(out, settings);
    out.count(symbols.len());
    for symbol in symbols {
        self::symbol(out, symbol);
    }
    out.count(functions.len());
    for Function { symbol, code, inline: _, line: _, variables: _, comments: _ } in functions {
        out.uint(u64::from(symbol.as_u32()));
        self::code(out, code, |out, id| out.uint(u64::from(id.as_u32())));
        flush(out);
    }
    out.count(data.len());
    for object in data {
        self::data(out, object);
        flush(out);
    }
    out.lines(lines);
    let named = || functions.iter().zip(0u64..).filter(|(function, _)| !function.variables.is_empty());
    out.count(named().count());
    for (function, number) in named() {
        out.uint(number);
        out.variables(&function.variables);
    }
}

/// Writes a symbol, with its name only if other modules see it.
pub(crate) fn symbol(out: &mut ByteWriter, symbol: &Symbol) {
    let Symbol { name, kind, linkage, signature, line: _ } = symbol;
    out.byte(match kind {
        SymbolKind::Function => 0,
        SymbolKind::Data => 1,
        SymbolKind::Global => 2,
    });
    out.byte(match linkage {
        Linkage::Import => 0,
        Linkage::Local => 1,
        Linkage::Hidden => 2,
        Linkage::Export => 3,
        Linkage::Preemptible => 4,
        Linkage::Replaceable => 5,
    });
    if *linkage != Linkage::Local {
        out.str(name);
    }
    out.bool(signature.is_some());
    if let Some(signature) = signature {
        out.signature(signature);
    }
}

/// Writes code. `reference` writes the number or name that identifies a symbol.
pub(crate) fn code(out: &mut ByteWriter, code: &Code, reference: impl Fn(&mut ByteWriter, SymbolId)) {
    match code {
        Code::Ir(body) => {
            out.byte(0);
            out.uint(u64::from(body.base_srcloc().bits()));
            out.count(body.references().len());
            for id in body.references() {
                reference(out, *id);
            }
            out.bytes(body.as_bytes());
        }
        Code::Machine(MachineCode { bytes, align, relocs }) => {
            out.byte(1);
            out.uint(u64::from(*align));
            out.bytes(bytes);
            out.count(relocs.len());
            for CodeReloc { offset, kind, target, addend } in relocs {
                out.uint(u64::from(*offset));
                out.str(relocs::name(*kind).unwrap_or_default());
                out.int(*addend);
                match target {
                    CodeTarget::Symbol(id) => {
                        out.byte(0);
                        reference(out, *id);
                    }
                    CodeTarget::LibCall(call) => {
                        out.byte(1);
                        out.listed(LibCall::all_libcalls(), call);
                    }
                    CodeTarget::Here(offset) => {
                        out.byte(2);
                        out.uint(u64::from(*offset));
                    }
                }
            }
        }
    }
}

fn data(out: &mut ByteWriter, data: &DataObject) {
    let DataObject { symbol, writable, align, init, section, addresses, line: _ } = data;
    out.uint(u64::from(symbol.as_u32()));
    out.bool(*writable);
    out.uint(u64::from(*align));
    out.str(section.as_deref().unwrap_or_default());
    match init {
        Init::Zeros(len) => {
            out.byte(0);
            out.uint(*len);
        }
        Init::Bytes(bytes) => {
            out.byte(1);
            out.bytes(bytes);
        }
    }
    out.count(addresses.len());
    for DataAddress { offset, symbol, addend } in addresses {
        out.uint(*offset);
        out.uint(u64::from(symbol.as_u32()));
        out.int(*addend);
    }
}

/// Writes the settings that affect code, in order, because later ones override earlier ones.
pub(crate) fn code_settings(out: &mut ByteWriter, settings: &ModuleSettings) {
    let ModuleSettings { shared, targets, directives: _ } = settings;
    fn list(out: &mut ByteWriter, settings: &[Setting]) {
        let kept = || settings.iter().filter(|setting| !is_fixed(&setting.name));
        out.count(kept().count());
        for Setting { name, value, line: _ } in kept() {
            out.str(name);
            out.bool(value.is_some());
            out.str(value.as_deref().unwrap_or_default());
        }
    }
    list(out, shared);
    out.count(targets.len());
    for TargetLine { triple, settings, line: _ } in targets {
        out.str(triple);
        list(out, settings);
    }
}

/// Writes the notes: the module's name, names that no other module sees, line numbers, hints,
/// comments, and all header lines.
pub(super) fn notes(module: &Module, out: &mut ByteWriter) {
    let Module { name, source: _, settings, symbols, functions, data, lines: _, comments, ids: _ } = module;
    out.str(name);
    let ModuleSettings { shared, targets, directives } = settings;
    all_settings(out, shared);
    out.count(targets.len());
    for TargetLine { triple, settings, line } in targets {
        out.str(triple);
        out.uint(u64::from(*line));
        all_settings(out, settings);
    }
    out.count(directives.len());
    for directive in directives {
        out.str(directive);
    }
    for Symbol { name, linkage, line, kind: _, signature: _ } in symbols {
        if *linkage == Linkage::Local {
            out.str(name);
        }
        out.uint(u64::from(*line));
    }
    for Function { symbol: _, code: _, inline, line, variables: _, comments } in functions {
        out.byte(match inline {
            InlineHint::BySize => 0,
            InlineHint::Inline => 1,
            InlineHint::Never => 2,
        });
        out.uint(u64::from(*line));
        self::comments(out, comments, *line);
    }
    for object in data {
        out.uint(u64::from(object.line));
    }
    out.count(comments.len());
    for ModuleComment { anchor, line, text } in comments {
        let (kind, number) = match anchor {
            ModuleAnchor::Header => (0, 0),
            ModuleAnchor::Above(symbol) => (1, symbol.as_u32()),
            ModuleAnchor::End => (2, 0),
        };
        out.byte(kind);
        out.uint(u64::from(number));
        out.uint(u64::from(*line));
        out.str(text);
    }
}

/// Writes the comments of a function: their number; if it is not 0, their texts, joined; then for
/// each comment its place and the length of its text. Places and lines are written as the distance
/// from those of the previous comment.
fn comments(out: &mut ByteWriter, comments: &Comments, line: u32) {
    out.count(comments.len());
    if comments.is_empty() {
        return;
    }
    out.str(comments.text());
    let mut before = PreviousComment::new(line);
    for Comment { anchor, trailing, line, text } in comments {
        let (kind, number) = match anchor {
            Anchor::Declarations => (0, 0),
            Anchor::Block(number) => (1, number),
            Anchor::Inst(number) => (2, number),
            Anchor::End => (3, 0),
        };
        let distance = |from: &mut u32, to: u32| {
            let distance = zigzag(i64::from(to) - i64::from(*from));
            *from = to;
            distance
        };
        let number = distance(&mut before.numbers[kind], number);
        out.uint(number << 3 | (kind as u64) << 1 | u64::from(trailing));
        out.uint(distance(&mut before.line, line));
        out.count(text.len());
    }
}

/// The numbers of the previous comment, which those of the next comment are relative to.
pub(super) struct PreviousComment {
    /// The number of the block or instruction, by kind of anchor.
    pub(super) numbers: [u32; 4],
    pub(super) line: u32,
}

impl PreviousComment {
    /// Creates the numbers for the first comment of a function that starts on `line`.
    pub(super) fn new(line: u32) -> Self {
        Self { numbers: [0; 4], line }
    }
}

fn all_settings(out: &mut ByteWriter, settings: &[Setting]) {
    out.count(settings.len());
    for Setting { name, value, line } in settings {
        out.str(name);
        out.bool(value.is_some());
        out.str(value.as_deref().unwrap_or_default());
        out.uint(u64::from(*line));
    }
}
