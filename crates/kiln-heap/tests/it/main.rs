//! Snapshots of heaps: their shape, what is refused, and what a process has that loads them.

mod arena;
mod faults;
mod loaded;
mod shape;
