//! Events: what happens to entries, for logs and statistics.
//!
//! The caller of a store reports what a method *returns* (a hit, a miss, a corrupt entry, a failed
//! write), because the caller also knows the module, and the reason of a miss. The store reports
//! what happens *apart from* the result of a call (an eviction, a background write that failed or
//! was dropped, an entry that a lower layer healed). So both can be given the same sink, and
//! nothing is counted twice.
//!
//! Invariant: nothing is reported under a lock.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::{EntryError, Key, Lineage, MissReason, Place};

/// Something that happened to an entry.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A build reused an entry.
    Hit {
        /// The entry's key.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
        /// The place where the entry was.
        place: Place,
        /// The entry's length in bytes.
        bytes: u64,
        /// The time that the build waited for the answer.
        time: Duration,
    },
    /// A build had to compile.
    Miss {
        /// The entry's key.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
        /// The reason why there was no entry.
        reason: &'a MissReason,
    },
    /// A farm compiled a module of a build, or had done so before.
    Farmed {
        /// The key of the module's entry.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
        /// The entry's length in bytes.
        bytes: u64,
        /// The time from handing the module over until its entry was here.
        time: Duration,
        /// Whether the farm had compiled it before.
        cached: bool,
    },
    /// A farm was given a module, and has no entry that can be used. The build compiles it.
    NotFarmed {
        /// The key of the module's entry.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
        /// The reason.
        reason: &'a str,
    },
    /// An entry could not be used, which is a miss. Or it is the entry of a module's last build,
    /// and no function could be extracted from it.
    Corrupt {
        /// The entry's key.
        key: &'a Key,
        /// The module's name, if a build found the entry: stores know no names.
        module: Option<&'a str>,
        /// The reason why it cannot be used.
        reason: &'a EntryError,
    },
    /// An entry that could not be used was replaced.
    Healed {
        /// The entry's key.
        key: &'a Key,
    },
    /// An entry was removed to stay within a limit.
    Evicted {
        /// The entry's key.
        key: &'a Key,
        /// Its length in bytes.
        bytes: u64,
    },
    /// The temporary file of a writer that was killed was removed.
    LeftoverRemoved,
    /// An entry could not be stored, or could not be noted as the last build of its module.
    WriteFailed {
        /// The entry's key.
        key: &'a Key,
        /// The error of the store.
        error: &'a io::Error,
    },
    /// An entry was not stored, or not noted as the last build of its module, because too much was
    /// waiting to be written already.
    WriteDropped {
        /// The entry's key.
        key: &'a Key,
    },
    /// An entry was quarantined.
    Quarantined {
        /// The entry's key.
        key: &'a Key,
        /// The reason for the quarantine.
        reason: &'a str,
    },
    /// A server says which entry a source has, and the store does not trust it.
    Untrusted {
        /// The lineage of the source.
        lineage: &'a Lineage,
        /// The reason.
        reason: &'a str,
    },
    /// A store that is reached over a network gave up for a while: see the reason. Meanwhile it
    /// answers that it has nothing, and stores nothing.
    Unavailable {
        /// The reason.
        reason: &'a str,
    },
    /// A client built the IR of a lazy module, and it differs from the IR for which the module's
    /// client key was stored: the client's key leaves something out.
    WrongLazyKey {
        /// The key of the entry that was found.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
    },
    /// A build compiled a hit's module again, and got the same bytes.
    Verified {
        /// The entry's key.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
    },
    /// A build compiled a hit's module again, and got other bytes.
    VerifyFailed {
        /// The entry's key.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
    },
}

/// A sink of events. A closure over [`Event`] that may be called from any thread is a sink.
pub trait Events: Send + Sync {
    /// Takes an event.
    fn report(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Events for F {
    fn report(&self, event: &Event<'_>) {
        self(event);
    }
}

/// The sink of a store, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Sink(Option<Arc<dyn Events>>);

impl Sink {
    pub(crate) fn new(events: Arc<dyn Events>) -> Self {
        Self(Some(events))
    }

    pub(crate) fn report(&self, event: &Event<'_>) {
        if let Some(events) = &self.0 {
            events.report(event);
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Sink(..)" } else { "Sink(none)" })
    }
}

macro_rules! counts {
    ($($event:ident, $field:ident, $text:literal;)*) => {
        /// A sink that counts events. Another sink can pass its events on to it.
        #[derive(Debug, Default)]
        pub struct Counts {
            $($field: AtomicU64,)*
        }

        /// The number of events of each kind.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Tally {
            $(#[doc = concat!("Number of [`Event::", stringify!($event), "`].")] pub $field: u64,)*
        }

        impl Counts {
            /// Creates a sink that has counted nothing yet.
            pub fn new() -> Self {
                Self::default()
            }

            /// Returns the numbers so far.
            pub fn tally(&self) -> Tally {
                Tally { $($field: self.$field.load(Relaxed),)* }
            }
        }

        impl Events for Counts {
            fn report(&self, event: &Event<'_>) {
                match event {
                    $(Event::$event { .. } => &self.$field,)*
                }
                .fetch_add(1, Relaxed);
            }
        }

        impl fmt::Display for Tally {
            /// Writes all numbers that are not zero, such as `hits 3, misses 1`.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                $(if self.$field != 0 {
                    write!(f, concat!("{}", $text, " {}"), separator, self.$field)?;
                    separator = ", ";
                })*
                if separator.is_empty() { f.write_str("nothing happened") } else { Ok(()) }
            }
        }
    };
}

counts! {
    Hit, hits, "hits";
    Miss, misses, "misses";
    Farmed, farmed, "compiled by the farm";
    NotFarmed, not_farmed, "not compiled by the farm";
    Corrupt, corrupt, "corrupt";
    Healed, healed, "healed";
    Evicted, evicted, "evicted";
    LeftoverRemoved, leftovers_removed, "leftovers removed";
    WriteFailed, failed_writes, "failed writes";
    WriteDropped, dropped_writes, "dropped writes";
    Quarantined, quarantined, "quarantined";
    Verified, verified, "verified";
    VerifyFailed, failed_verifications, "failed verifications";
    WrongLazyKey, wrong_lazy_keys, "wrong lazy keys";
    Untrusted, untrusted, "untrusted sources";
    Unavailable, unavailable, "times a server was given up";
}
