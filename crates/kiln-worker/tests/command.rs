//! The command, on files.

use std::path::Path;
use std::process::{Command, Output};

use kiln_backend::{Job, PRODUCER, REVISION, compile, settings_text};
use kiln_cache::{Key, KeyParts, Recipe};
use kiln_farm::{Item, Refused, WorkerErrorKind, read_results, write_shard};
use kiln_globals::GlobalAccess;
use kiln_ir::{Module, OptLevel, Source, Target, parse};

fn worker(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-worker"));
    // A sandbox has no environment.
    command.current_dir(folder).env_clear().args(args).output().unwrap()
}

/// Returns the recipe of a module's key, as a build makes it.
fn recipe(module: &Module, target: &Target, producer: &str) -> Recipe {
    let isa = target.isa(&module.settings).unwrap();
    let (fingerprint, names) = (module.fingerprint(), module.local_names_fingerprint());
    let parts = KeyParts {
        fingerprint: fingerprint.as_bytes(),
        names: names.as_bytes(),
        target: &isa.triple().to_string(),
        settings: &settings_text(&*isa),
        producer,
        revision: REVISION,
        abi: b"the client's",
    };
    parts.recipe()
}

fn read(text: &str, target: &Target) -> Module {
    parse(Source::new("m.clif", text).into(), target).unwrap()
}

fn shard(modules: &[(Module, Recipe)]) -> (Vec<u8>, Vec<Key>) {
    let bytes: Vec<Vec<u8>> = modules.iter().map(|(module, _)| module.to_bytes()).collect();
    let items = modules.iter().zip(&bytes).map(|((_, recipe), module)| Item { recipe, module });
    (write_shard(&items.collect::<Vec<_>>()), modules.iter().map(|(_, recipe)| recipe.key()).collect())
}

const TEXT: &str = "global %heap = \"runtime:heap\"
data %text align=8 { bytes \"one\", addr %text }
function %three(i64) -> i64 {
block0(v0: i64):
  v1 = iconst.i64 3
  v2 = iadd v0, v1
  return v2
}
";

#[test]
fn the_code_is_that_of_a_build_for_every_target() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name| Target::parse(name).unwrap();
    let targets = [
        Target::host(),
        Target::native(),
        Target::host().opt_level(OptLevel::None).globals(GlobalAccess::Direct),
        Target::host().setting("regalloc_algorithm", "single_pass").isa_setting("has_avx2", "true"),
        named("aarch64"),
        named("riscv64").isa_setting("has_zba", "true"),
        named("s390x"),
    ];
    let header = "set opt_level=none\nset enable_probestack=false\n";
    let mut modules = Vec::new();
    let mut expected = Vec::new();
    for target in targets {
        let is_host = target.triple().architecture == Target::host().triple().architecture;
        for text in [TEXT.to_owned(), format!("{header}{TEXT}"), format!("target x86_64 has_avx\n{TEXT}")] {
            if !is_host && text.starts_with("target") || !cfg!(target_arch = "x86_64") && is_host {
                continue;
            }
            let module = read(&text, &target);
            let isa = target.isa(&module.settings).unwrap();
            expected.push(compile(&Job::new(&module, &*isa)).unwrap().artifact);
            let recipe = recipe(&module, &target, PRODUCER);
            modules.push((module, recipe));
        }
    }
    let (bytes, keys) = shard(&modules);
    std::fs::write(folder.path().join("shard"), bytes).unwrap();
    let output = worker(folder.path(), &["shard", "results"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let results = std::fs::read(folder.path().join("results")).unwrap();
    let results = read_results(&results, &keys).unwrap();
    for ((result, expected), (_, recipe)) in results.iter().zip(&expected).zip(&modules) {
        let entry = result.as_ref().unwrap_or_else(|error| panic!("{recipe:?}: {error}"));
        assert!(entry.artifact == *expected, "{recipe:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_compiled_is_an_error_of_its_module() {
    let target = Target::host();
    let module = read(TEXT, &target);
    let own = recipe(&module, &target, PRODUCER);
    let other_version = recipe(&module, &target, "cranelift 0.1.0");
    let other = read(&TEXT.replace("i64 3", "i64 4"), &target);
    let other_module = recipe(&other, &target, PRODUCER);
    let (_, keys) = shard(&[(module.clone(), own.clone())]);
    let bytes = module.to_bytes();
    let mut damaged = bytes.clone();
    damaged[100] ^= 1;
    let twice = [&*bytes, &*bytes].concat();
    let items = [
        Item { recipe: &own, module: &bytes },
        Item { recipe: &other_version, module: &bytes },
        Item { recipe: &other_module, module: &bytes },
        Item { recipe: &own, module: &damaged },
        Item { recipe: &own, module: &twice },
        Item { recipe: &own, module: b"" },
        Item { recipe: &own, module: &bytes },
    ];
    let results = kiln_worker::compile_shard(&write_shard(&items)).unwrap();
    let keys: Vec<Key> = items.iter().map(|item| item.recipe.key()).chain(keys.into_iter().skip(1)).collect();
    let results = read_results(&results, &keys).unwrap();
    let kinds: Vec<Option<WorkerErrorKind>> = results
        .iter()
        .map(|result| match result {
            Ok(_) => None,
            Err(Refused::Worker(error)) => Some(error.kind),
            Err(refused) => panic!("{refused}"),
        })
        .collect();
    use WorkerErrorKind::{OtherEnvironment, OtherModule, Unreadable};
    let unreadable = Some(Unreadable);
    let expected =
        [None, Some(OtherEnvironment), Some(OtherModule), unreadable, unreadable, unreadable, None];
    assert_eq!(kinds, expected);
}

#[test]
fn a_file_that_is_no_shard_leaves_no_results() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shard"), "something else").unwrap();
    let output = worker(folder.path(), &["shard", "results"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("shard: offset 0: not a shard of this version"), "{said}");
    let output = worker(folder.path(), &["missing", "results"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read missing"));
    let (bytes, _) = shard(&[]);
    std::fs::write(folder.path().join("shard"), bytes).unwrap();
    let output = worker(folder.path(), &["shard", "no/such/folder"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write no/such/folder"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(worker(folder.path(), &["shard"]).status.code(), Some(2));
    let help = worker(folder.path(), &["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage: "));
    assert!(worker(folder.path(), &["--version"]).status.success());
}
