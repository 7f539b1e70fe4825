//! Types of functions, compared as callers and callees see them.

use cranelift_codegen::ir::{self, AbiParam, ArgumentPurpose, Signature};

/// Tells whether a call of type `a` fits a function of type `b`: the same values, passed in the
/// same way, with the same calling convention. Extension and `vmctx` move no value; callers and
/// callees are known to differ there.
pub(crate) fn same_type(a: &Signature, b: &Signature) -> bool {
    fn passing(param: &AbiParam) -> (ir::Type, ArgumentPurpose) {
        let purpose = match param.purpose {
            ArgumentPurpose::VMContext => ArgumentPurpose::Normal,
            other => other,
        };
        (param.value_type, purpose)
    }
    let same = |a: &[AbiParam], b: &[AbiParam]| a.iter().map(passing).eq(b.iter().map(passing));
    a.call_conv == b.call_conv && same(&a.params, &b.params) && same(&a.returns, &b.returns)
}
