//! Checks that `unsafe` stays in the crates and files that may have it.

use super::rules::{DENIES_UNSAFE, LAYERS, UNSAFE};
use super::sources::Source;

/// Finds crates that do not forbid `unsafe`, and crate roots that do not deny it.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    let forbids = LAYERS.iter().filter(|(name, ..)| !UNSAFE.contains(name)).map(|&(name, ..)| {
        let folder = if name == "kiln" { String::new() } else { format!("crates/{name}/") };
        (format!("{folder}src/lib.rs"), "#![forbid(unsafe_code)]")
    });
    let denies = DENIES_UNSAFE.iter().map(|&path| (path.to_owned(), "#![deny(unsafe_code)]"));
    let lacks = |(path, attribute): &(String, &str)| {
        let root = sources.iter().find(|source| source.path == *path);
        !root.is_some_and(|root| has_line(&root.text, attribute))
    };
    forbids
        .chain(denies)
        .filter(lacks)
        .map(|(path, attribute)| format!("{path}:1: the line `{attribute}` is missing"))
        .collect()
}

/// Whether a crate's root has this attribute on a line of its own. An attribute in a comment does
/// not count.
fn has_line(text: &str, attribute: &str) -> bool {
    text.lines().any(|line| line.trim_end() == attribute)
}

#[cfg(test)]
mod tests {
    use super::super::sources::source;
    use super::*;

    #[test]
    fn a_comment_forbids_nothing() {
        let forbids = |text| has_line(text, "#![forbid(unsafe_code)]");
        assert!(forbids("//! A crate.\n\n#![forbid(unsafe_code)]\n"));
        assert!(!forbids("//! A crate.\n// #![forbid(unsafe_code)]\n"));
        assert!(!forbids("//! A crate.\n#![deny(unsafe_code)]\n"));
    }

    #[test]
    fn roots_without_the_attribute_are_named() {
        let roots = |kiln: &str| {
            let folders = LAYERS.iter().map(|(name, ..)| format!("crates/{name}/src/lib.rs"));
            let mut sources: Vec<_> =
                folders.map(|path| source(&path, "#![forbid(unsafe_code)]\n")).collect();
            sources.extend(DENIES_UNSAFE.map(|path| source(path, "#![deny(unsafe_code)]\n")));
            sources.push(source("src/lib.rs", kiln));
            sources.reverse();
            sources
        };
        assert_eq!(faults(&roots("#![forbid(unsafe_code)]\n")), [""; 0]);
        assert_eq!(
            faults(&roots("#![warn(unsafe_code)]\n")),
            ["src/lib.rs:1: the line `#![forbid(unsafe_code)]` is missing"]
        );
    }
}
