//! Comparison B: from machine code to a file that can be loaded.

use std::path::Path;

use kiln::artifact::Artifact;
use kiln::image::{Image, ImageOptions, save, write_image};
use rayon::prelude::*;

use crate::jit;
use crate::linker::{self, Linker};
use crate::measure::{Contender, interleave, timed};
use crate::object::{self, Cut, Unit};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

const KILN: &str = "kiln";
/// The limit of any linker that writes a file.
const WRITE: &str = "the same bytes with one write";

/// Measures the writing of images, and leaves the last one at `image`.
pub(crate) fn compare(
    workload: &Workload,
    setup: &Setup,
    artifacts: &[Artifact],
    image: &Path,
) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(&workload.name, "B. from machine code to a file that can be loaded");
    let folder = image.parent().ok_or("the image has no folder")?;
    let linkers = linker::known();
    for linker in linkers.iter().filter(|linker| !linker.is_installed()) {
        comparison.note(format!("{} is not installed, so it is not measured", linker.name));
    }
    let cuts = [Cut::Modules, Cut::Whole];
    let units = cuts.map(|cut| object::units(workload, cut));

    let (same, plain) = (link(workload, artifacts, setup)?, folder.join("plain.so"));
    let mut contenders = vec![Contender::in_parts(KILN, &["link", "save: write, rename"], || {
        let _ = std::fs::remove_file(image);
        let (link, bytes) = timed(|| link(workload, artifacts, setup));
        let bytes = bytes?;
        let (write, result) = timed(|| save(image, &bytes));
        result?;
        Ok(vec![link, write])
    })];
    contenders.push(Contender::in_parts(WRITE, &["write"], || {
        let _ = std::fs::remove_file(&plain);
        let (time, result) = timed(|| std::fs::write(&plain, &same));
        result?;
        Ok(vec![time])
    }));
    let mut outputs = Vec::new();
    for (cut, units) in cuts.iter().zip(&units) {
        let units = match units {
            Ok(units) => units,
            Err(error) => {
                comparison.note(format!("cranelift-object, {}: {error}", cut.name()));
                continue;
            }
        };
        for linker in linkers.iter().filter(|linker| linker.is_installed()) {
            let name = format!("cranelift-object, {}, {}", cut.name(), linker.name);
            let output = folder.join(format!("{}-{}.so", linker.name, outputs.len()));
            outputs.push((name.clone(), output.clone()));
            contenders.push(peer(name, units, linker, folder, output, setup));
        }
    }
    comparison.add(interleave(setup.rounds, contenders)?);

    let peers = |name: &str| name.starts_with("cranelift-object");
    match comparison.fastest(peers) {
        Some(fastest) => {
            comparison.named_ratio(format!("{fastest} / kiln"), &fastest, KILN, Goal::AtLeast(5.0));
        }
        None => comparison.note("no linker is installed, so there is nothing to compare with"),
    }
    comparison.ratio(KILN, WRITE, Goal::AtMost(2.0));
    comparison.note("peers: objects are emitted from compiled code; linkers run with -shared -Bsymbolic; every file is new, and none is synced to disk");
    comparison.note(
        "kiln does more: unwind tables, checksums, signatures of exports, and its file appears in one step",
    );
    for (cut, units) in cuts.iter().zip(units.iter().flatten()) {
        let count: usize = units.iter().map(Unit::function_count).sum();
        if count != workload.functions().count() {
            return Err(format!("cranelift-object, {}: {count} functions", cut.name()).into());
        }
    }
    check(&mut comparison, workload, artifacts, image, &outputs)?;
    Ok(comparison)
}

/// Links the program to an image.
pub(crate) fn link(workload: &Workload, artifacts: &[Artifact], setup: &Setup) -> Result<Vec<u8>, Failure> {
    let image = setup.pool.install(|| write_image(artifacts, &workload.globals, &ImageOptions::default()));
    image.map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string).into())
}

fn peer<'a>(
    name: String,
    units: &'a [Unit],
    linker: &'a Linker,
    folder: &'a Path,
    output: std::path::PathBuf,
    setup: &'a Setup,
) -> Contender<'a> {
    Contender::in_parts(name, &["emit and write objects", "link"], move || {
        object::clean(units, folder);
        let _ = std::fs::remove_file(&output);
        let (emit, objects) = timed(|| object::write(units, folder, &setup.pool));
        let objects = objects?;
        let (link, result) = timed(|| linker.link(&objects, &output, setup.threads));
        result?;
        Ok(vec![emit, link])
    })
}

/// Checks that every file exports the same number of names, and has at least the code that was
/// compiled.
fn check(
    comparison: &mut Comparison,
    workload: &Workload,
    artifacts: &[Artifact],
    image: &Path,
    outputs: &[(String, std::path::PathBuf)],
) -> Result<(), Failure> {
    let code: u64 = artifacts.par_iter().map(code_size).sum();
    let mut sizes = Vec::new();
    let files = std::iter::once((KILN, image)).chain(outputs.iter().map(|(name, path)| (&**name, &**path)));
    for (name, path) in files {
        let contents = linker::read(path)?;
        if contents.exports != workload.exports() {
            return Err(format!(
                "{name} exports {} names instead of {}",
                contents.exports,
                workload.exports()
            )
            .into());
        }
        if contents.text < code {
            return Err(format!("{name} holds {} bytes of code instead of {code}", contents.text).into());
        }
        sizes.push(format!("{} KB {}", contents.file / 1024, name.rsplit(", ").next().unwrap_or(name)));
    }
    comparison.check(format!(
        "every file exports {} names and holds {code} bytes of functions",
        workload.exports()
    ));
    comparison.note(format!("file sizes: {}", sizes.join(", ")));

    let opened = Image::open(image)?;
    opened.verify()?;
    if !workload.runs {
        comparison.check("the image's checksums match");
        return Ok(());
    }
    let loaded = opened.bind(&jit::resolve)?;
    let (ours, count) = jit::run(workload, |name| loaded.address(name))?;
    let memory = kiln::jit::Jit::new(kiln::jit::JitOptions::default())?;
    memory.link(artifacts, &jit::resolve)?;
    let (expected, _) = jit::run(workload, |name| memory.address(name))?;
    if ours != expected {
        return Err(
            format!("{count} functions computed {ours:#x} in the image, {expected:#x} in memory").into()
        );
    }
    comparison.check(format!("the image's checksums match; {count} functions were run, with equal results in the image and in memory"));
    Ok(())
}

/// The size of an artifact's functions, in bytes.
pub(crate) fn code_size(artifact: &Artifact) -> u64 {
    artifact.functions().iter().map(|function| u64::from(function.len.get())).sum()
}
