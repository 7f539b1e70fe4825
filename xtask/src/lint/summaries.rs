//! Checks that summaries of documentation begin with a verb or name the thing.

use super::rules::HEADLESS;
use super::sources::Source;

/// Returns the documentation comments whose first word makes a clause without a verb.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    sources.iter().filter(|source| source.is_rust()).flat_map(faults_of_one).collect()
}

fn faults_of_one(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let mut in_comment = false;
    for (number, line) in source.text.lines().enumerate() {
        let line = line.trim_start();
        let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if let (Some(text), false) = (text, in_comment) {
            let word = text.split_whitespace().next().unwrap_or_default();
            if HEADLESS.contains(&word) {
                faults.push(format!(
                    "{}:{}: a summary begins with a verb or names the thing, not with `{word}`",
                    source.path,
                    number + 1
                ));
            }
        }
        in_comment = text.is_some();
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::sources::source;
    use super::*;

    #[test]
    fn a_summary_has_a_head() {
        let faults = |text: &str| faults_of_one(&source("a.rs", text));
        let fault =
            |line| format!("a.rs:{line}: a summary begins with a verb or names the thing, not with `What`");
        assert_eq!(faults("//! What is read.\n\n/// Returns it.\n/// What it is.\nfn f() {}\n"), [fault(1)]);
        assert_eq!(faults("struct A {\n    /// What it holds.\n    a: u8,\n}\n"), [fault(2)]);
        assert_eq!(faults("// What follows is code.\n/// Whatever.\nfn f() {}\n"), [""; 0]);
        assert_eq!(
            faults("/// Where it is.\n"),
            ["a.rs:1: a summary begins with a verb or names the thing, not with `Where`"]
        );
    }
}
