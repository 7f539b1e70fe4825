//! `build --timings`: the page and the trace show what `--stats` counts.

use serde_json::Value;

use crate::browser::{fits_a_phone, shown, value};
use crate::support::{TestFolder, adder};

/// Ten files of one function each, of which one has a name that could end a script.
fn program() -> TestFolder {
    let dir = TestFolder::new(&[]);
    for number in 0..9 {
        dir.write(&format!("file{number}.clif"), adder(&format!("f{number}"), number));
    }
    dir.write("<img src=x onerror=alert(1)>.clif", adder("odd", 9));
    dir
}

/// Builds the program, and returns the numbers of `--stats`.
fn build(dir: &TestFolder) -> Value {
    let outputs = ["--timings", "t.html", "--timings", "t.json", "--format", "json"];
    let args = [&["build", ".", "-o", "p.so", "--cache", "kept"][..], &outputs].concat();
    serde_json::from_str(&dir.xtask(&args).ok()).unwrap()
}

/// Returns the complete events of the trace.
fn events(dir: &TestFolder) -> Vec<Value> {
    let trace: Value = serde_json::from_slice(&dir.read("t.json")).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    events.iter().filter(|event| event["ph"] == "X").cloned().collect()
}

fn count(events: &[Value], phase: &str) -> usize {
    events.iter().filter(|event| event["name"] == phase).count()
}

#[test]
fn the_trace_has_every_module_and_function() {
    let dir = program();
    let (stats, first) = (build(&dir), events(&dir));
    assert_eq!(count(&first, "module"), 10);
    assert_eq!(count(&first, "function"), stats["compiled_functions"]);
    assert_eq!((count(&first, "link"), count(&first, "write")), (1, 1));
    for event in &first {
        let [start, length] = ["ts", "dur"].map(|field| event[field].as_f64().unwrap());
        assert!(
            start >= 0.0 && start + length <= 1e6 * stats["seconds"]["total"].as_f64().unwrap(),
            "{event}"
        );
        let function = event["args"]["function"].as_str().unwrap();
        assert_eq!(event["name"] == "function", !function.is_empty(), "{event}");
    }
    // The second build finds every file by the client's key.
    dir.write("file3.clif", adder("f3", 33));
    let (stats, second) = (build(&dir), events(&dir));
    assert_eq!(stats["lazy_modules"], 9);
    let hits = second.iter().filter(|event| event["args"]["outcome"] == "hit by the client's key, from disk");
    assert_eq!((hits.count(), count(&second, "function")), (9, 1));
    // How much was looked up for how long, and where it was.
    let bytes = |event: &Value| {
        let outcome = event["args"]["outcome"].as_str()?.strip_suffix(" bytes from disk")?;
        outcome.parse::<u64>().ok().filter(|_| event["name"] == "look up")
    };
    let read: Vec<u64> = second.iter().filter_map(bytes).collect();
    let place = &stats["cache"]["places"]["disk"];
    assert_eq!((read.len() as u64, read.iter().sum::<u64>()), (9, place["bytes"].as_u64().unwrap()));
    assert!(place["modules"] == 9 && place["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn files_of_other_names_are_refused_before_any_work() {
    let dir = program();
    let ended = dir.xtask(&["build", ".", "-o", "p.so", "--timings", "t.txt"]).code(1);
    ended.says(&["cannot write timings to t.txt", ".html", ".json"]);
    assert!(!dir.path("p.so").exists());
    dir.xtask(&["build", ".", "-o", "p.so", "--timings", "none/t.html"]).code(1).says(&["none"]);
}

#[test]
fn the_page_shows_the_numbers_of_the_build() {
    let dir = program();
    build(&dir);
    dir.write("file3.clif", adder("f3", 33));
    let stats = build(&dir);
    let Some(page) = shown(&dir, "t.html", &[]) else { return };
    for (shown, counted) in [
        ("modules", &stats["modules"]),
        ("hits", &stats["reused_modules"]),
        ("compiled", &stats["compiled_functions"]),
        ("threads", &stats["threads"]),
    ] {
        assert_eq!(value(&page, shown), counted.to_string(), "{shown}");
    }
    let drawn = page.split_once("data-drawn=\"").expect("the script ran to its end").1;
    let spans = drawn.split_once('"').unwrap().0;
    assert_eq!(spans.parse::<usize>().unwrap(), events(&dir).len());
    // The table of modules shows the odd name as text.
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;.clif</td>"), "{page}");
    assert!(!page.contains("<img"), "{page}");
}

#[test]
fn the_page_fits_a_phone_and_has_dark_colours_where_they_are_wanted() {
    let dir = program();
    build(&dir);
    fits_a_phone(&dir, "t.html", events(&dir).len());
}
