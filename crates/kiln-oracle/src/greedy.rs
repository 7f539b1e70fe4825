//! Texts that could make a reader take time or memory out of proportion to their length.

/// A function that makes a text of about the given number of bytes.
pub type Text = fn(usize) -> String;

/// The kinds of texts, each with its name and its function.
pub const TEXTS: [(&str, Text); 21] = [
    ("tables", |len| numbered(len, "", |n| format!("function %a{n}(){{block4999:return}}\n"), "")),
    ("values", |len| {
        numbered(len, "", |n| format!("function %a{n}(){{block0:v4999=iconst.i8 0 return}}\n"), "")
    }),
    ("imports", |len| numbered(len, "function %f() {\n", |n| format!("fn{n}=u0:{n}()\n"), "block0:return}")),
    ("declarations", |len| {
        let piece =
            "function %a(){gv4000=vmctx fn4000=%x() sig4000=() ss4000=explicit_slot 1 block0:return}\n";
        filled(len, piece)
    }),
    ("errors", |len| filled(len, "what\n")),
    ("errors in functions", |len| filled(len, "function %f() {\nblock0:\n    retrun\n}\n")),
    ("one long line", |len| filled(len, "data %d { i8 256 } ")),
    ("long line of errors", |len| filled(len, "function %f() { block0: retrun } ")),
    ("duplicates", |len| filled(len, "data %d {}\n")),
    ("comments", |len| filled(len, ";\n")),
    ("comments in a function", |len| {
        format!("function %f() {{\n{}block0:\n return\n}}", filled(len, "; c\n"))
    }),
    ("aliases", |len| numbered(len, "", |n| format!("symbol %a{n} = \"b\"\n"), "data %d { addr %a1 }")),
    ("symbols", |len| numbered(len, "data %d {", |n| format!("addr %a{n},"), "i8 0}")),
    ("debug", |len| {
        let after = "base @0}\nfunction %f(i64) {block0(v0:i64): return}";
        numbered(len, "debug %f {", |n| format!("v0 label {n} @0,"), after)
    }),
    ("chain of aliases", |len| {
        numbered(len, "function %f(i32) {block0(v0:i32):\n", |n| format!("v{}->v{n}\n", n + 1), "return}")
    }),
    ("chain of global values", |len| {
        let load = |n| format!("gv{}=load.i64 notrap aligned gv{n}\n", n + 1);
        numbered(len, "function %f(i64 vmctx) {gv0=vmctx\n", load, "block0(v0:i64): return}")
    }),
    ("cycle of global values", |len| {
        let load = |n| format!("gv{n}=load.i64 notrap aligned gv{}\n", n + 1);
        numbered(len, "function %f() {\n", load, "block0: return}")
    }),
    ("zeros", |len| filled(len, "data %d { zeros 1000000, i8 1 }\n")),
    ("not closed", |len| format!("function %f() {{ \"{}", filled(len, "}"))),
    ("quotes", |len| filled(len, "function %f() { \" ")),
    ("strings", |len| filled(len, "data %d { bytes \"\\x\n")),
];

fn filled(len: usize, piece: &str) -> String {
    piece.repeat(len / piece.len())
}

fn numbered(len: usize, before: &str, piece: impl Fn(usize) -> String, after: &str) -> String {
    let mut text = before.to_owned();
    for number in 0.. {
        if text.len() >= len {
            break;
        }
        text.push_str(&piece(number));
    }
    text + after
}
