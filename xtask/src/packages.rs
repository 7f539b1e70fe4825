//! `packages`: checks of what a user gets, who takes the crates from a registry.
//!
//! A file for each kind of check: `pack.rs` makes the packages and compares what is in them with
//! what belongs there, `registry.rs` makes a registry of them and of all crates that they need,
//! `clients.rs` has a new project for each crate, `features.rs` builds with each feature alone,
//! `oldest.rs` builds with the oldest versions of what we depend on, `tools.rs` calls programs of
//! others. `published.rs` has what they share.

mod clients;
mod features;
mod oldest;
mod pack;
mod published;
mod registry;
mod tools;

use std::time::Instant;

use clap::ValueEnum as _;

use self::published::Done;
use crate::output::{Failure, Outcome, time};

/// Check the packages of all crates: their contents, and a new project with each of them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask packages
  cargo xtask packages --only oldest
  cargo xtask packages --all")]
pub(crate) struct PackagesArgs {
    /// Run only this check
    #[arg(long, value_enum, conflicts_with = "all")]
    only: Option<Check>,
    /// Run those checks, too, that CI does not run every time
    #[arg(long)]
    all: bool,
    /// Choose the oldest versions again, after a dependency was added or changed
    #[arg(long)]
    bless: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Check {
    /// Every package has what its user needs, and nothing else
    Contents,
    /// A new project with each crate alone, from a local registry, builds and runs
    Clients,
    /// The crates build with the oldest versions of all that they depend on
    Oldest,
    /// No dependency is unused; needs cargo-machete
    Unused,
    /// Licences, duplicates and sources of dependencies are those of deny.toml; needs cargo-deny
    Deny,
    /// No dependency has a known vulnerability; needs cargo-deny, and RustSec's database
    Advisories,
    /// No public item is gone that the last release had; needs cargo-semver-checks, and a release
    Semver,
    /// Each feature alone, none and all of them build, of the crates that do not need Cranelift
    Features,
    /// The same, of all other crates: takes minutes
    MoreFeatures,
}

impl Check {
    /// Whether CI runs the check each time. The others take minutes, or need programs that take
    /// minutes to build.
    fn is_quick(self) -> bool {
        matches!(self, Self::Contents | Self::Clients | Self::Features | Self::Oldest | Self::Unused)
    }

    fn run(self, args: &PackagesArgs) -> Result<Done, Failure> {
        match self {
            Self::Contents => {
                pack::pack()?;
                pack::check()?;
                Ok(Done::Passed)
            }
            Self::Clients => {
                pack::pack()?;
                clients::run(&registry::make()?)?;
                Ok(Done::Passed)
            }
            Self::Oldest => oldest::run(args.bless),
            Self::Unused => tools::unused(),
            Self::Deny => tools::deny(),
            Self::Advisories => tools::advisories(),
            Self::Semver => tools::semver(),
            Self::Features => features::run(false),
            Self::MoreFeatures => features::run(true),
        }
    }
}

pub(crate) fn main(args: &PackagesArgs) -> Outcome {
    let mut failed = Vec::new();
    for &check in Check::value_variants() {
        if args.only.map_or(!args.all && !check.is_quick(), |only| only != check) {
            continue;
        }
        let name = format!("{check:?}").to_lowercase();
        let start = Instant::now();
        match check.run(args) {
            Ok(Done::Passed) => println!("{name}: ok, {}", time(start.elapsed())),
            Ok(Done::Skipped(why)) => println!("{name}: skipped, {why}"),
            Err(failure) => {
                if let Failure::Message(text) = failure {
                    eprintln!("{text}");
                }
                println!("{name}: FAILED");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("packages: {}", failed.join(", ")))) }
}
