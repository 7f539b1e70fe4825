//! The command line: its output, the files it writes, and its exit codes.
//!
//! The command is run as users run it, in a folder of its own. No command line here, however wrong,
//! may make it panic or leave a temporary file; [`support`] asserts this for all of them.

mod bad_image;
mod bad_input;
mod bench;
mod browser;
mod build;
mod cache;
mod call;
mod check;
mod convert;
mod cpus;
mod diff;
mod escape;
#[cfg(feature = "remote")]
mod farm;
mod installed;
mod layers;
mod output;
mod pages;
#[cfg(feature = "remote")]
mod remote;
mod run;
mod sign;
mod stdin;
mod support;
mod timeout;
mod timings;
mod wrong_file;
