//! Checks that the links in Markdown lead somewhere: to a file or folder of the project, and to a
//! heading in it.

use std::path::{Component, Path, PathBuf};

use super::sources::Source;

/// Links in Markdown whose file, or whose heading in that file, does not exist. Links to other
/// servers are not followed.
pub(super) fn faults(sources: &[Source], exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.has_extension("md")) {
        for (line, target) in links(&source.text) {
            if let Some(fault) = fault(source, target, sources, exists) {
                faults.push(format!("{}:{line}: {fault}", source.path));
            }
        }
    }
    faults
}

fn fault(
    source: &Source,
    target: &str,
    sources: &[Source],
    exists: &dyn Fn(&Path) -> bool,
) -> Option<String> {
    // rustdoc checks paths of Rust.
    if target.contains("://") || target.starts_with("mailto:") || target.contains("::") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => PathBuf::from(&source.path),
        file => match resolve(&source.path, file) {
            Some(path) if exists(&path) => path,
            _ => return Some(format!("`{target}` does not exist")),
        },
    };
    if heading.is_empty() {
        return None;
    }
    let text = sources.iter().find(|other| Path::new(&other.path) == path)?;
    let found = headings(&text.text).any(|other| anchor(other) == heading);
    (!found).then(|| format!("`{target}`: there is no such heading"))
}

/// The path, from the project's folder, of a file that a page names; none if it is outside.
fn resolve(page: &str, file: &str) -> Option<PathBuf> {
    let mut path = Path::new(page).parent()?.to_owned();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir => path.pop().then_some(())?,
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// The lines that are not in a block of code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((number + 1, line))
    })
}

/// The targets of links, with their lines: `[text](target)` and `[label]: target`.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        let inline = line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        let definition = line.split_once("]: ").filter(|_| line.starts_with('['));
        inline.chain(definition.map(|(_, target)| target.trim())).map(move |target| (number, target))
    })
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| line.trim_start_matches('#').trim())
}

/// The name by which a heading is linked to, as servers of git make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::super::sources::source;
    use super::*;

    #[test]
    fn links_lead_to_files_and_headings() {
        let check = |text: &str| {
            let sources = [source("docs/a.md", text), source("README.md", "# One: `two`, three\n")];
            faults(&sources, &|path| sources.iter().any(|other| Path::new(&other.path) == path))
        };
        for right in [
            "[a](../README.md)",
            "[a](../README.md#one-two-three), [b](a.md)",
            "[a](https://example.com/gone)",
            "# Here\n\n[a](#here)",
            "[a]: ../README.md",
            "[`a`]: crate::a",
            "```text\n[a](gone.md)\n```",
        ] {
            assert_eq!(check(right), [""; 0], "{right}");
        }
        assert_eq!(check("\n[a](gone.md)"), ["docs/a.md:2: `gone.md` does not exist"]);
        assert_eq!(check("[a](README.md) [b](b.md)").len(), 2);
        assert_eq!(check("[a](../../x)"), ["docs/a.md:1: `../../x` does not exist"]);
        assert_eq!(check("[a]: b.md"), ["docs/a.md:1: `b.md` does not exist"]);
        assert_eq!(
            check("[a](../README.md#two)"),
            ["docs/a.md:1: `../README.md#two`: there is no such heading"]
        );
        assert_eq!(check("```\n# Not here\n```\n[a](#not-here)").len(), 1);
    }
}
