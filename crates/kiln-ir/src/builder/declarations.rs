//! The declarations of a builder, and what refers to them.
//!
//! Cranelift's declarations never change their type. Here a function's type may change until
//! something refers to it, because some compilers learn the return type of a function while they
//! lower it, and declare the function before that.

use std::collections::HashMap;
use std::sync::OnceLock;

use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir;
use cranelift_module::{
    DataId, FuncId, FuncOrDataId, Linkage, ModuleDeclarations, ModuleError, ModuleResult,
};

use super::error::BuildError;
use crate::signature::same_type;

#[derive(Default)]
pub(super) struct Declarations {
    /// With the types with which functions were first declared.
    all: ModuleDeclarations,
    /// The types of functions that were defined with another type.
    retyped: HashMap<FuncId, ir::Signature>,
    /// `all` with these types, made when a client asks for it.
    current: OnceLock<Box<ModuleDeclarations>>,
    /// The first function that refers to each function.
    users: SecondaryMap<FuncId, Option<FuncId>>,
    /// Uses with another type than the declared one: the function, its user, and the type.
    odd_uses: Vec<(FuncId, FuncId, ir::Signature)>,
}

impl Declarations {
    /// Returns all declarations. Types are those of [`signature`](Self::signature) instead.
    pub(super) fn all(&self) -> &ModuleDeclarations {
        &self.all
    }

    /// Returns the type of a function: of its definition, or as declared.
    pub(super) fn signature(&self, id: FuncId) -> &ir::Signature {
        self.retyped.get(&id).unwrap_or_else(|| &self.all.get_function_decl(id).signature)
    }

    /// Returns all declarations, with the types of definitions.
    pub(super) fn current(&self) -> &ModuleDeclarations {
        if self.retyped.is_empty() {
            return &self.all;
        }
        self.current.get_or_init(|| {
            let mut current = ModuleDeclarations::default();
            // In order of ids, so that ids are the same. Names were accepted once, so they are
            // again.
            for (id, declared) in self.all.get_functions() {
                let signature = self.signature(id);
                let again = match &declared.name {
                    Some(name) => {
                        current.declare_function(name, declared.linkage, signature).map(|(id, _)| id)
                    }
                    None => current.declare_anonymous_function(signature),
                };
                debug_assert_eq!(again.ok(), Some(id), "ids are in order of declaration");
            }
            for (id, declared) in self.all.get_data_objects() {
                let (linkage, writable, tls) = (declared.linkage, declared.writable, declared.tls);
                let again = match &declared.name {
                    Some(name) => current.declare_data(name, linkage, writable, tls).map(|(id, _)| id),
                    None => current.declare_anonymous_data(writable, tls),
                };
                debug_assert_eq!(again.ok(), Some(id), "ids are in order of declaration");
            }
            Box::new(current)
        })
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub(super) fn declare_function(
        &mut self,
        name: &str,
        linkage: Linkage,
        signature: &ir::Signature,
    ) -> ModuleResult<FuncId> {
        self.current.take();
        let retyped = match self.all.get_name(name) {
            Some(FuncOrDataId::Func(id)) => self.retyped.get(&id).map(|retyped| (id, retyped)),
            _ => None,
        };
        let Some((id, retyped)) = retyped else {
            return self.all.declare_function(name, linkage, signature).map(|(id, _)| id);
        };
        if retyped != signature {
            let (retyped, signature) = (retyped.clone(), signature.clone());
            return Err(ModuleError::IncompatibleSignature(name.into(), retyped, signature));
        }
        let first = self.all.get_function_decl(id).signature.clone();
        self.all.declare_function(name, linkage, &first).map(|(id, _)| id)
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub(super) fn declare_anonymous_function(&mut self, signature: &ir::Signature) -> ModuleResult<FuncId> {
        self.current.take();
        self.all.declare_anonymous_function(signature)
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub(super) fn declare_data(
        &mut self,
        name: &str,
        linkage: Linkage,
        writable: bool,
        tls: bool,
    ) -> ModuleResult<DataId> {
        self.current.take();
        self.all.declare_data(name, linkage, writable, tls).map(|(id, _)| id)
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub(super) fn declare_anonymous_data(&mut self, writable: bool, tls: bool) -> ModuleResult<DataId> {
        self.current.take();
        self.all.declare_anonymous_data(writable, tls)
    }

    /// Checks that function `id` may be defined with the type `defined`: it is the declared one, or
    /// nothing refers to the function with another type.
    pub(super) fn check_type(&self, id: FuncId, defined: &ir::Signature) -> Result<(), BuildError> {
        let name = |id| self.all.get_function_decl(id).linkage_name(id).into();
        let conflict = |declared: &ir::Signature, user| BuildError::Signature {
            name: name(id),
            declared: Box::new(declared.clone()),
            defined: Box::new(defined.clone()),
            user: name(user),
        };
        let declared = self.signature(id);
        if let Some(user) = self.users[id].filter(|_| declared != defined && !same_type(declared, defined)) {
            return Err(conflict(declared, user));
        }
        let odd = self.odd_uses.iter().find(|(used, _, ty)| *used == id && !same_type(ty, defined));
        odd.map_or(Ok(()), |(_, user, ty)| Err(conflict(ty, *user)))
    }

    /// Gives a function the type of its definition, which [`check_type`](Self::check_type) has
    /// accepted.
    pub(super) fn set_type(&mut self, id: FuncId, defined: &ir::Signature) {
        if self.signature(id) != defined {
            self.current.take();
            self.retyped.insert(id, defined.clone());
        }
    }

    /// Notes that `user` refers to `id`.
    pub(super) fn note_use(&mut self, id: FuncId, user: FuncId) {
        self.users[id].get_or_insert(user);
    }

    /// Notes that `user` refers to `id` with another type than the declared one.
    pub(super) fn note_odd_use(&mut self, id: FuncId, user: FuncId, signature: ir::Signature) {
        self.odd_uses.push((id, user, signature));
    }
}
