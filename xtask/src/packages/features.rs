//! Builds each package with none of its features, with each alone, and with all. Builds of the
//! whole workspace do not: there, what one crate asks for is there for all.

use serde_json::Value;

use super::pack;
use super::published::{Done, PUBLISHED, run_cargo};
use crate::output::Failure;

/// The crates that are built with few others, so that each build takes a second.
const SMALL: [&str; 6] =
    ["kiln-globals", "kiln-artifact", "kiln-debug", "kiln-trap", "kiln-cache", "kiln-image"];

/// Features that only others have in common, or only tests need.
const PARTS: [&str; 5] = ["http", "objects", "operators", "server", "test-servers"];

/// Builds the small crates, or the others.
pub(super) fn run(others: bool) -> Result<Done, Failure> {
    let packages = pack::published()?;
    for name in PUBLISHED.into_iter().filter(|name| SMALL.contains(name) != others) {
        let package = packages.iter().find(|package| package["name"] == name);
        for features in package.map(sets).unwrap_or_default() {
            println!("features: {name} with {}", if features.is_empty() { "none" } else { &features });
            let mut args = vec!["check", "--quiet", "--package", name];
            match &*features {
                "all" => args.push("--all-features"),
                _ => args.extend(["--no-default-features", "--features", &features]),
            }
            run_cargo(&args)?;
        }
    }
    Ok(Done::Passed)
}

/// The features to build with: none, each, all.
fn sets(package: &Value) -> Vec<String> {
    let names = package["features"].as_object().into_iter().flat_map(|features| features.keys());
    let names = names.filter(|name| *name != "default" && !PARTS.contains(&name.as_str()));
    let mut sets: Vec<String> = std::iter::once(String::new()).chain(names.cloned()).collect();
    if sets.len() > 2 {
        sets.push("all".to_owned());
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_built_alone_and_together() {
        let sets = |features: Value| sets(&serde_json::json!({ "features": features }));
        assert_eq!(sets(serde_json::json!({})), [""]);
        assert_eq!(sets(serde_json::json!({ "default": ["a"], "a": [] })), ["", "a"]);
        assert_eq!(sets(serde_json::json!({ "a": [], "b": [], "http": [] })), ["", "a", "b", "all"]);
    }
}
