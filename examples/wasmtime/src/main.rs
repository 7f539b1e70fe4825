//! Compiles a module of WebAssembly to Wasmtime's form, with a cache of functions in a folder.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use function_cache::{FunctionCache, keep_keys_apart};
use kiln_cache::{DiskStore, Store, WriteBehind};
use wasmtime::{Config, Engine};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (module, output, folder) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [module, output] => (module, output, None),
        [module, output, folder] => (module, output, Some(folder)),
        _ => {
            eprintln!("usage: compile MODULE.wasm OUTPUT.cwasm [CACHE-FOLDER]");
            return ExitCode::from(2);
        }
    };
    match compile(Path::new(module), Path::new(output), folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot compile {module}: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the seconds of processor time that this thread has had, where the system tells them:
/// unlike the time that passes, they do not depend on what else runs.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e9)
}

/// Compiles `module`, and prints the numbers of functions and the time.
fn compile(module: &Path, output: &Path, folder: Option<&str>) -> wasmtime::Result<()> {
    let bytes = std::fs::read(module)?;
    let (start, before) = (Instant::now(), processor_seconds());
    let mut config = Config::new();
    keep_keys_apart(&mut config);
    let cache = folder.map(|folder| Arc::new(FunctionCache::new(WriteBehind::new(DiskStore::new(folder)))));
    if let Some(cache) = &cache {
        config.enable_incremental_compilation(cache.clone())?;
    }
    let compiled = Engine::new(&config)?.precompile_module(&bytes)?;
    let time = start.elapsed().as_secs_f64();
    let time = before.zip(processor_seconds()).map_or(time, |(before, after)| after - before);
    std::fs::write(output, compiled)?;
    let counts = cache.as_ref().map(|cache| cache.counts()).unwrap_or_default();
    println!(
        "hits {} misses {} damaged {} failed {} seconds {:.4}",
        counts.hits,
        counts.misses,
        counts.damaged,
        counts.failed_writes,
        time
    );
    // Writes go on meanwhile; without this wait, some of them would be lost.
    if cache.is_some_and(|cache| !cache.store().flush(Duration::from_secs(60))) {
        eprintln!("warning: the cache is not complete");
    }
    Ok(())
}
