//! `diff`: says in what two compiled files differ.
//!
//! Equal input gives equal bytes, so two builds that differ have a reason. This finds it: the
//! setting, function, datum or note. Whatever part of the files has no finer name is compared as a
//! whole, so files are called equal only if all their bytes are.

mod artifact;
mod bytes;
mod image;
mod report;

use std::error::Error;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln::artifact::Artifact;
use kiln::cache::Entry;
use kiln::image::{ImageInfo, read_image};
use serde_json::json;

use self::report::Report;
use crate::input::{self, InputFile, kind_of_no_image, start_of};
use crate::no_image::no_image;
use crate::output::{Failure, Format, Outcome, chain, count, name, print_json};

/// Say in what two images, two artifacts or two cache entries differ: in which setting, function,
/// datum, note or section.
///
/// Exit code 0 means that all bytes are equal, 1 that they differ. Functions and data are matched
/// by name. In an image, code that moved differs in the distances that it contains; so a function
/// whose length is the same is listed after those of another length.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask diff monday.so tuesday.so
  cargo xtask diff cache-a/ab/cdef… cache-b/01/2345…
  cargo xtask diff one.so two.so --format json")]
pub(crate) struct DiffArgs {
    /// The first file; `-` is standard input
    a: PathBuf,
    /// The second file, of the same kind
    b: PathBuf,
    /// How to print. JSON has all differences, text the first 50
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// A compiled file.
enum Compiled {
    Image(Box<ImageInfo>, Vec<u8>),
    Artifact(Artifact),
    Entry(Box<Entry>),
}

impl Compiled {
    fn kind(&self) -> &'static str {
        match self {
            Self::Image(..) => "an image",
            Self::Artifact(_) => "an artifact",
            Self::Entry(_) => "a cache entry",
        }
    }
}

pub(crate) fn main(args: &DiffArgs) -> Outcome {
    let (a, b) = (input::image(&args.a)?, input::image(&args.b)?);
    let (first, second) = (read(&a)?, read(&b)?);
    let mut report = Report::default();
    match (&first, &second) {
        (Compiled::Image(a, a_bytes), Compiled::Image(b, b_bytes)) => {
            image::compare((a, a_bytes), (b, b_bytes), &mut report);
        }
        (Compiled::Artifact(a), Compiled::Artifact(b)) => artifact::compare(a, b, &mut report),
        (Compiled::Entry(a), Compiled::Entry(b)) => compare_entries(a, b, &mut report),
        (a_kind, b_kind) => {
            let (a, b) = (shown(&a.name), shown(&b.name));
            return Err(Failure::new(format!("{a} is {}, and {b} is {}", a_kind.kind(), b_kind.kind())));
        }
    }
    print(&report, &a, &b, args.format);
    if report.is_empty() { Ok(()) } else { Err(Failure::Reported) }
}

fn shown(path: &Path) -> String {
    name(&path.display().to_string()).into_owned()
}

/// The largest artifact or cache entry that is read, in bytes: programs are smaller.
const LONGEST: u64 = 1 << 31;

/// Reads and checks a file.
fn read(input: &InputFile) -> Result<Compiled, Failure> {
    let cannot = |error| Failure::while_doing(format!("cannot read {}", shown(&input.name)), error);
    let whole = || {
        let mut bytes = Vec::new();
        File::open(&input.path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut bytes))
            .map_err(cannot)?;
        Ok::<_, Failure>(bytes)
    };
    let start = start_of(&input.path).map_err(cannot)?;
    let failed = |what: &str, error: &dyn Error| {
        Failure::new(format!("error: {what} {}: {}", shown(&input.name), chain(error)))
    };
    match kind_of_no_image(&start) {
        Some(kind) if kind.is_artifact() => {
            let artifact = Artifact::from_bytes(whole()?);
            artifact.map(Compiled::Artifact).map_err(|error| failed("artifact", &error))
        }
        Some(kind) if kind.is_entry() => {
            let entry = Entry::from_file(whole()?);
            entry.map(|entry| Compiled::Entry(Box::new(entry))).map_err(|error| failed("cache entry", &error))
        }
        _ => {
            let bytes = read_image(&input.path).map_err(|error| no_image(input, error))?;
            let info = ImageInfo::parse(&bytes).map_err(|error| no_image(input, error))?;
            Ok(Compiled::Image(Box::new(info), bytes.to_vec()))
        }
    }
}

/// Compares what the keys were made of, then the keys of functions, then the artifacts.
fn compare_entries(a: &Entry, b: &Entry, report: &mut Report) {
    for difference in a.recipe.differences(&b.recipe) {
        report.values(difference.field.to_string(), difference.old, difference.new);
    }
    artifact::compare(&a.artifact, &b.artifact, report);
    let is_same = a.functions.len() == b.functions.len();
    let changed = a.functions.iter().zip(b.functions.iter()).filter(|(a, b)| a != b).count();
    if !is_same || changed > 0 {
        let keys = |entry: &Entry| format!("{} keys", entry.functions.len());
        let what = match is_same {
            true => format!("{} of them differ", count(changed, "key")),
            false => "their number differs".into(),
        };
        report.add(format!("keys of functions: {what}"), Some(keys(a)), Some(keys(b)));
    }
}

/// The most differences in text.
const MOST: usize = 50;

fn print(report: &Report, a: &InputFile, b: &InputFile, format: Format) {
    let all = report.all();
    if format == Format::Json {
        let list: Vec<_> =
            all.iter().map(|found| json!({ "what": found.what, "a": found.a, "b": found.b })).collect();
        print_json(&json!({ "a": a.name, "b": b.name, "equal": all.is_empty(), "differences": list }));
        return;
    }
    if all.is_empty() {
        println!("equal");
        return;
    }
    for found in all.iter().take(MOST) {
        let side =
            |side: &Option<String>| side.as_deref().map_or("absent".into(), |text| name(text).into_owned());
        println!("{}\n  a: {}\n  b: {}", name(&found.what), side(&found.a), side(&found.b));
    }
    if all.len() > MOST {
        println!("and {} more", all.len() - MOST);
    }
}
