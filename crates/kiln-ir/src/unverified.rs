//! A module whose functions the verifier has not seen.

use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::verify_function;
use kiln_globals::list_errors;

use crate::body::Body;
use crate::fingerprint::Fingerprint;
use crate::guard::guard;
use crate::module::Module;
use crate::references;
use crate::target::{Target, TargetError};

/// An error while verifying a module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no code generator for the module's settings and the target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Functions that are not valid IR, in order.
    #[error("{}", list_errors(.0))]
    Functions(Vec<FunctionError>),
}

/// A function that is not valid IR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{module}: function `{function}` (line {line}): {entity}: {message}")]
pub struct FunctionError {
    /// The module's name.
    pub module: Box<str>,
    /// The function's name.
    pub function: Box<str>,
    /// The line of the function in the text that the module came from, or 0.
    pub line: u32,
    /// The entity that the error is about, numbered as in the canonical form.
    pub entity: Box<str>,
    /// The message of the verifier.
    pub message: Box<str>,
}

/// A fault of a function that is not valid IR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entity}: {message}")]
pub struct IrFault {
    /// The entity that the fault is in, such as an instruction.
    pub entity: Box<str>,
    /// The message of the verifier.
    pub message: Box<str>,
}

/// Verifies a function for the code generator `isa`, with Cranelift's verifier and for what this
/// verifier does not report. A panic of the verifier is a fault.
///
/// # Errors
///
/// All faults that are found.
pub fn verify(function: &Function, isa: &dyn TargetIsa) -> Result<(), Vec<IrFault>> {
    let fault = |entity: String, message: String| IrFault { entity: entity.into(), message: message.into() };
    let unusable = references::check(function);
    if !unusable.is_empty() {
        return Err(unusable.iter().map(|at| fault(at.entity().to_string(), at.to_string())).collect());
    }
    match guard(|| verify_function(function, isa)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errors)) => {
            Err(errors.0.into_iter().map(|error| fault(error.location.to_string(), error.message)).collect())
        }
        Err(panic) => {
            let message = format!("Cranelift's verifier fails on it: {panic}");
            Err(vec![fault("function".into(), message)])
        }
    }
}

/// A module that is checked except for its functions: the verifier has not seen them.
///
/// If a cache has code for it, there is no need to verify it: see [`Unverified::fingerprint`].
#[derive(Clone, Debug)]
pub struct Unverified(pub(crate) Module);

impl Unverified {
    /// Returns the fingerprint that the module will have.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint()
    }

    /// Returns the module, to look at. It must not be compiled, because code generation relies on
    /// the verifier.
    pub fn module(&self) -> &Module {
        &self.0
    }

    /// Verifies every function.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if there is no code generator for the module, or else with the errors of all
    /// its functions.
    pub fn verify(self, target: &Target) -> Result<Module, VerifyError> {
        let Self(module) = self;
        let isa = target.isa(&module.settings)?;
        let mut faults = Vec::new();
        let mut ir = Function::new();
        for function in &module.functions {
            let Some(body) = function.body() else { continue };
            body.decode_into(function.symbol, &mut ir);
            let found = match verify(&ir, &*isa) {
                // Bytes that can be decoded may differ from the bytes that the encoder writes for
                // the same function.
                Ok(()) if Body::new(&ir).as_ref() == Ok(body) => Vec::new(),
                Ok(()) => {
                    let message = "its form is not the canonical one".into();
                    vec![IrFault { entity: "function".into(), message }]
                }
                Err(found) => found,
            };
            faults.extend(found.into_iter().map(|IrFault { entity, message }| FunctionError {
                module: module.name.clone(),
                function: module.symbol(function.symbol).name.clone(),
                line: function.line,
                entity,
                message,
            }));
        }
        if faults.is_empty() { Ok(module) } else { Err(VerifyError::Functions(faults)) }
    }
}
