//! Caches of compiled code that machines share.
//!
//! - A [`List`] names the entries that a build used; [`Listed`] makes it.
#![cfg_attr(
    feature = "archive",
    doc = "- [`archive`] takes entries to other machines in one compressed file."
)]
//!
//! # Should I use this crate?
//!
//! Yes, if code that one machine compiled is to be found by another. A cache on one machine needs
//! only [`kiln_cache`]. Nothing else of Kiln depends on this crate.
//!
//! # Architecture invariants
//!
//! Every byte from elsewhere is checked before it is used, and no failure of a server makes a build
//! fail.

#![forbid(unsafe_code)]

#[cfg(feature = "archive")]
pub mod archive;
mod list;

pub use list::{List, Listed, ParseListError};
