//! The interface of farms.
//!
//! A build compiles by itself from the end of its shards, while the farm compiles from their
//! beginning. So a build never waits for a farm that has nothing to say, and no method here can
//! fail: a shard without an answer is compiled by the build.

use std::sync::Arc;
use std::time::Duration;

/// The answer of a farm to a shard.
#[derive(Debug)]
pub enum Answer {
    /// The bytes of the results, unchecked, and whether the farm had compiled the shard before.
    Results {
        /// Bytes for [`read_results`](crate::read_results).
        bytes: Vec<u8>,
        /// Whether nothing was compiled, because an equal shard had been.
        cached: bool,
    },
    /// There are no results: the reason.
    Failed(String),
}

/// Takes the answer to the shard of a number. It is called from a thread of the farm, and must not
/// take long.
pub type Answers = Arc<dyn Fn(usize, Answer) + Send + Sync>;

/// Machines that compile for a build.
pub trait Farm: Send + Sync {
    /// Returns how long the modules of a shard should take to compile. The default is 1 s: much
    /// longer than it takes to start a program on another machine, and much shorter than a build.
    fn shard_time(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Begins to compile shards of a build, whose answers go to `answers`. Returns at once.
    fn begin(&self, answers: Answers) -> Box<dyn Run>;
}

/// The shards of one build that are on a farm. Dropping it withdraws all of them, at once.
pub trait Run: Send + Sync {
    /// Hands a shard to the farm, and waits until it has room for it. Returns `false` if the farm
    /// takes no more, because it was given up or [`Run::close`] was called; then there may be no
    /// answer.
    fn submit(&self, number: usize, shard: Vec<u8>) -> bool;

    /// Withdraws a shard, because its results are here.
    fn withdraw(&self, number: usize);

    /// Takes no more shards, and lets [`Run::submit`] return.
    fn close(&self);
}
