//! A function of a file in canonical form, before its symbols are numbered.

use std::cell::RefCell;
use std::collections::HashMap;

use cranelift_codegen::entity::PrimaryMap;
use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::ir::function::{FunctionParameters, FunctionStencil};
use cranelift_codegen::ir::{
    self, ExtFuncData, ExternalName, FuncRef, GlobalValue, GlobalValueData, SigRef, Signature, UserFuncName,
};

use super::function::ReadFunction;
use super::own_lines::OwnLines;
use super::symbols::{LinkKey, SymbolTable};
use crate::body::{CheckScratch, EncodeError, Encoded, Encoder, ExternalRef};
use crate::comments::Comments;
use crate::names::external_name;
use crate::variables::Variable;

/// A function in canonical form, its names still as written.
pub(super) struct FunctionDraft {
    pub(super) name: UserFuncName,
    pub(super) signature: Signature,
    pub(super) comments: Comments,
    pub(super) variables: Box<[Variable]>,
    /// The lines of the function's locations, if the text itself is debugged.
    pub(super) own_lines: OwnLines,
    /// The canonical form, with references numbered as in `uses`. For a function that was not
    /// verified, this may instead be the reason why it has no such form.
    pub(super) encoded: Result<Encoded, EncodeError>,
    /// Every declaration that names something, in order of use, with equal numbers for equal names.
    pub(super) uses: Vec<(ExternalRef, u32)>,
    params: FunctionParameters,
    functions: PrimaryMap<FuncRef, ExtFuncData>,
    signatures: PrimaryMap<SigRef, Signature>,
    globals: PrimaryMap<GlobalValue, GlobalValueData>,
}

impl FunctionDraft {
    /// Returns what `external` declares: its entity, its name, and its type if it can be called.
    pub(super) fn used(&self, external: ExternalRef) -> (AnyEntity, &ExternalName, Option<&Signature>) {
        match external {
            ExternalRef::Function(func_ref) => {
                let data = &self.functions[func_ref];
                (func_ref.into(), &data.name, Some(&self.signatures[data.signature]))
            }
            ExternalRef::Global(global) => (global.into(), self.globals[global].symbol_name(), None),
        }
    }

    /// Returns the table that names are looked up in.
    pub(super) fn params(&self) -> &FunctionParameters {
        &self.params
    }
}

/// Brings a function to canonical form. `symbols` tells which names are aliases of the same symbol,
/// `verified` whether the verifier has accepted the function.
pub(super) fn draft(read: ReadFunction, symbols: &SymbolTable<'_>, verified: bool) -> FunctionDraft {
    thread_local! {
        static ENCODER: RefCell<Encoder> = RefCell::default();
    }
    let ReadFunction { ir, comments, variables, own_lines } = read;
    let mut uses = Vec::new();
    let mut others: HashMap<LinkKey, u32> = HashMap::new();
    let encoded = ENCODER.with_borrow_mut(|encoder| {
        encoder.encode(&ir, |external| {
            let name = match external {
                ExternalRef::Function(func_ref) => &ir.dfg.ext_funcs[func_ref].name,
                ExternalRef::Global(global) => ir.global_values[global].symbol_name(),
            };
            let number = match name {
                // In one function, equal user names have equal numbers, so no look-up is needed.
                ExternalName::User(number) if !symbols.has_aliases() => number.as_u32() << 1,
                _ => {
                    let next = others.len() as u32;
                    let key = symbols.key(&external_name(&ir.params, name));
                    *others.entry(key).or_insert(next) << 1 | 1
                }
            };
            uses.push((external, number));
            Ok::<u32, EncodeError>(number)
        })
    });
    let encoded = if verified {
        encoded
    } else {
        encoded.and_then(|encoded| encoded.checked(&mut CheckScratch::default()))
    };
    let ir::Function { name, params, stencil } = ir;
    let FunctionStencil { signature, global_values: globals, dfg, .. } = stencil;
    let ir::DataFlowGraph { ext_funcs: functions, signatures, .. } = dfg;
    FunctionDraft {
        name,
        signature,
        comments,
        variables,
        own_lines,
        encoded,
        uses,
        params,
        functions,
        signatures,
        globals,
    }
}
