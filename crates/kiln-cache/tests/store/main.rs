//! Tests of stores: they return what was stored, and nothing else.

mod basics;
mod claims;
mod common;
mod disk;
mod foreign;
mod hostile;
mod keys;
mod processes;
mod scale;
mod write_behind;
