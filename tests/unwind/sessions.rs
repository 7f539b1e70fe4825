//! Programs in a session: in memory, where only the system's unwinder has their rows.

use std::ops::Range;

use kiln::ir::Target;
use kiln::{Session, jit};

use crate::programs::Program;
use crate::truth::Functions;

/// A program that was added to a session.
pub(crate) struct InSession {
    /// The range of its code.
    pub(crate) code: Range<u64>,
    pub(crate) functions: Functions,
    /// Thunk, function and cells of each call.
    calls: Vec<(*const u8, *const u8, Vec<jit::Cell>)>,
    _session: Session,
}

impl InSession {
    pub(crate) fn new(program: &Program) -> Result<Self, String> {
        let session = Session::new(Target::host()).map_err(|error| error.to_string())?;
        let unit = session.add(&program.modules).map_err(|error| error.to_string())?;
        let functions = unit.functions().map(|function| {
            let start = function.address as u64;
            (start, (start + function.size as u64, function.name.to_owned()))
        });
        let functions: Functions = functions.collect();
        let first = functions.first_key_value().ok_or("a program without functions")?;
        let last = functions.last_key_value().ok_or("a program without functions")?;
        let code = *first.0..last.1.0;
        let calls = program.calls.iter().map(|call| {
            let address =
                |name: &str| session.address(name).ok_or_else(|| format!("the session has no {name}"));
            let cells = call.cells.iter().map(|cell| jit::Cell(*cell)).collect();
            Ok((address(&call.thunk)?, address(&call.function)?, cells))
        });
        let calls = calls.collect::<Result<_, String>>()?;
        Ok(Self { code, functions, calls, _session: session })
    }

    /// Makes all calls.
    pub(crate) fn call(&mut self) {
        for (thunk, function, cells) in &mut self.calls {
            // SAFETY: an entry thunk is called with its callee, and with the cells that it needs.
            // The session lives.
            unsafe { jit::invoke(*thunk, *function, cells) };
        }
    }
}
