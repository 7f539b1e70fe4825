//! Reading takes time in proportion to the length of the input, even for inputs designed to take
//! longer: four times the input takes about four times as long.
//!
//! Times that are very short at the larger size are not compared, because they would be noise. Long
//! chains of aliases and of global values are refused, since Cranelift follows each chain from
//! every member. Here they have the largest length that is accepted.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use kiln::ir::{Modules, Target, print};
use kiln_oracle::forms::read;

/// A shape of `n` pieces.
type Shape = fn(usize) -> String;

fn pieces(before: &str, n: usize, piece: impl Fn(usize) -> String, after: &str) -> String {
    let mut text = before.to_owned();
    for number in 0..n {
        let _ = writeln!(text, "{}", piece(number));
    }
    text + after
}

const SHAPES: [(&str, Shape); 11] = [
    ("chains of aliases", |n| {
        let chain = |i: usize| format!("v{} -> v{}", i + 1, if i.is_multiple_of(1000) { 0 } else { i });
        pieces("function %f(i32) -> i32 {\nblock0(v0: i32):\n", n, chain, &format!("return v{n}\n}}"))
    }),
    ("chains of global values", |n| {
        let base = |i: usize| if i.is_multiple_of(1000) { 0 } else { i };
        let load = |i: usize| format!("gv{} = load.i64 notrap aligned gv{}", i + 1, base(i));
        let rest = format!("stack_limit = gv{n}\nblock0(v0: i64):\n return\n}}");
        pieces("function %f(i64 vmctx) {\ngv0 = vmctx\n", n, load, &rest)
    }),
    ("functions", |n| pieces("", n, |i| format!("function %f{i}() {{\nblock0:\n return\n}}"), "")),
    ("data", |n| pieces("", n, |i| format!("data %d{i} {{ addr %d{} }}", i / 2), "")),
    ("addresses", |n| pieces("data %d {\n", n, |i| format!("addr %s{i},"), "i8 0 }")),
    ("comments", |n| pieces("", n, |i| format!("; {i}"), "function %f() {\nblock0:\n return\n}")),
    ("globals", |n| pieces("", n, |i| format!("global %g{i} = \"{i}\""), "data %d { addr %g1 }")),
    ("callees", |n| {
        let calls: String = (0..n).map(|i| format!("call fn{i}()\n")).collect();
        let declare = |i| format!("fn{i} = %f{i}()");
        pieces("function %f() {\n", n, declare, &format!("block0:\n{calls}return\n}}"))
    }),
    ("blocks", |n| {
        let block = |i| format!("block{i}:\n jump block{}", i + 1);
        pieces("function %f() {\n", n, block, &format!("block{n}:\n return\n}}"))
    }),
    ("targets", |n| {
        let start = "function %f(i32) {\nblock0(v0: i32):\n br_table v0, block1, [block1";
        pieces(start, n, |_| ", block1".into(), "]\nblock1:\n return\n}")
    }),
    ("values", |n| {
        let add = |i| format!("v{} = iadd v{i}, v0", i + 1);
        pieces("function %f(i32) {\nblock0(v0: i32):\n", n, add, "return\n}")
    }),
];

/// Parses, prints, writes and reads `text`. Returns the time of each of the four.
fn steps(text: &str) -> [Duration; 4] {
    let target = Target::host();
    let start = Instant::now();
    let module = read(text, &target).unwrap_or_else(|faults| panic!("{}", &faults[..500.min(faults.len())]));
    let parsed = start.elapsed();
    let start = Instant::now();
    print(&module).expect("it was text");
    let printed = start.elapsed();
    let mut module = module;
    kiln_oracle::forms::only_printable_locations(&mut module);
    let start = Instant::now();
    let bytes = module.to_bytes();
    let written = start.elapsed();
    let start = Instant::now();
    let again = Modules::new(&bytes[..]).next().expect("a module").expect("a module");
    again.verify(&target).expect("a valid module");
    [parsed, printed, written, start.elapsed()]
}

/// Returns the step that takes more than in proportion, if there is one.
fn compare(small: [Duration; 4], large: [Duration; 4]) -> Result<(), String> {
    let noise = Duration::from_millis(50);
    let steps = ["parse", "print", "write", "read"].into_iter().zip(small).zip(large);
    let slow = steps.filter(|((_, small), large)| *large > *small * 9 + noise);
    let slow: Vec<_> = slow.map(|((step, small), large)| format!("{step} {small:?}, {large:?}")).collect();
    if slow.is_empty() { Ok(()) } else { Err(slow.join("; ")) }
}

#[test]
fn time_grows_with_length() {
    let size = if cfg!(debug_assertions) { 1500 } else { 8000 };
    for (name, shape) in SHAPES {
        let best = |n: usize| {
            let text = shape(n);
            let runs: Vec<_> = (0..3).map(|_| steps(&text)).collect();
            [0, 1, 2, 3].map(|step| runs.iter().map(|run| run[step]).min().expect("three runs"))
        };
        // Other tests run at the same time, so a slow step is tried again.
        let faults: Vec<_> = (0..4).map_while(|_| compare(best(size), best(4 * size)).err()).collect();
        assert!(faults.len() < 4, "{name}: {faults:?}");
    }
}
