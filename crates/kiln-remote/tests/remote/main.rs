//! Archives, and stores on servers.

#[cfg(feature = "archive")]
mod archive;
#[cfg(feature = "bazel")]
mod bazel;
#[path = "../../../kiln-cache/tests/store/common.rs"]
mod common;
mod list;
#[cfg(feature = "server")]
mod proxy;
#[cfg(feature = "server")]
mod scenario;
#[cfg(feature = "bazel")]
mod server;
#[cfg(feature = "server")]
mod servers;
