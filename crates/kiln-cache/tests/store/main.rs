//! Tests of stores: they return what was stored, and nothing else.

mod basics;
mod common;
mod foreign;
mod disk;
mod hostile;
mod keys;
mod processes;
mod scale;
mod write_behind;
