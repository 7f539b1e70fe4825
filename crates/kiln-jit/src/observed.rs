//! The knowledge that unwinder and debuggers have of a unit.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use kiln_debug::{gdb, unwind};

/// A unit, as it is known outside.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) unwinder: Option<unwind::Registration>,
    pub(crate) debugger: Told,
    pub(crate) code: Range<usize>,
    /// The section of unwind rows.
    pub(crate) rows: Range<usize>,
}

/// Whether debuggers know a unit.
#[derive(Debug)]
pub(crate) enum Told {
    No,
    Alone(gdb::Registration),
    InGroup(Arc<Mutex<gdb::Registration>>),
}
