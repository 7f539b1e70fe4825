//! Checks a function that a client defines as IR, and brings it to canonical form.
//!
//! A function that the verifier has not seen may make the encoder fail or panic. The verifier then
//! says why.

use cranelift_codegen::ir::{self, ExternalName};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::{CodegenError, verify_function};
use cranelift_module::{FuncId, FuncOrDataId, ModuleError, ModuleResult};

use super::declarations::Declarations;
use super::error::BuildError;
use super::pending::{declared, key};
use crate::body::{CheckScratch, Encoded, Encoder, ExternalRef};
use crate::guard::guard;
use crate::references;
use crate::signature::same_type;

/// A function that is being defined.
#[derive(Clone, Copy)]
pub(super) struct Definition<'a> {
    pub(super) declarations: &'a Declarations,
    pub(super) id: FuncId,
    pub(super) name: &'a str,
    pub(super) function: &'a ir::Function,
}

/// The working memory of a builder's definitions.
#[derive(Default)]
pub(super) struct BuildEncoder {
    encoder: Encoder,
    scratch: CheckScratch,
}

/// Functions that a definition uses with another type than the declared one, and these types.
pub(super) type OddUses = Vec<(FuncId, ir::Signature)>;

impl Definition<'_> {
    /// Returns the canonical form. The function is verified first, if `at_once` is set.
    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    pub(super) fn encode(
        self,
        memory: &mut BuildEncoder,
        isa: &dyn TargetIsa,
        at_once: bool,
    ) -> ModuleResult<(Encoded, OddUses)> {
        if let Some(fault) = references::check(self.function).first() {
            return Err(self.unusable(fault.to_string()).into());
        }
        if at_once {
            self.verify(isa)?;
            let encoded = self.encode_verified(&mut memory.encoder);
            return Ok(encoded.map_err(|error| error.named(self.name))?);
        }
        let mut encoder = std::mem::take(&mut memory.encoder);
        let encoded = guard(|| {
            let (encoded, odd) = self.encode_verified(&mut encoder)?;
            Ok::<_, BuildError>((encoded.checked(&mut memory.scratch)?, odd))
        });
        let reason = match encoded {
            Ok(Ok(done)) => {
                memory.encoder = encoder;
                return Ok(done);
            }
            Ok(Err(error)) => error.named(self.name),
            Err(panic) => self.unusable(panic),
        };
        self.verify(isa)?;
        Err(reason.into())
    }

    #[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
    fn verify(self, isa: &dyn TargetIsa) -> ModuleResult<()> {
        guard(|| verify_function(self.function, isa))
            .map_err(|panic| self.unusable(format!("Cranelift's verifier fails on it: {panic}")))?
            .map_err(|errors| ModuleError::Compilation(CodegenError::Verifier(errors)))
    }

    fn unusable(self, reason: String) -> BuildError {
        BuildError::Unusable { name: self.name.into(), reason: reason.into() }
    }

    fn encode_verified(self, encoder: &mut Encoder) -> Result<(Encoded, OddUses), BuildError> {
        let mut odd = Vec::new();
        let encoded = encoder.encode(self.function, |external| {
            let function = self.function;
            let (target, callee) = match external {
                ExternalRef::Function(func_ref) => (&function.dfg.ext_funcs[func_ref].name, Some(func_ref)),
                ExternalRef::Global(global) => (function.global_values[global].symbol_name(), None),
            };
            let declared = self.resolve(target)?;
            match (declared, callee) {
                (FuncOrDataId::Data(_), Some(callee)) => {
                    return Err(self.unusable(format!("{callee} is a function, and is declared as data")));
                }
                (FuncOrDataId::Func(id), Some(callee)) => {
                    let expected = match id == self.id {
                        true => &function.signature,
                        false => self.declarations.signature(id),
                    };
                    let used = &function.dfg.signatures[function.dfg.ext_funcs[callee].signature];
                    if !same_type(expected, used) {
                        // A function of another module may be called with several types, as C's
                        // variadic functions are.
                        if self.declarations.all().get_function_decl(id).linkage.is_definable() {
                            let reason =
                                format!("{callee} has the type {used}, but is declared as {expected}");
                            return Err(self.unusable(reason));
                        }
                        odd.push((id, used.clone()));
                    }
                }
                _ => {}
            }
            Ok(key(declared))
        })?;
        Ok((encoded, odd))
    }

    /// Returns the declaration that a name in the function refers to.
    fn resolve(self, name: &ExternalName) -> Result<FuncOrDataId, BuildError> {
        let params = &self.function.params;
        let declaration = match name {
            ExternalName::User(number) => {
                let name = &params.user_named_funcs()[*number];
                declared(self.declarations.all(), name.namespace, name.index)
            }
            ExternalName::TestCase(_) | ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) => None,
        };
        let referrer = || name.display(Some(params)).to_string().into();
        declaration.ok_or_else(|| BuildError::Undeclared { referrer: referrer() })
    }
}
