//! `cache`: the contents of a folder of compiled code, whether they are intact, and why a build did
//! not use them; and the way of entries to other machines.

mod archive;
mod event;
mod explain;
mod folder;
#[cfg(not(feature = "remote"))]
mod no_remote;
#[cfg(feature = "remote")]
mod remote;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

pub(crate) use self::event::describe;
use self::explain::explain;
pub(crate) use self::folder::check_folder;
use self::folder::{cannot, entries, store};
#[cfg(not(feature = "remote"))]
use self::no_remote as remote;
#[cfg(not(feature = "remote"))]
pub(crate) use self::no_remote::without_servers;
#[cfg(feature = "remote")]
pub(crate) use self::remote::{endpoint, policy};
use crate::input::{self, Globals, Level};
use crate::output::{Failure, Format, Outcome, bytes, chain, count, print_json, progress};

/// Inspect a folder in which `build --cache` keeps compiled code.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask cache stat kept
  cargo xtask cache verify kept
  cargo xtask cache gc kept --limit 100000000
  cargo xtask cache export kept cache.kiln --list used.txt
  cargo xtask cache import kept cache.kiln
  cargo xtask-remote cache stat grpc://cache:8980/main
  cargo xtask-remote cache push kept s3://bucket/path
  cargo xtask cache explain old/main.clif main.clif")]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    command: Command,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Count the entries and other files in the folder, or ask a server about itself
    Stat {
        /// The folder, or the address of a server
        #[arg(value_name = "DIR|URL")]
        folder: PathBuf,
    },
    /// Read every entry and check every byte of it; broken entries are moved aside
    Verify {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Remove the entries that were not used for longest, until the others fit
    Gc {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// How many bytes of entries may stay
        #[arg(long, value_name = "BYTES")]
        limit: u64,
    },
    /// Write entries of the folder to one compressed file
    ///
    /// Equal entries give an equal file. A cache of CI, or a container, takes it to other machines.
    Export {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The file to write; it is written completely or not at all
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Write only what a build used, which `build --cache-list` listed [default: everything]
        #[arg(long, value_name = "FILE")]
        list: Option<PathBuf>,
    },
    /// Add the entries of a file, which `export` wrote, to the folder
    ///
    /// Every entry is checked. Other processes may use the folder at the same time. A checksum does
    /// not say who made a file: import only files from those whose code you would run.
    Import {
        /// The folder, which is created if there is none
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Send entries of the folder to a server that machines share
    Push {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The server, as in `build --remote`
        #[arg(value_name = "URL")]
        url: String,
        /// Send only what a build used, which `build --cache-list` listed [default: everything]
        #[arg(long, value_name = "FILE")]
        list: Option<PathBuf>,
    },
    /// Fetch the entries of a list from a server into the folder
    Pull {
        /// The server, as in `build --remote`
        #[arg(value_name = "URL")]
        url: String,
        /// The folder, which is created if there is none
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The list, which `build --cache-list` wrote
        #[arg(long, value_name = "FILE")]
        list: PathBuf,
    },
    /// Make a key that signs entries: write the secret key to a file, and print the public one
    ///
    /// The variable KILN_REMOTE_SIGN names the file of the secret key, KILN_REMOTE_ACCEPT a file of
    /// accepted public keys.
    Keygen {
        /// The new file of the secret key
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the differences between two states of a module that a cache sees, and the functions
    /// that a build would compile
    Explain {
        /// The module as it was built before
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The module as it is now
        #[arg(value_name = "NEW")]
        new: PathBuf,
        /// Architecture or triple of the new build [default: this machine]
        #[arg(long, value_name = "T")]
        target: Option<String>,
        /// How much the new build optimizes
        #[arg(long, value_enum, default_value_t = Level::Speed, value_name = "LEVEL")]
        opt_level: Level,
        /// How the new build reaches globals
        #[arg(long, value_enum, default_value_t = Globals::Slots, value_name = "HOW")]
        globals: Globals,
        /// How the old build reached globals [default: like the new build]
        #[arg(long, value_enum, value_name = "HOW")]
        old_globals: Option<Globals>,
        /// Architecture or triple of the old build [default: like the new build]
        #[arg(long, value_name = "T")]
        old_target: Option<String>,
        /// How much the old build optimized [default: like the new build]
        #[arg(long, value_enum, value_name = "LEVEL")]
        old_opt_level: Option<Level>,
    },
}

pub(crate) fn main(args: &CacheArgs) -> Outcome {
    match &args.command {
        Command::Stat { folder } => match folder.to_str().filter(|text| text.contains("://")) {
            Some(url) => remote::stat(url, args.format),
            None => stat(folder, args.format),
        },
        Command::Verify { folder } => verify(folder, args.format),
        Command::Gc { folder, limit } => gc(folder, *limit, args.format),
        Command::Export { folder, file, list } => {
            archive::export(&store(folder)?.0, file, list.as_deref(), args.format)
        }
        Command::Import { folder, file } => archive::import(folder, file, args.format),
        Command::Push { folder, url, list } => {
            remote::push_folder(&store(folder)?.0, url, list.as_deref(), args.format)
        }
        Command::Pull { url, folder, list } => remote::pull_list(folder, url, list, args.format),
        Command::Keygen { file } => crate::sign::new_key(file),
        Command::Explain { old, new, target, opt_level, globals, old_globals, old_target, old_opt_level } => {
            let new_target = input::target(target.as_deref())?;
            let new_target = new_target.opt_level((*opt_level).into()).globals((*globals).into());
            let before = input::target(old_target.as_deref().or(target.as_deref()))?
                .opt_level(old_opt_level.unwrap_or(*opt_level).into())
                .globals(old_globals.unwrap_or(*globals).into());
            explain((old, before), (new, new_target), args.format)
        }
    }
}

/// Prints how many files in the folder do not belong to the cache.
fn print_foreign(number: u64) {
    if number > 0 {
        println!("{} not of the cache, left alone", count(number as usize, "file"));
    }
}

fn age(time: Option<SystemTime>) -> String {
    let age = time.and_then(|time| time.elapsed().ok()).map_or(0, |age| age.as_secs());
    match age {
        0..120 => format!("{age} s ago"),
        120..7200 => format!("{} min ago", age / 60),
        7200..172_800 => format!("{} h ago", age / 3600),
        _ => format!("{} days ago", age / 86_400),
    }
}

fn stat(folder: &Path, format: Format) -> Outcome {
    let (_, stat) = store(folder)?;
    match format {
        Format::Json => print_json(&json!({
            "entries": stat.entries, "bytes": stat.bytes, "disk_bytes": stat.disk_bytes, "last_builds": stat.last_builds,
            "quarantined": stat.quarantined, "leftovers": stat.leftovers, "foreign": stat.foreign,
        })),
        Format::Text => {
            println!("entries      {} ({} on disk)", stat.entries, bytes(stat.disk_bytes));
            println!("last builds  {}", stat.last_builds);
            if stat.entries > 0 {
                println!("last used    {} to {}", age(stat.oldest), age(stat.newest));
            }
            println!("moved aside  {}", stat.quarantined);
            println!("leftovers    {}", stat.leftovers);
            println!("other files  {}", stat.foreign);
        }
    }
    Ok(())
}

fn verify(folder: &Path, format: Format) -> Outcome {
    let (store, _) = store(folder)?;
    let bar = progress("checking", 0);
    let report = store.verify(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.map_err(|error| cannot(folder, &error))?;
    let broken = report.broken.iter().map(|(key, reason)| (key.to_string(), chain(reason)));
    let unreadable = report.unreadable.iter().map(|(key, error)| (key.to_string(), chain(error)));
    let faults: Vec<(String, String)> = broken.chain(unreadable).collect();
    match format {
        Format::Json => print_json(&json!({
            "checked": report.checked, "bytes": report.bytes, "foreign": report.foreign,
            "faults": faults.iter().map(|(key, reason)| json!({ "key": key, "reason": reason })).collect::<Vec<_>>(),
        })),
        Format::Text => {
            for (key, reason) in &faults {
                println!("{key}: {reason}");
            }
            println!(
                "{} checked ({}), {} broken",
                entries(report.checked),
                bytes(report.bytes),
                faults.len()
            );
            print_foreign(report.foreign);
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Reported) }
}

fn gc(folder: &Path, limit: u64, format: Format) -> Outcome {
    let report = store(folder)?.0.gc(limit).map_err(|error| cannot(folder, &error))?;
    match format {
        Format::Json => print_json(&json!({
            "removed": report.removed, "removed_bytes": report.removed_bytes, "kept": report.kept,
            "kept_bytes": report.kept_bytes, "leftovers": report.leftovers, "failed": report.failed,
            "foreign": report.foreign,
        })),
        Format::Text => {
            println!(
                "{} removed ({}), {} kept ({})",
                entries(report.removed),
                bytes(report.removed_bytes),
                entries(report.kept),
                bytes(report.kept_bytes)
            );
            print_foreign(report.foreign);
        }
    }
    Ok(())
}
