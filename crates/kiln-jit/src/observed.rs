//! The knowledge that unwinder and debuggers have of a unit.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use kiln_debug::unwind::Registration;
use kiln_debug::{PlainRows, gdb};

/// A unit, as it is known outside.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) unwinder: Option<Registration>,
    /// The rows of entries that count.
    pub(crate) entries: Option<Box<PlainRows>>,
    pub(crate) debugger: Told,
    pub(crate) code: Range<usize>,
    /// The section of unwind rows.
    pub(crate) rows: Range<usize>,
    /// The code tables.
    pub(crate) tables: Range<usize>,
}

/// Whether debuggers know a unit.
#[derive(Debug)]
pub(crate) enum Told {
    No,
    Alone(gdb::Registration),
    /// With other units. The ranges are those of its stubs and entries outside of its code.
    InGroup(Arc<Mutex<gdb::Registration>>, Box<[Range<usize>]>),
}
