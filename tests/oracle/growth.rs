//! Time to read is in proportion to length, for inputs that ask for more than it: four times the input takes about four times as long.
//!
//! Not among them are two that do take quadratic time as yet: a chain of global values, each loaded from the one before, and a chain of aliases of
//! values that is used from its end. What takes less than a blink at the larger size is not compared, for it would be noise.

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

const SHAPES: [(&str, Shape); 9] = [
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

/// Reads, prints, writes and reads `text`; the time that the steps took.
fn steps(text: &str) -> [(&'static str, Duration); 4] {
    let target = Target::host();
    let start = Instant::now();
    let module = read(text, &target).unwrap_or_else(|faults| panic!("{}", &faults[..500.min(faults.len())]));
    let parsed = start.elapsed();
    let start = Instant::now();
    print(&module).expect("it was text");
    let printed = start.elapsed();
    let mut module = module;
    kiln_oracle::forms::only_what_bytes_can_say(&mut module);
    let start = Instant::now();
    let bytes = module.to_bytes();
    let written = start.elapsed();
    let start = Instant::now();
    let again = Modules::new(&bytes[..]).next().expect("a module").expect("a module");
    again.verify(&target).expect("a valid module");
    [("parse", parsed), ("print", printed), ("write", written), ("read", start.elapsed())]
}

#[test]
fn time_grows_with_length() {
    let size = if cfg!(debug_assertions) { 1500 } else { 8000 };
    for (name, shape) in SHAPES {
        let best = |n: usize| {
            let text = shape(n);
            let runs: Vec<_> = (0..3).map(|_| steps(&text)).collect();
            [0, 1, 2, 3].map(|step| runs.iter().map(|run| run[step].1).min().expect("three runs"))
        };
        let names = ["parse", "print", "write", "read"];
        let (small, large) = (best(size), best(4 * size));
        for ((step, small), large) in names.iter().zip(small).zip(large) {
            println!("{name}: {step} {small:?}, four times as much {large:?}");
            let noise = Duration::from_millis(100);
            assert!(large < small * 9 + noise, "{name}: {step} took {small:?}, then {large:?}");
        }
    }
}
