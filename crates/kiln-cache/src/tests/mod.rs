//! Tests that need private parts: file systems that fail, and processes that die at any operation.

#[path = "../../tests/store/common.rs"]
mod common;
mod faults;
mod model;
mod shim;
