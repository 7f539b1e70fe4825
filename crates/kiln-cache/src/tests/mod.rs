//! Placeholder.
#[path = "../../tests/store/common.rs"]
mod common;
