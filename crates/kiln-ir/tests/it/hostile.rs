//! Text that nobody meant: whatever stands in a file, reading it ends with a module or with diagnostics, never with a
//! panic, and every place lies in the text.

use std::sync::Arc;
use std::time::Instant;

use kiln_ir::{Source, parse, print};

use crate::print::assert_round_trips;
use crate::{show, target};

const SEED: &str = "; a comment
set opt_level=speed
target x86_64
global %host = \"runtime::table\"
data %table writable align=16 { addr %f + 8, bytes \"a\\n\\x7f\", i32 -7, f64 0x1.8p3, zeros 4, bytes #00ff }
local function %f(i64 vmctx, i32) -> i64, i32 system_v {
    ss0 = explicit_slot 16, align = 8
    region0 = 3 \"heap }\"
    gv0 = vmctx
    gv1 = load.i64 notrap aligned region0 gv0+8
    gv2 = symbol colocated %table
    sig0 = (i64, i32) -> i64
    fn0 = colocated u0:1 sig0
    fn1 = %CeilF32(f32) -> f32
    const0 = 0x00112233445566778899aabbccddeeff
    stack_limit = gv1
block0(v0: i64, v1: i32):
@0010 v2 = symbol_value.i64 gv2 ; }
<5>   v3 = call fn0(v0, v1)
    v4 = f32const 0x1.8p3
    v5 = call fn1(v4)
    v6 = vconst.i8x16 const0
    brif v1, block1(v3), block2
block1(v7: i64):
    v8 -> v7
    v11 = stack_addr.i64 ss0+8
    store notrap region0 v8, v11
    br_table v1, block2, [block2, block3(v7)]
block2 cold:
    trap user1
block3(v9: i64):
    try_call fn0(v0, v1), sig0, block4(ret0), [ tag1: block2, default: block2 ]
block4(v10: i64):
    return v10, v1
}
; run: %f(1) == 2
function u0:1(i64, i32) -> i64 { block0(v0: i64, v1: i32): return v0 }

; above
symbol %s = \"a.b\"
anonymous %n
import function %i(i64 uext) -> i32 system_v ; behind
import data %j
debug u0:1 { base @10, labels, v0 label 3 @4, v1 alias v0 @- }
hidden code %s(i64) fast { align 16, bytes #e800000000c3, bytes \"a\", reloc x86_call_pcrel4 at 1 %i - 4,
    reloc abs8 at 0 here 3, ; in code
    reloc abs8 at 0 routine CeilF32 + 1 }
; run: %s(1)

; end
local data %n { addr %s, addr %j }
";

#[track_caller]
fn survives(text: &str) -> bool {
    let source = Arc::new(Source::new("hostile.clif", text));
    match parse(source, &target()) {
        Ok(module) => {
            assert_round_trips(&module);
            true
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in &faults {
                let lines = text.lines().count().max(1);
                let line = text.lines().nth((fault.place.line as usize).saturating_sub(1)).unwrap_or("");
                assert!(fault.place.line as usize <= lines + 1, "{fault:?}");
                assert!(fault.place.column as usize <= line.chars().count() + 1, "{fault:?} in {line:?}");
            }
            assert!(show(&faults).contains("hostile.clif"));
            false
        }
    }
}

/// A generator of Marsaglia's (xorshift), for runs that can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[test]
fn the_seed_itself_is_read() {
    let text =
        SEED.replace("i64, i32) -> i64 {", "i64, i32) -> i64 tail {").replace("-> i64\n", "-> i64 tail\n");
    if let Err(faults) = crate::read(&text) {
        panic!("{}", show(&faults));
    }
}

#[test]
fn cut_off_anywhere() {
    for end in 0..SEED.len() {
        survives(&SEED[..end]);
        survives(&SEED[end..]);
    }
}

#[test]
fn words_exchanged() {
    let pieces: Vec<&str> = SEED.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).collect();
    let extra = [
        "",
        " ",
        "\n",
        ";",
        "\"",
        "}",
        "{",
        "\u{e9}",
        "\0",
        "v4294967295",
        "block4294967294",
        "ss9",
        "gv9",
        "sig9",
        "fn9",
        "i128",
        "f128",
        "i8x16",
        "i64x2xN",
        "-",
        "0x",
        "18446744073709551615",
        "userextname0",
        "u0",
        ":",
        "function ",
        "dt0 = i32*gv0\n",
        "try_call_indirect ",
        "return_call ",
        "data ",
        "global ",
        "stack_map=[i32 @ ss9+0]",
    ];
    let runs = if cfg!(debug_assertions) { 4_000 } else { 40_000 };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..runs {
        let mut text: Vec<&str> = pieces.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(text.len());
            text[at] = match random.below(3) {
                0 => extra[random.below(extra.len())],
                _ => pieces[random.below(pieces.len())],
            };
        }
        survives(&text.concat());
    }
}

/// Texts of a megabyte that ask for more than their length, one kind each. Before numbers were bounded and lines counted along,
/// some of them took 5 to 20 seconds.
#[test]
fn time_is_proportional_to_length() {
    let fill = |piece: &str| piece.repeat(1_000_000 / piece.len());
    let numbered = |before: &str, piece: &dyn Fn(usize) -> String, after: &str| {
        let mut text = before.to_owned();
        let mut number = 0;
        while text.len() < 1_000_000 {
            text.push_str(&piece(number));
            number += 1;
        }
        text + after
    };
    let texts = [
        ("tables", numbered("", &|n| format!("function %a{n}(){{block4999:return}}\n"), "")),
        ("values", numbered("", &|n| format!("function %a{n}(){{block0:v4999=iconst.i8 0 return}}\n"), "")),
        ("imports", numbered("function %f() {\n", &|n| format!("fn{n}=u0:{n}()\n"), "block0:return}")),
        (
            "declarations",
            fill("function %a(){gv4000=vmctx fn4000=%x() sig4000=() ss4000=explicit_slot 1 block0:return}\n"),
        ),
        ("faults", fill("what\n")),
        ("faults in functions", fill("function %f() {\nblock0:\n    retrun\n}\n")),
        ("one long line", fill("data %d { i8 256 } ")),
        ("long line of faults", fill("function %f() { block0: retrun } ")),
        ("duplicates", fill("data %d {}\n")),
        ("comments", fill(";\n")),
        ("comments in a function", format!("function %f() {{\n{}block0:\n return\n}}", fill("; c\n"))),
        ("aliases", numbered("", &|n| format!("symbol %a{n} = \"b\"\n"), "data %d { addr %a1 }")),
        ("symbols", numbered("data %d {", &|n| format!("addr %a{n},"), "i8 0}")),
        (
            "debug",
            numbered(
                "debug %f {",
                &|n| format!("v0 label {n} @0,"),
                "base @0}\nfunction %f(i64) {block0(v0:i64): return}",
            ),
        ),
        ("not closed", format!("function %f() {{ \"{}", fill("}"))),
        ("quotes", fill("function %f() { \" ")),
        ("strings", fill("data %d { bytes \"\\x\n")),
    ];
    for (name, text) in texts {
        let source = Arc::new(Source::new("hostile.clif", text));
        let start = Instant::now();
        let result = parse(source, &target());
        let parsed = start.elapsed();
        match result {
            Ok(module) => drop(print(&module)),
            Err(faults) => drop(show(&faults)),
        }
        // Generous, for machines are busy; what is quadratic takes minutes.
        assert!(start.elapsed().as_secs() < 60, "{name}: {:?}", start.elapsed());
        println!("{name}: read in {parsed:?}, shown in {:?}", start.elapsed() - parsed);
    }
}
