//! The thread that speaks to the server. It has a run-time of its own, so that neither a build nor
//! the client's run-time waits for it.
//!
//! It takes work from the state: questions for records, contents to fetch, entries to send. Each
//! becomes a task. Questions that come together are asked together, and contents are fetched in
//! batches, so a whole build's lookup takes two round trips, and one for each batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use kiln_cache::{Event, Events, Key};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::record::{Digest, Name, Record};
use crate::server::{CALL, Fault, Server, transfer};
use crate::state::{Answer, Content, Shared, State, Upload};
use crate::trust::Policy;

/// Calls for contents at once.
const FETCHES: usize = 4;
/// Entries in one call at most.
const ENTRIES: usize = 500;
/// How often a call is made again.
const RETRIES: u32 = 2;
/// The time before a call is made again, the first time.
const PAUSE: Duration = Duration::from_millis(30);

/// Everything that the tasks need.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) server: Server,
    pub(crate) policy: Policy,
    pub(crate) events: Option<Arc<dyn Events>>,
    /// The bytes of contents that may be here, or on their way.
    pub(crate) memory: u64,
    /// Whether the server was asked about itself.
    pub(crate) greeted: AtomicBool,
}

/// The kinds of calls, each with a breaker of its own: a server may take no writes and be of use.
#[derive(Clone, Copy)]
enum Side {
    Reads,
    Writes,
}

impl Worker {
    /// Works until the store is dropped and nothing is left to do.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut fetches = 0_usize;
        {
            let worker = Arc::clone(&self);
            tasks.spawn_local(async move { worker.greet().await });
        }
        loop {
            loop {
                let work = {
                    let mut state = self.shared.lock();
                    if state.abandoned {
                        return;
                    }
                    self.next(&mut state, fetches)
                };
                let Some(work) = work else { break };
                fetches += usize::from(matches!(work, Work::Fetch(_)));
                let worker = Arc::clone(&self);
                tasks.spawn_local(async move { worker.work(work).await });
            }
            {
                let state = self.shared.lock();
                if state.closing && state.is_idle() {
                    return;
                }
            }
            tokio::select! {
                () = self.shared.work.notified() => {}
                Some(done) = tasks.join_next() => {
                    // A task that panicked has not answered: that is a fault like others.
                    match done {
                        Ok(was_fetch) => fetches = fetches.saturating_sub(was_fetch.into()),
                        Err(_) => {
                            fetches = 0;
                            self.shared.lock().uploading = false;
                            self.failed(Side::Reads, &Fault::lasting("internal error"));
                        }
                    }
                }
            }
        }
    }

    /// Takes the next piece of work.
    fn next(&self, state: &mut State, fetches: usize) -> Option<Work> {
        if !state.lookups.is_empty() {
            return Some(Work::Lookup(std::mem::take(&mut state.lookups)));
        }
        // How much a call may have is known only after the greeting, which takes no longer than a
        // question.
        if !self.greeted.load(Relaxed) {
            return None;
        }
        if let Some(batch) = self.next_fetch(state, fetches) {
            return Some(Work::Fetch(batch));
        }
        if !state.uploading && !state.uploads.is_empty() {
            state.uploading = true;
            return Some(Work::Send(self.next_uploads(state)));
        }
        None
    }

    /// Takes contents to fetch in one call: what builds wait for at once, what was announced as
    /// long as there is room in memory.
    fn next_fetch(&self, state: &mut State, fetches: usize) -> Option<Vec<(Key, Digest)>> {
        let limit = self.server.batch();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let urgent = std::mem::take(&mut state.urgent);
        let mut rest = Vec::new();
        for key in urgent {
            // Otherwise it is on its way, or here.
            if let Some((digest, content @ Content::Located)) = state.contents.get_mut(&key) {
                if !batch.is_empty() && bytes + digest.len > limit {
                    rest.push(key);
                    continue;
                }
                *content = Content::Fetching;
                bytes += digest.len;
                batch.push((key, *digest));
            }
        }
        state.urgent = rest;
        if batch.is_empty() && fetches >= FETCHES {
            return None;
        }
        while let Some(key) = state.wanted.front().copied() {
            let Some((digest, content @ Content::Located)) = state.contents.get_mut(&key) else {
                state.wanted.pop_front();
                continue;
            };
            let is_full = batch.len() >= ENTRIES || bytes + digest.len > limit;
            if !batch.is_empty() && is_full || state.fetched + bytes + digest.len > self.memory {
                break;
            }
            *content = Content::Fetching;
            bytes += digest.len;
            batch.push((key, *digest));
            state.wanted.pop_front();
        }
        state.fetched += bytes;
        if batch.is_empty() { None } else { Some(batch) }
    }

    fn next_uploads(&self, state: &mut State) -> Vec<Upload> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = state.uploads.front() {
            if !batch.is_empty() && (bytes + next.len() > self.server.batch() || batch.len() >= ENTRIES) {
                break;
            }
            bytes += next.len();
            batch.extend(state.uploads.pop_front());
        }
        batch
    }

    async fn work(&self, work: Work) -> bool {
        match work {
            Work::Lookup(names) => self.look_up(names).await,
            Work::Fetch(batch) => {
                self.fetch(batch).await;
                return true;
            }
            Work::Send(batch) => self.send(batch).await,
        }
        false
    }

    /// Asks a server about itself, where that is usual. A server that is of no use is given up
    /// before it costs time.
    async fn greet(&self) -> bool {
        if self.server.introduces_itself()
            && let Err(fault) = self.call(Side::Reads, CALL, || self.server.info()).await
            && !fault.temporary
        {
            self.failed(Side::Writes, &fault);
        }
        self.greeted.store(true, Relaxed);
        false
    }

    /// Makes a call, and makes it again after a short time if it fails and may succeed. The time is
    /// random, so that many machines do not call again at once.
    async fn call<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        side: Side,
        limit: Duration,
        call: impl Fn() -> F,
    ) -> Result<T, Fault> {
        let mut tries = 0;
        loop {
            let fault = match timeout(limit, call()).await {
                Ok(Ok(done)) => {
                    let mut state = self.shared.lock();
                    match side {
                        Side::Reads => state.reads.succeeded(),
                        Side::Writes => state.writes.succeeded(),
                    }
                    return Ok(done);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::temporary(format!("no answer in {:.1} s", limit.as_secs_f64())),
            };
            self.failed(side, &fault);
            let open = {
                let (mut state, now) = (self.shared.lock(), Instant::now());
                match side {
                    Side::Reads => !state.reads.is_closed(now),
                    Side::Writes => !state.writes.is_closed(now),
                }
            };
            if open || !fault.temporary || tries == RETRIES {
                return Err(fault);
            }
            let random = f64::from(crate::bits::random()[0]) / 255.0;
            tokio::time::sleep(PAUSE.mul_f64(f64::from(1 << tries) * (0.5 + random))).await;
            tries += 1;
        }
    }

    /// Counts a fault. If the server is given up for it, answers everybody who waits, and reports
    /// it.
    fn failed(&self, side: Side, fault: &Fault) {
        let (gave_up, unsent) = {
            let (mut state, now) = (self.shared.lock(), Instant::now());
            state.traffic.faults += 1;
            let gave_up = match side {
                Side::Reads => state.reads.failed(fault.temporary, now),
                Side::Writes => state.writes.failed(fault.temporary, now),
            };
            let mut unsent = Vec::new();
            if gave_up {
                match side {
                    Side::Reads => state.answer_nothing(),
                    Side::Writes => unsent = state.abandon_uploads(),
                }
            }
            (gave_up, unsent)
        };
        if gave_up {
            let what = match side {
                Side::Reads => "asked for nothing",
                Side::Writes => "sent nothing",
            };
            self.report(&Event::Unavailable { reason: &format!("{what} for now: {}", fault.reason) });
            unsent.iter().for_each(|key| self.report(&Event::WriteDropped { key }));
            self.shared.changed();
        }
    }

    fn report(&self, event: &Event<'_>) {
        if let Some(events) = &self.events {
            events.report(event);
        }
    }

    async fn look_up(&self, names: Vec<Name>) {
        self.shared.lock().traffic.lookups += names.len() as u64;
        let answers = names.into_iter().map(|name| async move {
            let record = self.call(Side::Reads, CALL, || self.server.record(&name)).await;
            let accepted = self.policy.accepted.as_deref();
            let answer = match record {
                Ok(Some(bytes)) => match Record::from_bytes(&name, &bytes, accepted) {
                    Ok(record) => Answer::Found(record),
                    Err(reason) => Answer::Refused(reason),
                },
                Ok(None) | Err(_) => Answer::Nothing,
            };
            (name, answer)
        });
        let at_once = self.server.at_once();
        let mut answers = stream::iter(answers).buffer_unordered(at_once).ready_chunks(at_once);
        while let Some(chunk) = answers.next().await {
            for (name, answer) in &chunk {
                // That of a key is the answer to the build that asks for it.
                if let (Name::Source(lineage), Answer::Refused(reason)) = (name, answer) {
                    self.report(&Event::Untrusted { lineage, reason });
                }
            }
            {
                let mut state = self.shared.lock();
                chunk.into_iter().for_each(|(name, answer)| state.answer(name, answer));
            }
            self.shared.changed();
            // Contents are fetched while other records are on their way.
            self.shared.work.notify_one();
        }
    }

    async fn fetch(&self, batch: Vec<(Key, Digest)>) {
        let digests: Vec<Digest> = batch.iter().map(|(_, digest)| *digest).collect();
        let limit = transfer(digests.iter().map(|digest| digest.len).sum());
        let contents = self.call(Side::Reads, limit, || self.server.contents(&digests)).await;
        let contents = contents.unwrap_or_else(|_| vec![None; batch.len()]);
        {
            let mut state = self.shared.lock();
            for ((key, _), bytes) in batch.iter().zip(contents) {
                state.arrived(key, bytes);
            }
        }
        self.shared.changed();
    }

    async fn send(&self, batch: Vec<Upload>) {
        let mut contents: Vec<(Digest, Vec<u8>)> = Vec::new();
        let mut records: Vec<(Name, Record)> = Vec::new();
        let mut bytes = 0;
        let mut keys = Vec::new();
        for upload in batch {
            bytes += upload.len();
            match upload {
                Upload::Entry(key, entry) => {
                    let content = entry.to_bytes();
                    let digest = Digest::of(&content);
                    self.shared.lock().known.insert(key, digest);
                    keys.push(key);
                    records.push((Name::Key(key), Record { key, digest }));
                    contents.push((digest, content));
                }
                Upload::Source(lineage, key) => {
                    if let Some(digest) = self.shared.lock().known.get(&key).copied() {
                        records.push((Name::Source(lineage), Record { key, digest }));
                    }
                }
            }
        }
        let sent = self.send_all(&contents, &records).await;
        {
            let mut state = self.shared.lock();
            state.upload_bytes -= bytes;
            state.uploading = false;
            for key in &keys {
                state.sending.remove(key);
            }
            if sent.is_ok() {
                state.traffic.sent += keys.len() as u64;
                state.traffic.sent_bytes += bytes;
            } else {
                state.traffic.unsent += keys.len() as u64;
                for key in &keys {
                    state.known.remove(key);
                }
            }
        }
        self.shared.changed();
        self.shared.work.notify_one();
        if let Err(fault) = sent {
            let error = std::io::Error::other(fault.reason);
            keys.iter().for_each(|key| self.report(&Event::WriteFailed { key, error: &error }));
        }
    }

    /// Stores contents, then the records that lead to them.
    async fn send_all(
        &self,
        contents: &[(Digest, Vec<u8>)],
        records: &[(Name, Record)],
    ) -> Result<(), Fault> {
        if !contents.is_empty() {
            let limit = transfer(contents.iter().map(|(digest, _)| digest.len).sum());
            self.call(Side::Writes, limit, || self.server.store(contents)).await?;
        }
        let records = records.iter().map(|(name, record)| async move {
            let bytes = record.to_bytes(name, self.policy.signer.as_ref());
            let set = || self.server.set_record(name, bytes.clone(), &record.digest);
            self.call(Side::Writes, CALL, set).await
        });
        let mut records = stream::iter(records).buffer_unordered(self.server.at_once());
        while let Some(set) = records.next().await {
            set?;
        }
        Ok(())
    }
}

/// A piece of work.
enum Work {
    Lookup(Vec<Name>),
    Fetch(Vec<(Key, Digest)>),
    Send(Vec<Upload>),
}
