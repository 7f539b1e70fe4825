//! Servers that machines share: their addresses, the keys of signatures, and whole transfers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln::cache::{DiskStore, Event};
use kiln_remote::{
    Endpoint, Policy, PublicKey, RemoteOptions, RemoteStore, Signer, TransferReport, pull, push, server_info,
};
use serde_json::{Value, json};

use super::archive::read_list;
use super::event::describe;
use super::folder::{check_folder, entries};
use crate::output::{Failure, Format, Outcome, bytes, print_json};

/// The variable that names the file of the secret key.
const SECRET_KEY: &str = "KILN_REMOTE_SIGN";
/// The variable that names the file of accepted keys.
const ACCEPTED: &str = "KILN_REMOTE_ACCEPT";

/// Reads the address of a server.
pub(crate) fn endpoint(url: &str) -> Result<Endpoint, Failure> {
    // The address is not repeated: it may have a password.
    Endpoint::parse(url).map_err(|error| Failure::while_doing("cannot use the server", error))
}

/// Returns the rules that the variables for keys say.
pub(crate) fn policy(write: bool) -> Result<Policy, Failure> {
    let file = |name: &str| -> Result<Option<(String, String)>, Failure> {
        let Some(path) = std::env::var(name).ok().filter(|path| !path.is_empty()) else { return Ok(None) };
        let cannot = || format!("cannot read {path}, which {name} names");
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::while_doing(cannot(), error))?;
        Ok(Some((path, text)))
    };
    let parse = |path: &str, error| Failure::while_doing(format!("cannot read the keys in {path}"), error);
    let signer =
        file(SECRET_KEY)?.map(|(path, text)| Signer::parse(&text).map_err(|error| parse(&path, error)));
    let accepted =
        file(ACCEPTED)?.map(|(path, text)| PublicKey::parse_list(&text).map_err(|error| parse(&path, error)));
    Ok(Policy { accepted: accepted.transpose()?, signer: signer.transpose()?, write })
}

/// Opens a store for a whole transfer, which may take its time.
fn open(url: &str, write: bool) -> Result<RemoteStore, Failure> {
    let told = |event: &Event<'_>| eprintln!("cache: {}", describe(event));
    let options = RemoteOptions {
        policy: policy(write)?,
        events: Some(Arc::new(told)),
        patience: Duration::from_secs(60),
        ..RemoteOptions::default()
    };
    let endpoint = endpoint(url)?;
    let opened = RemoteStore::open(&endpoint, options);
    opened.map_err(|error| Failure::while_doing(format!("cannot use {endpoint}"), error))
}

pub(super) fn stat(url: &str, format: Format) -> Outcome {
    let endpoint = endpoint(url)?;
    let info = server_info(&endpoint);
    let info = info.map_err(|error| Failure::while_doing(format!("cannot ask {endpoint}"), error))?;
    match format {
        Format::Json => {
            let properties = info.properties.into_iter().map(|(name, value)| (name.into(), value.into()));
            print_json(&Value::Object(properties.collect()));
        }
        Format::Text => info.properties.iter().for_each(|(name, value)| println!("{name:<12} {value}")),
    }
    Ok(())
}

fn print(report: &TransferReport, verb: &str, format: Format) -> Outcome {
    let TransferReport { entries: number, bytes: content, sources, skipped, missing, failed, .. } = *report;
    match format {
        Format::Json => print_json(&json!({
            "entries": number, "bytes": content, "sources": sources, "skipped": skipped, "missing": missing,
            "failed": failed,
        })),
        Format::Text => {
            println!(
                "{} ({}) {verb}, {skipped} there already, {missing} not found, {failed} failed",
                entries(number),
                bytes(content)
            );
        }
    }
    if failed > 0 { Err(Failure::Reported) } else { Ok(()) }
}

pub(super) fn push_folder(store: &DiskStore, url: &str, list: Option<&Path>, format: Format) -> Outcome {
    let list = list.map(read_list).transpose()?;
    let remote = open(url, true)?;
    let report = push(store, list.as_ref(), &remote);
    let report = report.map_err(|error| Failure::while_doing("cannot send the cache", error))?;
    print(&report, "sent", format)
}

pub(super) fn pull_list(folder: &Path, url: &str, list: &Path, format: Format) -> Outcome {
    check_folder(folder)?;
    let list = read_list(list)?;
    let remote = open(url, false)?;
    let report = pull(&remote, &list, &DiskStore::new(folder));
    let report = report.map_err(|error| Failure::while_doing("cannot store what was received", error))?;
    print(&report, "received", format)
}
