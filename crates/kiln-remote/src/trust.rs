//! Signatures: who may put entries into a cache that others use.

use kiln_keys::{PublicKey, Signer};

/// Rules for what a store takes from a server, and for what it writes there.
#[derive(Debug, Default)]
pub struct Policy {
    /// The keys whose signatures are accepted: an entry that none of them signed is not used, and
    /// that is reported. `None` accepts every entry.
    pub accepted: Option<Vec<PublicKey>>,
    /// Signs what is written.
    pub signer: Option<Signer>,
    /// Whether anything is written.
    pub write: bool,
}
