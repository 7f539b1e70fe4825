//! Characters that cannot be seen, in the names of symbols, sections, modules and files: people are
//! shown escapes, and JSON stays JSON.

use serde_json::Value;

use crate::support::{Ended, TestFolder};

/// Colour, bell, reversed text, no width, the end of a line.
const HIDDEN: &str = "a\u{1b}[31mRED\u{7}\u{202e}\u{200b}\u{9b}";
const SHOWN: &str = r"a\u{1b}[31mRED\u{7}\u{202e}\u{200b}\u{9b}";

/// Asserts that only characters that can be seen are printed.
#[track_caller]
fn clean(ended: Ended) -> Ended {
    for text in [&ended.stdout, &ended.stderr] {
        let hidden = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{200b}".contains(c));
        assert!(!text.contains(hidden), "{text:?}");
    }
    ended
}

fn notation(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[test]
fn names_of_symbols_and_sections() {
    let name = notation(HIDDEN);
    let text = format!(
        "symbol %f = \"{name}\"\nsymbol %g = \"{name}()\\nerror: forged\"\nglobal %o = \"{name}\"
data %d section=\"s{name}\" {{ i64 1 }}
export function %f() -> i64 system_v {{\n    fn0 = %g() -> i64 system_v\n    gv0 = symbol %o\nblock0:
    v0 = call fn0()\n    v1 = symbol_value.i64 gv0\n    return v0\n}}\n; print: %f()\n"
    );
    let dir = TestFolder::new(&[("a.clif", &*text), ("b.clif", &*text)]);
    clean(dir.xtask(&["build", "a.clif", "-o", "p.so", "--cache", "kept", "--verbose"])).ok();
    let inspected = clean(dir.xtask(&["inspect", "p.so"])).ok();
    for part in
        [format!("  {SHOWN}() -> i64"), format!("  s{SHOWN}\n"), format!("  {SHOWN}()\\nerror: forged")]
    {
        assert!(inspected.contains(&part), "no `{part}` in:\n{inspected}");
    }
    assert!(!inspected.contains("\nerror: forged"));
    let json = clean(dir.xtask(&["inspect", "p.so", "--format", "json"])).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["exports"].as_array().unwrap().iter().any(|export| export["name"] == HIDDEN), "{json}");

    // Every command with every kind of error.
    clean(dir.xtask(&["check", "a.clif", "b.clif"])).code(1).says(&[&format!("`%{SHOWN}` is defined twice")]);
    clean(dir.xtask(&["build", "a.clif", "b.clif", "-o", "p.so"])).code(1);
    let json = clean(dir.xtask(&["check", "a.clif", "--format", "json"])).code(1).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["faults"][0]["message"].as_str().unwrap().contains(HIDDEN), "{json}");
    let ended = clean(dir.xtask(&["run", "a.clif"])).code(1);
    assert!(
        ended.stdout.contains(&format!("`{SHOWN}()\\nerror: forged` is not defined")),
        "{}",
        ended.stdout
    );
    let json = clean(dir.xtask(&["run", "a.clif", "--format", "json"])).code(1).stdout;
    json.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
    clean(dir.xtask(&["call", "p.so", "nothing"])).code(1).says(&[&format!("global \"{}", "a")]);
    clean(dir.xtask(&["call", "p.so", HIDDEN])).code(1);
    dir.write("c.clif", text.replace("%g() -> i64", "%g() -> i32"));
    clean(dir.xtask(&["cache", "explain", "a.clif", "c.clif"]));
}

#[test]
fn names_of_files_and_modules() {
    let file = format!("{HIDDEN}\n.clif");
    let shown = format!("{SHOWN}\\n.clif");
    let text = "function %f() -> i64 {\nblock0:\n    v0 = iconst.i64 1\n    return v0\n}\n; run: %f() == 2\n";
    let dir = TestFolder::new(&[(&*file, text)]);
    let ended = clean(dir.xtask(&["run", &file])).code(1);
    assert!(ended.stdout.starts_with(&format!("{shown}: FAILED: line 6")), "{}", ended.stdout);
    clean(dir.xtask(&["build", &file, "-o", &format!("{HIDDEN}.so")])).ok();
    clean(dir.xtask(&["build", &file, "-o", "p.so", "--cache", "kept", "--verbose"])).says(&[SHOWN]).ok();
    clean(dir.xtask(&["inspect", &format!("{HIDDEN}.so")])).ok();
    clean(dir.xtask(&["convert", &file, "named.kir"])).ok();
    clean(dir.xtask(&["check", &format!("no{HIDDEN}")])).code(1).says(&[&format!("no{SHOWN}: No such file")]);
    clean(dir.xtask(&["check", &format!("--{HIDDEN}")])).code(2).says(&[r"\u{202e}\u{200b}"]);
    dir.write(&file, "function %f( {\n");
    clean(dir.xtask(&["check", &file])).code(1).says(&[&format!(" --> {shown}:1:1\n")]);
    // A module keeps the name of its text.
    dir.write("wrong.clif", text.replace("%f()", "%f(i64)"));
    clean(dir.xtask(&["run", "named.kir"])).code(1);
}

/// Text of the file is shown in messages.
#[test]
fn text_of_the_file() {
    let dir = TestFolder::new(&[(
        "a.clif",
        "function %f() { ; \u{1b}[31m \u{202e} \u{7}\nblock0: \u{1b}[31m\n    bogus\n}\n",
    )]);
    clean(dir.xtask(&["check", "a.clif"])).code(1);
    let ended = clean(dir.xtask(&["run", "a.clif"])).code(1);
    assert!(ended.stdout.contains("a.clif"), "{}", ended.stdout);
}

/// The texts of an image are those of whoever made it: a type that looks like a line of its own.
#[test]
fn types_and_producers_stay_on_their_lines() {
    let dir = TestFolder::new(&[("a.clif", &*crate::support::adder("plus", 2))]);
    dir.xtask(&["build", "a.clif", "-o", "p.so"]).ok();
    let mut image = dir.read("p.so");
    let find = |image: &[u8], text: &[u8]| image.windows(text.len()).position(|part| part == text).unwrap();
    for (text, forged) in
        [("(i64) -> i64 system_v", "(i64)\nerror: forged\x1b["), ("cranelift 0", "a\nerror: fo")]
    {
        let at = find(&image, text.as_bytes());
        image[at..at + forged.len()].copy_from_slice(forged.as_bytes());
    }
    kiln_oracle::fuzz::fit_image(&mut image);
    dir.write("p.so", &image);
    let inspected = clean(dir.xtask(&["inspect", "p.so"])).ok();
    assert!(inspected.contains(r"plus(i64)\nerror: forged\u{1b}["), "{inspected}");
    assert!(inspected.contains(r"a\nerror: fo"), "{inspected}");
    assert!(!inspected.contains("\nerror: "), "{inspected}");
}
