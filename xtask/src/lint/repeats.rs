//! Finds duplicated code with `jscpd`.
//!
//! `jscpd` compares the tokens of all files. `.ci/run` installs it, in the version that CI uses.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::rules::MAX_REPEATED_TOKENS;
use crate::output::Failure;

/// Returns the duplicated parts of all files that are not tests, or `None` if `jscpd` is not
/// installed.
pub(super) fn faults(root: &Path) -> Result<Option<Vec<String>>, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::of)?;
    let tokens = format!("--min-tokens={}", MAX_REPEATED_TOKENS + 1);
    let mut command = Command::new("jscpd");
    command
        .current_dir(root)
        .args([".", "--silent", "--format=rust", "--min-lines=3", "--reporters=json", &tokens])
        .args(["--ignore=**/tests/**,**/tests.rs,**/target/**", "--output"])
        .arg(folder.path())
        .stdout(Stdio::null());
    let status = match command.status() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.map_err(|error| Failure::while_doing("cannot start jscpd", error))?,
    };
    let report = std::fs::read(folder.path().join("jscpd-report.json"))
        .map_err(|error| Failure::while_doing(format!("jscpd wrote no report ({status})"), error))?;
    let report: Value = serde_json::from_slice(&report).map_err(Failure::of)?;
    let faults = read(&report).ok_or_else(|| Failure::new("the report of jscpd has no list of repeats"))?;
    Ok(Some(faults))
}

fn read(report: &Value) -> Option<Vec<String>> {
    let place = |file: &Value| {
        let name = file["name"].as_str()?.trim_start_matches("./");
        Some(format!("{name}:{}", file["start"].as_u64()?))
    };
    let repeat = |repeat: &Value| {
        let (first, second) = (place(&repeat["firstFile"])?, place(&repeat["secondFile"])?);
        let (lines, tokens) = (repeat["lines"].as_u64()?, repeat["tokens"].as_u64()?);
        Some(format!(
            "{first}: {lines} lines are written again at {second}: {tokens} tokens, at most {MAX_REPEATED_TOKENS}"
        ))
    };
    report["duplicates"].as_array()?.iter().map(repeat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_becomes_messages() {
        let place = |name: &str, start: u32| serde_json::json!({ "name": name, "start": start, "end": 99 });
        let report = serde_json::json!({
            "duplicates": [{
                "firstFile": place("./src/a.rs", 3), "secondFile": place("src/b.rs", 7), "lines": 9, "tokens": 86,
            }],
        });
        assert_eq!(
            read(&report),
            Some(vec!["src/a.rs:3: 9 lines are written again at src/b.rs:7: 86 tokens, at most 70".into()])
        );
        assert_eq!(read(&serde_json::json!({ "duplicates": [] })), Some(vec![]));
        assert_eq!(read(&serde_json::json!({})), None);
    }
}
