//! Names of symbols, as text writes them and as Cranelift's reader gives them.

use std::borrow::Cow;

use cranelift_codegen::ir::function::FunctionParameters;
use cranelift_codegen::ir::{ExternalName, UserFuncName};

/// Returns a symbol's name as the text writes it: `%f` for `f`, `u1:23` for `u1:23`.
pub(crate) fn written(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("%{name}") }
}

/// Returns the name of a function that was read: `f` for `%f`, `u0:1` for `u0:1`.
pub(crate) fn function_name(name: &UserFuncName) -> Cow<'_, str> {
    match name {
        UserFuncName::User(name) => name.to_string().into(),
        UserFuncName::Testcase(name) => String::from_utf8_lossy(name.raw()),
    }
}

/// Returns the name of an import.
pub(crate) fn external_name<'f>(params: &'f FunctionParameters, name: &'f ExternalName) -> Cow<'f, str> {
    match name {
        ExternalName::User(number) => params.user_named_funcs()[*number].to_string().into(),
        ExternalName::TestCase(name) => String::from_utf8_lossy(name.raw()),
        // The encoder writes library calls itself, and known symbols were refused.
        ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) => "".into(),
    }
}
