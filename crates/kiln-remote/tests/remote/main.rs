//! Archives, and with the feature `test-servers` stores on servers.

#[cfg(feature = "archive")]
mod archive;
#[cfg(feature = "test-servers")]
mod bazel;
#[path = "../../../kiln-cache/tests/store/common.rs"]
mod common;
#[cfg(feature = "test-servers")]
mod execute;
#[cfg(feature = "test-servers")]
mod farm;
#[cfg(feature = "test-servers")]
mod http;
mod list;
#[cfg(feature = "test-servers")]
mod objects;
#[cfg(feature = "test-servers")]
mod proxy;
#[cfg(feature = "test-servers")]
mod scenario;
#[cfg(feature = "test-servers")]
mod server;
#[cfg(feature = "test-servers")]
mod servers;
