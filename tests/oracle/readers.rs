//! Readers survive bytes that are nearly right: the bodies of the fuzz targets, with inputs that
//! are the same in every run.
//!
//! Seeds are the files of `tests/clif` and random modules, in the form that the reader reads.
//! `KILN_CORPUS=fuzz/corpus` writes them to a folder for each fuzz target, for fuzzing to start
//! from.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{LazyLock, Once};

use kiln::artifact::Artifact;
use kiln::cache::{Entry, KeyParts};
use kiln::globals::{GlobalAccess, GlobalTable};
use kiln::heap::{Input, Object, Registry, Root, Temperature, snapshot};
use kiln::image::keys::Signer;
use kiln::image::link::{Level, join_levels, plan};
use kiln::image::{
    DebugInfo, Image, ImageBase, ImageInfo, ImageOptions, sign_image_detached, write_image, write_layer,
};
use kiln::ir::{Source, Target, parse, print};
use kiln_oracle::fuzz;
use kiln_oracle::mutate::mutate;
use kiln_oracle::random::Random;

use crate::cases::{alone, run};
use crate::modules::{self, FILES, compile, compile_for};

/// Files whose images have what random programs lack.
const SEEDS_OF_IMAGES: [&str; 4] = ["thread_local.clif", "replaceable.clif", "sections.clif", "data.clif"];

/// Valid inputs.
struct Seeds {
    text: Vec<Vec<u8>>,
    binary: Vec<Vec<u8>>,
    artifact: Vec<Vec<u8>>,
    image: Vec<Vec<u8>>,
    layer: Vec<Vec<u8>>,
    code_tables: Vec<Vec<u8>>,
    entry: Vec<Vec<u8>>,
    signatures: Vec<Vec<u8>>,
}

static SEEDS: LazyLock<Seeds> = LazyLock::new(|| {
    let mut seeds = Seeds {
        text: FILES.iter().map(|(_, text)| text.clone().into_bytes()).collect(),
        binary: Vec::new(),
        artifact: Vec::new(),
        image: Vec::new(),
        layer: layers(),
        code_tables: Vec::new(),
        entry: Vec::new(),
        signatures: signatures(),
    };
    // Small programs, and files.
    for module in (0..40).filter(|seed| seed % 4 == 0 || seed % 8 == 7).flat_map(modules::of) {
        seeds.text.extend(print(&module).map(String::into_bytes));
        seeds.binary.push(module.to_bytes());
        let artifact = compile(&module).expect("it is valid");
        seeds.artifact.push(artifact.as_bytes().to_vec());
        let fingerprint = module.fingerprint();
        let recipe = KeyParts {
            fingerprint: fingerprint.as_bytes(),
            names: &[],
            target: artifact.triple(),
            settings: "opt_level=speed",
            producer: artifact.producer(),
            revision: 1,
            abi: &[],
        };
        let entry = Entry { recipe: recipe.recipe(), functions: [].into(), artifact };
        seeds.entry.push(entry.to_bytes());
        let mut globals = GlobalTable::new();
        module.globals().for_each(|key| {
            globals.intern(key);
        });
        let plan = plan(std::slice::from_ref(&entry.artifact), &globals, &|_| None);
        seeds.code_tables.extend(plan.map(|plan| plan.code_tables()));
        seeds.image.extend(write_image(&[entry.artifact], &globals, &ImageOptions::default()));
        // With addresses in code.
        let direct = Target::host().globals(GlobalAccess::Direct);
        let artifact = compile_for(&module, direct).expect("it is valid");
        seeds.artifact.push(artifact.as_bytes().to_vec());
        seeds.image.extend(write_image(&[artifact], &globals, &ImageOptions::default()));
    }
    // With code for several levels of the processor.
    for seed in [3, 7] {
        seeds.image.push(levels(seed));
    }
    // Everything else that an image may have: thread-local data, packed relocations, names of a
    // library, debug information, fewer exports.
    for (path, text) in
        FILES.iter().filter(|(path, _)| SEEDS_OF_IMAGES.iter().any(|name| path.ends_with(name)))
    {
        let source = Source::new(path.display().to_string(), text.as_str()).into();
        let module = parse(source, &Target::host()).expect("a file of the tests");
        let mut globals = GlobalTable::new();
        module.globals().for_each(|key| {
            globals.intern(key);
        });
        let artifact = compile(&module).expect("it is valid");
        let exports = || Some(vec!["kiln_slots".into()]);
        let plain = ImageOptions::default();
        let packed = ImageOptions { pack_relocations: true, ..ImageOptions::default() };
        let named = ImageOptions {
            soname: Some("libseed.so.1".into()),
            needed: vec!["libm.so.6".into()],
            strip: true,
            ..ImageOptions::default()
        };
        let closed =
            ImageOptions { exports: exports(), debug: DebugInfo::InImage, ..ImageOptions::default() };
        let signed = ImageOptions { signers: 2, ..ImageOptions::default() };
        for options in [plain, packed, named, closed, signed] {
            let options = ImageOptions { embed_artifacts: true, ..options };
            let image = write_image(std::slice::from_ref(&artifact), &globals, &options);
            seeds.image.push(image.expect("it links alone"));
        }
        seeds.artifact.push(artifact.as_bytes().to_vec());
    }
    for (artifact, images) in heaps() {
        seeds.artifact.push(artifact.as_bytes().to_vec());
        seeds.image.extend(images);
    }
    let is_patched = |image: &&Vec<u8>| ImageInfo::parse(image).is_ok_and(|info| info.text_patches > 0);
    assert!(seeds.image.iter().filter(is_patched).count() > 5);
    assert!(seeds.image.len() > 5);
    // Kiln catches panics of Cranelift, so their messages are hidden.
    static QUIET: Once = Once::new();
    QUIET.call_once(fuzz::quiet_cranelift);
    seeds
});

/// Returns an image of a random program for three levels of the processor.
fn levels(seed: u64) -> Vec<u8> {
    let names = ["x86-64", "x86-64-v2", "x86-64-v3"];
    let compiled = names.map(|level| {
        let target = || Target::host().cpu_level(level).expect("a level");
        let modules = modules::of(seed);
        modules.iter().map(|module| compile_for(module, target()).expect("it is valid")).collect::<Vec<_>>()
    });
    let levels: Vec<_> =
        names.iter().zip(&compiled).map(|(name, artifacts)| Level { name, artifacts }).collect();
    let joined = join_levels(&levels).expect("the modules fit together");
    let mut globals = GlobalTable::new();
    joined.artifacts.iter().flat_map(|artifact| artifact.globals()).for_each(|key| {
        globals.intern(key);
    });
    let options = ImageOptions { levels: Some(joined.table), ..ImageOptions::default() };
    write_image(&joined.artifacts, &globals, &options).expect("it links")
}

/// Returns files of signatures and of keys.
fn signatures() -> Vec<Vec<u8>> {
    let signer = Signer::from_seed(&[3; 32]);
    let options = ImageOptions::default();
    let image = write_image(&[], &GlobalTable::new(), &options).expect("an empty image");
    let line = sign_image_detached(&image, &signer).expect("an image");
    let files = [
        format!("# signatures\n{line} ci\n\n{line}\n"),
        line.to_string().replace("ed25519", "other"),
        format!("# keys\n{} ci\n{}\n", signer.public(), signer.public()),
    ];
    files.map(String::into_bytes).to_vec()
}

/// Returns modules of saved heaps, each with its images: made for an address, and for none.
fn heaps() -> Vec<(Artifact, Vec<Vec<u8>>)> {
    // Words: a number or a pointer at another object of the same list.
    let lists: [&[[usize; 3]]; 3] = [&[[0, 0, 1]], &[[1, 2, 1], [2, 0, 5], [0, 0, 9]], &[[0, 0, 7]; 600]];
    let saved = lists.iter().enumerate().map(|(number, list)| {
        let mut memory = list.to_vec();
        let start = memory.as_ptr().expose_provenance();
        let mut registry = Registry::new();
        for (index, object) in memory.iter_mut().enumerate() {
            for word in &mut object[..2] {
                // The last list is a ring.
                let target = if list.len() == 600 { (index + 1) % 600 } else { *word };
                *word = start + 24 * target;
            }
            let (address, temperature) = (start + 24 * index, Temperature::ALL[index % 3]);
            let mutable = index % 2 == number % 2;
            let object = Object { address, size: 24, align: 8, mutable, temperature };
            // SAFETY: `memory` lives as long as the registry.
            unsafe { registry.register(object, [0, 8]) }.expect("no two overlap");
        }
        let roots =
            [Root { key: "heap:first", address: start }, Root { key: "heap:third", address: start + 16 }];
        let triple = Target::host().triple().to_string();
        let mut input = Input { triple: &triple, roots: &roots, names: &mut |_| Err(None) };
        let artifact = snapshot(&mut input, &mut registry).expect("a heap without a fault").artifact;
        let images = [ImageBase::Auto, ImageBase::Anywhere].map(|base| {
            let options = ImageOptions { base, ..ImageOptions::default() };
            let image = write_image(std::slice::from_ref(&artifact), &GlobalTable::new(), &options);
            image.expect("it links alone")
        });
        (artifact, images.to_vec())
    });
    saved.collect()
}

/// Returns images with layers on them: of what layers use, of some or all.
fn layers() -> Vec<Vec<u8>> {
    const BASE: &str = "
        data %total writable { i64 5 }
        global %object = \"object\"
        replaceable function %rate(i64) -> i64 system_v { block0(v0: i64): return v0 }
        function %price() -> i64 system_v {
            gv0 = symbol %object
        block0:
            v0 = symbol_value.i64 gv0
            return v0
        }";
    const LAYERS: [&str; 3] = [
        "data %table writable { addr %price, addr %total, addr %rate }",
        "global %object = \"object\"
        function %twice() -> i64 system_v {
            gv0 = symbol %object
            fn0 = %price() -> i64 system_v
        block0:
            v0 = symbol_value.i64 gv0
            v1 = call fn0()
            return v1
        }",
        "replaceable function %rate(i64) -> i64 system_v {
            gv0 = symbol %total
        block0(v0: i64):
            v1 = symbol_value.i64 gv0
            return v1
        }",
    ];
    let artifact = |text: &str| {
        let module = parse(Source::new("layer.clif", text).into(), &Target::host()).expect("it is valid");
        compile(&module).expect("it is valid")
    };
    let (globals, options) = (GlobalTable::new(), ImageOptions::default());
    let base = write_image(&[artifact(BASE)], &globals, &options).expect("it links");
    let image = Image::from_bytes(&base).expect("an image").named(fuzz::BASE);
    let cuts = [&LAYERS[..1], &LAYERS[1..2], &LAYERS[2..], &LAYERS];
    let layer = |texts: &[&str]| {
        let artifacts: Vec<_> = texts.iter().map(|text| artifact(text)).collect();
        write_layer(&artifacts, &globals, &[&image], &options).expect("it links").image
    };
    cuts.iter().map(|texts| fuzz::join_images(&base, &layer(texts))).collect()
}

/// Tries altered `seeds`. If a single case is tried and fails, its bytes are shown. `target` is the
/// name of the fuzz target.
fn altered(target: &str, default: u64, seeds: &[Vec<u8>], body: fn(&[u8])) {
    if let Some(folder) = std::env::var_os("KILN_CORPUS") {
        let folder = std::path::Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).expect("a folder for seeds");
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed{number}")), seed).expect("a file in it");
        }
    }
    seeds.iter().for_each(|seed| body(seed));
    let name = &format!("reads_{target}");
    run(name, default, |seed| {
        let mut random = Random::new(seed);
        let (input, other) = (random.choose(seeds), random.choose(seeds));
        let bytes = mutate(input, other, &mut random);
        if alone().is_some() {
            let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}"));
            std::fs::write(&path, &bytes).map_err(|error| error.to_string())?;
            println!("the input is in {}", path.display());
        }
        catch_unwind(AssertUnwindSafe(|| body(&bytes))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
        })
    });
}

#[test]
fn reads_text() {
    altered("text", 600, &SEEDS.text, fuzz::text);
}

#[test]
fn reads_binary() {
    altered("binary", 1000, &SEEDS.binary, fuzz::binary);
}

#[test]
fn reads_artifact() {
    altered("artifact", 2000, &SEEDS.artifact, fuzz::artifact);
}

#[test]
fn reads_image() {
    altered("image", 2000, &SEEDS.image, fuzz::image);
}

#[test]
fn reads_signatures() {
    altered("signatures", 4000, &SEEDS.signatures, fuzz::signatures);
}

#[test]
fn reads_layer() {
    altered("layer", 2000, &SEEDS.layer, fuzz::layer);
}

#[test]
fn reads_code_tables() {
    altered("code_tables", 4000, &SEEDS.code_tables, fuzz::code_tables);
}

#[test]
fn reads_cache_entry() {
    altered("cache_entry", 2000, &SEEDS.entry, fuzz::cache_entry);
}
