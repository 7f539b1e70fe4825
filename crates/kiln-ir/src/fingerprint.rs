//! Fingerprints: 256 bits that stand for the content of a function or a module.
//!
//! Equal content has equal fingerprints, in every process and on every machine; different content has different ones, as
//! far as BLAKE3 has no collisions. Structs are taken apart exhaustively, so a new field cannot be forgotten.
//!
//! What counts, and what does not:
//!
//! | counts | does not count |
//! |---|---|
//! | every instruction, type, flag, constant, source location | numbers of values, blocks and other entities; aliases |
//! | signatures, stack slots, the order of blocks | what is declared and not used; the order of declarations |
//! | the callee, datum or key behind a reference | names of symbols that no other module sees |
//! | names, kinds and linkage of symbols that others see | the module's name, its text, lines, comments, `test` lines |
//! | bytes, alignment, section and addresses of data | |
//! | `set` and `target` lines, but for settings that Kiln fixes | |
//!
//! The code of a function is determined by less, see [`Body::as_bytes`](crate::Body::as_bytes): caches of functions may go
//! by that.

use crate::body::wire::Writer;
use crate::module::{
    Code, CodeReloc, CodeTarget, Data, DataAddress, Function, Init, Linkage, MachineCode, Module, Symbol,
    SymbolId, SymbolKind,
};
use crate::relocs;
use crate::settings::{ModuleSettings, Setting, TargetLine, is_fixed};

/// 256 bits that stand for the content of a function or a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Keeps fingerprints of different kinds of content apart, and those of other versions of this file.
const MODULE: &[u8] = b"kiln module 1";
const FUNCTION: &[u8] = b"kiln function 1";
const NAMES: &[u8] = b"kiln local names 1";

impl Module {
    /// The fingerprint of the module's content.
    pub fn fingerprint(&self) -> Fingerprint {
        let Self { name: _, source: _, settings, symbols, functions, data, comments: _ } = self;
        let mut hasher = blake3::Hasher::new();
        let mut out = Writer::default();
        out.raw(MODULE);
        settings_lines(&mut out, settings);
        out.count(symbols.len());
        for symbol in symbols {
            self::symbol(&mut out, symbol);
        }
        out.count(functions.len());
        for Function { symbol, code, line: _, comments: _ } in functions {
            out.uint(u64::from(symbol.as_u32()));
            self::code(&mut out, code, |out, id| out.uint(u64::from(id.as_u32())));
            // Bodies are most of it; they are hashed in pieces that stay in the cache.
            if out.0.len() > 16 * 1024 {
                hasher.update(&out.0);
                out.0.clear();
            }
        }
        out.count(data.len());
        for datum in data {
            self::data(&mut out, &mut hasher, datum);
        }
        hasher.update(&out.0);
        Fingerprint(*hasher.finalize().as_bytes())
    }

    /// The fingerprint of the names that [`Module::fingerprint`] leaves out: those of symbols that no other module sees. They change
    /// no code, but tables of names have them.
    pub fn local_names_fingerprint(&self) -> Fingerprint {
        let mut out = Writer::default();
        out.raw(NAMES);
        for symbol in self.symbols.iter().filter(|symbol| symbol.linkage == Linkage::Local) {
            out.str(&symbol.name);
        }
        Fingerprint(*blake3::hash(&out.0).as_bytes())
    }

    /// The fingerprint of one of the module's functions: its code, and what that refers to. A symbol that other modules
    /// see counts by its name, another one by its number. The function's own name and linkage do not count.
    ///
    /// # Panics
    ///
    /// When `function` belongs to another module and refers to a symbol that is out of range here.
    pub fn function_fingerprint(&self, function: &Function) -> Fingerprint {
        let Function { symbol: _, code, line: _, comments: _ } = function;
        let mut out = Writer::default();
        out.raw(FUNCTION);
        self::code(&mut out, code, |out, id| {
            let symbol = self.symbol(id);
            self::symbol(out, symbol);
            if symbol.linkage == Linkage::Local {
                out.uint(u64::from(id.as_u32()));
            }
        });
        Fingerprint(*blake3::hash(&out.0).as_bytes())
    }
}

fn symbol(out: &mut Writer, symbol: &Symbol) {
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
    });
    if *linkage != Linkage::Local {
        out.str(name);
    }
    out.bool(signature.is_some());
    if let Some(signature) = signature {
        out.signature(signature);
    }
}

fn code(out: &mut Writer, code: &Code, reference: impl Fn(&mut Writer, SymbolId)) {
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
                out.str(relocs::name(*kind).unwrap_or("unknown"));
                out.int(*addend);
                match target {
                    CodeTarget::Symbol(id) => {
                        out.byte(0);
                        reference(out, *id);
                    }
                    CodeTarget::LibCall(call) => {
                        out.byte(1);
                        out.listed(cranelift_codegen::ir::LibCall::all_libcalls(), call);
                    }
                    CodeTarget::Here(place) => {
                        out.byte(2);
                        out.uint(u64::from(*place));
                    }
                }
            }
        }
    }
}

fn data(out: &mut Writer, hasher: &mut blake3::Hasher, data: &Data) {
    let Data { symbol, writable, align, init, section, addresses, line: _ } = data;
    out.uint(u64::from(symbol.as_u32()));
    out.bool(*writable);
    out.uint(u64::from(*align));
    out.bool(section.is_some());
    out.str(section.as_deref().unwrap_or_default());
    out.count(addresses.len());
    for DataAddress { offset, symbol, addend } in addresses {
        out.uint(*offset);
        out.uint(u64::from(symbol.as_u32()));
        out.int(*addend);
    }
    match init {
        Init::Zeros(len) => {
            out.byte(0);
            out.uint(*len);
        }
        Init::Bytes(bytes) => {
            out.byte(1);
            out.count(bytes.len());
            hasher.update(&out.0);
            out.0.clear();
            hasher.update(bytes);
        }
    }
}

/// Lines that alter code, in order: later ones win over earlier ones.
fn settings_lines(out: &mut Writer, settings: &ModuleSettings) {
    let ModuleSettings { shared, targets, tests: _ } = settings;
    fn list(out: &mut Writer, settings: &[Setting]) {
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
