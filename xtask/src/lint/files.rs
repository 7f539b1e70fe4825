//! Checks that each Rust file says what it is for, and that most are short.

use super::rules::{MAX_FILE_LINES, MEDIAN_FILE_LINES};
use super::sources::Source;

/// Files that do not say what they are for, files that are too long, and a median length that is
/// too great.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    let mut faults: Vec<String> =
        sources.iter().filter(|source| source.is_rust()).flat_map(faults_of_one).collect();
    let of_crates = sources.iter().filter(|source| source.is_of_a_crate());
    faults.extend(median_fault(of_crates.map(|source| (lines(source), &*source.path)).collect()));
    faults
}

fn lines(source: &Source) -> usize {
    source.text.lines().count()
}

fn faults_of_one(source: &Source) -> Vec<String> {
    let path = &source.path;
    let mut faults = Vec::new();
    if !source.text.starts_with("//!") {
        faults.push(format!("{path}:1: does not open with `//!`, which says what the file is for"));
    }
    let lines = lines(source);
    if lines > MAX_FILE_LINES {
        faults.push(format!("{path}:{MAX_FILE_LINES}: the file has {lines} lines, at most {MAX_FILE_LINES}"));
    }
    faults
}

/// A finding with the longest files, if the median of these lengths is too great.
fn median_fault(mut lengths: Vec<(usize, &str)>) -> Option<String> {
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2)?.0;
    if median < MEDIAN_FILE_LINES {
        return None;
    }
    let longest: Vec<_> =
        lengths.iter().rev().take(5).map(|(lines, path)| format!("{path}:{lines}")).collect();
    Some(format!(
        "the median length of {} files of crates is {median} lines, must be below {MEDIAN_FILE_LINES}; \
         the longest: {}",
        lengths.len(),
        longest.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::super::sources::source;
    use super::*;

    #[test]
    fn files_open_with_their_purpose_and_end() {
        let faults = |text: &str| faults_of_one(&source("a.rs", text));
        assert_eq!(faults(&format!("//! A.\n{}", "\n".repeat(999))), [""; 0]);
        assert_eq!(
            faults(&"\n".repeat(1001)),
            [
                "a.rs:1: does not open with `//!`, which says what the file is for",
                "a.rs:1000: the file has 1001 lines, at most 1000"
            ]
        );
    }

    #[test]
    fn most_files_of_crates_are_short() {
        let file = |path: &str, lines: usize| source(path, &format!("//! A.\n{}", "\n".repeat(lines - 1)));
        let long = |path| file(path, 200);
        let short = |path| file(path, 199);
        assert_eq!(faults(&[long("src/a.rs"), short("src/b.rs"), short("src/c.rs")]), [""; 0]);
        assert_eq!(
            faults(&[long("src/a.rs"), short("src/b.rs"), long("x/src/c.rs"), short("src/tests.rs")]),
            ["the median length of 3 files of crates is 200 lines, must be below 200; \
              the longest: x/src/c.rs:200, src/a.rs:200, src/b.rs:199"]
        );
    }
}
