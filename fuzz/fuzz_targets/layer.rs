//! Fuzz target: layers and their bases. Its body, with the properties that it checks, is in
//! `kiln_oracle::fuzz`.

#![no_main]

use kiln_oracle::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fuzz::let_cranelift_panic(), |bytes: &[u8]| fuzz::layer(bytes));
