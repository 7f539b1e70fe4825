//! Servers: what a store asks of one, whatever its protocol.
//!
//! `objects` speaks to stores of objects, `bazel` to caches of Bazel's remote APIs. Nothing here
//! trusts a server: what it sends is returned as bytes, at most as many as were asked for.

#[cfg(feature = "bazel")]
mod bazel;
#[cfg(feature = "objects")]
mod objects;

use std::time::Duration;

use crate::endpoint::{Endpoint, EndpointError, Secrets};
use crate::record::{Digest, Name};

/// The longest time for one small call.
pub(crate) const CALL: Duration = Duration::from_secs(3);
/// The number of calls at once.
pub(crate) const AT_ONCE: usize = 64;

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
    /// The reason, without secrets.
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn temporary(reason: impl Into<String>) -> Self {
        Self { temporary: true, reason: reason.into() }
    }

    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self { temporary: false, reason: reason.into() }
    }
}

/// The numbers of a server that it tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Properties by name, in an order that is always the same.
    pub properties: Vec<(&'static str, String)>,
}

/// A server of one of the protocols.
#[derive(Debug)]
pub(crate) enum Server {
    #[cfg(feature = "objects")]
    Objects(objects::Objects),
    #[cfg(feature = "bazel")]
    Bazel(bazel::Bazel),
}

/// Calls a method of whichever server it is.
macro_rules! on {
    ($server:expr, $own:ident => $call:expr) => {
        match $server {
            #[cfg(feature = "objects")]
            Server::Objects($own) => $call,
            #[cfg(feature = "bazel")]
            Server::Bazel($own) => $call,
            #[cfg(not(any(feature = "objects", feature = "bazel")))]
            _ => unreachable!("no protocol is compiled in"),
        }
    };
}

impl Server {
    /// Prepares to speak to a server. Does not connect yet. Must be called on a thread of the
    /// run-time.
    pub(crate) fn new(endpoint: &Endpoint, secrets: &Secrets) -> Result<Self, EndpointError> {
        match endpoint.scheme() {
            #[cfg(feature = "bazel")]
            "grpc" | "grpcs" => Ok(Self::Bazel(bazel::Bazel::new(endpoint, secrets)?)),
            #[cfg(feature = "objects")]
            _ => Ok(Self::Objects(objects::Objects::new(endpoint, secrets)?)),
            #[cfg(not(feature = "objects"))]
            scheme => {
                let _ = secrets;
                Err(EndpointError::Scheme(scheme.into()))
            }
        }
    }

    /// Returns the bytes of a record; `None` if there is none.
    pub(crate) async fn record(&self, name: &Name) -> Result<Option<Vec<u8>>, Fault> {
        on!(self, server => server.record(name).await)
    }

    /// Returns contents, in the order of `digests`: `None` for each that is not there. Nothing is
    /// checked but lengths.
    pub(crate) async fn contents(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        on!(self, server => server.contents(digests).await)
    }

    /// Stores contents.
    pub(crate) async fn store(&self, contents: &[(Digest, Vec<u8>)]) -> Result<(), Fault> {
        on!(self, server => server.store(contents).await)
    }

    /// Stores a record, whose content was stored before.
    pub(crate) async fn set_record(
        &self,
        name: &Name,
        record: Vec<u8>,
        digest: &Digest,
    ) -> Result<(), Fault> {
        on!(self, server => server.set_record(name, record, digest).await)
    }

    /// Returns whether a server of this protocol is usually asked about itself first.
    pub(crate) fn introduces_itself(&self) -> bool {
        match self {
            #[cfg(feature = "bazel")]
            Self::Bazel(_) => true,
            _ => false,
        }
    }

    /// Returns how many bytes of contents one call takes.
    pub(crate) fn batch(&self) -> u64 {
        on!(self, server => server.batch())
    }

    /// Asks a server about itself, and whether this crate can use it.
    pub(crate) async fn info(&self) -> Result<ServerInfo, Fault> {
        on!(self, server => server.info().await)
    }
}
