//! Comparison G: small functions, one at a time, in sessions of Kiln and in `JITModule`s.
//!
//! A row is a function in a file of `sessions/`. It measures, adds its times and ratios to the
//! comparison, and takes its sizes from [`Scale`], so that a short run stays short. To add a row,
//! write such a function and name it in [`compare`].

mod batch;
mod function;
mod growth;
mod lookup;
mod one;
mod peak;
mod removal;
mod scale;
mod swap;
mod tiers;

use self::function::Peer;
pub(crate) use self::growth::{Child, child, resident};
pub(crate) use self::peak::{PeakChild, peak, peak_child};
pub(crate) use self::scale::Scale;
use crate::report::Comparison;
use crate::setup::{Failure, Setup};

/// Measures every row. `workload` are the arguments that choose the workload of a child.
pub(crate) fn compare(
    setup: &Setup,
    scale: Scale,
    workload: &[std::ffi::OsString],
) -> Result<Comparison, Failure> {
    let peer = Peer::new()?;
    let mut comparison = Comparison::new("small functions", "G. sessions, one function at a time");
    let rows = [
        one::own_session,
        one::add,
        one::build_and_add,
        one::publish,
        batch::publish,
        lookup::two_threads,
        removal::rounds,
        swap::replace,
        tiers::compare,
    ];
    for row in rows {
        row(&peer, setup, scale, &mut comparison)?;
    }
    growth::compare(setup, scale, &mut comparison)?;
    peak::compare(setup, workload, &mut comparison)?;
    comparison.note(
        "the function is `(a + b) * k`; both engines verify it and compile it at opt_level none with the same \
         settings and CPU features, except that cranelift-jit needs is_pic = false",
    );
    comparison.note(
        "kiln: the default options, so unwind rows are made and registered, which cranelift-jit does not do; \
         cranelift-jit: its default memory",
    );
    Ok(comparison)
}
