//! `bench --html`: the page shows what was measured. It is made of results from a file, because
//! measuring takes minutes.

use serde_json::{Value, json};

use crate::browser::{fits_a_phone, shown, value};
use crate::support::TestFolder;

/// Results as `bench --json` writes them: two contenders, three ratios, a curve of two lines.
fn results() -> Value {
    let spread = |median: f64| json!({ "median": median, "min": median * 0.9, "max": median * 1.2 });
    let series = |name: &str, part: &str, median: f64| json!({ "name": name, "part": part, "seconds": [median], "spread": spread(median) });
    let ratio = |name: &str, bound: &str, limit: Option<f64>, met: Option<bool>, median: f64| {
        let target = json!({ "bound": bound, "limit": limit });
        json!({ "name": name, "value": spread(median), "target": target, "met": met })
    };
    let points =
        |factor: f64| json!([[10_000, factor], [100_000, factor * 1.01], [1_000_000, factor * 1.03]]);
    json!({
        "run": {
            "rounds": 7, "threads": 2, "cores": 4, "functions": 1234, "adds": 5, "scale": 6,
            "cranelift": "0.0.1", "target": "x86_64-unknown-linux-gnu", "linkers": [], "workloads": [],
        },
        "sections": [{
            "workload": "a program </script><img src=x onerror=alert(1)>",
            "title": "A. from IR to machine code",
            "series": [series("kiln", "", 0.0012), series("kiln", "link", 0.0002), series("raw", "", 0.0042)],
            "ratios": [
                ratio("kiln / raw", "at most", Some(1.1), Some(true), 0.28),
                ratio("raw / kiln", "at least", Some(9.0), Some(false), 3.5),
                ratio("speed-up", "none", None, None, 1.9),
            ],
            "notes": ["a remark"],
            "checks": ["equal results"],
            "curves": [{
                "name": "compile a function", "unit": "us", "along": "functions",
                "lines": [
                    { "name": "kiln", "points": points(10.0) }, { "name": "raw loop", "points": points(9.0) },
                ],
            }],
        }],
    })
}

/// Times, ratios and points of [`results`].
const DRAWN: usize = 3 + 3 + 6;

fn page() -> TestFolder {
    let dir = TestFolder::new(&[]);
    dir.write("bench.json", results().to_string());
    dir.xtask(&["bench", "--from", "bench.json", "--html", "bench.html"]).ok();
    dir
}

#[test]
fn the_page_shows_what_was_measured() {
    let dir = page();
    let Some(page) = shown(&dir, "bench.html", &[]) else { return };
    for (id, text) in
        [("goals", "1 of 2"), ("rounds", "7"), ("threads", "2 on 4 cores"), ("functions", "1234")]
    {
        assert_eq!(value(&page, id), text, "{id}");
    }
    assert!(page.contains(&format!("data-drawn=\"{DRAWN}\"")), "{page}");
    for text in ["1.20 ms", "4.20 ms", "200 µs", "(at most 1.10: met)", "(at least 9.00: not met)"] {
        assert!(page.contains(text), "{text} is not in\n{page}");
    }
    // The lines of the curve, and the points with their sizes.
    assert_eq!((page.matches("<polyline").count(), page.matches("<circle").count()), (2, 6), "{page}");
    assert!(page.contains("raw loop, 1,000,000 functions: 9.27 us"), "{page}");
    assert!(page.contains("a remark") && page.contains("checked: equal results"), "{page}");
    // A name is text, and nothing is loaded.
    assert!(!page.contains("<img") && !page.contains("http-equiv"), "{page}");
}

#[test]
fn the_page_fits_a_phone_and_has_dark_colours_where_they_are_wanted() {
    fits_a_phone(&page(), "bench.html", DRAWN);
}

#[test]
fn files_that_are_no_results() {
    let dir = TestFolder::new(&[]);
    let args = ["bench", "--from", "bench.json", "--html", "bench.html"];
    dir.xtask(&args).code(1).says(&["cannot read", "bench.json"]);
    dir.write("bench.json", "{");
    dir.xtask(&args).code(1).says(&["cannot read", "bench.json", "EOF"]);
    dir.write("bench.json", "{}");
    dir.xtask(&args).code(1).says(&["bench.json has no results of `bench --json`"]);
    assert!(!dir.path("bench.html").exists());
}
