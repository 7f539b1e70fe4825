//! Stores of objects: S3, Redis, folders, WebDAV and others that OpenDAL knows.
//!
//! A record is the object `kiln-1/key/ab/..` or `kiln-1/source/ab/..`, a content the object
//! `kiln-1/content/ab/..`, named by two and all digits of its name. A content is written before the
//! records that lead to it.

#[cfg(feature = "operators")]
mod operator;
#[cfg(feature = "redis")]
mod redis;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::call::{CONNECTIONS, Fault, ServerInfo};
use crate::endpoint::{Endpoint, EndpointError, Secrets};
use crate::record::{Digest, Name};

/// The most bytes that are read of a record.
const RECORD: u64 = 4096;

/// A store of objects of one of the kinds.
#[derive(Debug)]
pub(crate) enum Objects {
    #[cfg(feature = "operators")]
    Operator(operator::Objects),
    #[cfg(feature = "redis")]
    Redis(redis::Redis),
}

impl Objects {
    pub(crate) fn new(endpoint: &Endpoint, secrets: &Secrets) -> Result<Self, EndpointError> {
        match endpoint.scheme() {
            #[cfg(feature = "redis")]
            "redis" | "rediss" => Ok(Self::Redis(redis::Redis::new(endpoint, secrets)?)),
            #[cfg(feature = "operators")]
            _ => Ok(Self::Operator(operator::Objects::new(endpoint, secrets)?)),
            #[cfg(not(feature = "operators"))]
            scheme => Err(EndpointError::Scheme(scheme.into())),
        }
    }

    fn scheme(&self) -> &'static str {
        match self {
            #[cfg(feature = "operators")]
            Self::Operator(store) => store.scheme(),
            #[cfg(feature = "redis")]
            Self::Redis(_) => "redis",
        }
    }

    /// Reads an object, but no more than `limit` bytes of it, whatever the server sends. A longer
    /// object is no object of ours.
    async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Fault> {
        match self {
            #[cfg(feature = "operators")]
            Self::Operator(store) => store.read(path, limit).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.read(path, limit).await,
        }
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Fault> {
        match self {
            #[cfg(feature = "operators")]
            Self::Operator(store) => store.write(path, bytes).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.write(path, bytes).await,
        }
    }

    pub(crate) async fn record(&self, name: &Name) -> Result<Option<Vec<u8>>, Fault> {
        self.read(&record_path(name), RECORD).await
    }

    pub(crate) async fn contents(&self, digests: &[Digest]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let reads = digests.iter().map(|digest| {
            let path = content_path(digest);
            async move { self.read(&path, digest.len).await }
        });
        stream::iter(reads).buffered(CONNECTIONS).try_collect().await
    }

    pub(crate) async fn store(&self, contents: &[(Digest, Vec<u8>)]) -> Result<(), Fault> {
        let writes = contents.iter().map(|(digest, bytes)| {
            let path = content_path(digest);
            async move { self.write(&path, bytes).await }
        });
        stream::iter(writes).buffer_unordered(CONNECTIONS).try_collect().await
    }

    pub(crate) async fn set_record(&self, name: &Name, record: Vec<u8>, _: &Digest) -> Result<(), Fault> {
        self.write(&record_path(name), &record).await
    }

    pub(crate) fn batch(&self) -> u64 {
        1 << 20
    }

    pub(crate) fn at_once(&self) -> usize {
        CONNECTIONS
    }

    pub(crate) async fn info(&self) -> Result<ServerInfo, Fault> {
        // Reading what is not there shows whether the server is, and takes the credentials.
        self.read("kiln-1/about", RECORD).await?;
        Ok(ServerInfo { properties: vec![("protocol", self.scheme().into())] })
    }
}

/// Returns the path of an object: the digits of a name, in folders of their first two.
fn path(kind: &str, digits: &str) -> String {
    format!("kiln-1/{kind}/{}/{digits}", &digits[..2])
}

fn record_path(name: &Name) -> String {
    match name {
        Name::Key(key) => path("key", &key.to_string()),
        Name::Source(lineage) => path("source", &lineage.to_string()),
    }
}

fn content_path(digest: &Digest) -> String {
    path("content", &digest.hex())
}
