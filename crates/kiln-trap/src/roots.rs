//! The live references of compiled frames, for a garbage collector.

use std::fmt;
use std::ops::ControlFlow;

use crate::registry;
use crate::walk::{self, Step};

/// A place on the stack that holds a live reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The address of the place. A collector that moves objects writes the new reference here.
    pub address: *mut u8,
    /// The size of the reference in bytes.
    pub size: u32,
    /// The address where its function continues.
    pub return_pc: usize,
}

/// Says why not all roots can be found. A collector must not free or move anything then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootsError {
    /// The unwinder cannot go on behind the frame that continues at `return_pc`: there are no rows
    /// for it. There may be compiled frames behind it.
    NoRows {
        /// The return address.
        return_pc: usize,
    },
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRows { return_pc } => {
                write!(f, "there are no unwind rows for {return_pc:#x}, so roots may be missing")
            }
        }
    }
}

impl std::error::Error for RootsError {}

/// Visits the live references of all compiled frames of this thread, from the caller outwards,
/// through frames of the host and several calls of compiled code. `visit` must not take back a
/// [`Registration`](crate::Registration).
///
/// # Errors
///
/// [`RootsError`] if a frame cannot be walked. Some roots may have been visited then.
pub fn roots(visit: &mut dyn FnMut(Root)) -> Result<(), RootsError> {
    let mut last = 0;
    walk::stack(&mut |step| {
        let (return_pc, fp) = match step {
            Step::Host(frame) => {
                last = frame.pc().0;
                return ControlFlow::Continue(());
            }
            Step::Thunk { .. } => {
                last = usize::MAX;
                return ControlFlow::Continue(());
            }
            Step::Code { return_pc, fp, .. } => (return_pc, fp),
        };
        last = return_pc;
        registry::at(return_pc - 1, |code| {
            // The span is known only behind the references, so they are visited twice.
            let Some(span) = code.stack_map_at(return_pc, &mut |_| ()) else { return };
            let sp = fp - span as usize;
            code.stack_map_at(return_pc, &mut |root| {
                let address = std::ptr::with_exposed_provenance_mut(sp + root.offset as usize);
                visit(Root { address, size: root.size, return_pc });
            });
        });
        ControlFlow::Continue(())
    });
    // At the end of a stack, the unwinder shows a frame whose address is 0.
    if last == 0 { Ok(()) } else { Err(RootsError::NoRows { return_pc: last }) }
}
