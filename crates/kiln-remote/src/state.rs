//! The state that builds share with the thread that speaks to the server.
//!
//! Builds ask for names and wait; the thread answers. Nothing is called while the state is locked,
//! neither a server nor the client's code.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_cache::{Entry, Key, Lineage};

use crate::breaker::Breaker;
use crate::patience::Patience;
use crate::record::{Digest, Name, Record};

/// The largest number of names that are remembered. They take about 20 MB.
const MAX_NAMES: usize = 1 << 17;

/// The answer to the question for a record.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The server was not asked yet, or has not answered.
    Asked,
    /// There is no record, or the server did not answer in time.
    Nothing,
    /// There is a record that must not be used: the reason.
    Refused(&'static str),
    /// The record was found.
    Found(Record),
}

/// The content of an entry whose record was found.
#[derive(Debug)]
pub(crate) enum Content {
    /// It was not asked for.
    Located,
    /// It was asked for.
    Fetching,
    /// It is here, unchecked.
    Ready(Vec<u8>),
    /// It cannot be had.
    Lost,
}

/// Something to store on the server.
#[derive(Debug)]
pub(crate) enum Upload {
    Entry(Key, Entry),
    Source(Lineage, Key),
}

impl Upload {
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Entry(key, _) | Self::Source(_, key) => key,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Entry(_, entry) => entry.file_len(),
            Self::Source(..) => 0,
        }
    }
}

/// Bytes and calls, of all builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Records that were asked for.
    pub lookups: u64,
    /// Entries that were received.
    pub received: u64,
    /// Sum of their lengths.
    pub received_bytes: u64,
    /// Entries that were sent.
    pub sent: u64,
    /// Sum of their lengths.
    pub sent_bytes: u64,
    /// Entries that were not sent, because too much was waiting, the server was given up, or the
    /// process ended.
    pub unsent: u64,
    /// Records and contents that were refused: unsigned, altered, or of something else.
    pub refused: u64,
    /// Calls that failed, with those that were made again.
    pub faults: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) names: HashMap<Name, Answer>,
    pub(crate) contents: HashMap<Key, (Digest, Content)>,
    /// Names to ask for.
    pub(crate) lookups: Vec<Name>,
    /// Entries to fetch: first those that a build waits for, then those that it announced.
    pub(crate) urgent: Vec<Key>,
    pub(crate) wanted: VecDeque<Key>,
    /// Bytes of contents that are here, or on their way.
    pub(crate) fetched: u64,
    pub(crate) uploads: VecDeque<Upload>,
    /// Bytes of entries that wait to be sent, or are being sent.
    pub(crate) upload_bytes: u64,
    pub(crate) uploading: bool,
    /// Entries that the server has.
    pub(crate) known: HashMap<Key, Digest>,
    /// Entries that wait to be sent, or are being sent.
    pub(crate) sending: HashSet<Key>,
    /// Entries that were found to be wrong, and are not asked for.
    pub(crate) banned: HashSet<Key>,
    pub(crate) reads: Breaker,
    pub(crate) writes: Breaker,
    /// Counts wrong contents in a row.
    pub(crate) lies: Breaker,
    pub(crate) patience: Patience,
    pub(crate) closing: bool,
    /// Whether the thread is to end now, whatever is left.
    pub(crate) abandoned: bool,
    /// Whether the thread has ended, or reported everything that it will report.
    pub(crate) ended: bool,
    pub(crate) traffic: Traffic,
}

impl State {
    fn new(patience: Patience) -> Self {
        Self {
            names: HashMap::new(),
            contents: HashMap::new(),
            lookups: Vec::new(),
            urgent: Vec::new(),
            wanted: VecDeque::new(),
            fetched: 0,
            uploads: VecDeque::new(),
            upload_bytes: 0,
            uploading: false,
            known: HashMap::new(),
            sending: HashSet::new(),
            banned: HashSet::new(),
            reads: Breaker::default(),
            writes: Breaker::default(),
            lies: Breaker::default(),
            patience,
            closing: false,
            abandoned: false,
            ended: false,
            traffic: Traffic::default(),
        }
    }

    /// Returns whether further names may be announced.
    pub(crate) fn has_room(&self) -> bool {
        self.names.len() < MAX_NAMES
    }

    /// Adds a question, unless it was asked. Returns whether there is something new to do.
    pub(crate) fn ask(&mut self, name: Name) -> bool {
        if self.names.contains_key(&name) {
            return false;
        }
        self.names.insert(name, Answer::Asked);
        self.lookups.push(name);
        true
    }

    /// Notes the answer to a question.
    pub(crate) fn answer(&mut self, name: Name, answer: Answer) {
        if let Answer::Found(record) = &answer {
            let Record { key, digest } = *record;
            if self.known.len() < MAX_NAMES {
                self.known.insert(key, digest);
            }
            // A build that waits for the key waits for the content now.
            let entry = self.contents.entry(key).or_insert((digest, Content::Located));
            if matches!(entry.1, Content::Located) {
                self.wanted.push_back(key);
            }
        } else if matches!(answer, Answer::Refused(_)) {
            self.traffic.refused += 1;
        }
        self.names.insert(name, answer);
    }

    /// Takes the content of `key` out, if it is here or lost.
    pub(crate) fn take(&mut self, key: &Key) -> Option<(Digest, Option<Vec<u8>>)> {
        match &self.contents.get(key)?.1 {
            Content::Located | Content::Fetching => return None,
            Content::Ready(_) | Content::Lost => {}
        }
        let (digest, content) = self.contents.remove(key)?;
        self.names.remove(&Name::Key(*key));
        let bytes = match content {
            Content::Ready(bytes) => {
                self.fetched = self.fetched.saturating_sub(digest.len);
                Some(bytes)
            }
            _ => None,
        };
        Some((digest, bytes))
    }

    /// Notes that a content arrived, or cannot be had.
    pub(crate) fn arrived(&mut self, key: &Key, bytes: Option<Vec<u8>>) {
        let Some((digest, content)) = self.contents.get_mut(key) else { return };
        match bytes {
            Some(bytes) => {
                self.traffic.received += 1;
                self.traffic.received_bytes += digest.len;
                self.patience.credit(digest.len);
                *content = Content::Ready(bytes);
            }
            None => {
                self.fetched = self.fetched.saturating_sub(digest.len);
                *content = Content::Lost;
            }
        }
    }

    /// Answers everything that was asked with nothing, because the server was given up.
    pub(crate) fn answer_nothing(&mut self) {
        self.lookups.clear();
        self.urgent.clear();
        self.wanted.clear();
        self.names.values_mut().filter(|answer| matches!(answer, Answer::Asked)).for_each(|answer| {
            *answer = Answer::Nothing;
        });
        for (digest, content) in self.contents.values_mut() {
            match content {
                Content::Located => *content = Content::Lost,
                Content::Fetching => {
                    self.fetched = self.fetched.saturating_sub(digest.len);
                    *content = Content::Lost;
                }
                Content::Ready(_) | Content::Lost => {}
            }
        }
    }

    /// Forgets contents that an earlier build announced and did not use, if they take much memory.
    pub(crate) fn make_room(&mut self, limit: u64) {
        if self.fetched <= limit / 2 {
            return;
        }
        let State { contents, names, fetched, .. } = self;
        contents.retain(|key, (digest, content)| {
            let unused = matches!(content, Content::Ready(_));
            if unused {
                *fetched = fetched.saturating_sub(digest.len);
                names.remove(&Name::Key(*key));
            }
            !unused
        });
        names.retain(|_, answer| matches!(answer, Answer::Asked));
    }

    /// Takes everything out that waits to be sent.
    pub(crate) fn abandon_uploads(&mut self) -> Vec<Key> {
        let uploads = std::mem::take(&mut self.uploads);
        self.upload_bytes -= uploads.iter().map(Upload::len).sum::<u64>();
        let entries = uploads.iter().filter(|upload| matches!(upload, Upload::Entry(..)));
        let keys: Vec<Key> = entries.map(|upload| *upload.key()).collect();
        self.traffic.unsent += keys.len() as u64;
        for key in &keys {
            self.sending.remove(key);
        }
        keys
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.uploads.is_empty() && !self.uploading
    }
}

/// The state, with what wakes those who wait for a change.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Signalled when a question was answered, or nothing is left to send.
    changed: Condvar,
    /// Signalled when the thread has something to do.
    pub(crate) work: tokio::sync::Notify,
}

impl Shared {
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            state: Mutex::new(State::new(patience)),
            changed: Condvar::new(),
            work: tokio::sync::Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody who waits for an answer.
    pub(crate) fn changed(&self) {
        self.changed.notify_all();
    }

    /// Waits for a change, at most this long.
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until `done` holds. Returns `false` if that takes longer than `timeout`.
    pub(crate) fn wait_until(&self, timeout: Duration, done: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wait(state, left);
        }
        true
    }
}
