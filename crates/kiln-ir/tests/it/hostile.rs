//! Nonsensical texts. Reading any file ends with a module or with diagnostics, never with a panic,
//! and every location is in the text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_ir::{Source, parse, parse_unverified, print};
use kiln_oracle::greedy::TEXTS;
use kiln_oracle::mutate::WORDS;
use kiln_oracle::random::Random;

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
    let read = parse(source.clone(), &target());
    // What the verifier would report is not an assumption of the reader.
    match parse_unverified(source, &target()) {
        Ok(module) => {
            // To look at it is no harm either.
            let _ = print(module.module());
            let _ = kiln_ir::check_program(&[module.module()]);
            for function in &module.module().functions {
                function.ir();
            }
            assert_eq!(module.verify(&target()).is_ok(), read.is_ok(), "{text}");
        }
        Err(faults) => assert!(!faults.is_empty() && read.is_err(), "{}", show(&faults)),
    }
    match read {
        Ok(module) => {
            assert_round_trips(&module);
            true
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in &faults {
                let lines = text.lines().count().max(1);
                let line = text.lines().nth((fault.location.line as usize).saturating_sub(1)).unwrap_or("");
                assert!(fault.location.line as usize <= lines + 1, "{fault:?}");
                assert!(fault.location.column as usize <= line.chars().count() + 1, "{fault:?} in {line:?}");
            }
            assert!(show(&faults).contains("hostile.clif"));
            false
        }
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

/// The verifier never sees a file with a wrong setting either.
#[test]
fn references_that_the_verifier_would_report() {
    const WRONG: [(&str, &str); 12] = [
        ("region1", "store notrap region1 v0, v0"),
        ("region7", "v1 = load.i64 region7 v0"),
        ("region9", "nop"),
        ("v99", "v1 = iadd v99, v99"),
        ("v99", "return v99"),
        ("v99", "v1 = bitcast.f64 v99"),
        ("block9", "jump block9"),
        ("block9", "br_table v0, block9, [block0]"),
        ("sig9", "try_call fn0(v0), sig9, block0(v0), [ default: block0(v0) ]"),
        ("ss9", "v1 = call fn0(v0), stack_map=[i64 @ ss9+0]"),
        ("ss9", "<ss9> v1 = call fn0(v0)"),
        ("block9", "v1 = get_exception_handler_address.i64 block9, 0"),
    ];
    for (missing, line) in WRONG {
        let region = if missing == "region9" { missing } else { "region0" };
        let text = format!(
            "function %f(i64) {{\n region0 = 3 \"heap\"\n gv1 = symbol %d\n gv0 = load.i64 notrap aligned {region} gv1\n stack_limit = gv0\n sig0 = \
             (i64) -> i64\n fn0 = %g(i64) -> i64\nblock0(v0: i64):\n {line}\n return\n}}\n"
        );
        for text in [text.clone(), format!("set is_pic=false\n{text}")] {
            assert!(!survives(&text), "{text}");
        }
        let source = Arc::new(Source::new("hostile.clif", text));
        let shown = match parse_unverified(source, &target()) {
            Ok(module) => module.verify(&target()).expect_err(line).to_string(),
            Err(faults) => show(&faults),
        };
        assert!(shown.contains(missing), "{line}: {shown}");
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
    let runs = if cfg!(debug_assertions) { 4_000 } else { 40_000 };
    let mut random = Random::new(1);
    for _ in 0..runs {
        let mut text: Vec<&str> = pieces.clone();
        for _ in 0..random.within(1, 3) {
            let at = random.below(text.len() as u32) as usize;
            text[at] = *if random.once_in(3) { random.choose(&WORDS) } else { random.choose(&pieces) };
        }
        survives(&text.concat());
    }
}

/// Returns the time to read `text` and to show the result.
fn time(text: String) -> Duration {
    let source = Arc::new(Source::new("hostile.clif", text));
    let start = Instant::now();
    match parse(source, &target()) {
        Ok(module) => drop(print(&module)),
        Err(faults) => drop(show(&faults)),
    }
    start.elapsed()
}

/// Four times the text takes about four times as long. With quadratic time it would take sixteen
/// times as long.
#[test]
fn time_is_proportional_to_length() {
    let noise = Duration::from_millis(50);
    for (name, text) in TEXTS {
        let best = |len: usize| (0..2).map(|_| time(text(len))).min().expect("two runs");
        // Other tests run at the same time, so a slow measurement is repeated.
        let tries = (0..4).map(|_| (best(250_000), best(1_000_000)));
        let slow: Vec<_> = tries.take_while(|(small, large)| *large > *small * 9 + noise).collect();
        assert!(slow.len() < 4, "{name}: {slow:?}");
    }
}
