//! `cache`: the contents of a folder of compiled code, whether they are intact, and why a build did
//! not use them.

mod event;
mod explain;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln::cache::{DiskStat, DiskStore};
use serde_json::json;

pub(crate) use self::event::describe;
use self::explain::explain;
use crate::input::{self, Level};
use crate::output::{Failure, Format, Outcome, bytes, chain, count, print_json, progress};

/// Inspect a folder in which `build --cache` keeps compiled code.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask cache stat kept
  cargo xtask cache verify kept
  cargo xtask cache gc kept --limit 100000000
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
    /// Count the entries and other files in the folder
    Stat {
        /// The folder
        #[arg(value_name = "DIR")]
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
        Command::Stat { folder } => stat(folder, args.format),
        Command::Verify { folder } => verify(folder, args.format),
        Command::Gc { folder, limit } => gc(folder, *limit, args.format),
        Command::Explain { old, new, target, opt_level, old_target, old_opt_level } => {
            let new_target = input::target(target.as_deref())?.opt_level((*opt_level).into());
            let before = input::target(old_target.as_deref().or(target.as_deref()))?
                .opt_level(old_opt_level.unwrap_or(*opt_level).into());
            explain((old, before), (new, new_target), args.format)
        }
    }
}

/// Opens the cache in `folder`, and counts its files. Creates nothing. Refuses a folder that has
/// files but none of a cache; an empty folder is accepted.
fn store(folder: &Path) -> Result<(DiskStore, DiskStat), Failure> {
    let shown = folder.display();
    check_folder(folder)?;
    if !folder.exists() {
        return Err(Failure::new(format!("there is no folder {shown}")));
    }
    let store = DiskStore::new(folder);
    let stat = store.stat().map_err(|error| cannot(folder, &error))?;
    let own = stat.entries + stat.last_builds + stat.quarantined + stat.leftovers;
    if own == 0 && stat.foreign > 0 {
        let files = count(stat.foreign as usize, "file");
        return Err(Failure::new(format!("{shown} is not a cache: it has {files}, none of them of a cache")));
    }
    Ok((store, stat))
}

/// Refuses a path that exists and is not a folder.
pub(crate) fn check_folder(path: &Path) -> Outcome {
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => {
            Err(Failure::new(format!("{} is not a folder; a cache is a folder", path.display())))
        }
        // A build creates a folder that does not exist.
        _ => Ok(()),
    }
}

fn cannot(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::while_doing(format!("cache {}", folder.display()), error)
}

/// Prints how many files in the folder do not belong to the cache.
fn print_foreign(number: u64) {
    if number > 0 {
        println!("{} not of the cache, left alone", count(number as usize, "file"));
    }
}

fn entries(number: u64) -> String {
    if number == 1 { "1 entry".into() } else { format!("{number} entries") }
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
