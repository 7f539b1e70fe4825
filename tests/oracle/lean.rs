//! Leaner programs do what the programs do: with what nothing reaches left out, equal functions
//! folded, and functions in a random order.

use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::artifact::record::SymbolKind;
use kiln::globals::GlobalTable;
use kiln::image::link::{LeanOptions, Roots, lean};
use kiln::image::{ImageInfo, ImageOptions, write_image};
use kiln::ir::Target;
use kiln_oracle::generate::{RandomProgram, program};

use crate::cases::{alone, options, run};
use crate::engines::{self, Thunks};
use crate::{compare, print};

/// Programs that are tried by default.
const CASES: u64 = 150;

#[test]
fn leaner_programs_agree() {
    if let Some(seed) = alone() {
        if let Err(difference) = case(seed) {
            print(&program(seed, &options(seed)));
            panic!("seed {seed}: {difference}");
        }
        return;
    }
    run("leaner_programs_agree", CASES, case);
}

fn text<E: ToString>(errors: Vec<E>) -> String {
    errors.iter().map(|error| format!("{}\n", error.to_string())).collect()
}

fn case(seed: u64) -> Result<(), String> {
    let random = program(seed, &options(seed));
    let artifacts = Compiler::new(Target::host()).compile(&random.modules);
    let artifacts = artifacts.map_err(|error| error.to_string())?.artifacts;
    let same = lean(&artifacts, &LeanOptions::default()).map_err(text)?;
    if same.artifacts != artifacts {
        return Err("nothing was asked for, and something changed".into());
    }
    let order = || names(&artifacts, seed);
    let entries = || random.entries.iter().map(|entry| entry.name.clone().into()).collect();
    let ways = [
        LeanOptions { roots: Some(Roots::Exports), ..LeanOptions::default() },
        LeanOptions { fold: true, ..LeanOptions::default() },
        LeanOptions { order: order(), ..LeanOptions::default() },
        LeanOptions { roots: Some(Roots::Names(entries())), fold: true, order: order() },
    ];
    let mut thunks = Thunks::new(Target::host());
    let expected = engines::interpreted(&random).map_err(|error| format!("interpreter: {error}"))?;
    for (number, way) in ways.iter().enumerate() {
        let image = image(&artifacts, way)?;
        let actual =
            engines::image(&random, &image, &mut thunks).map_err(|error| format!("way {number}: {error}"))?;
        compare(&random, &expected, &actual, &format!("in a leaner image, way {number}"))?;
    }
    // One entry alone needs no other one.
    let Some(entry) = random.entries.first() else { return Ok(()) };
    let roots = Some(Roots::Names(vec![entry.name.clone().into()]));
    let image = image(&artifacts, &LeanOptions { roots, fold: true, order: order() })?;
    let alone = RandomProgram { entries: vec![entry.clone()], ..random };
    let expected = engines::interpreted(&alone).map_err(|error| format!("interpreter: {error}"))?;
    let actual = engines::image(&alone, &image, &mut thunks).map_err(|error| format!("alone: {error}"))?;
    compare(&alone, &expected, &actual, "with one root")
}

/// Returns the names of all functions, in an order that looks random.
fn names(artifacts: &[Artifact], seed: u64) -> Vec<Box<str>> {
    let symbols = artifacts.iter().flat_map(|artifact| {
        let functions = artifact.symbols().iter().filter(|symbol| symbol.kind() == SymbolKind::Function);
        functions.map(|symbol| artifact.name(symbol))
    });
    let mut names: Vec<Box<str>> = symbols.filter(|name| !name.is_empty()).map(Into::into).collect();
    names.sort_by_cached_key(|name| {
        let bytes =
            name.bytes().fold(seed | 1, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        (bytes >> 7, name.clone())
    });
    // Some are in the order of their modules.
    names.truncate(names.len() - names.len() / 3);
    names
}

/// Links a leaner program, and checks its description.
fn image(artifacts: &[Artifact], way: &LeanOptions) -> Result<Vec<u8>, String> {
    let leaner = lean(artifacts, way).map_err(text)?;
    if lean(artifacts, way).map_err(text)?.artifacts != leaner.artifacts {
        return Err("the same program became another one".into());
    }
    let mut globals = GlobalTable::new();
    leaner.artifacts.iter().flat_map(Artifact::globals).for_each(|key| {
        globals.intern(key);
    });
    let options = ImageOptions { module_numbers: leaner.modules.clone(), ..ImageOptions::default() };
    let image = write_image(&leaner.artifacts, &globals, &options).map_err(text)?;
    let info = ImageInfo::parse(&image).map_err(|error| error.to_string())?;
    let count = |artifacts: &[Artifact]| -> usize { artifacts.iter().map(|a| a.functions().len()).sum() };
    let left = info.code_tables().map_or(0, |tables| tables.sizes().functions);
    let gone = leaner.dropped_functions.0 + leaner.folded_functions.0;
    if left + gone != count(artifacts) {
        return Err(format!("{left} functions are left of {}, {gone} are gone", count(artifacts)));
    }
    Ok(image)
}
