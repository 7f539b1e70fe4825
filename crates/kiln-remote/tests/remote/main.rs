//! Archives, and stores on servers.

#[cfg(feature = "archive")]
mod archive;
#[path = "../../../kiln-cache/tests/store/common.rs"]
mod common;
mod list;
