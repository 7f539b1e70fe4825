//! A store on a server.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_cache::{Entry, EntryError, Event, Events, Key, Lineage, Lookup, Place, Store};

use crate::endpoint::{Endpoint, EndpointError};
use crate::patience::Patience;
use crate::record::{Digest, Name};
use crate::server::Server;
use crate::state::{Answer, Content, Shared, State, Traffic, Upload};
use crate::thread::Worker;
use crate::trust::Policy;

/// The largest number of pointers of sources that wait to be sent.
const MAX_POINTERS: usize = 1 << 16;

/// The time that dropping a store waits for its thread at most, after it was told to end.
const ENDING: Duration = Duration::from_millis(200);

/// The limits and rules of a [`RemoteStore`].
pub struct RemoteOptions {
    /// Rules for what is accepted and what is written. The default accepts everything and writes
    /// nothing.
    pub policy: Policy,
    /// Takes events: entries that are not sent, servers that are given up, pointers that are not
    /// trusted.
    pub events: Option<Arc<dyn Events>>,
    /// How much longer a build may take because of the server. Hits give back what compiling would
    /// have taken. The default is 0.75 s.
    pub patience: Duration,
    /// How long dropping the store waits until everything is sent. The default is 0.75 s.
    pub drop_wait: Duration,
    /// Bytes of entries that may wait to be sent, and again that many that were announced and
    /// received. The default is 128 MiB.
    pub memory: u64,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        let wait = Duration::from_millis(750);
        let policy = Policy::default();
        Self { policy, events: None, patience: wait, drop_wait: wait, memory: 128 << 20 }
    }
}

/// A store on a server, which many machines share.
///
/// Put it below a local store, with [`LayeredStore`](kiln_cache::LayeredStore): what it finds is
/// copied to the local one. It writes in the background.
///
/// Only what never changes is on the server: entries by key, and the keys of sources
/// ([`Lineage::is_of_source`]). Other lineages are unknown to it, so functions of a changed module
/// are reused from local stores only.
///
/// No failure of the server is one of this store. It answers that it has nothing, and reports
/// [`Event::Unavailable`] once.
#[derive(Debug)]
pub struct RemoteStore {
    shared: Arc<Shared>,
    writes: bool,
    memory: u64,
    drop_wait: Duration,
    sink: Sink,
}

/// The sink of the events, if there is one.
struct Sink(Option<Arc<dyn Events>>);

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Sink(..)" } else { "Sink(none)" })
    }
}

impl Sink {
    fn report(&self, event: &Event<'_>) {
        if let Some(events) = &self.0 {
            events.report(event);
        }
    }
}

/// Makes the run-time of a thread that speaks to a server.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, EndpointError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| EndpointError::Wrong(format!("cannot start a run-time: {error}")))
}

impl RemoteStore {
    /// Opens the store on the server at `endpoint`. Does not wait for the server.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the address or a file that belongs to it cannot be used. Whether the
    /// server answers shows later, and is no error.
    pub fn open(endpoint: &Endpoint, options: RemoteOptions) -> Result<Self, EndpointError> {
        let RemoteOptions { policy, events, patience, drop_wait, memory } = options;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared::new(Patience::new(patience, threads, Instant::now())));
        let writes = policy.write;
        let (ready, opened) = std::sync::mpsc::channel();
        let (own, endpoint, sink) = (Arc::clone(&shared), endpoint.clone(), Sink(events.clone()));
        let run = move || {
            let runtime = match runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let guard = runtime.enter();
            match Server::new(&endpoint, &endpoint.secrets()) {
                Err(error) => drop(ready.send(Err(error))),
                Ok(server) => {
                    drop(ready.send(Ok(())));
                    let worker =
                        Worker { shared: own, server, policy, events, memory, greeted: false.into() };
                    // Tasks stay on this thread.
                    let tasks = tokio::task::LocalSet::new();
                    let shared = Arc::clone(&worker.shared);
                    tasks.block_on(&runtime, Arc::new(worker).run());
                    shared.lock().ended = true;
                    shared.changed();
                }
            }
            drop(guard);
            // What still runs, such as a lookup of a name, is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("kiln-remote".into()).spawn(run);
        thread.map_err(|error| EndpointError::Wrong(format!("cannot start a thread: {error}")))?;
        opened.recv().unwrap_or_else(|_| Err(EndpointError::Wrong("internal error".into())))?;
        Ok(Self { shared, writes, memory, drop_wait, sink })
    }

    /// Returns the numbers of what was asked, received and sent so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.lock().traffic
    }

    /// Returns how many bytes of entries wait to be sent.
    pub fn unsent_bytes(&self) -> u64 {
        self.shared.lock().upload_bytes
    }

    /// Returns how many bytes of entries may wait to be sent.
    pub(crate) fn room(&self) -> u64 {
        self.memory
    }

    /// Waits until `done` returns something, as long as there is patience. Nothing is waited for if
    /// the server was given up.
    fn wait<T>(
        &self,
        mut ask: impl FnMut(&mut State) -> bool,
        done: impl Fn(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.shared.lock();
        if let Some(done) = done(&mut state) {
            return Some(done);
        }
        if !state.reads.is_closed(Instant::now()) {
            return None;
        }
        let mut left = state.patience.enter(Instant::now());
        let found = loop {
            if ask(&mut state) {
                self.shared.work.notify_one();
            }
            if let Some(done) = done(&mut state) {
                break Some(done);
            }
            let now = Instant::now();
            if left.is_zero() || !state.reads.is_closed(now) {
                break None;
            }
            state = self.shared.wait(state, left);
            left = state.patience.left(Instant::now());
        };
        let now = Instant::now();
        state.patience.leave(now);
        let is_slow = found.is_none() && state.patience.left(now).is_zero();
        let gave_up = is_slow && state.reads.open(now);
        if gave_up {
            state.answer_nothing();
        }
        drop(state);
        if gave_up {
            self.shared.changed();
            let reason = "asked for nothing for now: waiting for it costs more than it saves";
            self.sink.report(&Event::Unavailable { reason });
        }
        found
    }

    /// Returns the key to which the record of a source leads.
    fn source(&self, lineage: &Lineage) -> Option<Key> {
        let name = Name::Source(*lineage);
        let answered = |state: &mut State| match state.names.get(&name)? {
            Answer::Asked => None,
            // It stays, so that `set_latest` knows that the server has it.
            Answer::Found(record) => Some(Some(record.key)),
            Answer::Nothing | Answer::Refused(_) => {
                state.names.remove(&name);
                Some(None)
            }
        };
        self.wait(|state| state.ask(name), answered).flatten()
    }

    /// Returns the content of an entry, unchecked.
    fn content(&self, key: &Key) -> Result<Option<(Digest, Vec<u8>)>, EntryError> {
        let name = Name::Key(*key);
        let answered = |state: &mut State| {
            if state.banned.contains(key) {
                return Some(Ok(None));
            }
            if state.contents.contains_key(key) {
                let (digest, bytes) = state.take(key)?;
                return Some(Ok(bytes.map(|bytes| (digest, bytes))));
            }
            match state.names.get(&name)? {
                Answer::Asked => None,
                // The content was taken by another thread.
                Answer::Nothing | Answer::Found(_) => {
                    state.names.remove(&name);
                    Some(Ok(None))
                }
                Answer::Refused(reason) => {
                    let reason = *reason;
                    state.names.remove(&name);
                    Some(Err(EntryError::Untrusted(reason.into())))
                }
            }
        };
        let ask = |state: &mut State| match state.contents.get(key) {
            Some((_, Content::Located)) => {
                if !state.urgent.contains(key) {
                    state.urgent.push(*key);
                }
                true
            }
            Some(_) => false,
            None => state.ask(name),
        };
        self.wait(ask, answered).unwrap_or(Ok(None))
    }
}

impl Store for RemoteStore {
    fn get(&self, key: &Key) -> Lookup {
        let (digest, bytes) = match self.content(key) {
            Ok(Some(content)) => content,
            Ok(None) => return Lookup::Miss,
            Err(reason) => return Lookup::Corrupt(reason),
        };
        // Checked by the thread that uses it, not by the one that all of them wait for.
        let read = if Digest::of(&bytes) == digest {
            Entry::from_bytes(key, bytes)
        } else {
            Err(EntryError::Untrusted("other bytes than the record names".into()))
        };
        match read {
            Ok(entry) => {
                self.shared.lock().lies.succeeded();
                Lookup::Hit(entry, Place::Remote)
            }
            Err(reason) => {
                let gave_up = {
                    let mut state = self.shared.lock();
                    state.traffic.refused += 1;
                    state.patience.debit(digest.len);
                    // It must be sent again.
                    state.known.remove(key);
                    // A server that sends wrong contents again and again costs time and is of no
                    // use.
                    let gave_up = state.lies.failed(true, Instant::now()) && state.reads.open(Instant::now());
                    if gave_up {
                        state.answer_nothing();
                    }
                    gave_up
                };
                if gave_up {
                    self.shared.changed();
                    let reason = "asked for nothing for now: it sent contents that are wrong";
                    self.sink.report(&Event::Unavailable { reason });
                }
                Lookup::Corrupt(reason)
            }
        }
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        entry.check(key)?;
        if !self.writes {
            return Ok(());
        }
        let len = entry.file_len();
        let fits = {
            let mut state = self.shared.lock();
            let fits = state.upload_bytes == 0 || state.upload_bytes + len <= self.memory;
            let fits = fits && state.writes.is_closed(Instant::now());
            if fits {
                state.upload_bytes += len;
                state.banned.remove(key);
                state.sending.insert(*key);
                state.uploads.push_back(Upload::Entry(*key, entry.clone()));
            } else {
                state.traffic.unsent += 1;
            }
            fits
        };
        if fits {
            self.shared.work.notify_one();
        } else {
            self.sink.report(&Event::WriteDropped { key });
        }
        Ok(())
    }

    /// Others may use the entry, and this machine cannot know whether it is wrong for them. So only
    /// this process does not use it again: until another is put, the key is not asked for.
    fn quarantine(&self, key: &Key, _: &str) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.known.remove(key);
        state.banned.insert(*key);
        Ok(())
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        if lineage.is_of_source() { self.source(lineage) } else { None }
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        if !self.writes || !lineage.is_of_source() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        let name = Name::Source(*lineage);
        if matches!(state.names.get(&name), Some(Answer::Found(record)) if record.key == *key) {
            return Ok(());
        }
        // A source leads only to what the server has, or is sent before.
        let is_there = state.known.contains_key(key) || state.sending.contains(key);
        if is_there && state.uploads.len() < MAX_POINTERS && state.writes.is_closed(Instant::now()) {
            state.uploads.push_back(Upload::Source(*lineage, *key));
            drop(state);
            self.shared.work.notify_one();
        }
        Ok(())
    }

    fn announce(&self, lineages: &[Lineage], keys: &[Key]) {
        let mut state = self.shared.lock();
        if !state.reads.is_closed(Instant::now()) {
            return;
        }
        state.make_room(self.memory);
        let sources = lineages.iter().filter(|lineage| lineage.is_of_source()).map(|of| Name::Source(*of));
        for name in sources.chain(keys.iter().map(|key| Name::Key(*key))) {
            if !state.has_room() {
                break;
            }
            state.ask(name);
        }
        drop(state);
        self.shared.work.notify_one();
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.shared.wait_until(timeout, State::is_idle)
    }
}

impl Drop for RemoteStore {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        self.shared.wait_until(self.drop_wait, State::is_idle);
        // A call whose answer nobody waits for may be under way: the thread is told to end.
        let mut unsent = {
            let mut state = self.shared.lock();
            state.abandoned = true;
            state.abandon_uploads()
        };
        self.shared.work.notify_one();
        // It ends at once, unless the client's sink of events does not return.
        self.shared.wait_until(ENDING, |state| state.ended);
        unsent.sort_unstable();
        unsent.iter().for_each(|key| self.sink.report(&Event::WriteDropped { key }));
    }
}
