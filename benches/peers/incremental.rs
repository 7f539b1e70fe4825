//! Comparison F: building again, when nothing or little has changed.
//!
//! A build compiles the program and makes the image in memory. Every kind of build alternates with
//! a build of the same program without a cache.

mod builds;
mod edit;

use std::path::Path;
use std::sync::Arc;

use kiln::artifact::Artifact;
use kiln::cache::{DiskStore, MemoryStore};

use self::builds::{ProgramBuilder, SharedStore, TIMES, TimedBuild, repeated, write_behind, written};
use self::edit::{Edit, repeat};
use crate::image;
use crate::measure::interleave;
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup, pool};
use crate::workload::Workload;

/// Measures builds. `artifacts` are the artifacts that Kiln compiled from the workload.
pub(crate) fn compare(
    workload: &Workload,
    setup: &Setup,
    artifacts: &[Artifact],
) -> Result<Comparison, Failure> {
    let mut comparison =
        Comparison::new(&workload.name, "F. building again, from IR in memory to an image in memory");
    let modules = &workload.modules;
    let keys: Vec<[u8; 32]> = modules.iter().map(|module| *module.fingerprint().as_bytes()).collect();
    let builder = ProgramBuilder { workload, pool: setup.pool.clone() };
    let mut edit = Edit::find(workload, artifacts)?;
    comparison.check(same_images(workload, setup, &keys, &mut edit, artifacts)?);

    let folder = tempfile::tempdir()?;
    let (memory, disk) = (Arc::new(MemoryStore::new()), write_behind(&folder.path().join("unchanged")));
    builder.lazy(memory.clone(), &keys, true)?;
    builder.lazy(disk.clone(), &keys, true)?;
    let edits = write_behind(&folder.path().join("edited"));
    builder.modules(Some(edits.clone()), modules)?;
    written(&disk)?;
    written(&edits)?;

    let cold = "all is new, no cache";
    let fresh = "all is new, into a folder in the background";
    let warm = ["nothing is new, from a folder", "nothing is new, from memory"];
    let lazy = ["nothing is new, client's keys, from a folder", "nothing is new, client's keys, from memory"];
    let edited = "1 function is new, from a folder";
    let mut program = modules.clone();
    let contenders = vec![
        repeated(cold, 1, || builder.modules(None, modules)),
        repeated(fresh, 1, || builder.fresh(modules)),
        repeated(warm[0], TIMES, || builder.unchanged(builder.modules(Some(disk.clone()), modules)?)),
        repeated(warm[1], TIMES, || builder.unchanged(builder.modules(Some(memory.clone()), modules)?)),
        repeated(lazy[0], TIMES, || builder.unchanged(builder.lazy(disk.clone(), &keys, false)?)),
        repeated(lazy[1], TIMES, || builder.unchanged(builder.lazy(memory.clone(), &keys, false)?)),
        repeated(edited, TIMES, || {
            edit.change(&mut program[edit.module])?;
            builder.edited(edits.clone(), &program)
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    comparison.named_ratio("cache on / no cache", fresh, cold, Goal::AtMost(1.03));
    comparison.named_ratio("all / nothing, from a folder", cold, warm[0], Goal::AtLeast(25.0));
    comparison.named_ratio("all / nothing, from memory", cold, warm[1], Goal::None);
    comparison.named_ratio(
        "all / nothing, client's keys, from a folder",
        cold,
        lazy[0],
        Goal::AtLeast(100.0),
    );
    comparison.named_ratio("all / nothing, client's keys, from memory", cold, lazy[1], Goal::None);
    let mut shares = vec![comparison.named_ratio("1 function / all", edited, cold, Goal::AtMost(0.04))];
    for times in [2, 4, 8] {
        shares.push(larger(&mut comparison, times, &builder, setup, folder.path(), &mut edit)?);
    }
    comparison.value("the same, 8 times the program / once", shares[3] / shares[0], Goal::AtMost(1.0));

    let bytes: u64 = DiskStore::new(folder.path().join("unchanged")).entries().map(|entry| entry.bytes).sum();
    let code: u64 = artifacts.iter().map(image::code_size).sum();
    comparison.value("bytes of all entries / bytes of code", bytes as f64 / code as f64, Goal::AtMost(2.0));
    comparison.note(format!("{} KB of entries in a folder, {} KB of code", bytes / 1024, code / 1024));
    comparison.note(format!(
        "the function that changes has {} instructions, in a module of {} functions; it changes for every build",
        edit.ir.dfg.num_insts(),
        modules[edit.module].functions.len(),
    ));
    comparison.note("builds that reuse are repeated 5 times a turn, and the median is taken; client's keys are known before; files are in the page cache");
    comparison.check("every build compiled all, nothing or one function, and reused everything else");
    Ok(comparison)
}

/// Adds a comparison for a larger program, and returns the time of a build with one new function as
/// a share of a whole build.
fn larger(
    comparison: &mut Comparison,
    times: usize,
    builder: &ProgramBuilder<'_>,
    setup: &Setup,
    folder: &Path,
    edit: &mut Edit,
) -> Result<f64, Failure> {
    let modules = repeat(&builder.workload.modules, times);
    let mut program = modules.clone();
    let store = write_behind(&folder.join(format!("edited-{times}")));
    builder.modules(Some(store.clone()), &modules)?;
    written(&store)?;
    let cold = format!("{times} times the program, all is new");
    let edited = format!("{times} times the program, 1 function is new");
    let contenders = vec![
        repeated(&cold, 1, || builder.modules(None, &modules)),
        repeated(&edited, TIMES, || {
            edit.change(&mut program[edit.module])?;
            builder.edited(store.clone(), &program)
        }),
    ];
    // Fewer rounds are enough: a build of a large program takes long, and noise is a smaller part
    // of its time.
    comparison.add(interleave((setup.rounds / times as u32).max(2), contenders)?);
    Ok(comparison.named_ratio(
        format!("1 function / all, {times} times the program"),
        &edited,
        &cold,
        Goal::None,
    ))
}

/// Checks that every kind of build makes the same image as a build without a cache, with any number
/// of threads.
fn same_images(
    workload: &Workload,
    setup: &Setup,
    keys: &[[u8; 32]],
    edit: &mut Edit,
    artifacts: &[Artifact],
) -> Result<String, Failure> {
    let modules = &workload.modules;
    let mut program = modules.clone();
    edit.change(&mut program[edit.module])?;
    let expected = image::link(workload, artifacts, setup)?;
    let builder = ProgramBuilder { workload, pool: setup.pool.clone() };
    let expected_edited = builder.modules(None, &program)?.image;
    if expected == expected_edited {
        return Err("the edit makes no difference".into());
    }
    for threads in [setup.threads, 1] {
        let builder = ProgramBuilder { workload, pool: Arc::new(pool(threads)?) };
        let folder = tempfile::tempdir()?;
        let stores: [(_, SharedStore); 2] =
            [("memory", Arc::new(MemoryStore::new())), ("folder", Arc::new(DiskStore::new(folder.path())))];
        let check = |name: &str, build: TimedBuild, expected: &[u8]| -> Result<(), Failure> {
            if build.image == expected {
                return Ok(());
            }
            Err(format!("another image: {name}, {threads} threads").into())
        };
        check("no cache", builder.modules(None, modules)?, &expected)?;
        check("written in the background", builder.fresh(modules)?, &expected)?;
        for (name, store) in stores {
            check(name, builder.lazy(store.clone(), keys, true)?, &expected)?;
            check(name, builder.unchanged(builder.modules(Some(store.clone()), modules)?)?, &expected)?;
            let lazy = builder.unchanged(builder.lazy(store.clone(), keys, false)?)?;
            if lazy.stats.lazy_modules != modules.len() {
                return Err(format!("not every module was left alone: {:?}", lazy.stats).into());
            }
            check(name, lazy, &expected)?;
            check(name, builder.edited(store, &program)?, &expected_edited)?;
        }
        let halves: [(_, SharedStore); 2] = [
            ("half in memory", Arc::new(MemoryStore::new())),
            ("half in a folder", Arc::new(DiskStore::new(folder.path().join("half")))),
        ];
        for (name, store) in halves {
            check(name, builder.half(store)?, &expected)?;
        }
    }
    let threads = setup.threads;
    Ok(format!("every kind of build gives the same image, byte for byte, with {threads} threads and with 1"))
}
