//! Output that commands share: failures, formats, progress, numbers with units.

// This comes first, because its macros replace `println!` and `eprintln!` in all other modules.
#[macro_use]
mod print;

mod diagnostics;
mod escape;
mod failure;
mod link;
mod units;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) use self::diagnostics::{Shown, first_lines, shown};
pub(crate) use self::escape::name;
pub(crate) use self::failure::{Failure, Outcome, chain};
pub(crate) use self::link::{compiler_lines, link_line};
pub(crate) use self::print::{print_bytes, print_error_line, print_line, unwritten};
pub(crate) use self::units::{bytes, count, peak_rss, time};

/// A way to print results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document, or one per line.
    Json,
}

/// Prints a JSON document.
pub(crate) fn print_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("plain data");
    println!("{}", escape::json(&text));
}

/// Prints a JSON document that is one line.
pub(crate) fn print_json_line(value: &impl serde::Serialize) {
    let text = serde_json::to_string(value).expect("plain data");
    println!("{}", escape::json(&text));
}

/// A progress bar, which is drawn only on a terminal.
pub(crate) fn progress(what: &str, len: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template("{prefix:>10} [{bar:40}] {pos}/{len} {elapsed}")
        .expect("a valid template");
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(what.to_owned());
    bar
}
