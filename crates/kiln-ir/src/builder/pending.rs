//! Definitions whose references are declarations, which are replaced by symbols at the end.

use std::collections::HashMap;

use cranelift_codegen::binemit::Reloc;
use cranelift_module::{DataId, FuncId, FuncOrDataId, ModuleDeclarations};

use crate::body::{Body, Encoded};
use crate::data::Init;
use crate::function::{Code, CodeReloc, CodeTarget, MachineCode};
use crate::symbol::SymbolId;

/// A function whose references are declarations.
pub(super) enum PendingCode {
    /// The references are [`key`]s.
    Ir {
        encoded: Encoded,
        verified: bool,
    },
    Machine {
        bytes: Box<[u8]>,
        align: u32,
        relocs: Vec<(u32, Reloc, PendingTarget, i64)>,
    },
}

pub(super) enum PendingTarget {
    Declared(FuncOrDataId),
    Other(CodeTarget),
}

/// A data object whose references are declarations.
pub(super) struct PendingData {
    pub(super) align: u32,
    pub(super) init: Init,
    pub(super) section: Option<Box<str>>,
    pub(super) addresses: Vec<(u64, FuncOrDataId, i64)>,
}

/// Encodes a declaration as one number: functions are even, data objects odd.
pub(super) fn key(declaration: FuncOrDataId) -> u32 {
    match declaration {
        FuncOrDataId::Func(id) => id.as_u32() << 1,
        FuncOrDataId::Data(id) => id.as_u32() << 1 | 1,
    }
}

/// Returns the declaration with this [`key`].
pub(super) fn of_key(key: u32) -> FuncOrDataId {
    match key & 1 {
        0 => FuncOrDataId::Func(FuncId::from_u32(key >> 1)),
        _ => FuncOrDataId::Data(DataId::from_u32(key >> 1)),
    }
}

impl PendingCode {
    /// Returns the declarations that the definition refers to.
    pub(super) fn targets(&self) -> Vec<FuncOrDataId> {
        match self {
            Self::Ir { encoded, .. } => encoded.references.iter().copied().map(of_key).collect(),
            Self::Machine { relocs, .. } => {
                let declared = relocs.iter().filter_map(|(_, _, target, _)| match target {
                    PendingTarget::Declared(id) => Some(*id),
                    PendingTarget::Other(_) => None,
                });
                declared.collect()
            }
        }
    }

    pub(super) fn finish(self, numbers: &HashMap<FuncOrDataId, SymbolId>) -> Code {
        match self {
            Self::Ir { encoded, verified } => {
                let references = encoded.references.iter().map(|key| numbers[&of_key(*key)]).collect();
                let body = Body::of(encoded, references);
                Code::Ir(if verified { body } else { body.unverified() })
            }
            Self::Machine { bytes, align, relocs } => {
                let reloc = |(offset, kind, target, addend)| {
                    let target = match target {
                        PendingTarget::Declared(id) => CodeTarget::Symbol(numbers[&id]),
                        PendingTarget::Other(target) => target,
                    };
                    CodeReloc { offset, kind, target, addend }
                };
                Code::Machine(MachineCode { bytes, align, relocs: relocs.into_iter().map(reloc).collect() })
            }
        }
    }
}

/// Returns the function or data object with this number of `cranelift-module`, if it is declared.
pub(super) fn declared(
    declarations: &ModuleDeclarations,
    namespace: u32,
    index: u32,
) -> Option<FuncOrDataId> {
    let position = usize::try_from(index).ok()?;
    match namespace {
        0 if position < declarations.get_functions().size_hint().0 => {
            Some(FuncOrDataId::Func(FuncId::from_u32(index)))
        }
        1 if position < declarations.get_data_objects().size_hint().0 => {
            Some(FuncOrDataId::Data(DataId::from_u32(index)))
        }
        _ => None,
    }
}
