//! Comparison O: from machine code to relocatable objects, and what a linker makes of them.

use std::path::{Path, PathBuf};

use kiln::artifact::Artifact;
use kiln::globals::GlobalTable;
use kiln::image::{GlobalSymbols, ObjectOptions, write_object};
use rayon::prelude::*;

use crate::linker;
use crate::measure::{Contender, interleave, timed};
use crate::object::{self, Cut, Unit};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

/// Measures the writing of objects, and links what was written last.
pub(crate) fn compare(
    workload: &Workload,
    setup: &Setup,
    artifacts: &[Artifact],
    folder: &Path,
) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(&workload.name, "O. from machine code to relocatable objects");
    let parts = &["emit", "write"];
    let cuts = [Cut::Whole, Cut::Modules];
    let mut units = Vec::new();
    for cut in cuts {
        units.push((cut, object::units(workload, cut)?));
    }
    let folders: Vec<PathBuf> = (0..4).map(|number| folder.join(format!("objects-{number}"))).collect();
    folders.iter().try_for_each(std::fs::create_dir_all)?;
    let mut contenders = Vec::new();
    for (number, (cut, units)) in units.iter().enumerate() {
        let (own, peers) = (&folders[2 * number], &folders[2 * number + 1]);
        contenders.push(Contender::in_parts(format!("kiln, {}", cut.name()), parts, move || {
            let (emit, objects) = timed(|| emit(artifacts, *cut, setup));
            let objects = objects?;
            clean(own, objects.len());
            let (write, result) = timed(|| -> std::io::Result<()> {
                setup.pool.install(|| {
                    let files = objects.par_iter().enumerate();
                    files.map(|(number, bytes)| std::fs::write(file(own, number), bytes)).collect()
                })
            });
            result?;
            Ok(vec![emit, write])
        }));
        contenders.push(Contender::new(format!("cranelift-object, {}", cut.name()), move || {
            object::clean(units, peers);
            object::write(units, peers, &setup.pool)
        }));
    }
    comparison.add(interleave(setup.rounds, contenders)?);
    for cut in cuts {
        let [peer, own] = ["cranelift-object", "kiln"].map(|name| format!("{name}, {}", cut.name()));
        comparison.named_ratio(format!("{peer} / {own}"), &peer, &own, Goal::AtLeast(2.0));
    }
    comparison.note("both write files; cranelift-object does so while it emits others");
    comparison.note("kiln does more: unwind rows");
    check(&mut comparison, workload, setup, &units, &folders)?;
    Ok(comparison)
}

/// Makes one object, or an object for each module, in parallel.
fn emit(artifacts: &[Artifact], cut: Cut, setup: &Setup) -> Result<Vec<Vec<u8>>, Failure> {
    let options = ObjectOptions { globals: GlobalSymbols::Named, ..ObjectOptions::default() };
    let groups: Vec<&[Artifact]> = match cut {
        Cut::Modules => artifacts.chunks(1).collect(),
        Cut::Whole => vec![artifacts],
    };
    let objects: Result<_, Vec<_>> = setup.pool.install(|| {
        groups.par_iter().map(|group| write_object(group, &GlobalTable::new(), &options)).collect()
    });
    objects.map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string).into())
}

fn file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.o"))
}

/// Removes the files of an earlier turn, because overwriting a file takes longer than writing a new
/// one.
fn clean(folder: &Path, count: usize) {
    for number in 0..count {
        // The first turn finds none, so an error is ignored.
        let _ = std::fs::remove_file(file(folder, number));
    }
}

/// Checks that a linker makes the same of all objects: as many exported names, and at least the
/// code that was compiled. Reports how long it takes.
fn check(
    comparison: &mut Comparison,
    workload: &Workload,
    setup: &Setup,
    units: &[(Cut, Vec<Unit>)],
    folders: &[PathBuf],
) -> Result<(), Failure> {
    let linkers = linker::known();
    let Some(linker) = linkers.iter().rfind(|linker| linker.is_installed()) else {
        comparison.note("no linker is installed, so no object is linked");
        return Ok(());
    };
    let count = |number: usize| units[number / 2].1.len();
    let mut contenders = Vec::new();
    let mut outputs = Vec::new();
    for (number, folder) in folders.iter().enumerate() {
        let name = ["kiln", "cranelift-object"][number % 2];
        let name = format!("{} of {name}, {}", linker.name, units[number / 2].0.name());
        let (output, objects) = (folder.join("linked.so"), (0..count(number)).map(|n| file(folder, n)));
        let objects: Vec<PathBuf> = objects.filter(|path| path.exists()).collect();
        outputs.push((name.clone(), output.clone()));
        contenders.push(Contender::new(name, move || linker.link(&objects, &output, setup.threads)));
    }
    comparison.add(interleave(setup.rounds, contenders)?);
    for (name, output) in outputs {
        let contents = linker::read(&output)?;
        if contents.exports != workload.exports() {
            let (found, expected) = (contents.exports, workload.exports());
            return Err(format!("{name} exports {found} names instead of {expected}").into());
        }
    }
    comparison.check(format!("every linked file exports {} names", workload.exports()));
    Ok(())
}
