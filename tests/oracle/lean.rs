//! Leaner programs do what the programs do: with what nothing reaches left out, equal functions
//! folded, and functions in a random order.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::artifact::record::SymbolKind;
use kiln::globals::{GlobalAccess, GlobalTable};
use kiln::image::link::{LeanOptions, Roots, lean};
use kiln::image::{ImageInfo, ImageOptions, write_image};
use kiln::ir::{Source, Target, parse};
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
    let target = Target::host().globals(GlobalAccess::ALL[seed as usize % 2]);
    let artifacts = Compiler::new(target).compile(&random.modules);
    let artifacts = artifacts.map_err(|error| error.to_string())?.artifacts;
    let same = lean(&artifacts, &LeanOptions::default()).map_err(text)?;
    if same.artifacts != artifacts {
        return Err("nothing was asked for, and something changed".into());
    }
    let order = || names(&artifacts, seed);
    let entries = || random.entries.iter().map(|entry| entry.name.clone()).collect();
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
    let roots = Some(Roots::Names(vec![entry.name.clone()]));
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

/// A function without the place of its code: its tables.
#[derive(Debug, Default, PartialEq, Eq)]
struct Described {
    /// By offset in the function.
    facts: Vec<(u32, String)>,
    /// The instructions of its unwind rows.
    rows: Vec<String>,
}

/// Describes the functions of an image by module and name.
fn describe(image: &[u8]) -> BTreeMap<(u32, String), Described> {
    use gimli::{BaseAddresses, EhFrame, NativeEndian, UnwindSection as _};
    use object::{Object as _, ObjectSection as _};

    let info = ImageInfo::parse(image).expect("an image");
    let file = object::File::parse(image).expect("an ELF file");
    let section = |name: &str| file.section_by_name(name).expect("a section of every image");
    let (text, frame) = (section(".text").address(), section(".eh_frame"));
    let rows = EhFrame::new(frame.data().expect("bytes"), NativeEndian);
    let bases = BaseAddresses::default().set_text(text).set_eh_frame(frame.address());
    let mut found = BTreeMap::new();
    for function in info.code_tables().expect("tables").functions() {
        let (start, mut described) = (function.start(), Described::default());
        for offset in start..=start + function.len() {
            let mut fact = |fact: String| described.facts.push((offset - start, fact));
            if let Some(trap) = function.trap_at(offset) {
                fact(format!("{trap:?}"));
            }
            if let Some(location) = function.source_at(offset) {
                fact(format!("{location} {:?}", function.line_of(location)));
            }
            if let Some(call) = function.call_at(offset) {
                let handlers = call.handlers().map(|handler| {
                    let target = handler.target.checked_sub(start);
                    format!("{:?} {} {target:?}", handler.kind, handler.value)
                });
                fact(format!("{:?} {:?}", call.frame_offset(), handlers.collect::<Vec<_>>()));
            }
            if let Some(map) = function.stack_map_at(offset) {
                fact(format!("{} {:?}", map.span(), map.roots().collect::<Vec<_>>()));
            }
        }
        let address = text + u64::from(start);
        // A function that was given as machine code has no row.
        if let Ok(fde) = rows.fde_for_address(&bases, address, EhFrame::cie_from_offset) {
            assert_eq!((fde.initial_address(), fde.len()), (address, function.len().into()));
            let mut instructions = fde.instructions(&rows, &bases);
            while let Some(instruction) = instructions.next().expect("an instruction") {
                described.rows.push(format!("{instruction:?}"));
            }
        }
        found.insert((function.module().expect("a module"), function.name().to_owned()), described);
    }
    found
}

/// Everything that is known about an instruction stays known, wherever its function is.
#[test]
fn tables_are_those_of_each_function() {
    let roots = "function %roots(i64) -> i64 {
    ss0 = explicit_slot 16
    fn0 = %callee(i64) -> i64
block0(v0: i64):
    v1 = stack_addr.i64 ss0
    store v0, v1
    v2 = call fn0(v0), stack_map=[i64 @ ss0+0]
    v3 = call fn0(v2), stack_map=[i64 @ ss0+0, i32 @ ss0+8]
    return v3
}
function %before(i64) -> i64 {
block0(v0: i64):
    v1 = imul v0, v0
    return v1
}
function %more_roots(i64) -> i64 {
    ss0 = explicit_slot 16
    fn0 = %callee(i64) -> i64
block0(v0: i64):
    v1 = stack_addr.i64 ss0
    store v0, v1
    v2 = call fn0(v0), stack_map=[i64 @ ss0+8]
    return v2
}
";
    let files = [
        ("roots.clif", roots),
        ("everything.clif", include_str!("everything.clif")),
        ("exceptions.clif", include_str!("../throw/exceptions.clif")),
        ("memory.clif", include_str!("../clif/memory.clif")),
        ("control.clif", include_str!("../clif/control.clif")),
    ];
    let modules = files.map(|(name, text)| {
        parse(Arc::new(Source::new(name, text).debugged("/src")), &Target::host())
            .expect("modules for the host")
    });
    let artifacts = Compiler::new(Target::host()).compile(&modules).expect("valid modules").artifacts;
    let whole = describe(&image(&artifacts, &LeanOptions::default()).unwrap());
    let facts: usize = whole.values().map(|function| function.facts.len()).sum();
    assert!(facts > 500 && whole.len() > 10, "{facts} facts of {} functions", whole.len());
    for order in [names(&artifacts, 7), Vec::new()] {
        let options = LeanOptions { roots: Some(Roots::Exports), fold: true, order };
        let leaner = describe(&image(&artifacts, &options).unwrap());
        assert!(leaner.len() > 8);
        for (function, described) in &leaner {
            assert_eq!(Some(described), whole.get(function), "{function:?}");
        }
    }
}
