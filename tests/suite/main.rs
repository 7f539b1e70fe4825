//! Tests of the facade: modules become the same machine code in memory, in images and in caches.

mod altered;
mod bindings;
mod common;
mod direct;
mod entries;
mod farm;
mod faults;
mod forked;
mod heap;
mod hosts;
mod last_build;
mod layers;
mod limits;
mod locate;
mod messages;
mod on_demand;
mod partial;
mod parts;
mod purity;
mod reuse;
mod same_code;
mod sections;
mod session;
mod thread_local;
mod tiers;
mod units;
