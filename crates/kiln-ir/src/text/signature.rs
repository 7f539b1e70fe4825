//! Reads signatures outside of functions, with Cranelift's reader.

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::CallConv;
use cranelift_reader::{ParseOptions, parse_test};

use super::cursor::{Cursor, Token};
use crate::diagnostic::one_line;
use crate::guard::guard;

/// Reads a signature, which ends at the end of the line or before a brace.
pub(super) fn signature(cursor: &mut Cursor<'_>, call_conv: CallConv) -> Token<Signature> {
    let rest = cursor.rest();
    let end = rest.find(['\n', ';', '{', '}', '"']).unwrap_or(rest.len());
    let text = rest[..end].trim();
    let at = cursor.at + (rest[..end].len() - rest[..end].trim_start().len());
    let function = format!("function %f{text} {{\nblock0:\n    trap user1\n}}");
    let options = ParseOptions { default_calling_convention: call_conv, ..ParseOptions::default() };
    let read = guard(|| parse_test(&function, options));
    let function = match read {
        Ok(Ok(file)) => file.functions.into_iter().next().map(|(function, _)| function),
        Ok(Err(error)) => {
            let message = one_line(&error.message);
            return Err(cursor.fault_at(at, text.len(), message));
        }
        Err(_) => None,
    };
    let function = function
        .ok_or_else(|| cursor.fault_at(at, text.len(), "expected the type of a function".to_owned()))?;
    cursor.at += end;
    Ok(function.signature.clone())
}
