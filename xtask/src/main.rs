//! Every command of Kiln for developers and users: see `kiln --help`, or `cargo xtask --help`.
//!
//! All commands are in one table; CI runs one of them. Exit code 0 means success, 1 means that the
//! command failed (errors in the input, failed tests), 2 that the command line could not be
//! understood.

#![deny(unsafe_code)]

// This comes first, because its macros replace `println!` and `eprintln!` in all other modules.
#[macro_use]
mod output;

mod bench;
mod build;
mod cache;
mod call;
mod check;
mod command_line;
mod completions;
mod convert;
mod develop;
mod diff;
mod flatten;
mod input;
mod inspect;
mod lint;
mod nearest;
mod no_image;
mod packages;
mod page;
mod run;
mod servers;
mod sign;
mod wasmtime;
mod worker;

use clap::{Parser, Subcommand};

use crate::output::Failure;

/// Compile Cranelift IR in parallel, run it, and save it as images.
#[derive(Parser)]
#[command(name = "kiln", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(Box<build::BuildArgs>),
    Check(check::CheckArgs),
    Convert(convert::ConvertArgs),
    Cache(cache::CacheArgs),
    Run(run::RunArgs),
    Call(call::CallArgs),
    Inspect(inspect::InspectArgs),
    Keygen(sign::KeygenArgs),
    Sign(sign::SignArgs),
    Flatten(Box<flatten::FlattenArgs>),
    Diff(diff::DiffArgs),
    Bench(bench::BenchArgs),
    Test(develop::TestArgs),
    Servers(servers::ServersArgs),
    Wasmtime(wasmtime::WasmtimeArgs),
    Worker(worker::WorkerArgs),
    Lint(lint::LintArgs),
    Packages(packages::PackagesArgs),
    Ci(develop::CiArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
    #[command(hide = true)]
    RunImage(run::RunImageArgs),
}

fn main() -> std::process::ExitCode {
    kiln::backend::silence_code_generator();
    let command = match command_line::parse::<Cli>(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(code) => return code,
    };
    // The hook may have suppressed the message of a panic that was not caught.
    let Ok(result) = std::panic::catch_unwind(|| execute(command)) else {
        eprintln!("error: internal error, please report it with the input");
        return std::process::ExitCode::FAILURE;
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(Failure::Reported) => std::process::ExitCode::FAILURE,
        Err(Failure::Message(text)) => {
            eprintln!("{text}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> output::Outcome {
    match command {
        Command::Build(args) => build::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Convert(args) => convert::main(&args),
        Command::Cache(args) => cache::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Call(args) => call::main(&args),
        Command::Inspect(args) => inspect::main(&args),
        Command::Keygen(args) => sign::keygen(&args),
        Command::Sign(args) => sign::main(&args),
        Command::Flatten(args) => flatten::main(&args),
        Command::Diff(args) => diff::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Test(args) => develop::test(&args),
        Command::Servers(args) => servers::main(&args),
        Command::Wasmtime(args) => wasmtime::main(&args),
        Command::Worker(args) => worker::main(&args),
        Command::Lint(args) => lint::main(&args),
        Command::Packages(args) => packages::main(&args),
        Command::Ci(args) => develop::ci(&args),
        Command::Completions(args) => completions::completions(&args, &mut command_line::installed::<Cli>()),
        Command::Man(args) => completions::man(&args, command_line::installed::<Cli>()),
        Command::RunImage(args) => run::run_image(&args),
    }
}
