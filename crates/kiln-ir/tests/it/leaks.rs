//! Messages name things as the text does, not as they are called inside.

use std::sync::Arc;

use kiln_ir::{Source, parse_unverified};

use crate::{read, target};

/// Wrong pieces of a function, each of which Cranelift's reader or verifier refuses.
const WRONG: [&str; 26] = [
    "v1 = call fn0(v0, v0)",
    "v1 = call fn0()",
    "v9 = iconst.i32 1\n v1 = call fn0(v9)",
    "v1 = call fn9(v0)",
    "v1 = call_indirect sig0, v0(v0, v0)",
    "v1 = call_indirect sig9, v0(v0)",
    "v1 = func_addr.i32 fn0",
    "v1 = symbol_value.i32 gv0",
    "v1 = symbol_value.i64 gv9",
    "v1 = stack_addr.i64 ss9",
    "v1 = global_value.i64 gv0",
    "return_call fn0(v0, v0)",
    "try_call fn0(v0, v0), sig0, block1(ret0), [ default: block1(v0) ]\nblock1(v5: i64):",
    "jump block9",
    "jump block0",
    "v1, v2 = call fn0(v0)",
    "v1 = call %callee(v0)",
    "call fn0(v0",
    "fn7 = %late(i64)",
    "v1 = iadd v0, v77",
    "br_table v0, block0, [block9]",
    "v1 = f64const nonsense",
    "v1 = iconst.f64 1",
    "trap nothing",
    "return v0",
    "v1 = load.i64 bogus v0",
];

fn texts() -> Vec<String> {
    let function = |wrong: &&str| {
        format!(
            "function %caller(i64) {{\n ss0 = explicit_slot 8\n gv0 = symbol %thing\n sig0 = (i64) -> i64\n \
             fn0 = %callee(i64) -> i64\nblock0(v0: i64):\n {wrong}\n return\n}}\ndata %thing {{ zeros 8 }}\n"
        )
    };
    let mut texts: Vec<_> = WRONG.iter().map(function).collect();
    for import in
        ["(i64", "i64)", "(nonsense)", "() -> ", "() -> x9", "(i64) cold_fish", "", "(i64) { }", "(v1: i64)"]
    {
        texts.push(format!("import function %imported{import}\n"));
        texts.push(format!("code %imported{import} {{ bytes #90 }}\n"));
    }
    texts
}

#[test]
fn no_internal_name_is_in_a_message() {
    let mut messages = Vec::new();
    for text in texts() {
        if let Err(faults) = read(&text) {
            messages.extend(faults.iter().map(|fault| fault.message.to_string()));
        }
        if let Ok(module) = parse_unverified(Arc::new(Source::new("m.clif", text)), &target())
            && let Err(error) = module.verify(&target())
        {
            messages.push(error.to_string());
        }
    }
    assert!(messages.len() > 45, "{}", messages.len());
    for message in &messages {
        // `%f` is the function that a lone signature is read with.
        for internal in ["%f", "u0:", "userext", "user_named", "test1", "AnyEntity", "Some("] {
            assert!(!message.contains(internal), "{message}");
        }
    }
}
