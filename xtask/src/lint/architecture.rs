//! Checks that ARCHITECTURE.md is short enough to be read, and names only paths and crates that
//! exist.

use super::rules::{LAYERS, MAX_ARCHITECTURE_LINES};
use crate::develop::root;
use crate::output::Failure;

/// The paths and crates in ARCHITECTURE.md that do not exist, and the crates that it does not name.
pub(super) fn faults() -> Result<Vec<String>, Failure> {
    let root = root();
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md"))
        .map_err(|error| Failure::while_doing("cannot read ARCHITECTURE.md", error))?;
    Ok(compare(&text, &|path| root.join(path).exists()))
}

fn compare(text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_ARCHITECTURE_LINES {
        faults.push(format!("ARCHITECTURE.md has {lines} lines, at most {MAX_ARCHITECTURE_LINES} are read"));
    }
    let mut folder = "";
    for (number, line) in text.lines().enumerate() {
        // A word in backquotes that has a slash and no space is a path. Within a paragraph, the
        // path of a Rust file may continue the last path that ends with a slash. A word that
        // starts like the names of this project's crates is a crate.
        if line.is_empty() {
            folder = "";
        }
        for word in line.split('`').skip(1).step_by(2) {
            let is_path = word.contains('/') && !word.contains([' ', '<', '*', '(']) && !word.contains("::");
            let is_missing = if is_path || word.ends_with(".rs") {
                let path = word.trim_end_matches('/');
                !exists(path) && !exists(&format!("{folder}{path}"))
            } else {
                word.starts_with("kiln-") && !LAYERS.iter().any(|(name, ..)| *name == word)
            };
            if is_missing {
                faults.push(format!("ARCHITECTURE.md:{}: `{word}` does not exist", number + 1));
            }
            if word.ends_with('/') && exists(word.trim_end_matches('/')) {
                folder = word;
            }
        }
    }
    for (name, ..) in LAYERS {
        if !text.contains(&format!("`{name}`")) {
            faults.push(format!("ARCHITECTURE.md does not name the crate `{name}`"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architecture_names_what_exists() {
        let crates: String = LAYERS.iter().map(|(name, ..)| format!("`{name}` ")).collect();
        let exists = |path: &str| ["src", "src/lib.rs", "crates"].contains(&path);
        let faults = |text: &str| compare(&format!("{crates}\n{text}"), &exists);
        assert_eq!(faults("`src/lib.rs`, `crates/`, `a::b/c`, `x / y`, `*/z` and src/gone.rs"), [""; 0]);
        assert_eq!(faults("`src/gone.rs`"), ["ARCHITECTURE.md:2: `src/gone.rs` does not exist"]);
        assert_eq!(faults("`src/`: `lib.rs`,\n`lib.rs`"), [""; 0]);
        assert_eq!(
            faults("`src/`: `gone.rs`, `a/`"),
            ["ARCHITECTURE.md:2: `gone.rs` does not exist", "ARCHITECTURE.md:2: `a/` does not exist"]
        );
        assert_eq!(faults("`src/`: a\n\n`lib.rs`"), ["ARCHITECTURE.md:4: `lib.rs` does not exist"]);
        assert_eq!(
            compare(&crates.replace("`kiln-jit`", "kiln-jit"), &exists),
            ["ARCHITECTURE.md does not name the crate `kiln-jit`"]
        );
        assert_eq!(faults(&"x\n".repeat(149)), [""; 0]);
        assert_eq!(faults(&"x\n".repeat(150)), ["ARCHITECTURE.md has 151 lines, at most 150 are read"]);
    }
}
