//! `inspect --lines`: functions, and the places in files that their code was made from.

use kiln::image::ImageInfo;
use kiln::image::code::{Function, SourceLine};
use serde_json::{Value, json};

use super::shown::{IN_JSON, IN_TEXT, shown};
use crate::output::name;

/// Prints a function a line, and below it a range of code a line.
pub(super) fn text(info: &ImageInfo) {
    for function in functions(info) {
        let module = shown(function.module_name(), IN_TEXT);
        let module = module.map_or(String::new(), |module| format!("  ({})", name(&module)));
        let own_name = if function.name().is_empty() { "-".into() } else { name(function.name()) };
        let start = info.text() + u64::from(function.start());
        println!("{start:#10x} {:>9}  {own_name}{module}", function.len());
        for range in function.sources() {
            let (start, len) = (info.text() + u64::from(range.start), range.end - range.start);
            match line(&function, range.location) {
                Some(SourceLine { file, line, column, .. }) => {
                    let file = shown(Some(file), IN_TEXT).unwrap_or_default();
                    println!("  {start:#10x} {len:>7}    {}:{line}:{column}", name(&file));
                }
                None => println!("  {start:#10x} {len:>7}    @{:x}", range.location),
            }
        }
    }
}

/// Returns the same as JSON.
pub(super) fn document(info: &ImageInfo) -> Value {
    let functions: Vec<_> = functions(info)
        .map(|function| {
            let sources: Vec<_> = function
                .sources()
                .map(|range| {
                    let line = line(&function, range.location);
                    json!({
                        "address": info.text() + u64::from(range.start),
                        "size": range.end - range.start,
                        "location": range.location,
                        "file": shown(line.map(|line| line.file), IN_JSON),
                        "directory": shown(line.map(|line| line.directory), IN_JSON),
                        "line": line.map(|line| line.line),
                        "column": line.map(|line| line.column),
                    })
                })
                .collect();
            json!({
                "name": function.name(),
                "module": shown(function.module_name(), IN_JSON),
                "address": info.text() + u64::from(function.start()),
                "size": function.len(),
                "sources": sources,
            })
        })
        .collect();
    json!({ "functions": functions })
}

fn functions(info: &ImageInfo) -> impl Iterator<Item = Function<'_>> {
    info.code_tables().into_iter().flat_map(|tables| tables.functions())
}

/// Returns the place that a source location stands for, unless it is in no line.
fn line<'a>(function: &Function<'a>, location: u32) -> Option<SourceLine<'a>> {
    function.line_of(location).filter(|place| place.line != 0)
}
