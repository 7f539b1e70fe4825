//! What happens to entries, told to whoever wants to know.
//!
//! What a method *returns* (a hit, a miss, a corrupt entry, a failed write) the caller reports, because only it knows more: why it
//! missed, that it compiled anew. What happens *beside* a call (an eviction, a background write that failed or was dropped, an entry
//! that a lower layer healed) the store reports. So the same sink can be given to both, and nothing is counted twice.
//!
//! Invariant: nothing is reported under a lock.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{EntryError, Key, MissReason};

/// Something that happened to an entry.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A build reused an entry.
    Hit {
        /// Of which key.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
    },
    /// A build had to compile.
    Miss {
        /// Of which key.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
        /// Why there was nothing.
        reason: &'a MissReason,
    },
    /// An entry could not be used, and is a miss.
    Corrupt {
        /// Of which key.
        key: &'a Key,
        /// The module's name, if a build found it: stores know none.
        module: Option<&'a str>,
        /// Why not.
        reason: &'a EntryError,
    },
    /// An entry that could not be used was stored anew.
    Healed {
        /// Of which key.
        key: &'a Key,
    },
    /// An entry was removed to stay within a limit.
    Evicted {
        /// Of which key.
        key: &'a Key,
        /// Its length in bytes.
        bytes: u64,
    },
    /// The temporary file of a writer that was killed was removed.
    LeftoverRemoved,
    /// An entry could not be stored, or not be noted as the last build of its module.
    WriteFailed {
        /// Of which key.
        key: &'a Key,
        /// Why not.
        error: &'a io::Error,
    },
    /// An entry was not stored, or not noted as the last build of its module, because too many were waiting already.
    WriteDropped {
        /// Of which key.
        key: &'a Key,
    },
    /// An entry was put out of use.
    Quarantined {
        /// Of which key.
        key: &'a Key,
        /// Who found what.
        reason: &'a str,
    },
    /// A build compiled a hit's module again, and got the same bytes.
    Verified {
        /// Of which key.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
    },
    /// A build compiled a hit's module again, and got other bytes.
    VerifyFailed {
        /// Of which key.
        key: &'a Key,
        /// The module's name.
        module: &'a str,
    },
}

/// A sink of events. Every closure over [`Event`] that may be called from any thread is one.
pub trait Events: Send + Sync {
    /// Something happened.
    fn report(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Events for F {
    fn report(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Where a store reports to, if anywhere.
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
        /// Counts events. A sink of its own, or part of one that calls [`Events::report`].
        #[derive(Debug, Default)]
        pub struct Counts {
            $($field: AtomicU64,)*
        }

        /// How many events there were of each kind.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Tally {
            $(#[doc = concat!("Number of [`Event::", stringify!($event), "`].")] pub $field: u64,)*
        }

        impl Counts {
            /// Nothing so far.
            pub fn new() -> Self {
                Self::default()
            }

            /// What was counted so far.
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
            /// All that is not zero, such as `hits 3, misses 1`.
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
    Corrupt, corrupt, "corrupt";
    Healed, healed, "healed";
    Evicted, evicted, "evicted";
    LeftoverRemoved, leftovers_removed, "leftovers removed";
    WriteFailed, failed_writes, "failed writes";
    WriteDropped, dropped_writes, "dropped writes";
    Quarantined, quarantined, "quarantined";
    Verified, verified, "verified";
    VerifyFailed, failed_verifications, "failed verifications";
}
