//! The memory for reading a text is proportional to its length. If reading takes more, an
//! allocation fails, and so does this test.
//!
//! It has a test binary of its own, so that nothing else allocates.

use std::alloc::System;
use std::sync::Arc;

use cap::Cap;
use kiln_ir::{Source, Target, parse, print};
use kiln_oracle::greedy::TEXTS;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes of memory for each byte of text.
const FOR_BYTE: usize = 150;
/// Bytes of memory for a text of any length. Zeros between other data take more: 2^24 bytes, while
/// they go from one buffer to the next.
const FREE: usize = 1 << 20;
const FREE_ZEROS: usize = 5 << 24;

#[test]
fn memory_is_proportional_to_length() {
    let target = Target::parse("x86_64").expect("a target of every build");
    // Reading the first text also initializes what is kept.
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
