//! Calls compiled code whose signature is known only at run time.

use std::fmt;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;
use kiln::Thunk;
use kiln::ir::{Module, ModuleSettings, Target};
use kiln::jit::{Cell, invoke};
use kiln::trap::{self, Caught, CodeFrame};

use super::invocation::Stop;
use crate::output::{chain, name};

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
        let failed = |reason: &dyn fmt::Display| Stop::Failed(reason.to_string());
        let known = self.thunks.iter().position(|thunk| thunk.signature() == signature);
        let index = match known {
            Some(index) => index,
            None => {
                let thunk = thunk(self.target, self.settings, signature).map_err(Stop::Failed)?;
                self.thunks.push(thunk);
                self.thunks.len() - 1
            }
        };
        let thunk = &self.thunks[index];
        let mut cells =
            thunk.encode(arguments).ok_or_else(|| failed(&"arguments do not fit the signature"))?;
        call(thunk, callee, &mut cells).map_err(|trapped| Stop::Failed(trapped.to_string()))?;
        thunk.decode(&cells).ok_or_else(|| failed(&"results do not fit the signature"))
    }
}

/// Makes a thunk whose calls return traps as errors.
pub(crate) fn thunk(
    target: &Target,
    settings: &ModuleSettings,
    signature: &Signature,
) -> Result<Thunk, String> {
    let thunk = Thunk::new(target, settings, signature).map_err(|error| chain(&error))?;
    thunk.catch_traps().map_err(|error| chain(&error))?;
    Ok(thunk)
}

/// The reason why a call has no results.
pub(crate) struct Trapped(Caught);

impl fmt::Display for Trapped {
    /// Writes the trap by name, with function and line; offsets in code tell users nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Caught::Trap(trap) => {
                write!(f, "trapped: {}", trap.code())?;
                trap.frame().map_or(Ok(()), |frame| write_frame(f, frame))
            }
            other => f.write_str(&chain(other)),
        }
    }
}

impl Trapped {
    /// Returns the functions that called the one that trapped, each on a line of its own.
    pub(crate) fn callers(&self) -> String {
        let Caught::Trap(trap) = &self.0 else { return String::new() };
        let backtrace = trap.backtrace();
        // The outermost frame is that of the thunk.
        let frames = backtrace.frames().split_last().map_or(&[][..], |(_, frames)| frames);
        let callers = frames.iter().skip(1).filter_map(|frame| frame.code());
        callers.map(|frame| format!("\n    called{}", Called(frame))).collect()
    }
}

/// A frame, as part of a sentence.
struct Called<'a>(&'a CodeFrame);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_frame(f, self.0)
    }
}

fn write_frame(f: &mut fmt::Formatter<'_>, frame: &CodeFrame) -> fmt::Result {
    match &*frame.function {
        "" => write!(f, " in a function without a name")?,
        function => write!(f, " in `{}`", name(function))?,
    }
    match &frame.source {
        Some(source) if source.line != 0 => write!(f, " at {}", name(&source.to_string())),
        _ => Ok(()),
    }
}

/// Runs machine code on behalf of the user, and returns an error if it traps.
#[expect(
    unsafe_code,
    reason = "a command whose purpose is to execute compiled code must execute it somewhere"
)]
pub(crate) fn call(thunk: &Thunk, callee: *const u8, cells: &mut [Cell]) -> Result<(), Trapped> {
    type Entry = unsafe extern "C-unwind" fn(*const u8, *mut Cell);
    // SAFETY: this is the type of entry thunks. `callee` is code of the thunk's signature, which
    // the callers compare, and the thunk encoded `cells`. Whether the code's own behaviour is
    // defined depends on the user's IR; running it is this process's only purpose, and it may
    // crash.
    let result = unsafe {
        let entry = std::mem::transmute::<*const u8, Entry>(thunk.address());
        trap::call(entry, (callee, cells.as_mut_ptr()))
    };
    result.map_err(Trapped)
}

/// As [`call`], but a trap ends the process: for calls whose time is measured.
#[expect(unsafe_code, reason = "as above")]
pub(crate) fn call_uncaught(thunk: &Thunk, callee: *const u8, cells: &mut [Cell]) {
    // SAFETY: as in `call`.
    unsafe { invoke(thunk.address(), callee, cells) };
}
