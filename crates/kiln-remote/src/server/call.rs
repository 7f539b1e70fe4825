//! Limits of calls, and how they fail.

use std::time::Duration;

/// The longest time for one small call.
pub(crate) const CALL: Duration = Duration::from_secs(3);
/// The number of connections at once, of protocols with a connection for each call.
pub(crate) const CONNECTIONS: usize = 64;

/// Returns the longest time for a call that transfers this many bytes: a line of 64 kB/s is too
/// slow to be of use.
pub(crate) fn transfer(bytes: u64) -> Duration {
    CALL + Duration::from_secs_f64(bytes as f64 / 64e3)
}

/// A call failed.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Whether it may succeed if it is made again.
    pub(crate) temporary: bool,
    /// Whether the server has as much to do, or to keep, as it can.
    pub(crate) is_full: bool,
    /// The reason, without secrets.
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn temporary(reason: impl Into<String>) -> Self {
        Self { temporary: true, is_full: false, reason: reason.into() }
    }

    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self { temporary: false, is_full: false, reason: reason.into() }
    }
}

/// The numbers of a server that it tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Properties by name, in an order that is always the same.
    pub properties: Vec<(&'static str, String)>,
}
