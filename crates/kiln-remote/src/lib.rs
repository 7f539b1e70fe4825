//! Caches of compiled code that machines share.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! - `RemoteStore` is a [`Store`](kiln_cache::Store) on a server: a store of objects (S3, Redis,
//!   folders, WebDAV, Google and Azure), or a cache of Bazel's remote APIs. Each is a feature.
//! - `Endpoint` is the address of a server, `Policy` says whose entries are accepted.
//! - `push` and `pull` transfer a whole [`List`] of entries, which [`Listed`] made.
//! - The module `archive` takes entries to other machines in one compressed file.
//!
//! # Trust
//!
//! An entry has two names: a key leads to a hash, and the hash to the bytes. So this is what a
//! server, or whoever is between, can do:
//!
//! | a server | without signatures | with a list of accepted keys |
//! |---|---|---|
//! | sends damaged, altered or swapped bytes | a miss: the hash differs | the same |
//! | sends another key's entry | a miss: the key is the hash of the entry's recipe | the same |
//! | sends an entry that does harm | **its code runs** | a miss: nobody signed it |
//! | says that a source has another key | **other code runs** | a miss: nobody signed it |
//! | sends what it sent before | the same code: nothing ever changes | the same |
//! | denies that it has an entry | it is compiled | the same |
//! | sends very much, or slowly | the build goes on without it: `RemoteOptions` | the same |
//! | learns what is asked | hashes of IR and settings, and entries that are sent | the same |
//!
//! A signature says that somebody who has the secret key sent an entry, not that it is right: keep
//! the secret key where builds are trusted, such as CI for the main branch, and let others read.
//! Anyone who can write to an unsigned cache chooses the code that runs.
//!
//! # Architecture invariants
//!
//! Every byte from elsewhere is checked before it is used, and no failure of a server makes a build
//! fail. A build takes at most `RemoteOptions::patience` and `RemoteOptions::drop_wait` longer
//! than without a server, whatever the server does. One thread speaks to the server. No secret is
//! in a message.

#![forbid(unsafe_code)]

#[cfg(feature = "archive")]
pub mod archive;
#[cfg(feature = "server")]
mod bits;
#[cfg(feature = "server")]
mod breaker;
#[cfg(feature = "server")]
mod endpoint;
#[cfg(feature = "farm")]
mod farm;
mod list;
#[cfg(feature = "server")]
mod patience;
#[cfg(feature = "server")]
mod record;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod state;
#[cfg(feature = "server")]
mod store;
#[cfg(feature = "server")]
mod thread;
#[cfg(any(feature = "http", feature = "redis"))]
mod tls;
#[cfg(feature = "server")]
mod transfer;
#[cfg(feature = "server")]
mod trust;

#[cfg(feature = "server")]
pub use endpoint::{Endpoint, EndpointError};
#[cfg(feature = "farm")]
pub use farm::{FarmOptions, FarmTraffic, RemoteFarm};
#[cfg(feature = "server")]
pub use kiln_keys::{ParseKeyFileError, PublicKey, Signer};
pub use list::{List, Listed, ParseListError};
#[cfg(feature = "server")]
pub use server::ServerInfo;
#[cfg(feature = "server")]
pub use state::Traffic;
#[cfg(feature = "server")]
pub use store::{RemoteOptions, RemoteStore};
#[cfg(feature = "server")]
pub use transfer::{ServerError, TransferReport, pull, push, server_info};
#[cfg(feature = "server")]
pub use trust::Policy;
