//! Memory to read a text is in proportion to its length: with more, allocation fails and this test with it.
//!
//! A test binary of its own, so that nothing else allocates.

use std::alloc::System;
use std::sync::Arc;

use cap::Cap;
use kiln_ir::{Source, Target, parse, print};
use kiln_oracle::greedy::TEXTS;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// For each byte of text.
const FOR_BYTE: usize = 150;
/// What a text of any length may take: that of zeros between other data, which are 2^24 bytes on the way from one buffer to the next, more.
const FREE: usize = 1 << 20;
const FREE_ZEROS: usize = 5 << 24;

#[test]
fn memory_is_proportional_to_length() {
    let target = Target::parse("x86_64").expect("a target of every build");
    // What is made once.
    drop(parse(Arc::new(Source::new("first.clif", "function %f() { block0: return }")), &target));
    for (name, text) in TEXTS {
        let text = text(200_000);
        let free = if name == "zeros" { FREE_ZEROS } else { FREE };
        let limit = MEMORY.allocated() + free + FOR_BYTE * text.len();
        println!("{name}"); // an allocation that fails says no more than its size
        MEMORY.set_limit(limit).expect("less is allocated as yet");
        match parse(Arc::new(Source::new("greedy.clif", text)), &target) {
            Ok(module) => drop(print(&module)),
            Err(faults) => drop(faults.iter().map(ToString::to_string).collect::<String>()),
        }
        MEMORY.set_limit(usize::MAX).expect("there is no limit");
    }
}
