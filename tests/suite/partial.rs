//! Modules of which some fail.

use kiln::ir::{Module, Target};
use kiln::jit::Memory;
use kiln::{Compiler, FailureReason, Partial, Session};

use crate::common::module;

fn function(name: &str, ty: &str, callee: Option<(&str, &str)>) -> Module {
    let text = match callee {
        None => format!("function %{name}() -> {ty} system_v {{ block0: v0 = iconst.{ty} 7 return v0 }}"),
        Some((callee, ty)) => format!(
            "function %{name}() -> {ty} system_v {{
                fn0 = %{callee}() -> {ty} system_v
            block0: v0 = call fn0() return v0 }}"
        ),
    };
    module(name, &text)
}

fn texts(partial: &Partial) -> Vec<String> {
    partial.failures.iter().map(ToString::to_string).collect()
}

#[test]
fn modules_that_fail_take_those_along_that_need_them() {
    let session = Session::new(Target::host()).unwrap();
    session.add(&[function("known", "i64", None)]).unwrap();
    let modules = [
        function("good", "i64", None),
        function("user", "i64", Some(("good", "i64"))),
        // Defined already.
        function("known", "i64", None),
        // That is there, from before.
        function("lucky", "i64", Some(("known", "i64"))),
        // Nobody has it.
        function("lost", "i64", Some(("nowhere_at_all", "i64"))),
        function("first", "i64", Some(("lost", "i64"))),
        function("second", "i64", Some(("first", "i64"))),
        // Another type.
        function("wrong", "i32", Some(("good", "i32"))),
    ];
    let partial = session.add_partly(&modules);
    assert_eq!(partial.added, [0, 1, 3]);
    assert_eq!(partial.unit.as_ref().unwrap().len(), 3);
    assert_eq!(
        texts(&partial),
        [
            "module `known`: `known` is defined by module `known` of this link and by module `known` linked before",
            "`lost` of module `lost` needs `nowhere_at_all`, which nobody defines",
            "`first` of module `first` needs `lost`, which module `lost` defines, and that failed",
            "`second` of module `second` needs `first`, which module `first` defines, and that failed",
            "module `wrong`: function `wrong` of module 3 uses `good` as () -> i32 system_v, but module 0 defines it as () -> i64 system_v; module 0 is good, module 3 is wrong",
        ]
    );
    assert!(matches!(partial.failures[2].reason, FailureReason::Needs { failed: 4, .. }));
    let names: Vec<_> = session.exports().into_iter().map(|export| export.name.to_string()).collect();
    assert_eq!(names, ["good", "known", "lucky", "user"]);
    session.remove(&[partial.unit.unwrap()]).unwrap();
}

#[test]
fn a_definition_of_the_host_is_not_taken_for_one_that_failed() {
    extern "C" fn host() -> i64 {
        1
    }
    let session = Session::new(Target::host()).unwrap();
    session.bind_symbol("f", host as *const () as usize).unwrap();
    let broken = "function %f() -> i64 system_v { fn0 = %nowhere_at_all() -> i64 system_v
        block0: v0 = call fn0() return v0 }";
    let partial = session.add_partly(&[module("broken", broken), function("g", "i64", Some(("f", "i64")))]);
    assert!(partial.unit.is_none() && partial.added.is_empty());
    assert_eq!(partial.failures.len(), 2);
    // By itself, the module uses the host's.
    assert!(session.add_partly(&[function("g", "i64", Some(("f", "i64")))]).failures.is_empty());
}

#[test]
fn no_modules_and_no_memory() {
    let session = Session::new(Target::host()).unwrap();
    let partial = session.add_partly(&[]);
    assert!(partial.unit.is_none() && partial.failures.is_empty());

    let memory = Memory::reserve(kiln::jit::MemoryOptions::with_size(1 << 16)).unwrap();
    let options = kiln::jit::JitOptions { memory: Some(memory), ..Default::default() };
    let session = Session::with_compiler(Compiler::new(Target::host()), options).unwrap();
    let large = |name: &str| module(name, &format!("data %{name} writable {{ zeros 100_000 }}"));
    let partial = session.add_partly(&[large("a"), large("b")]);
    assert!(partial.unit.is_none());
    assert_eq!(partial.failures.len(), 2);
    assert!(texts(&partial).iter().all(|text| text.contains("no room")), "{:?}", texts(&partial));
}
