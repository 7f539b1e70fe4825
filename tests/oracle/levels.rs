//! Programs for several levels of the processor do the same on each level as the interpreter.

use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::globals::{GlobalAccess, GlobalTable};
use kiln::image::link::{Level, join_levels};
use kiln::image::{ImageOptions, host_has_feature, write_image};
use kiln::ir::Target;
use kiln_oracle::generate::program;

use crate::cases::{alone, options, run};
use crate::engines::{self, Thunks};
use crate::{compare, print};

/// Programs that are tried by default.
const CASES: u64 = 100;

/// The levels, each with the feature that says whether this machine has it.
const LEVELS: [(&str, &str); 3] =
    [("x86-64-v2", "has_sse42"), ("x86-64-v3", "has_avx2"), ("x86-64-v4", "has_avx512vl")];

#[test]
fn all_levels_agree() {
    if let Some(seed) = alone() {
        if let Err(difference) = case(seed) {
            print(&program(seed, &options(seed)));
            panic!("seed {seed}: {difference}");
        }
        return;
    }
    run("all_levels_agree", CASES, case);
}

fn text<E: ToString>(errors: Vec<E>) -> String {
    errors.iter().map(|error| format!("{}\n", error.to_string())).collect()
}

fn case(seed: u64) -> Result<(), String> {
    let random = program(seed, &options(seed));
    let host = Target::host().globals(GlobalAccess::ALL[seed as usize % 2]);
    let compile = |(level, _): (&str, &str)| -> Result<Vec<Artifact>, String> {
        let target = host.clone().cpu_level(level).map_err(|error| error.to_string())?;
        let compiled = Compiler::new(target).compile(&random.modules);
        Ok(compiled.map_err(|error| error.to_string())?.artifacts)
    };
    let programs = LEVELS.map(compile).into_iter().collect::<Result<Vec<_>, _>>()?;
    let levels: Vec<_> =
        LEVELS.iter().zip(&programs).map(|((name, _), artifacts)| Level { name, artifacts }).collect();
    let joined = join_levels(&levels).map_err(text)?;
    if join_levels(&levels).map_err(text)?.artifacts != joined.artifacts {
        return Err("the same programs became another one".into());
    }
    let mut globals = GlobalTable::new();
    joined.artifacts.iter().flat_map(Artifact::globals).for_each(|key| {
        globals.intern(key);
    });
    let options = ImageOptions {
        levels: Some(joined.table),
        module_numbers: joined.modules,
        ..ImageOptions::default()
    };
    let image = write_image(&joined.artifacts, &globals, &options).map_err(text)?;
    let expected = engines::interpreted(&random).map_err(|error| format!("interpreter: {error}"))?;
    let mut thunks = Thunks::new(Target::host());
    for (level, feature) in LEVELS {
        if host_has_feature(feature) == Some(true) {
            let actual = engines::image_at(&random, &image, Some(level), &mut thunks)
                .map_err(|error| format!("{level}: {error}"))?;
            compare(&random, &expected, &actual, &format!("in the image, on {level}"))?;
        }
    }
    Ok(())
}
