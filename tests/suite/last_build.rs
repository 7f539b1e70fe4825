//! An edited module takes functions from the build that it was edited from.

use std::convert::Infallible;
use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln::cache::{DiskStore, MemoryStore};
use kiln::ir::{Module, Target};
use kiln::{Compiler, Lazy, LazyKey, Stats, Verify};

use crate::common::{SharedStore, files_below as files, module, shared};

const FUNCTIONS: usize = 6;

/// A module of functions that return `first`, `first + 1` and so on; the last returns `last`.
fn numbers(name: &str, first: usize, last: usize) -> Module {
    let function = |at, number| {
        format!("function %{name}{at}() -> i64 {{\nblock0:\n v0 = iconst.i64 {number}\n return v0\n}}\n")
    };
    let most = (0..FUNCTIONS - 1).map(|at| function(at, first + at));
    module(name, &most.chain([function(FUNCTIONS - 1, last)]).collect::<String>())
}

fn compiler(store: &SharedStore) -> Compiler {
    Compiler::new(Target::host()).store(store.clone()).verify(Verify::Nothing)
}

/// Functions compiled and reused, and modules not built.
fn took(stats: Stats) -> (usize, usize, usize) {
    assert_eq!(stats.failed_writes, 0);
    (stats.compiled_functions, stats.reused_functions, stats.lazy_modules)
}

const ALL: (usize, usize, usize) = (FUNCTIONS, 0, 0);
const ONE: (usize, usize, usize) = (1, FUNCTIONS - 1, 0);
const NONE: (usize, usize, usize) = (0, FUNCTIONS, 0);

fn eager(compiler: &Compiler, module: &Module) -> (usize, usize, usize) {
    let modules = [module.clone()];
    let compiled = compiler.compile(&modules).unwrap();
    assert!(compiled.artifacts == compiler_without_store(compiler).compile(&modules).unwrap().artifacts);
    took(compiled.stats)
}

fn compiler_without_store(compiler: &Compiler) -> Compiler {
    Compiler::new(compiler.target().clone())
}

/// The module with its fingerprint as the client's key.
fn lazily(module: &Module) -> Lazy<'_, Infallible> {
    let key = LazyKey::new("test", *module.fingerprint().as_bytes());
    Lazy::new(module.name.clone(), key, || Ok(module.clone()))
}

fn lazy(compiler: &Compiler, module: &Module) -> (usize, usize, usize) {
    let compiled = compiler.compile_lazy(vec![lazily(module)]).unwrap();
    assert!(
        compiled.artifacts
            == compiler_without_store(compiler).compile(std::slice::from_ref(module)).unwrap().artifacts
    );
    took(compiled.stats)
}

#[test]
fn settings_that_alternate_keep_their_functions() {
    let store = shared(MemoryStore::new());
    let compilers = ["none", "speed"].map(|level| {
        let target = Target::host().setting("opt_level", level);
        Compiler::new(target).store(store.clone()).verify(Verify::Nothing)
    });
    for (last, expected) in [(0, ALL), (1, ONE), (2, ONE)] {
        for compiler in &compilers {
            assert_eq!(eager(compiler, &numbers("m", 10, last)), expected);
            assert_eq!(lazy(compiler, &numbers("m", 10, 100 + last)).0, 1);
        }
    }
}

#[test]
fn going_back_and_editing_compiles_the_edit() {
    for build in [eager, lazy] {
        let store = shared(MemoryStore::new());
        let trusting = compiler(&store);
        assert_eq!(build(&trusting, &numbers("m", 10, 1)), ALL);
        assert_eq!(build(&trusting, &numbers("m", 20, 2)), ALL);
        // The edit is undone: nothing is compiled, and this is the last build now.
        let (compiled, reused, _) = build(&trusting, &numbers("m", 10, 1));
        assert_eq!((compiled, reused), (0, FUNCTIONS));
        assert_eq!(build(&trusting, &numbers("m", 10, 3)), ONE);
        // The same holds for a hit that is verified.
        build(&trusting, &numbers("m", 20, 2));
        assert_eq!(build(&compiler(&store).verify(Verify::All), &numbers("m", 10, 3)), ALL);
        assert_eq!(build(&trusting, &numbers("m", 10, 4)), ONE);
    }
}

#[test]
fn functions_are_reused_through_lazy_modules() {
    let pool = std::sync::Arc::new(rayon(2));
    // Few modules are compiled function by function in parallel, many module by module.
    for count in [1, 20] {
        let store = shared(MemoryStore::new());
        let compiler = compiler(&store).pool(pool.clone());
        let build = |last: usize| {
            let modules: Vec<Module> = (0..count).map(|n| numbers(&format!("m{n}_"), 10 * n, last)).collect();
            let compiled = compiler.compile_lazy(modules.iter().map(lazily).collect()).unwrap();
            assert!(compiled.artifacts == Compiler::new(Target::host()).compile(&modules).unwrap().artifacts);
            took(compiled.stats)
        };
        let times = |(compiled, reused, lazy)| (compiled * count, reused * count, lazy);
        assert_eq!(build(1000), times(ALL));
        assert_eq!(build(2000), times(ONE));
        assert_eq!(build(1000), (0, FUNCTIONS * count, count));
    }
}

fn rayon(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn programs_that_share_a_store_keep_their_functions() {
    let store = shared(MemoryStore::new());
    let programs = ["one", "two"].map(|name| compiler(&store).program(name));
    for (last, expected) in [(0, ALL), (1, ONE), (2, ONE)] {
        for (program, first) in programs.iter().zip([10, 20]) {
            assert_eq!(eager(program, &numbers("m", first, last)), expected);
            assert_eq!(lazy(program, &numbers("m", first, 100 + last)).0, 1);
        }
    }
    // The name is no part of keys.
    assert_eq!(eager(&compiler(&store).program("three"), &numbers("m", 10, 2)), NONE);
}

const DAY: Duration = Duration::from_secs(86_400);

/// Sets the time of last use of every file to long ago.
fn age(folder: &Path) {
    let long_ago = FileTimes::new().set_modified(SystemTime::now() - 3 * DAY);
    files(folder).iter().for_each(|path| File::open(path).unwrap().set_times(long_ago).unwrap());
}

/// Bytes on disk of the files that were used since then.
fn young(folder: &Path) -> u64 {
    let files = files(folder);
    let files = files.iter().map(|path| path.metadata().unwrap());
    let young = files.filter(|file| file.modified().unwrap().elapsed().is_ok_and(|age| age < DAY));
    young.map(|file| file.len().next_multiple_of(4096)).sum()
}

#[test]
fn what_is_hit_is_not_forgotten_as_last_build() {
    for build in [eager, lazy] {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::new(folder.path());
        let compiler = compiler(&shared(store.clone()));
        let (used, unused) = (numbers("used", 10, 1), numbers("unused", 20, 1));
        assert_eq!((build(&compiler, &used), build(&compiler, &unused)), (ALL, ALL));
        age(folder.path());
        assert_eq!(build(&compiler, &used).0, 0);
        store.gc(young(folder.path())).unwrap();
        assert_eq!(build(&compiler, &unused), ALL, "it was forgotten");
        assert_eq!(build(&compiler, &numbers("used", 10, 2)), ONE);
    }
}
