//! `build`: many modules in, one image out.
//!
//! Modules are read when their turn comes and dropped when they are compiled, so a build of many thousands needs no more memory for
//! IR than those in flight. That they fit together is for the linker to find; only if they do not are all of them read again,
//! to say so with places.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use kiln::artifact::Artifact;
use kiln::cache::{Counts, DiskStore, Event, Events, Tally, WriteBehind};
use kiln::globals::GlobalTable;
use kiln::image::link::LinkError;
use kiln::image::{ImageOptions, save, write_image};
use kiln::ir::{Target, check_program};
use kiln::{Compiler, CompilerError, LazyError, Verify};
use serde::Serialize;

use crate::input::{self, Level, Unbuilt};
use crate::output::{Failure, Format, Outcome, bytes, chain, count, peak_rss, progress, time};

/// Compile modules of Cranelift IR in parallel and link them into one image.
///
/// Each `.clif` file is a module, and `.kir` files (see `convert`) hold one or more. All files are linked with each other: what one file imports and another defines is
/// resolved, whatever remains becomes a slot that the host fills at load. The image is an ELF shared object. The result does not
/// depend on the number of threads or on the order of the arguments.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask build examples/clif -o hello.so
  cargo xtask build src/*.clif --opt-level none --stats stats.json -o program.so
  cargo xtask build lib --target aarch64 -o lib.so")]
pub(crate) struct Args {
    /// `.clif` and `.kir` files, and folders that are searched for them
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
    /// Reuse code of unchanged modules and functions from this folder, and keep new code there; a file that was built before
    /// is not even read as IR
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Compile everything and compare it with what the cache has, before any of it is used
    #[arg(long, requires = "cache")]
    cache_verify: bool,
    /// Keep the cache below so many bytes; what was not used for longest goes first
    #[arg(long, requires = "cache", value_name = "BYTES", default_value_t = 10_000_000_000)]
    cache_limit: u64,
    /// Say what the cache had and what not, and why
    #[arg(long)]
    verbose: bool,
    /// Write what was done, and how long it took, to this file
    #[arg(long, value_name = "FILE.json")]
    stats: Option<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Stats {
    modules: usize,
    functions: usize,
    compiled_functions: usize,
    reused_functions: usize,
    reused_modules: usize,
    lazy_modules: usize,
    cache: CacheStats,
    text_bytes: u64,
    image_bytes: u64,
    slots: usize,
    threads: usize,
    peak_rss_bytes: u64,
    seconds: Seconds,
}

/// Events of the cache.
#[derive(Default, Serialize)]
struct CacheStats {
    hits: u64,
    misses: u64,
    corrupt: u64,
    healed: u64,
    evicted: u64,
    quarantined: u64,
    verified: u64,
    failed_verifications: u64,
    failed_writes: u64,
    dropped_writes: u64,
}

impl From<Tally> for CacheStats {
    fn from(tally: Tally) -> Self {
        Self {
            hits: tally.hits,
            misses: tally.misses,
            corrupt: tally.corrupt,
            healed: tally.healed,
            evicted: tally.evicted,
            quarantined: tally.quarantined,
            verified: tally.verified,
            failed_verifications: tally.failed_verifications,
            failed_writes: tally.failed_writes,
            dropped_writes: tally.dropped_writes,
        }
    }
}

/// Counts events, and shows them if that is wanted.
struct Watch {
    counts: Counts,
    verbose: bool,
}

impl Events for Watch {
    fn report(&self, event: &Event<'_>) {
        self.counts.report(event);
        if self.verbose {
            eprintln!("cache: {}", crate::cache::describe(event));
        }
    }
}

/// Reading is a part of `compile`: modules are read as they are compiled.
#[derive(Serialize)]
struct Seconds {
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
    let watch = Arc::new(Watch { counts: Counts::new(), verbose: args.verbose });
    let store = args.cache.as_ref().map(|folder| {
        let disk = DiskStore::new(folder).limit(args.cache_limit).events(watch.clone());
        Arc::new(WriteBehind::new(disk).events(watch.clone()))
    });
    let bar = progress("compiling", files.len() as u64);
    let read = || bar.inc(1);
    // Modules are named by their paths, which mean the same files in one folder only.
    let folder = std::env::current_dir().unwrap_or_default();
    let mut compiler =
        Compiler::new(target.clone()).events(watch.clone()).program(&*folder.to_string_lossy());
    if let Some(store) = &store {
        compiler = compiler.store(store.clone());
    }
    if args.cache_verify {
        compiler = compiler.verify(Verify::All);
    }
    let lazy = input::lazy(&files, &target, store.is_some(), &read)?;
    bar.set_length(lazy.len() as u64);
    let names: Vec<Box<str>> = lazy.iter().map(|module| module.name().into()).collect();
    let compiled = compiler.compile_lazy(lazy);
    bar.finish_and_clear();
    let compiled = compiled.map_err(|failures| {
        let unread = |failure: &LazyError<Unbuilt>| matches!(failure, LazyError::Build { .. });
        if failures.iter().any(unread) {
            return failure(failures, &Again::unread(&names));
        }
        // Whether modules fit together is said before what cannot be compiled.
        let again = Again::read(&files, &target, &names);
        again.misfit().unwrap_or_else(|| failure(failures, &again))
    })?;
    let compiled_at = Instant::now();

    // The globals module: slots are numbered by the order of modules, before anything is laid out.
    let artifacts = &compiled.artifacts;
    let mut globals = GlobalTable::new();
    for key in artifacts.iter().flat_map(Artifact::globals) {
        globals.intern(key);
    }
    let functions = artifacts.iter().map(|artifact| artifact.functions().len()).sum::<usize>();
    let image = write_image(artifacts, &globals, &ImageOptions::default()).map_err(|errors| {
        let again = Again::read(&files, &target, &names);
        again.misfit().unwrap_or_else(|| {
            let lines = errors.iter().map(|error| again.line(error));
            Failure::Message(lines.collect::<Vec<_>>().join("\n"))
        })
    })?;
    let linked = Instant::now();
    save(&args.output, &image)
        .map_err(|error| Failure::while_doing(format!("cannot write {}", args.output.display()), error))?;
    let written = Instant::now();

    // The image is there; what is left of the work for later builds does not delay it.
    let wrong = compiled.stats.wrong_entries + compiled.samples.verify(&compiler);
    drop(compiler);
    drop(store);
    let tally = watch.counts.tally();
    let folder = args.cache.as_deref().unwrap_or(Path::new("")).display();
    if wrong > 0 {
        eprintln!(
            "warning: cache {folder}: {} with wrong code moved aside",
            count(wrong, "entry").replace("entrys", "entries")
        );
    }
    let unusable = tally.corrupt;
    let unwritten = tally.failed_writes + tally.dropped_writes;
    if unusable + unwritten > 0 {
        eprintln!(
            "warning: cache {folder}: entries that could not be used: {unusable}, that could not be written: {unwritten}"
        );
    }

    let info = kiln::image::ImageInfo::parse(&image).map_err(Failure::of)?;
    let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
    let stats = Stats {
        modules: artifacts.len(),
        functions,
        compiled_functions: compiled.stats.compiled_functions,
        reused_functions: compiled.stats.reused_functions,
        reused_modules: compiled.stats.reused_modules,
        lazy_modules: compiled.stats.lazy_modules,
        cache: tally.into(),
        text_bytes: artifacts.iter().map(|artifact| artifact.text().len() as u64).sum(),
        image_bytes: image.len() as u64,
        slots: info.slots.len(),
        threads,
        peak_rss_bytes: peak_rss(),
        seconds: Seconds {
            compile: seconds(start, compiled_at),
            link: seconds(compiled_at, linked),
            write: seconds(linked, written),
            total: seconds(start, written),
        },
    };
    let json = serde_json::to_string_pretty(&stats).expect("plain data");
    if let Some(path) = &args.stats {
        std::fs::write(path, format!("{json}\n"))
            .map_err(|error| Failure::while_doing(format!("cannot write {}", path.display()), error))?;
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

/// The modules of a build that failed, in order, read once more for what messages say of them.
struct Again<'a> {
    modules: Vec<input::Parsed>,
    /// What they are called if they could not be read.
    names: &'a [Box<str>],
}

impl<'a> Again<'a> {
    fn unread(names: &'a [Box<str>]) -> Self {
        Self { modules: Vec::new(), names }
    }

    fn read(files: &[PathBuf], target: &Target, names: &'a [Box<str>]) -> Self {
        let files = input::modules(files, target, false, input::outline).unwrap_or_default();
        Self { modules: files.into_iter().flatten().collect(), names }
    }

    /// What is wrong between the modules, with places; `None` if nothing is.
    fn misfit(&self) -> Option<Failure> {
        let diagnostics = check_program(&self.modules.iter().flatten().collect::<Vec<_>>());
        diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
        let found = count(diagnostics.len(), "error");
        (!diagnostics.is_empty()).then(|| Failure::new(format!("{found} between the modules")))
    }

    /// The file of module `number`, which one it is there, and what it was.
    fn title(&self, number: usize) -> &str {
        match self.modules.get(number) {
            Some(Ok(module)) => &module.name,
            _ => self.names.get(number).map_or("", |name| name),
        }
    }

    /// What the linker found, with the names of the modules that it has numbers of.
    fn line(&self, error: &LinkError) -> String {
        let Some(number) = error.module() else { return format!("error: {}", chain(error)) };
        let line = format!("error: {}: {}", self.title(number), chain(error));
        let other = match *error {
            LinkError::DuplicateDefinition { first, .. } | LinkError::SectionConflict { first, .. } => first,
            LinkError::SignatureConflict { definer, .. } | LinkError::KindConflict { definer, .. } => definer,
            LinkError::TargetMismatch { .. } => 0,
            _ => return line,
        };
        format!("{line}; module {other} is {}", self.title(other))
    }
}

/// What is wrong with modules, with the files' names and lines.
fn failure(failures: Vec<LazyError<Unbuilt>>, again: &Again<'_>) -> Failure {
    let mut errors = 0;
    let mut lines = Vec::new();
    for failure in failures {
        match failure {
            LazyError::Build { error: Unbuilt::Faults(diagnostics), .. } => {
                errors += diagnostics.len();
                diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            }
            LazyError::Build { error: Unbuilt::Failed(failure), .. } => match failure {
                Failure::Message(text) => lines.push(text),
                Failure::Reported => {}
            },
            LazyError::Compile(CompilerError::Functions(functions)) => {
                lines.extend(functions.iter().map(|error| {
                    let line = if error.line == 0 { String::new() } else { format!(":{}", error.line) };
                    let number = again.names.iter().position(|name| *name == error.module_name);
                    let name = number.map_or(&*error.module_name, |number| again.title(number));
                    format!("error: {name}{line}: function `{}`: {}", error.function, chain(&error.kind))
                }));
            }
            LazyError::Compile(other) => lines.push(format!("error: {}", chain(&other))),
            _ => lines.push("error: a module could not be compiled".into()),
        }
    }
    if errors > 0 {
        lines.push(format!("error: {} in the input", count(errors, "error")));
    }
    Failure::Message(lines.join("\n"))
}
