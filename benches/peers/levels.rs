//! Comparison M: images with code for several levels of the processor.

use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::globals::GlobalTable;
use kiln::image::link::{Level, join_levels};
use kiln::image::{Image, ImageOptions, write_image};
use kiln::ir::{Module, Source, Target, parse};

use crate::jit;
use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

const LEVELS: [&str; 2] = ["x86-64-v2", "x86-64-v3"];

fn compile(
    target: &Target,
    level: &str,
    modules: &[Module],
    setup: &Setup,
) -> Result<Vec<Artifact>, Failure> {
    let compiler = Compiler::new(target.clone().cpu_level(level)?).pool(setup.pool.clone());
    Ok(compiler.compile(modules)?.artifacts)
}

fn write(artifacts: &[Artifact], options: ImageOptions) -> Result<Vec<u8>, Failure> {
    let mut globals = GlobalTable::new();
    artifacts.iter().flat_map(Artifact::globals).for_each(|key| {
        globals.intern(key);
    });
    Ok(write_image(artifacts, &globals, &options).map_err(|errors| errors[0].to_string())?)
}

/// The images of a program.
struct Images {
    /// For each level.
    alone: Vec<Vec<u8>>,
    /// For both.
    both: Vec<u8>,
    /// The number of functions that differ.
    differ: usize,
}

fn images(programs: &[Vec<Artifact>]) -> Result<Images, Failure> {
    let alone = programs.iter().map(|artifacts| write(artifacts, ImageOptions::default()));
    let levels = LEVELS.iter().zip(programs).map(|(name, artifacts)| Level { name, artifacts });
    let joined = join_levels(&levels.collect::<Vec<_>>()).map_err(|errors| errors[0].to_string())?;
    let differ = joined.table.functions();
    let options = ImageOptions {
        levels: Some(joined.table),
        module_numbers: joined.modules,
        ..ImageOptions::default()
    };
    Ok(Images { alone: alone.collect::<Result<_, _>>()?, both: write(&joined.artifacts, options)?, differ })
}

/// Compares the sizes of images, and the times to load them.
pub(crate) fn compare(workload: &Workload, setup: &Setup) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(&workload.name, "M. code for x86-64-v2 and x86-64-v3 in one image");
    let programs = LEVELS.map(|level| compile(&workload.target, level, &workload.modules, setup));
    let programs = programs.into_iter().collect::<Result<Vec<_>, _>>()?;
    let Images { alone, both, differ } = images(&programs)?;
    let functions: usize = programs[0].iter().map(|artifact| artifact.functions().len()).sum();
    let open = |bytes: &[u8]| {
        let image = Image::from_bytes(bytes)?;
        let addresses: Option<Vec<_>> = image.slots().iter().map(jit::resolve).collect();
        Ok(image.bind_array(&addresses.ok_or("an unknown slot")?)?)
    };
    let (one, two) = ("one level: from_bytes, bind_array, drop", "two levels: from_bytes, bind_array, drop");
    comparison.add(interleave(
        setup.rounds,
        vec![Contender::new(one, || open(&alone[1])), Contender::new(two, || open(&both))],
    )?);
    comparison.ratio(two, one, Goal::None);
    let size = |bytes: &[u8]| bytes.len() as f64;
    comparison.value("size of two levels / of x86-64-v2", size(&both) / size(&alone[0]), Goal::AtMost(1.25));
    comparison.value(
        "size of two images / of two levels in one",
        (size(&alone[0]) + size(&alone[1])) / size(&both),
        Goal::None,
    );
    comparison.note(format!("{differ} of {functions} functions differ"));
    Ok(comparison)
}

/// Adds the squares of pairs of numbers.
const VECTORS: &str = "
function %squares(i64, i64) -> f64 system_v {
block0(v0: i64, v1: i64):
    v2 = f64const 0.0
    v3 = splat.f64x2 v2
    v4 = iconst.i64 0
    v5 = iconst.i64 16
    jump block1(v4, v3)
block1(v6: i64, v7: f64x2):
    v8 = iadd v0, v6
    v9 = load.f64x2 v8
    v10 = fmul v9, v9
    v11 = fadd v7, v10
    v12 = iadd v6, v5
    v13 = icmp ult v12, v1
    brif v13, block1(v12, v11), block2(v11)
block2(v14: f64x2):
    v15 = extractlane v14, 0
    v16 = extractlane v14, 1
    v17 = fadd v15, v16
    return v17
}";

/// Compares a loop of vectors in an image for two levels with the same in an image for one.
pub(crate) fn vectors(setup: &Setup) -> Result<Comparison, Failure> {
    /// The numbers take 32 KB, and are added this often in a turn.
    const NUMBERS: usize = 4096;
    const TIMES: usize = 2000;
    let mut comparison =
        Comparison::new("a loop of vectors", "M. code for x86-64-v2 and x86-64-v3 in one image");
    let target = Target::host();
    let module = parse(Source::new("vectors.clif", VECTORS).into(), &target)
        .map_err(|faults| faults[0].to_string())?;
    let modules = [module];
    let programs = LEVELS.map(|level| compile(&target, level, &modules, setup));
    let programs = programs.into_iter().collect::<Result<Vec<_>, _>>()?;
    let Images { alone, both, differ } = images(&programs)?;
    if differ != 1 {
        return Err("the loop is the same on both levels".into());
    }
    let numbers: Vec<f64> = (0..NUMBERS).map(|number| number as f64).collect();
    let sum: f64 = numbers.iter().map(|number| number * number).sum();
    let load = |bytes: &[u8], level: Option<&str>| -> Result<_, Failure> {
        let image = Image::from_bytes(bytes)?;
        let image = if let Some(level) = level { image.with_cpu_level(level)? } else { image };
        Ok(image.bind_array(&[])?)
    };
    let images =
        [load(&alone[0], None)?, load(&alone[1], None)?, load(&both, None)?, load(&both, Some(LEVELS[0]))?];
    let names =
        ["for x86-64-v2 alone", "for x86-64-v3 alone", "for both, on x86-64-v3", "for both, on x86-64-v2"];
    let contenders = names.iter().zip(&images).map(|(name, image)| {
        Contender::new(*name, || {
            // SAFETY: the code was just compiled, and reads as many bytes as it is told.
            let squares = unsafe {
                image.function("squares").ok_or("no function")?.typed::<extern "C" fn(i64, i64) -> f64>()
            }?;
            let mut total = 0.0;
            for _ in 0..TIMES {
                total += squares(numbers.as_ptr() as i64, 8 * NUMBERS as i64);
            }
            if total == TIMES as f64 * sum { Ok(()) } else { Err("a wrong sum".into()) }
        })
    });
    comparison.add(interleave(setup.rounds, contenders.collect())?);
    comparison.ratio(names[2], names[1], Goal::AtMost(1.02));
    comparison.ratio(names[3], names[0], Goal::None);
    comparison.ratio(names[1], names[0], Goal::None);
    comparison.check(format!("{TIMES} calls for {NUMBERS} numbers give the right sum"));
    Ok(comparison)
}
