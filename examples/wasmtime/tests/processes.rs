//! Processes that compile the same module, one after the other.
//!
//! The module is generated, or the file that `KILN_WASM_MODULE` names: `cargo xtask wasmtime` names
//! a real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use function_cache::{Counts, FunctionCache, keep_keys_apart};
use kiln_cache::{DiskStore, MemoryStore};
use wasmtime::{Config, Engine};

/// Makes a module of `functions` functions that differ: each mixes numbers in a loop, and calls the
/// one before it. Every tenth is exported.
fn generate(functions: u32) -> Vec<u8> {
    use wasm_encoder::{
        BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, Module, TypeSection,
        ValType::I64,
    };
    let mut types = TypeSection::new();
    types.ty().function([I64, I64], [I64]);
    let mut list = FunctionSection::new();
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    for n in 0..functions {
        list.function(0);
        // Wasmtime compiles trampolines for these, with handlers of exceptions.
        if n % 10 == 0 {
            exports.export(&n.to_string(), ExportKind::Func, n);
        }
        let mut function = Function::new([(2, I64)]);
        let mut body = function.instructions();
        body.loop_(BlockType::Empty);
        for step in 0..12_i64 {
            let (from, to) = ((step % 3) as u32, (step % 2 + 2) as u32);
            body.local_get(from).i64_const(i64::from(n) * 977 + step).i64_mul();
            body.local_get(1).i64_rotl().local_get(to).i64_xor().local_set(to);
        }
        body.local_get(0).i64_const(1).i64_sub().local_tee(0).i64_const(0).i64_gt_s().br_if(0).end();
        body.local_get(2).local_get(3);
        if n > 0 {
            body.call(n - 1);
        } else {
            body.i64_add();
        }
        body.end();
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&list).section(&exports).section(&code);
    module.finish()
}

/// Asserts that a process found all its functions.
fn assert_all_found(compiled: &Compiled, functions: u64) {
    assert_eq!(compiled.counts, Counts { hits: functions, ..Counts::default() });
}

/// Writes the module, and returns its path.
fn module(folder: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("KILN_WASM_MODULE") {
        return path.into();
    }
    let path = folder.join("module.wasm");
    std::fs::write(&path, generate(400)).unwrap();
    path
}

/// The result of a process.
struct Compiled {
    bytes: Vec<u8>,
    counts: Counts,
    seconds: f64,
}

/// Compiles in a process of its own.
fn compile(module: &Path, cache: Option<&Path>) -> Compiled {
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_compile"));
    let done = command.arg(module).arg(output.path()).args(cache).output().unwrap();
    let (text, errors) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert!(done.status.success() && errors.is_empty(), "{errors}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |name: &str| {
        let place = words.iter().position(|word| *word == name).unwrap();
        words[place + 1].parse::<f64>().unwrap()
    };
    let count = |name| number(name) as u64;
    Compiled {
        bytes: std::fs::read(output.path()).unwrap(),
        counts: Counts {
            hits: count("hits"),
            misses: count("misses"),
            damaged: count("damaged"),
            failed_writes: count("failed"),
        },
        seconds: number("seconds"),
    }
}

/// Returns the files of entries in a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = inside.flat_map(|path| if path.is_dir() { entries(&path) } else { vec![path] });
    files.filter(|path| std::fs::metadata(path).unwrap().len() > 100).collect()
}

#[test]
fn the_second_process_compiles_nothing_and_a_damaged_entry_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let module = module(folder.path());
    let plain = compile(&module, None);
    let first = compile(&module, Some(&cache));
    let Counts { hits, misses, damaged, failed_writes } = first.counts;
    // Functions of a module that are equal are found already.
    assert!(misses >= 400 && hits < misses, "{:?}", first.counts);
    assert_eq!((damaged, failed_writes), (0, 0));
    let second = compile(&module, Some(&cache));
    assert_all_found(&second, hits + misses);
    assert!(plain.bytes == first.bytes && first.bytes == second.bytes);
    println!(
        "{misses} functions: {:.3} s without a cache, {:.3} s the first time, {:.3} s the second: {:.2} of \
         the first",
        plain.seconds,
        first.seconds,
        second.seconds,
        second.seconds / first.seconds
    );

    // Damage of any kind is found, and mended.
    let files = entries(&cache);
    assert!(files.len() as u64 >= misses, "{}", files.len());
    for (number, path) in files.iter().take(30).enumerate() {
        let mut bytes = std::fs::read(path).unwrap();
        let place = bytes.len() * (number + 1) / 32;
        match number % 3 {
            0 => bytes[place] ^= 0x20,
            1 => bytes.truncate(place),
            _ => bytes = std::fs::read(&files[files.len() - 1]).unwrap(),
        }
        std::fs::write(path, bytes).unwrap();
    }
    let third = compile(&module, Some(&cache));
    assert!(third.bytes == first.bytes);
    assert_eq!((third.counts.misses, third.counts.damaged), (0, 30), "{:?}", third.counts);
    let fourth = compile(&module, Some(&cache));
    assert!(fourth.bytes == first.bytes);
    assert_all_found(&fourth, hits + misses);
}

#[test]
fn versions_do_not_share_entries() {
    let store = Arc::new(MemoryStore::new());
    let module = generate(20);
    let compile = |cache: Arc<FunctionCache<Arc<MemoryStore>>>| {
        let mut config = Config::new();
        keep_keys_apart(&mut config);
        config.enable_incremental_compilation(cache.clone()).unwrap();
        let bytes = Engine::new(&config).unwrap().precompile_module(&module).unwrap();
        (bytes, cache.counts())
    };
    let own = || Arc::new(FunctionCache::new(Arc::clone(&store)));
    let (first, counts) = compile(own());
    // Trampolines of equal signatures are equal.
    let Counts { hits, misses, .. } = counts;
    assert_eq!(counts, Counts { hits, misses, ..Counts::default() });
    let found = Counts { hits: hits + misses, ..Counts::default() };
    let (second, counts) = compile(own());
    assert_eq!(counts, found);
    let (third, counts) = compile(Arc::new(FunctionCache::with_version(Arc::clone(&store), "0.1.2")));
    assert_eq!(counts, Counts { hits, misses, ..Counts::default() });
    assert!(first == second && second == third);
    // Those of the other version are still there.
    assert_eq!(compile(own()).1, found);
}

#[test]
fn a_store_that_cannot_be_used_costs_only_its_hits() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // A file is no folder.
    let cache = Arc::new(FunctionCache::new(DiskStore::new(file.path().join("inside"))));
    let mut config = Config::new();
    config.enable_incremental_compilation(cache.clone()).unwrap();
    let module = generate(5);
    let bytes = Engine::new(&config).unwrap().precompile_module(&module).unwrap();
    assert_eq!(bytes, Engine::new(&Config::new()).unwrap().precompile_module(&module).unwrap());
    let counts = cache.counts();
    assert_eq!(counts.hits, 0);
    assert!(
        counts.failed_writes == counts.misses + counts.damaged && counts.failed_writes >= 5,
        "{counts:?}"
    );
}

/// The version in the keys is that of `cranelift-codegen` here, so there must be no other.
#[test]
fn there_is_one_cranelift() {
    let lock = include_str!("../Cargo.lock");
    assert_eq!(lock.matches("name = \"cranelift-codegen\"\n").count(), 1);
}
