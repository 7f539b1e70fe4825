//! The symbol table of an artifact: the module's symbols, with the numbers that they have in the
//! IR, then the routines of the C library that its code calls.

use cranelift_codegen::ir::{LibCall, Signature};
use foldhash::fast::RandomState as FastHash;
use indexmap::{IndexMap, IndexSet};
use kiln_artifact::Contents;
use kiln_artifact::record::{self, NONE, SectionKind, Str, SymbolRecord};
use kiln_ir::{Linkage, Module, SymbolKind};

use crate::reloc;

/// The place of a symbol. The default is for an undefined symbol.
#[derive(Clone, Copy, Default)]
pub(crate) struct SymbolRange {
    /// A [`SectionKind`] as a byte.
    pub(crate) section: u8,
    /// Offset in the section, in bytes.
    pub(crate) offset: u64,
    /// Size in bytes.
    pub(crate) size: u64,
}

/// The signatures of a module, and their texts.
type Signatures<'a> = IndexMap<&'a Signature, Str, FastHash>;

/// Writes the symbols and the signatures that they refer to. `ranges` has the place of each symbol
/// of the module, in order.
pub(crate) fn write(
    module: &Module,
    ranges: &[SymbolRange],
    libcalls: &IndexSet<LibCall>,
    contents: &mut Contents,
) {
    let mut signatures = Signatures::default();
    for (symbol, range) in module.symbols.iter().zip(ranges) {
        let signature = symbol.signature.as_ref();
        let signature = signature.map_or(NONE, |signature| intern(&mut signatures, signature, contents));
        let kind = match symbol.kind {
            SymbolKind::Function => record::SymbolKind::Function,
            SymbolKind::Data => record::SymbolKind::Data,
            SymbolKind::Global => record::SymbolKind::Global,
        };
        let linkage = match symbol.linkage {
            Linkage::Import => record::Linkage::Import,
            Linkage::Local => record::Linkage::Local,
            Linkage::Hidden => record::Linkage::Hidden,
            Linkage::Export => record::Linkage::Export,
            Linkage::Preemptible => record::Linkage::Preemptible,
            Linkage::Replaceable => record::Linkage::Replaceable,
        };
        let name = contents.string(&symbol.name);
        contents.symbols.push(SymbolRecord {
            name,
            offset: range.offset.into(),
            size: range.size.into(),
            signature: signature.into(),
            kind: kind as u8,
            linkage: linkage as u8,
            section: range.section,
            libcall: 0,
        });
    }
    for &call in libcalls {
        let name = contents.string(reloc::libcall_name(call));
        contents.symbols.push(SymbolRecord {
            name,
            offset: 0.into(),
            size: 0.into(),
            signature: NONE.into(),
            kind: record::SymbolKind::Function as u8,
            linkage: record::Linkage::Import as u8,
            section: SectionKind::Undefined as u8,
            libcall: 1,
        });
    }
    contents.signatures = signatures.into_values().collect();
}

/// Returns the index of `signature`, whose text is added if it is new.
fn intern<'a>(signatures: &mut Signatures<'a>, signature: &'a Signature, contents: &mut Contents) -> u32 {
    let index = signatures.get_index_of(signature).unwrap_or_else(|| {
        let text = contents.string(&signature.to_string());
        signatures.insert_full(signature, text).0
    });
    index as u32
}
