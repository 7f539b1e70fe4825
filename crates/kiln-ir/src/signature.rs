//! Compares types of functions as callers and callees see them, and shows them in messages.

use std::fmt;

use cranelift_codegen::ir::{self, AbiParam, ArgumentPurpose, Signature};

/// Tells whether a call of type `a` fits a function of type `b`: the same values, passed in the
/// same way, with the same calling convention. Extension and `vmctx` are ignored: they do not
/// change where a value is passed, and callers and callees are known to differ in them.
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

/// A signature in a message, cut off if it is long, because many messages may show it.
pub(crate) struct Shown<'s>(pub(crate) &'s Signature);

/// The largest number of bytes of a signature that are shown.
const MAX_SHOWN: usize = 200;

/// Writes up to [`MAX_SHOWN`] bytes, and then fails, so that the rest is not formatted.
struct Limited(String);

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(MAX_SHOWN - self.0.len());
        self.0.push_str(&text[..fits]);
        if fits < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Limited(String::new());
        let whole = fmt::Write::write_fmt(&mut text, format_args!("{}", self.0)).is_ok();
        f.write_str(&text.0)?;
        if whole { Ok(()) } else { f.write_str("...") }
    }
}

#[cfg(test)]
mod tests {
    use cranelift_codegen::isa::CallConv;

    use super::*;

    #[test]
    fn long_signatures_are_cut() {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(ir::types::I64));
        assert_eq!(Shown(&signature).to_string(), "(i64) system_v");
        signature.params.resize(100_000, AbiParam::new(ir::types::I64));
        let shown = Shown(&signature).to_string();
        assert_eq!((shown.len(), &shown[195..]), (203, " i64,..."));
    }
}
