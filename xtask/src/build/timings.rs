//! `build --timings`: what every thread did when, as a page or as a Chrome trace.
//!
//! The phases of a build are spans of `tracing`. A [`Recorder`] keeps them: spans begin and end on
//! one thread, so a thread is a lane, and the spans of a lane are nested. The page draws them in
//! the reader's browser, from the data at its end, and loads nothing from elsewhere.

mod recorder;

use std::path::{Path, PathBuf};

use indexmap::IndexSet;
use serde::Serialize;
use serde_json::{Value, json};

use self::recorder::Record;
pub(super) use self::recorder::Recorder;
use super::stats::Stats;
use crate::output::{Failure, Outcome};
use crate::page::page;

/// The page without its data.
const PAGE: &str = include_str!("timings/page.html");

/// Refuses a file whose name does not say what to write.
pub(super) fn check_names(files: &[PathBuf]) -> Outcome {
    let unknown = |file: &&PathBuf| !is_page(file) && !is_trace(file);
    files.iter().find(unknown).map_or(Ok(()), |file| {
        let what = "name a file.html for a page, or a file.json for a Chrome trace";
        Err(Failure::new(format!("cannot write timings to {}: {what}", file.display())))
    })
}

fn is_page(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "html")
}

fn is_trace(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "json")
}

/// Writes the recorded spans to each of `files`.
pub(super) fn write(files: &[PathBuf], recorder: &Recorder, stats: &Stats) -> Outcome {
    let (records, lanes) = recorder.take();
    for file in files {
        let bytes = if is_page(file) {
            page(PAGE, &Data::new(&records, &lanes, stats))
        } else {
            format!("{}\n", trace(&records, &lanes))
        };
        kiln::image::save(file, bytes.as_bytes())
            .map_err(|error| Failure::while_doing(format!("cannot write {}", file.display()), error))?;
    }
    Ok(())
}

/// The data of the page. Times are in microseconds from the start of the build.
#[derive(Serialize)]
struct Data<'a> {
    lanes: &'a [Box<str>],
    /// The names of phases, of modules and functions, and outcomes, each once.
    texts: IndexSet<&'a str>,
    /// Lane, start, length, phase, module, function, outcome. Texts are given by their positions in
    /// `texts`.
    spans: Vec<(u32, u64, u64, usize, usize, usize, usize)>,
    stats: &'a Stats,
}

impl<'a> Data<'a> {
    fn new(records: &'a [Record], lanes: &'a [Box<str>], stats: &'a Stats) -> Self {
        let mut texts = IndexSet::new();
        let mut text = |text: &'a str| texts.insert_full(text).0;
        let spans = records.iter().map(|record| {
            let Record { phase, module, function, outcome, lane, start, end } = record;
            let (start, end) = (start.as_micros() as u64, end.as_micros() as u64);
            (*lane, start, end - start, text(phase), text(module), text(function), text(outcome))
        });
        Self { lanes, spans: spans.collect(), texts, stats }
    }
}

/// Returns the spans in the format of Chrome's tracing ("Trace Event Format"), which Perfetto and
/// `chrome://tracing` read.
fn trace(records: &[Record], lanes: &[Box<str>]) -> Value {
    let names = lanes.iter().enumerate().map(
        |(lane, name)| json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": lane, "args": {"name": name}}),
    );
    let events = records.iter().map(|record| {
        let Record { phase, module, function, outcome, lane, start, end } = record;
        let micros = |time: &std::time::Duration| time.as_nanos() as f64 / 1000.0;
        json!({
            "ph": "X", "name": phase, "cat": "kiln", "pid": 1, "tid": lane,
            "ts": micros(start), "dur": micros(&(*end - *start)),
            "args": {"module": module, "function": function, "outcome": outcome},
        })
    });
    json!({"displayTimeUnit": "ms", "traceEvents": names.chain(events).collect::<Vec<_>>()})
}
