//! The symbol table of an artifact: the module's symbols, with the numbers that they have in the
//! IR, then the routines of the C library that its code calls.

use std::fmt::Write as _;

use cranelift_codegen::ir::{AbiParam, ArgumentExtension, ArgumentPurpose, LibCall, Signature, Type, types};
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
        let text = contents.string(&text_of(signature));
        signatures.insert_full(signature, text).0
    });
    index as u32
}

/// Returns a signature as Cranelift prints it. The types of most are written without the formatter,
/// which takes as long for one signature as the rest of this file for a module with it.
fn text_of(signature: &Signature) -> String {
    let mut text = String::with_capacity(64);
    let put_list = |text: &mut String, list: &[AbiParam]| {
        list.iter().enumerate().try_for_each(|(number, param)| {
            text.push_str(if number > 0 { ", " } else { "" });
            text.push_str(type_name(param)?);
            Some(())
        })
    };
    text.push('(');
    let mut plain = put_list(&mut text, &signature.params);
    text.push(')');
    if !signature.returns.is_empty() {
        text.push_str(" -> ");
        plain = plain.and_then(|()| put_list(&mut text, &signature.returns));
    }
    match plain.map(|()| write!(text, " {}", signature.call_conv)) {
        Some(Ok(())) => text,
        _ => signature.to_string(),
    }
}

/// Returns the name of a parameter's type, if that is all there is to say about the parameter.
fn type_name(param: &AbiParam) -> Option<&'static str> {
    const NAMES: [(Type, &str); 8] = [
        (types::I64, "i64"),
        (types::I32, "i32"),
        (types::F64, "f64"),
        (types::I8, "i8"),
        (types::F32, "f32"),
        (types::I16, "i16"),
        (types::I128, "i128"),
        (types::F128, "f128"),
    ];
    let is_plain = param.extension == ArgumentExtension::None && param.purpose == ArgumentPurpose::Normal;
    let name = NAMES.iter().find(|(ty, _)| is_plain && *ty == param.value_type)?;
    Some(name.1)
}

#[cfg(test)]
mod tests {
    use cranelift_codegen::isa::CallConv;

    use super::*;

    #[test]
    fn signatures_are_printed_as_cranelift_does() {
        let all = [
            types::I8,
            types::I16,
            types::I32,
            types::I64,
            types::I128,
            types::F16,
            types::F32,
            types::F64,
            types::F128,
            types::I8X16,
        ];
        let plain = all.map(AbiParam::new);
        let mut special = vec![AbiParam::new(types::I8).uext(), AbiParam::new(types::I16).sext()];
        special.push(AbiParam::special(types::I64, ArgumentPurpose::StructReturn));
        let lists = (0..=plain.len()).map(|len| plain[..len].to_vec());
        let lists: Vec<_> = lists.chain(special.into_iter().map(|param| vec![plain[3], param])).collect();
        for call_conv in [CallConv::SystemV, CallConv::Tail, CallConv::PreserveAll] {
            for params in &lists {
                for returns in &lists {
                    let (params, returns) = (params.clone(), returns.clone());
                    let signature = Signature { params, returns, call_conv };
                    assert_eq!(text_of(&signature), signature.to_string());
                }
            }
        }
    }
}
