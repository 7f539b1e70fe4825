//! All stores: what is stored comes back, and nothing else does.

mod basics;
mod common;
mod disk;
mod hostile;
mod keys;
mod processes;
mod scale;
mod write_behind;
