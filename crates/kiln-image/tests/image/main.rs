//! Images, from artifacts assembled by hand to calls in this process, with independent readers as oracles.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod elf;
mod hostile;
mod link;
mod run;
mod sections;
mod support;
