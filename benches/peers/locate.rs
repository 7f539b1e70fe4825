//! Comparison H: code tables: what they cost, and how fast a place in code is found.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use kiln::artifact::Artifact;
use kiln::image::code::Location;
use kiln::image::link::plan;
use kiln::image::{Image, Loaded};
use kiln::ir::{Source, Target, parse};
use kiln::jit::{Jit, JitOptions};
use kiln::{Compiler, Session};

use crate::jit;
use crate::measure::{Contender, interleave, timed};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup, pool};
use crate::workload::Workload;

/// Places that are looked up in each turn.
const PLACES: usize = 20_000;
/// Entries of each kind in the long function.
const ENTRIES: usize = 100_000;
/// A lookup takes at most this long, in nanoseconds.
const GOAL: f64 = 100.0;

/// Addresses in code, in an order that is not that of addresses.
fn places(addresses: &[usize]) -> Vec<usize> {
    let mut random = 1_usize;
    let next = |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        addresses[(random >> 33) % addresses.len()]
    };
    (0..PLACES).map(next).collect()
}

/// Every address of the functions of an image.
fn addresses(loaded: &Loaded) -> Vec<usize> {
    let text = loaded.text().start as usize;
    let functions = loaded.code_tables().into_iter().flat_map(|tables| tables.functions());
    functions.flat_map(|found| (0..found.len()).map(move |at| text + (found.start() + at) as usize)).collect()
}

/// Places that are timed together: so few that the system seldom interrupts them.
const BATCH: usize = 200;

/// Makes a contender that asks about all places, and takes the time for one of them: the median of
/// batches.
fn asks<'a>(name: &str, places: &'a [usize], mut ask: impl FnMut(usize) + 'a) -> Contender<'a> {
    Contender::in_parts(name, &[""], move || {
        let batches = places.chunks_exact(BATCH);
        let mut times: Vec<_> =
            batches.map(|batch| timed(|| batch.iter().for_each(|&place| ask(black_box(place)))).0).collect();
        times.sort_unstable();
        Ok(vec![times[times.len() / 2] / BATCH as u32])
    })
}

/// Reads everything that is known about the instruction.
fn read(place: Location<'_>) {
    black_box((place.name(), place.source(), place.trap()));
}

/// Measures the tables of a workload, whose image is at `path`.
pub(crate) fn compare(
    workload: &Workload,
    setup: &Setup,
    artifacts: &[Artifact],
    path: &Path,
) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(&workload.name, "H. code tables: building them, and lookups (each)");
    let one = Arc::new(pool(1)?);
    let plan = plan(artifacts, &workload.globals, &|_| None).map_err(|errors| errors[0].to_string())?;
    let image = Image::open(path)?;
    let slots = image.slots().iter().map(|key| jit::resolve(key).unwrap_or(1)).collect::<Vec<_>>();
    let loaded = image.bind_array(&slots)?;
    let all = places(&addresses(&loaded));
    let memory = Jit::new(JitOptions::default())?;
    let unit =
        memory.link(artifacts, &|key: &kiln::globals::SlotKey| Some(jit::resolve(key).unwrap_or(1)))?;
    let functions: Vec<usize> = unit
        .functions()
        .flat_map(|found| (0..found.size).map(move |at| found.address as usize + at))
        .collect();
    let in_memory = places(&functions);
    let (compile, build) = ("compile, one thread", "code tables: lay out and write, one thread");
    let (nothing, find, ask) = ("nothing: read an address", "Loaded::locate", "Loaded::locate, source, trap");
    let (jit, jit_all) = ("Jit::locate", "Jit::locate, source, trap");
    let contenders = vec![
        Contender::new(compile, || {
            Ok(Compiler::new(workload.target.clone()).pool(one.clone()).compile(&workload.modules)?)
        }),
        Contender::new(build, || Ok(plan.code_tables())),
        asks(nothing, &all, |place| {
            black_box(place);
        }),
        asks(find, &all, |place| {
            black_box(loaded.locate(place as *const u8));
        }),
        asks(ask, &all, |place| loaded.locate(place as *const u8).into_iter().for_each(read)),
        asks(jit, &in_memory, |place| {
            black_box(memory.locate(place as *const u8).is_some());
        }),
        asks(jit_all, &in_memory, |place| {
            let place = memory.locate(place as *const u8);
            place.iter().for_each(|place| read(place.location()));
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    comparison.ratio(build, compile, Goal::AtMost(0.02));
    for name in [find, ask, jit, jit_all] {
        comparison.nanoseconds(name, Goal::AtMost(GOAL));
    }
    sizes(&mut comparison, &loaded);
    let found = all.iter().filter(|&&place| loaded.locate(place as *const u8).is_some()).count();
    let in_session = in_memory.iter().filter(|&&place| memory.locate(place as *const u8).is_some()).count();
    if (found, in_session) != (PLACES, PLACES) {
        return Err(format!("of {PLACES} places, {found} and {in_session} are found").into());
    }
    comparison.check(format!("all {PLACES} places are found, in the image and in memory"));
    Ok(comparison)
}

/// Adds the sizes of the tables, by parts.
fn sizes(comparison: &mut Comparison, loaded: &Loaded) {
    let sizes = loaded.code_tables().map(|tables| tables.sizes()).unwrap_or_default();
    let code = sizes.code.max(1) as f64;
    comparison.value("code tables / code", sizes.total as f64 / code, Goal::AtMost(1.0 / 3.0));
    for (part, size) in sizes.parts() {
        comparison.value(format!("  {part} / code"), size as f64 / code, Goal::None);
    }
}

/// Measures lookups in one function that has as many entries of each kind as no other.
pub(crate) fn long(setup: &Setup) -> Result<Comparison, Failure> {
    let mut comparison =
        Comparison::new("one function", "H. lookups in a function with 100,000 entries (each)");
    let session = Session::new(Target::host())?;
    let mut text = String::from(
        "set opt_level=none\nfunction %long(i64, i64) -> i64 system_v {\nblock0(v0: i64, v1: i64):\n",
    );
    for number in 0..ENTRIES {
        // Each may trap, and has a location of its own.
        text += &format!("@{:04x}\n    v{} = load.i64 v0+{}\n", 3 * number, number + 2, number % 1000);
    }
    text += &format!("    return v{}\n}}\n", ENTRIES + 1);
    let module = parse(Source::new("long.clif", text).into(), session.target());
    let unit = session.add(&[module.map_err(|faults| faults[0].to_string())?])?;
    let long = unit.functions().next().ok_or("no function")?;
    let all: Vec<usize> = (0..long.size).map(|at| long.address as usize + at).collect();
    let all = places(&all);
    let (nothing, find, ask) =
        ("nothing: read an address", "Session::locate", "Session::locate, source, trap");
    let contenders = vec![
        asks(nothing, &all, |place| {
            black_box(place);
        }),
        asks(find, &all, |place| {
            black_box(session.locate(place as *const u8).is_some());
        }),
        asks(ask, &all, |place| {
            let place = session.locate(place as *const u8);
            place.iter().for_each(|place| read(place.location()));
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    for name in [find, ask] {
        comparison.nanoseconds(name, Goal::AtMost(GOAL));
    }
    let known = |place: usize| {
        let place = session.locate(place as *const u8)?;
        place.location().source().and(place.location().trap())
    };
    let traps = (0..long.size).filter(|at| known(long.address as usize + at).is_some()).count();
    if traps < ENTRIES {
        return Err(format!("{traps} traps of {ENTRIES} are found").into());
    }
    comparison.check(format!("{traps} instructions have a trap and a source location"));
    Ok(comparison)
}
