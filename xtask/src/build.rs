//! `build`: compiles many modules and links them into one image, or one object for a linker.
//!
//! A module is read when a thread is free to compile it, and dropped after it is compiled. So a
//! build of many thousands of modules holds the IR of only a few. The linker finds out whether
//! modules fit together. If they do not, all of them are read again, so that the message can show
//! where they disagree.

mod cpus;
mod emit;
mod failure;
mod farm;
mod image;
mod layer;
mod lean;
mod remote;
mod sign;
mod stats;
mod timings;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln::cache::{Claims, DiskStore, LayeredStore, MemoryStore, Store, Tally, WriteBehind};
use kiln::image::{ImageOptions, save, sign_image};
use kiln::ir::Target;
use kiln::{Compiled, Compiler, Verify};
use kiln_remote::Listed;

use self::cpus::CpusArgs;
use self::emit::{EmitArgs, Written};
use self::failure::Inputs;
use self::farm::FarmArgs;
pub(crate) use self::image::ImageArgs;
use self::lean::LeanArgs;
use self::remote::{Remote, RemoteArgs};
use self::sign::SignedArgs;
use self::stats::{CacheStats, Stats, Times};
use self::timings::Recorder;
use self::watch::Watch;
use crate::input::{self, Globals, InlineArgs, InputFile, Level};
use crate::output::{Failure, Format, Outcome, count, print_json, progress};

/// Compile modules of Cranelift IR in parallel and link them into one image.
///
/// Each `.clif` file is a module; a `.kir` file (see `convert`) holds one or more. All files are
/// linked with each other: an import of one file that another defines is resolved, and every other
/// import becomes a slot that the host fills at load. Of several `replaceable` definitions of a
/// function, that in the last file is in force, in order of paths. The image is an ELF shared
/// object. It does not depend on the number of threads or on the order of the arguments.
///
/// With `--base` the output is a layer on another image, which is loaded with it: see `call` and
/// `flatten`.
///
/// With `--emit object` the output is a relocatable object (`.o`) for a linker: what no file
/// defines is an undefined symbol, and globals are an array that the program fills,
/// `extern void *kiln_slots[]` in C, in the order in which the files use them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask build examples/clif -o hello.so
  cargo xtask build src/*.clif --opt-level none --stats stats.json -o program.so
  cargo xtask build src/*.clif --timings timings.html -o program.so
  cargo xtask-remote build src --cache kept --remote grpc://cache:8980/main -o program.so
  cargo xtask worker -o kiln-worker
  cargo xtask-remote build src --farm grpc://farm:8980 --farm-worker kiln-worker -o program.so
  cargo xtask build lib --target aarch64 -o lib.so
  cargo xtask build lib --soname libx.so.1 --needed libm.so.6 --export-list names.txt -o libx.so.1
  cargo xtask build -g program.clif -o program.so
  cargo xtask build lib --split-debug lib.so.debug -o lib.so
  cargo xtask build lib --inline --gc -o lib.so
  cargo xtask build lib --gc --fold --order profile.txt -o lib.so
  cargo xtask build lib --root main --why-kept helper -o lib.so
  cargo xtask build lib --cpus x86-64-v2,x86-64-v3 -o lib.so
  cargo xtask build lib --sign release.key -o lib.so
  cargo xtask build lib --embed-artifacts -o lib.so
  cargo xtask build app --base lib.so -o app.so
  cargo xtask build lib --emit object -g -o lib.o && cc main.c lib.o -lm
  compiler | cargo xtask build - library.clif -o program.so")]
pub(crate) struct BuildArgs {
    /// `.clif` and `.kir` files, folders that are searched for them, and `-`, which is standard
    /// input
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// The image or object to write; it is written completely or not at all, unless only the file
    /// may be written and not its folder
    #[arg(short, long, value_name = "IMAGE")]
    output: PathBuf,
    /// Architecture or triple to compile for: x86_64, aarch64, riscv64, s390x [default: this
    /// machine]
    #[arg(long, value_name = "T")]
    target: Option<String>,
    #[command(flatten)]
    cpus: CpusArgs,
    /// How much to optimize; a module's own `set opt_level` line wins
    #[arg(long, value_enum, default_value_t = Level::Speed, value_name = "LEVEL")]
    opt_level: Level,
    /// How code reaches globals and functions of the host: through slots, or by addresses that the
    /// loader writes into code. Which is better depends on the program: see ARCHITECTURE.md
    #[arg(long, value_enum, default_value_t = Globals::Slots, value_name = "HOW")]
    globals: Globals,
    #[command(flatten)]
    inline: InlineArgs,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Reuse code of unchanged modules and functions from this folder, and keep new code there. A
    /// file that was built before is not even parsed; with --inline, if no other file changed
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Compile everything, and compare it with the cache's entries before any of them is used
    #[arg(long, requires = "cache")]
    cache_verify: bool,
    /// Keep the cache below this number of bytes; the entry that was not used for longest is
    /// removed first
    #[arg(long, requires = "cache", value_name = "BYTES", default_value_t = 10_000_000_000)]
    cache_limit: u64,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    farm: FarmArgs,
    /// Name the program: a file is recognized without parsing it in any folder with a program of
    /// this name [default: this folder; with --remote its last part]
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Write the names of the entries of the cache that this build found or stored to this file,
    /// for `cache export --list`
    #[arg(long, value_name = "FILE")]
    cache_list: Option<PathBuf>,
    #[command(flatten)]
    emit: EmitArgs,
    #[command(flatten)]
    lean: LeanArgs,
    #[command(flatten)]
    sign: SignedArgs,
    /// Print for each module whether the cache had it, and if not, why
    #[arg(long)]
    verbose: bool,
    /// Write the numbers of the build and the times of its parts to this file
    #[arg(long, value_name = "FILE.json")]
    stats: Option<PathBuf>,
    /// Write what every thread did when: a page for a browser to FILE.html, a Chrome trace to
    /// FILE.json
    #[arg(long, value_name = "FILE.html|FILE.json")]
    timings: Vec<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn main(args: &BuildArgs) -> Outcome {
    let started = Instant::now();
    timings::check_names(&args.timings)?;
    let recorder = (!args.timings.is_empty()).then(|| Recorder::start(started));
    let threads = input::threads(args.threads.map(usize::from))?;
    let target = input::target(args.target.as_deref())?;
    let target = target.opt_level(args.opt_level.into()).globals(args.globals.into());
    args.emit.check(&args.output)?;
    let cpus = args.cpus.targets(&target, args.emit.is_object())?;
    let bases = args.emit.bases()?;
    let image = args.emit.image_options()?;
    let signers = args.sign.signers(args.emit.is_object())?;
    let image = args.sign.room(image);
    let lean_options = args.lean.options()?;
    let files = input::files(&args.paths)?;
    let files = if args.emit.is_debugged() { input::debugged(files) } else { files };
    let outputs =
        [Some(&args.output), args.stats.as_ref(), args.cache_list.as_ref(), args.emit.split_debug()];
    outputs.into_iter().flatten().chain(&args.timings).try_for_each(|path| check_output(path, &files))?;

    // Compile each module as soon as it is read.
    let watch = Arc::new(Watch::new(args.verbose));
    args.cache.as_deref().map_or(Ok(()), crate::cache::check_folder)?;
    let remote = args.remote.open(watch.clone())?;
    let farm = args.farm.open(watch.clone())?;
    let store = store(args, &watch, remote.as_ref());
    // Modules are named by their paths. A relative path means the same file only in the same
    // folder, so the folder is a part of the program's name.
    // Machines that share a server have other folders.
    let folder = std::env::current_dir().unwrap_or_default();
    let folder = match folder.file_name().filter(|_| remote.is_some()) {
        Some(name) => name.to_string_lossy(),
        None => folder.to_string_lossy(),
    };
    let program = args.program.as_deref().unwrap_or(&folder);
    let settings = |target: &Target| {
        let mut compiler = Compiler::new(target.clone()).events(watch.clone()).program(program);
        if let Some(store) = &store {
            compiler = compiler.store(store.clone());
        }
        if let Some(farm) = &farm {
            compiler = compiler.farm(farm.machines());
        }
        args.inline.apply(if args.cache_verify { compiler.verify(Verify::All) } else { compiler })
    };
    let compilers: Vec<Compiler> = cpus.targets.iter().map(settings).collect();
    let (inputs, results) = compile(&files, &cpus.targets, &compilers, store.is_some())?;
    let compiled = Instant::now();

    let (programs, results): (Vec<_>, Vec<_>) =
        results.into_iter().map(|result| (result.artifacts, (result.stats, result.samples))).unzip();
    let joined = cpus.join(programs, lean_options.as_ref());
    let (leaner, levels) = joined.map_err(|errors| inputs.not_linked(&errors))?;
    let told = cpus.summary(levels.as_ref());
    let image = ImageOptions { levels, ..image };
    let answers = args.lean.answer(&leaner, &inputs.names)?;
    let Written { bytes, debug, slots } = args
        .emit
        .write(&leaner, &inputs.names, &bases, image)
        .map_err(|errors| inputs.not_linked(&errors))?;
    let mut bytes = bytes;
    signers.iter().try_for_each(|signer| sign_image(&mut bytes, signer)).map_err(Failure::of)?;
    let linked = Instant::now();
    let files = [(Some(&args.output), Some(&bytes)), (args.emit.split_debug(), debug.as_ref())];
    for (path, bytes) in files.into_iter().filter_map(|(path, bytes)| path.zip(bytes)) {
        save(path, bytes).map_err(|error| cannot_write(path, error))?;
    }
    let written = Instant::now();

    // The image is written first, so it does not wait for work that serves only later builds.
    let (mut wrong, mut built) = (0, kiln::Stats::default());
    for ((stats, samples), compiler) in results.into_iter().zip(&compilers) {
        wrong += stats.wrong_entries + samples.verify(compiler);
        built += stats;
    }
    drop(compilers);
    if let Some((path, store)) = args.cache_list.as_ref().zip(store.as_ref()) {
        std::fs::write(path, store.list().to_string()).map_err(|error| cannot_write(path, error))?;
    }
    let writes_started = Instant::now();
    drop(store);
    let exchange = remote.map(|remote| remote.finish(args.remote.wait(), writes_started));
    let tally = watch.tally();
    if let Some(folder) = args.cache.as_deref().or(args.remote.shown()) {
        warn(folder, wrong, &tally);
    }
    watch.given_up().iter().for_each(|reason| eprintln!("warning: server {reason}"));

    let times = Times { started, compiled, linked, written };
    let stats = Stats::new(
        (inputs.names.len(), &leaner),
        &built,
        CacheStats::new(tally, watch.places(), exchange, farm.map(|farm| farm.stats())),
        (bytes.len(), slots),
        threads,
        &times,
    );
    if let Some(path) = &args.stats {
        let json = serde_json::to_string_pretty(&stats).expect("plain data");
        std::fs::write(path, format!("{json}\n")).map_err(|error| cannot_write(path, error))?;
    }
    if let Some(recorder) = recorder {
        timings::write(&args.timings, &recorder, &stats)?;
    }
    match args.format {
        Format::Json => {
            print_json(&stats);
            answers.iter().for_each(|answer| eprintln!("{answer}"));
        }
        Format::Text => {
            println!("{}", stats.summary(&args.output));
            lean::summary(&leaner).iter().chain(&told).chain(&answers).for_each(|line| println!("{line}"));
        }
    }
    if leaner.unknown_names > 0 {
        let names = count(leaner.unknown_names, "name");
        eprintln!("warning: --order has {names} that no function has");
    }
    Ok(())
}

/// Compiles the modules of files for each target, each as soon as it is read.
fn compile<'a>(
    files: &'a [InputFile],
    targets: &'a [Target],
    compilers: &[Compiler],
    keyed: bool,
) -> Result<(Inputs<'a>, Vec<Compiled>), Failure> {
    let bar = progress("compiling", (files.len() * targets.len()) as u64);
    let read = || bar.inc(1);
    let (mut names, mut results) = (Vec::new(), Vec::new());
    for (target, compiler) in targets.iter().zip(compilers) {
        let lazy = input::lazy(files, target, keyed, &read)?;
        bar.set_length((lazy.len() * targets.len()) as u64);
        names = lazy.iter().map(|module| module.name().into()).collect();
        results.push(compiler.compile_lazy(lazy));
    }
    bar.finish_and_clear();
    let inputs = Inputs { files, target: &targets[0], names };
    let results: Result<Vec<_>, _> = results.into_iter().collect();
    let results = results.map_err(|failures| inputs.not_compiled(failures))?;
    Ok((inputs, results))
}

/// The longest time for which a build waits for another process that compiles the same module.
const CLAIM: Duration = Duration::from_secs(3);

/// Puts the stores together, the nearest first.
fn store(
    args: &BuildArgs,
    watch: &Arc<Watch>,
    remote: Option<&Remote>,
) -> Option<Arc<Listed<Box<dyn Store + Send + Sync>>>> {
    let disk = args.cache.as_ref().map(|folder| {
        let disk = DiskStore::new(folder).limit(args.cache_limit).events(watch.clone());
        // With a farm, all modules are looked up before any is compiled, and the farm joins equal
        // work.
        let wait = if args.farm.is_used() { Duration::ZERO } else { CLAIM };
        let claims = Claims::of(disk, wait);
        WriteBehind::new(claims).events(watch.clone())
    });
    let store: Box<dyn Store + Send + Sync> = match (disk, remote) {
        (None, None) => return None,
        (Some(disk), None) => Box::new(disk),
        (Some(disk), Some(remote)) => Box::new(LayeredStore::new(disk, remote.store()).events(watch.clone())),
        // A build looks each module up once, so nothing is gained from keeping it.
        (None, Some(remote)) => Box::new(LayeredStore::new(MemoryStore::with_limit(0), remote.store())),
    };
    Some(Arc::new(Listed::new(store)))
}

/// Warns of cache entries that were wrong, could not be used, or could not be written.
fn warn(folder: &Path, wrong: usize, tally: &Tally) {
    let folder = folder.display();
    if wrong > 0 {
        let entries = if wrong == 1 { "1 entry".into() } else { format!("{wrong} entries") };
        eprintln!("warning: cache {folder}: {entries} with wrong code moved aside");
    }
    if tally.wrong_lazy_keys > 0 {
        let modules = count(tally.wrong_lazy_keys as usize, "module");
        eprintln!("warning: cache {folder}: {modules} found by a wrong key, and compiled");
    }
    let unusable = tally.corrupt;
    let unwritten = tally.failed_writes + tally.dropped_writes;
    if unusable + unwritten > 0 {
        eprintln!(
            "warning: cache {folder}: entries that could not be used: {unusable}, that could not be written: {unwritten}"
        );
    }
}

fn cannot_write(path: &Path, error: std::io::Error) -> Failure {
    Failure::while_doing(format!("cannot write {}", path.display()), error)
}

/// Refuses a path that could not be written, before any work is done.
fn check_output(path: &Path, inputs: &[InputFile]) -> Outcome {
    let error = |what: &str| Err(Failure::new(format!("cannot write {}: {what}", path.display())));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        // `-` is refused, because the summary goes to standard output.
        _ if path == Path::new("-") => error("name a file"),
        _ if path.is_dir() => error("it is a folder"),
        _ if inputs.iter().any(|input| input.name == path) => error("it is an input"),
        Some(folder) if !folder.is_dir() => error(&format!("there is no folder {}", folder.display())),
        _ => Ok(()),
    }
}
