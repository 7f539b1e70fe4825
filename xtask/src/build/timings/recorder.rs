//! [`Recorder`]: a subscriber that keeps every span.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Subscriber, span};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// A span that has ended. Texts that it has not are empty. Times are from the start of the build.
pub(super) struct Record {
    pub(super) phase: &'static str,
    pub(super) module: Box<str>,
    pub(super) function: Box<str>,
    pub(super) outcome: Box<str>,
    pub(super) lane: u32,
    pub(super) start: Duration,
    pub(super) end: Duration,
}

/// Records the spans of the process from its start on.
pub(in crate::build) struct Recorder(Arc<Spans>);

struct Spans {
    started: Instant,
    ended: Mutex<Vec<Record>>,
    /// The threads that had a span, with the names of their lanes.
    lanes: Mutex<Vec<(ThreadId, Box<str>)>>,
}

impl Recorder {
    /// Starts to record. Only the first recorder of a process records anything.
    pub(in crate::build) fn start(started: Instant) -> Self {
        let spans = Arc::new(Spans { started, ended: Mutex::default(), lanes: Mutex::default() });
        let subscriber = Registry::default().with(SpanLayer(spans.clone()));
        // There is another one only if something else in this process subscribes.
        let _ = tracing::subscriber::set_global_default(subscriber);
        // The main thread has the first lane.
        spans.lane();
        Self(spans)
    }

    /// Returns the spans that have ended, in order of their starts, and the names of the lanes.
    pub(super) fn take(&self) -> (Vec<Record>, Vec<Box<str>>) {
        let mut records = std::mem::take(&mut *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner));
        // Of two that start at once, the outer ends last.
        records.sort_by_key(|record| (record.start, std::cmp::Reverse(record.end)));
        let lanes = self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        (records, lanes.iter().map(|(_, name)| name.clone()).collect())
    }
}

impl Spans {
    /// Returns the lane of this thread.
    fn lane(&self) -> u32 {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = thread::current();
        let known = lanes.iter().position(|(id, _)| *id == thread.id());
        let lane = known.unwrap_or_else(|| {
            let name = thread.name().map_or_else(|| format!("thread {}", lanes.len()), Into::into);
            lanes.push((thread.id(), name.into()));
            lanes.len() - 1
        });
        lane as u32
    }
}

struct SpanLayer(Arc<Spans>);

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "module" => self.module = value.into(),
            "name" => self.function = value.into(),
            "outcome" => self.outcome = value.into(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let start = self.0.started.elapsed();
        let mut record = Record {
            phase: attributes.metadata().name(),
            module: Box::default(),
            function: Box::default(),
            outcome: Box::default(),
            lane: self.0.lane(),
            start,
            end: start,
        };
        attributes.record(&mut record);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(record);
        }
    }

    fn on_record(&self, id: &Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(record) = span.extensions_mut().get_mut::<Record>()
        {
            values.record(record);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let end = self.0.started.elapsed();
        let span = context.span(&id);
        if let Some(record) = span.and_then(|span| span.extensions_mut().remove::<Record>()) {
            let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push(Record { end, ..record });
        }
    }
}
