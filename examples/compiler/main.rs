//! A small compiler with a command line, to copy from: it parses, checks types, compiles, runs,
//! saves images, loads them, and keeps what it compiled.
//!
//! ```text
//! cargo run --release --features trap --example compiler -- run examples/compiler/primes.lang 100
//! cargo run --release --features trap --example compiler -- build examples/compiler/primes.lang \
//!     --output primes.so --cache kept
//! cargo run --release --features trap --example compiler -- call primes.so 100
//! ```
//!
//! `syntax.rs` has the language and its parser, `check.rs` the types, `lower.rs` makes IR. Each
//! function becomes a module: so all are compiled in parallel, and after a change only those that
//! changed.

mod check;
mod lower;
mod syntax;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser as _;
use kiln::cache::DiskStore;
use kiln::globals::Bindings;
use kiln::image::{FunctionRef, Image, bind_function};
use kiln::ir::Target;
use kiln::jit::JitOptions;
use kiln::{Compiler, Session};

/// Compile programs of a small language.
#[derive(clap::Parser)]
enum Cli {
    /// Look for errors
    Check { program: PathBuf },
    /// Compile a program in memory, and run it
    Run {
        program: PathBuf,
        /// The numbers that the function `argument` returns
        arguments: Vec<i64>,
        /// The folder of what was compiled before
        #[arg(long)]
        cache: Option<PathBuf>,
    },
    /// Compile a program to an image
    Build {
        program: PathBuf,
        /// The image
        #[arg(short, long)]
        output: PathBuf,
        /// The folder of what was compiled before
        #[arg(long)]
        cache: Option<PathBuf>,
    },
    /// Run an image
    Call {
        image: PathBuf,
        /// The numbers that the function `argument` returns
        arguments: Vec<i64>,
    },
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    match cli {
        Cli::Check { program } => read(&program).map(drop),
        Cli::Run { program, arguments, cache } => {
            let session = compile(&program, cache.as_deref())?;
            session.catch_traps()?;
            run(session.function(check::MAIN), arguments)
        }
        Cli::Build { program, output, cache } => {
            let session = compile(&program, cache.as_deref())?;
            session.save_image(&output)?;
            let stats = session.stats();
            println!("{} functions compiled, {} reused", stats.compiled_functions, stats.reused_functions);
            Ok(())
        }
        Cli::Call { image, arguments } => {
            let mut bindings = Bindings::new();
            bind_function(&mut bindings, "argument", argument as extern "C" fn(i64) -> i64);
            bind_function(&mut bindings, "print_int", print_int as extern "C" fn(i64) -> i64);
            bind_function(&mut bindings, "print_float", print_float as extern "C" fn(f64) -> f64);
            let loaded = Image::open(&image)?.bind(&bindings)?;
            loaded.catch_traps()?;
            run(loaded.function(check::MAIN), arguments)
        }
    }
}

/// Reads and checks a program.
fn read(path: &Path) -> Result<(Vec<syntax::Function>, check::Signatures)> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let report = |faults: Vec<syntax::Fault>| {
        let lines: Vec<_> = faults.iter().map(|fault| format!("{}:{fault}", path.display())).collect();
        lines.join("\n")
    };
    let program = syntax::parse(&text).map_err(|fault| report(vec![fault]))?;
    let signatures = check::check(&program).map_err(report)?;
    Ok((program, signatures))
}

/// Compiles a program in memory.
fn compile(path: &Path, cache: Option<&Path>) -> Result<Session> {
    let (program, signatures) = read(path)?;
    let target = Target::host();
    // The name of the program, by which a changed function finds its last build.
    let mut compiler = Compiler::new(target.clone()).program(path.display().to_string());
    if let Some(folder) = cache {
        compiler = compiler.store(Arc::new(DiskStore::new(folder)));
    }
    let modules = program
        .iter()
        .map(|function| lower::lower(function, &signatures, path, &target))
        .collect::<Result<Vec<_>>>()?;
    let session = Session::with_compiler(compiler, JitOptions::default())?;
    session.bind_function("argument", argument as extern "C" fn(i64) -> i64)?;
    session.bind_function("print_int", print_int as extern "C" fn(i64) -> i64)?;
    session.bind_function("print_float", print_float as extern "C" fn(f64) -> f64)?;
    session.add(&modules)?;
    Ok(session)
}

/// The numbers that `argument` returns.
static ARGUMENTS: Mutex<Vec<i64>> = Mutex::new(Vec::new());

fn run(main: Option<FunctionRef<'_>>, arguments: Vec<i64>) -> Result<()> {
    *ARGUMENTS.lock().unwrap_or_else(PoisonError::into_inner) = arguments;
    let main = main.ok_or("the program has no `main`")?;
    // SAFETY: the signature is checked, and the code accesses no memory but its stack.
    let result = unsafe { kiln::trap::call(main.typed::<extern "C" fn() -> i64>()?, ()) };
    let result = result.map_err(|caught| format!("error: {caught}"))?;
    println!("{result}");
    Ok(())
}

/// Returns an argument of the program, and 0 if there are fewer.
extern "C" fn argument(index: i64) -> i64 {
    let arguments = ARGUMENTS.lock().unwrap_or_else(PoisonError::into_inner);
    usize::try_from(index).ok().and_then(|index| arguments.get(index).copied()).unwrap_or(0)
}

extern "C" fn print_int(number: i64) -> i64 {
    println!("{number}");
    number
}

extern "C" fn print_float(number: f64) -> f64 {
    println!("{number}");
    number
}
