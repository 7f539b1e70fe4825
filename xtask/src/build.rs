//! `build`: many modules in, one image out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln::cache::DiskStore;
use kiln::globals::GlobalTable;
use kiln::image::link::LinkError;
use kiln::image::{ImageOptions, save, write_image};
use kiln::ir::{Module, OptLevel, check_program};
use kiln::{CompileFailure, Compiler};
use serde::Serialize;

use crate::input;
use crate::output::{Failure, Format, Outcome, bytes, count, peak_rss, progress, time};

/// Compile modules of Cranelift IR in parallel and link them into one image.
///
/// Each `.clif` file is a module. All files are linked with each other: what one file imports and another defines is
/// resolved, whatever remains becomes a slot that the host fills at load. The image is an ELF shared object. The result does not
/// depend on the number of threads or on the order of the arguments.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask build examples/clif -o hello.so
  cargo xtask build src/*.clif --opt-level none --stats stats.json -o program.so
  cargo xtask build lib --target aarch64 -o lib.so")]
pub(crate) struct Args {
    /// `.clif` files, and folders that are searched for them
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// The image to write; it appears whole or not at all
    #[arg(short, long, value_name = "IMAGE")]
    output: PathBuf,
    /// Architecture or triple to compile for: x86_64, aarch64, riscv64, s390x [default: this machine]
    #[arg(long, value_name = "T")]
    target: Option<String>,
    /// How much to optimize; a module's own `set opt_level` line wins
    #[arg(long, value_enum, default_value_t = Level::Speed, value_name = "LEVEL")]
    opt_level: Level,
    /// Number of threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Reuse artifacts of unchanged modules from this folder, and keep new ones there
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Write what was done, and how long it took, to this file
    #[arg(long, value_name = "FILE.json")]
    stats: Option<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Level {
    /// Compile quickly
    None,
    /// Make code fast
    Speed,
    /// Make code fast, then small
    SpeedAndSize,
}

impl From<Level> for OptLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Speed => Self::Speed,
            Level::SpeedAndSize => Self::SpeedAndSize,
        }
    }
}

#[derive(Serialize)]
struct Stats {
    modules: usize,
    functions: usize,
    compiled_functions: usize,
    reused_functions: usize,
    reused_modules: usize,
    text_bytes: u64,
    image_bytes: u64,
    slots: usize,
    threads: usize,
    peak_rss_bytes: u64,
    seconds: Seconds,
}

#[derive(Serialize)]
struct Seconds {
    parse: f64,
    compile: f64,
    link: f64,
    write: f64,
    total: f64,
}

pub(crate) fn main(args: &Args) -> Outcome {
    let start = Instant::now();
    let threads = input::threads(args.threads.map(usize::from))?;
    let target = input::target(args.target.as_deref())?.opt_level(args.opt_level.into());
    let files = input::files(&args.paths)?;
    [Some(&args.output), args.stats.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|path| output_path(path, &files))?;
    let modules = input::all(input::modules(&files, &target, true)?)?;
    let diagnostics = check_program(&modules.iter().collect::<Vec<_>>());
    if !diagnostics.is_empty() {
        diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
        return Err(Failure::new(format!("{} between the modules", count(diagnostics.len(), "error"))));
    }
    let parsed = Instant::now();

    // The globals module: slots are numbered before any function is compiled.
    let mut globals = GlobalTable::new();
    for key in modules.iter().flat_map(Module::globals) {
        globals.intern(key);
    }
    let functions = modules.iter().map(|module| module.functions.len()).sum::<usize>();
    let bar = progress("compiling", functions as u64);
    let tick = || bar.inc(1);
    let store = args.cache.as_ref().map(DiskStore::new);
    let mut compiler = Compiler::new(target).progress(&tick);
    if let Some(store) = &store {
        compiler = compiler.store(store);
    }
    let compiled = compiler.compile(&modules).map_err(|error| failure(&modules, &error))?;
    bar.finish_and_clear();
    if compiled.stats.corrupt_entries + compiled.stats.failed_writes > 0 {
        eprintln!(
            "warning: cache {}: entries that could not be used: {}, that could not be written: {}",
            args.cache.as_deref().unwrap_or(Path::new("")).display(),
            compiled.stats.corrupt_entries,
            compiled.stats.failed_writes
        );
    }
    let compiled_at = Instant::now();

    let image = write_image(&compiled.artifacts, &globals, &ImageOptions::default()).map_err(|errors| {
        let line = |error: &LinkError| match error.module().and_then(|number| modules.get(number)) {
            Some(module) => format!("error: {}: {error}", module.name),
            None => format!("error: {error}"),
        };
        Failure::Message(errors.iter().map(line).collect::<Vec<_>>().join("\n"))
    })?;
    let linked = Instant::now();
    save(&args.output, &image)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", args.output.display())))?;
    let written = Instant::now();

    let info = kiln::image::ImageInfo::parse(&image).map_err(Failure::new)?;
    let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
    let stats = Stats {
        modules: modules.len(),
        functions,
        compiled_functions: compiled.stats.compiled_functions,
        reused_functions: compiled.stats.reused_functions,
        reused_modules: compiled.stats.reused_modules,
        text_bytes: compiled.artifacts.iter().map(|artifact| artifact.text().len() as u64).sum(),
        image_bytes: image.len() as u64,
        slots: info.slots.len(),
        threads,
        peak_rss_bytes: peak_rss(),
        seconds: Seconds {
            parse: seconds(start, parsed),
            compile: seconds(parsed, compiled_at),
            link: seconds(compiled_at, linked),
            write: seconds(linked, written),
            total: seconds(start, written),
        },
    };
    let json = serde_json::to_string_pretty(&stats).expect("plain data");
    if let Some(path) = &args.stats {
        std::fs::write(path, format!("{json}\n"))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    match args.format {
        Format::Json => println!("{json}"),
        Format::Text => println!(
            "{}: {} of {} ({} compiled, {} reused) in {}, {} of code, {}, in {}",
            args.output.display(),
            bytes(stats.image_bytes),
            count(stats.functions, "function"),
            stats.compiled_functions,
            stats.reused_functions,
            count(stats.modules, "module"),
            bytes(stats.text_bytes),
            count(stats.slots, "slot"),
            time(written - start),
        ),
    }
    Ok(())
}

/// Refuses at once what could not be written after all the work.
fn output_path(path: &Path, inputs: &[PathBuf]) -> Outcome {
    let error = |what: &str| Err(Failure::new(format!("cannot write {}: {what}", path.display())));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        _ if path.is_dir() => error("it is a folder"),
        _ if inputs.iter().any(|input| input == path) => error("it is an input"),
        Some(folder) if !folder.is_dir() => error(&format!("there is no folder {}", folder.display())),
        _ => Ok(()),
    }
}

/// A compile failure with the files' names and lines.
fn failure(modules: &[Module], error: &CompileFailure) -> Failure {
    match error {
        CompileFailure::Functions(errors) => Failure::Message(
            errors
                .iter()
                .map(|error| {
                    let file = modules.get(error.module).map_or("", |module| &*module.name);
                    format!("error: {file}:{}: function `{}`: {}", error.line, error.function, error.kind)
                })
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        other => Failure::new(other),
    }
}
