//! `cache export` and `cache import`: entries in one compressed file.

use std::fs::File;
use std::path::Path;

use kiln::cache::DiskStore;
use kiln_remote::List;
use kiln_remote::archive::{self, ArchiveReport};
use serde_json::json;

use super::folder::{check_folder, entries};
use crate::output::{Failure, Format, Outcome, bytes, count, print_json};

/// Reads a list that `build --cache-list` wrote.
pub(super) fn read_list(path: &Path) -> Result<List, Failure> {
    let cannot = || format!("cannot read the list {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| Failure::while_doing(cannot(), error))?;
    text.parse::<List>().map_err(|error| Failure::while_doing(cannot(), error))
}

pub(super) fn export(store: &DiskStore, file: &Path, list: Option<&Path>, format: Format) -> Outcome {
    let cannot = || format!("cannot write {}", file.display());
    let list = list.map(read_list).transpose()?;
    let mut out = Vec::new();
    let report = archive::export(store, list.as_ref(), &mut out)
        .map_err(|error| Failure::while_doing(cannot(), error))?;
    kiln::image::save(file, &out).map_err(|error| Failure::while_doing(cannot(), error))?;
    let written = out.len() as u64;
    match format {
        Format::Json => print(&report, json!({ "file_bytes": written })),
        Format::Text => {
            let last_builds = count(report.last_builds as usize, "last build");
            let (number, content) = (entries(report.entries), bytes(report.bytes));
            println!(
                "{number} ({content}) and {last_builds} written to {}, {}",
                file.display(),
                bytes(written)
            );
            if report.skipped > 0 {
                println!("{} of the list not in the cache", entries(report.skipped));
            }
        }
    }
    Ok(())
}

pub(super) fn import(folder: &Path, file: &Path, format: Format) -> Outcome {
    check_folder(folder)?;
    let cannot = || format!("cannot import {}", file.display());
    let opened = File::open(file).map_err(|error| Failure::while_doing(cannot(), error))?;
    let report = archive::import(&DiskStore::new(folder), opened)
        .map_err(|error| Failure::while_doing(cannot(), error))?;
    match format {
        Format::Json => print(&report, json!({})),
        Format::Text => println!(
            "{} ({}) and {} read, {} there already",
            entries(report.entries),
            bytes(report.bytes),
            count(report.last_builds as usize, "last build"),
            report.skipped
        ),
    }
    Ok(())
}

fn print(report: &ArchiveReport, mut more: serde_json::Value) {
    more["entries"] = report.entries.into();
    more["bytes"] = report.bytes.into();
    more["last_builds"] = report.last_builds.into();
    more["skipped"] = report.skipped.into();
    print_json(&more);
}
