//! Images from artifacts that are assembled by hand: what other readers find in them, and calls in
//! this process.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod code;
mod direct;
mod elf;
mod files;
mod hostile;
mod lean;
mod levels;
mod link;
mod load;
#[path = "../common/note_sum.rs"]
mod note_sum;
mod object;
mod options;
mod replaceable;
mod run;
mod sections;
#[cfg(feature = "sign")]
mod signed;
mod support;
mod tools;
