//! Work of people and of CI: everything of a list to a server, or from it.

use std::io;
use std::time::Duration;

use kiln_cache::{DiskStore, Key, Lineage, Lookup, Store};

use crate::List;
use crate::endpoint::{Endpoint, EndpointError};
use crate::server::{CALL, Server, ServerInfo};
use crate::store::{RemoteStore, runtime};

/// The number of keys that are announced at once.
const AT_ONCE: usize = 1000;
/// The longest time without any progress.
const STALLED: Duration = Duration::from_secs(30);

/// The numbers of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferReport {
    /// Entries that were transferred.
    pub entries: u64,
    /// Sum of their lengths.
    pub bytes: u64,
    /// Sources whose key was transferred.
    pub sources: u64,
    /// Entries that were at their destination before.
    pub skipped: u64,
    /// Entries that are not where they should come from, or cannot be used.
    pub missing: u64,
    /// Entries that could not be stored.
    pub failed: u64,
}

/// A server could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The server did not answer, or is of no use.
    #[error("{0}")]
    Fault(String),
}

/// Asks a server about itself. Waits at most 10 seconds.
///
/// # Errors
///
/// [`ServerError`].
pub fn server_info(endpoint: &Endpoint) -> Result<ServerInfo, ServerError> {
    let runtime = runtime()?;
    let asked = runtime.block_on(async {
        let server = Server::new(endpoint, &endpoint.secrets())?;
        match tokio::time::timeout(CALL * 3, server.info()).await {
            Ok(info) => info.map_err(|fault| ServerError::Fault(fault.reason)),
            Err(_) => Err(ServerError::Fault("no answer".into())),
        }
    });
    runtime.shutdown_background();
    asked
}

/// Sends the entries and sources of `list` that `folder` has to a server; without a list, all of
/// them. Waits until they are sent.
///
/// # Errors
///
/// If the server takes nothing for 30 seconds. What it does not take otherwise is reported to the
/// events of `remote`, and counted.
pub fn push(folder: &DiskStore, list: Option<&List>, remote: &RemoteStore) -> io::Result<TransferReport> {
    let keys: Vec<Key> = match list {
        Some(list) => list.keys.iter().copied().collect(),
        None => folder.entries().map(|entry| entry.key).collect(),
    };
    let sources: Vec<(Lineage, Key)> = match list {
        Some(list) => {
            let known = list.lineages.iter().filter_map(|of| Some((*of, folder.latest(of)?)));
            known.filter(|(lineage, _)| lineage.is_of_source()).collect()
        }
        None => folder.last_builds().filter(|(lineage, _)| lineage.is_of_source()).collect(),
    };
    let mut report = TransferReport::default();
    for key in &keys {
        let Lookup::Hit(entry, _) = folder.get(key) else {
            report.missing += 1;
            continue;
        };
        // More than this would not be taken, because too much is waiting.
        if remote.unsent_bytes() + entry.file_len() > remote.room() {
            drain(remote)?;
        }
        remote.put(key, &entry)?;
    }
    drain(remote)?;
    for (lineage, key) in &sources {
        remote.set_latest(lineage, key)?;
        report.sources += 1;
    }
    drain(remote)?;
    let traffic = remote.traffic();
    (report.entries, report.bytes, report.failed) = (traffic.sent, traffic.sent_bytes, traffic.unsent);
    Ok(report)
}

/// Waits until everything is sent, as long as there is progress.
fn drain(remote: &RemoteStore) -> io::Result<()> {
    let mut before = remote.unsent_bytes();
    while !remote.flush(STALLED) {
        let now = remote.unsent_bytes();
        if now == before {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the server takes nothing"));
        }
        before = now;
    }
    Ok(())
}

/// Fetches the entries and sources of `list` from a server, and stores those that `folder` does not
/// have.
///
/// # Errors
///
/// If the folder does not take an entry. What the server does not have is counted.
pub fn pull(remote: &RemoteStore, list: &List, folder: &DiskStore) -> io::Result<TransferReport> {
    let mut report = TransferReport::default();
    let keys: Vec<Key> = list.keys.iter().filter(|key| !folder.has(key)).copied().collect();
    report.skipped = (list.keys.len() - keys.len()) as u64;
    for keys in keys.chunks(AT_ONCE) {
        remote.announce(&[], keys);
        for key in keys {
            match remote.get(key) {
                Lookup::Hit(entry, _) => {
                    report.entries += 1;
                    report.bytes += entry.file_len();
                    folder.put(key, &entry)?;
                }
                Lookup::Miss | Lookup::Corrupt(_) => report.missing += 1,
            }
        }
    }
    let sources = list.lineages.iter().filter(|lineage| lineage.is_of_source());
    let sources: Vec<Lineage> = sources.filter(|lineage| folder.latest(lineage).is_none()).copied().collect();
    remote.announce(&sources, &[]);
    for lineage in &sources {
        if let Some(key) = remote.latest(lineage).filter(|key| folder.has(key)) {
            folder.set_latest(lineage, &key)?;
            report.sources += 1;
        }
    }
    Ok(report)
}
