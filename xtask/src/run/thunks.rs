//! Calls compiled code whose signature is known only at run time.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;
use kiln::Thunk;
use kiln::ir::{Module, ModuleSettings, Target};
use kiln::jit::invoke;

use super::invocation::Stop;
use crate::output::chain;

/// The thunks of a module. A thunk is made when a function of its signature is first called.
pub(super) struct Thunks<'a> {
    target: &'a Target,
    settings: &'a ModuleSettings,
    thunks: Vec<Thunk>,
}

impl<'a> Thunks<'a> {
    /// Makes one set of thunks for each module.
    pub(super) fn of_each(target: &'a Target, modules: &'a [Module]) -> Vec<Self> {
        let of = |module: &'a Module| Self { target, settings: &module.settings, thunks: Vec::new() };
        modules.iter().map(of).collect()
    }

    /// Calls `callee`, whose signature must be `signature`.
    pub(super) fn call(
        &mut self,
        callee: *const u8,
        signature: &Signature,
        arguments: &[DataValue],
    ) -> Result<Vec<DataValue>, Stop> {
        let failed = |reason: &dyn std::fmt::Display| Stop::Failed(reason.to_string());
        let known = self.thunks.iter().position(|thunk| thunk.signature() == signature);
        let index = match known {
            Some(index) => index,
            None => {
                let thunk = Thunk::new(self.target, self.settings, signature)
                    .map_err(|error| failed(&chain(&error)))?;
                self.thunks.push(thunk);
                self.thunks.len() - 1
            }
        };
        let thunk = &self.thunks[index];
        let mut cells =
            thunk.encode(arguments).ok_or_else(|| failed(&"arguments do not fit the signature"))?;
        call(thunk, callee, &mut cells);
        thunk.decode(&cells).ok_or_else(|| failed(&"results do not fit the signature"))
    }
}

/// Runs machine code on behalf of the user.
#[expect(
    unsafe_code,
    reason = "a command whose purpose is to execute compiled code must execute it somewhere"
)]
pub(crate) fn call(thunk: &Thunk, callee: *const u8, cells: &mut [kiln::jit::Cell]) {
    // SAFETY: `callee` is code of the thunk's signature, which the callers compare, and the thunk
    // encoded `cells`. Whether the code's own behaviour is defined depends on the user's IR;
    // running it is this process's only purpose, and it may crash.
    unsafe { invoke(thunk.address(), callee, cells) };
}
