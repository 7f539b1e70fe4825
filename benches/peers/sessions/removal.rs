//! Code that is published, called and removed, again and again.

use std::time::{Duration, Instant};

use cranelift_module::{Linkage, Module as _};

use super::function::Peer;
use super::growth::resident;
use super::one::{artifacts, free, session};
use super::scale::Scale;
use crate::measure::median;
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// The rounds whose times are compared.
const GROUP: usize = 1000;

/// The time of a round at the beginning and at the end, and the resident memory.
struct Ends {
    first: Duration,
    last: Duration,
    resident: [usize; 2],
}

/// Measures rounds with each engine. `cranelift_jit` frees nothing less than a whole module, so it
/// has a module for each round.
pub(super) fn rounds(
    peer: &Peer,
    _: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let functions = peer.functions(7, 1);
    let (function, compiled, code) = (&functions[0], artifacts(peer, &functions)?, peer.bytes(&functions)?);
    let count = scale.rounds();
    let session = session(&peer.compiler)?;
    let kiln = repeat(count, || {
        let unit = session.add_artifacts(&compiled)?;
        let guard = session.guard();
        function.check(session.address(&function.name))?;
        drop(guard);
        Ok(session.remove(&[unit])?)
    })?;
    // Its rounds are slow, and all alike.
    let cranelift = repeat((count / 100).max(2 * GROUP), || {
        let mut module = peer.module();
        let id = module.declare_function(&function.name, Linkage::Export, &function.ir.signature)?;
        module.define_function_bytes(id, 16, &code[0], &[])?;
        module.finalize_definitions()?;
        function.check(Some(module.get_finalized_function(id)))?;
        free(module);
        Ok(())
    })?;
    let name = format!("{count} rounds of publish, call, remove:");
    let ratio = |above: Duration, below: Duration| above.as_secs_f64() / below.as_secs_f64();
    comparison.value(format!("{name} last / first {GROUP}"), ratio(kiln.last, kiln.first), Goal::AtMost(1.1));
    let [before, after] = kiln.resident;
    comparison.value(
        format!("{name} resident memory at the end / start"),
        after as f64 / before as f64,
        Goal::AtMost(1.01),
    );
    comparison.value(
        "a round of publish, call, remove: kiln / cranelift-jit with a module for it",
        ratio(kiln.last, cranelift.last),
        Goal::AtMost(1.0),
    );
    comparison.note(format!(
        "rounds of removal: {:.2} us at first and {:.2} us at last in kiln, {:.2} us in cranelift-jit (medians of {GROUP} rounds)",
        kiln.first.as_secs_f64() * 1e6,
        kiln.last.as_secs_f64() * 1e6,
        cranelift.last.as_secs_f64() * 1e6,
    ));
    Ok(())
}

/// Runs `round` many times.
fn repeat(count: usize, mut round: impl FnMut() -> Result<(), Failure>) -> Result<Ends, Failure> {
    let mut times = Vec::with_capacity(GROUP);
    let (mut first, mut before) = (Duration::ZERO, 0);
    // The first group warms up.
    for number in 0..count + GROUP {
        let start = Instant::now();
        round()?;
        times.push(start.elapsed());
        if times.len() < GROUP {
            continue;
        }
        let is_first = number + 1 == 2 * GROUP;
        // A median of rounds is not disturbed by the other work of the machine.
        if is_first {
            (first, before) = (median(times.clone()), resident()?);
        }
        if number + 1 == count + GROUP {
            break;
        }
        times.clear();
    }
    Ok(Ends { first, last: median(times), resident: [before, resident()?] })
}
