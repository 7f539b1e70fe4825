//! The events of a build's cache: counted, and printed with `--verbose`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use kiln::cache::{Counts, Event, Events, Place, Tally};

use super::stats;

/// The name of the farm among the places.
const FARM: &str = "farm";

/// A sink of events.
pub(super) struct Watch {
    counts: Counts,
    verbose: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    places: IndexMap<&'static str, stats::Place>,
    given_up: Vec<String>,
}

impl Watch {
    pub(super) fn new(verbose: bool) -> Self {
        let places = Place::ALL.map(Place::name).into_iter().chain([FARM]);
        let places = places.map(|place| (place, stats::Place::default())).collect();
        let seen = Mutex::new(Seen { places, given_up: Vec::new() });
        Self { counts: Counts::new(), verbose, seen }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a module came from a place.
    fn came_from(&self, place: &'static str, bytes: u64, time: Duration) {
        let mut seen = self.seen();
        let place = seen.places.entry(place).or_default();
        place.modules += 1;
        place.bytes += bytes;
        place.seconds += time.as_secs_f64();
    }

    /// Returns the number of events of each kind.
    pub(super) fn tally(&self) -> Tally {
        self.counts.tally()
    }

    /// Returns the places from which modules came, in the order of [`Place::ALL`],
    /// and then the farm.
    pub(super) fn places(&self) -> IndexMap<&'static str, stats::Place> {
        self.seen().places.clone()
    }

    /// Returns the reasons for which a server was given up.
    pub(super) fn given_up(&self) -> Vec<String> {
        self.seen().given_up.clone()
    }
}

impl Events for Watch {
    fn report(&self, event: &Event<'_>) {
        self.counts.report(event);
        match event {
            Event::Hit { place, bytes, time, .. } => self.came_from(place.name(), *bytes, *time),
            Event::Farmed { bytes, time, .. } => self.came_from(FARM, *bytes, *time),
            Event::Unavailable { reason } => self.seen().given_up.push((*reason).to_owned()),
            _ => {}
        }
        if self.verbose {
            eprintln!("cache: {}", crate::cache::describe(event));
        }
    }
}
