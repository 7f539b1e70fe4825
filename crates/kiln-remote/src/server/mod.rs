//! Servers: what a store asks of one, whatever its protocol.
//!
//! `objects` speaks to stores of objects, `bazel` to caches of Bazel's remote APIs, `execute` to
//! machines that execute actions; `call` has what they have in common. Nothing here trusts a
//! server: what it sends is returned as bytes, at most as many as were asked for.

#[cfg(feature = "bazel")]
pub(crate) mod bazel;
mod call;
#[cfg(feature = "farm")]
mod execute;
#[cfg(feature = "objects")]
mod objects;

pub use self::call::ServerInfo;
pub(crate) use self::call::{CALL, Fault, transfer};
#[cfg(feature = "farm")]
pub(crate) use self::execute::Executed;
use crate::endpoint::{Endpoint, EndpointError, Secrets};
use crate::record::{Digest, Name};

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
        on!(self, server => server.store(contents).await.map(drop))
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

    /// Returns how many calls are made at once.
    pub(crate) fn at_once(&self) -> usize {
        on!(self, server => server.at_once())
    }

    /// Asks a server about itself, and whether this crate can use it.
    pub(crate) async fn info(&self) -> Result<ServerInfo, Fault> {
        on!(self, server => server.info().await)
    }
}
