//! `lint`: checks the rules of the project that a machine can check. Each check that is not just a
//! cargo command is in a file of its own.
//!
//! The rules themselves, with their thresholds and exceptions, are in `lint/rules.rs`.

mod architecture;
mod columns;
mod cycles;
mod files;
mod functions;
mod layering;
mod links;
mod modules;
mod references;
mod repeats;
mod rules;
mod sources;
mod summaries;
mod unsafe_code;

use clap::ValueEnum as _;

use self::sources::Source;
use crate::develop::{cargo, execute, root};
use crate::output::{Failure, Outcome};

/// Check the rules of the project: formatting, lints, documentation, structure and prose.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask lint
  cargo xtask lint --only cycles")]
pub(crate) struct LintArgs {
    /// Run only this check
    #[arg(long, value_enum)]
    only: Option<Check>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Check {
    /// Code is formatted as rustfmt does it
    Format,
    /// Crates depend only on the crates that the table of layers allows
    Layering,
    /// ARCHITECTURE.md is short, and names crates and paths that exist
    Architecture,
    /// Files say what they are for, and most are short
    Files,
    /// `unsafe` is only in the crates and files that may have it
    Unsafe,
    /// The files of a crate do not depend on each other in a cycle
    Cycles,
    /// Functions are short
    Functions,
    /// Comments and Markdown end at column 100
    Columns,
    /// Links in Markdown lead to files and headings that exist
    Links,
    /// Summaries of documentation begin with a verb or name the thing
    Summaries,
    /// No code is written twice; needs jscpd
    Repeats,
    /// Clippy has no warnings
    Clippy,
    /// rustdoc has no warnings
    Docs,
}

impl Check {
    fn run(self, sources: &[Source]) -> Outcome {
        match self {
            Self::Format => execute(&mut cargo(&["fmt", "--all", "--check"])),
            Self::Layering => verdict(&layering::faults()?),
            Self::Architecture => verdict(&architecture::faults()?),
            Self::Files => verdict(&files::faults(sources)),
            Self::Unsafe => verdict(&unsafe_code::faults(sources)),
            Self::Cycles => verdict(&cycles::faults(sources)),
            Self::Functions => verdict(&functions::faults(sources)),
            Self::Columns => verdict(&columns::faults(sources)),
            Self::Links => verdict(&links::faults(sources, &|path| root().join(path).exists())),
            Self::Summaries => verdict(&summaries::faults(sources)),
            Self::Repeats => match repeats::faults(&root())? {
                Some(faults) => verdict(&faults),
                None if std::env::var_os("CI").is_some() => {
                    Err(Failure::new("jscpd is not installed, and CI must have it"))
                }
                None => {
                    println!("repeats: skipped, jscpd is not installed");
                    Ok(())
                }
            },
            Self::Clippy => {
                execute(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
            }
            Self::Docs => {
                execute(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
            }
        }
    }
}

pub(crate) fn main(args: &LintArgs) -> Outcome {
    let sources = sources::read(&root())?;
    let mut failed = Vec::new();
    for &check in Check::value_variants() {
        if args.only.is_some_and(|only| only != check) {
            continue;
        }
        let name = format!("{check:?}").to_lowercase();
        match check.run(&sources) {
            Ok(()) => println!("{name}: ok"),
            Err(failure) => {
                if let Failure::Message(text) = failure {
                    eprintln!("{text}");
                }
                println!("{name}: FAILED");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("lint failed: {}", failed.join(", ")))) }
}

/// Returns a failure with all findings, if there are any.
fn verdict(faults: &[String]) -> Outcome {
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = faults.iter().map(|fault| format!("error: {fault}")).collect();
    Err(Failure::Message(lines.join("\n")))
}
