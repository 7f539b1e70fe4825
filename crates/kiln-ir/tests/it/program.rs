//! Checks over several modules.

use std::sync::Arc;

use expect_test::{Expect, expect};
use kiln_ir::{Module, Source, check_program, parse, undefined};

use crate::{show, target};

fn modules(texts: &[&str]) -> Vec<Module> {
    let read = |(number, text): (usize, &&str)| {
        let source = Source::new(format!("m{number}.clif"), *text);
        parse(Arc::new(source), &target()).unwrap_or_else(|faults| panic!("{}", show(&faults)))
    };
    texts.iter().enumerate().map(read).collect()
}

#[track_caller]
fn check(texts: &[&str], expected: Expect) {
    let modules = modules(texts);
    expected.assert_eq(&show(&check_program(&modules.iter().collect::<Vec<_>>())));
}

const F: &str = "function %f() {\nblock0:\n    return\n}\n";
const CALLS_F: &str = "function %main() {\n    fn0 = %f()\nblock0:\n    call fn0()\n    return\n}\n";
const CALLS_F_I32: &str =
    "function %other(i32) {\n    fn0 = %f(i32)\nblock0(v0: i32):\n    call fn0(v0)\n    return\n}\n";

#[test]
fn faultless() {
    check(&[], expect![[""]]);
    check(&[F], expect![[""]]);
    check(&[CALLS_F, F], expect![[""]]);
}

#[test]
fn defined_twice() {
    check(
        &[F, "data %x { i8 0 }\nhidden data %f { i8 1 }"],
        expect![[r#"
        Duplicate: error: `%f` is defined twice
         --> m1.clif:2:13
          |
        2 | hidden data %f { i8 1 }
          |             ^^
          |
         ::: m0.clif:1:10
          |
        1 | function %f() {
          |          -- first defined here

    "#]],
    );
    // A local symbol may have any name.
    check(&[F, "local data %f { i8 1 }", "local function %f() {\nblock0:\n    return\n}\n"], expect![[""]]);
}

#[test]
fn preemptible_definitions_are_overridden() {
    let weak = "preemptible function %f() {\nblock0:\n    return\n}\n";
    check(&[weak, F], expect![[""]]);
    check(&[F, weak, weak], expect![[""]]);
    check(
        &[weak, F, F],
        expect![[r#"
        Duplicate: error: `%f` is defined twice
         --> m2.clif:1:10
          |
        1 | function %f() {
          |          ^^
          |
         ::: m1.clif:1:10
          |
        1 | function %f() {
          |          -- first defined here

    "#]],
    );
}

#[test]
fn replaceable_definitions_replace_each_other() {
    let replaceable = &format!("replaceable {F}");
    let weak = &format!("preemptible {F}");
    check(&[replaceable, CALLS_F, replaceable], expect![[""]]);
    check(
        &[replaceable, F],
        expect![[r#"
        Duplicate: error: `%f` is not replaceable here, but has another definition
         --> m1.clif:1:10
          |
        1 | function %f() {
          |          ^^
          |
         ::: m0.clif:1:22
          |
        1 | replaceable function %f() {
          |                      -- defined as replaceable here

    "#]],
    );
    check(
        &[weak, replaceable],
        expect![[r#"
        Duplicate: error: `%f` is replaceable here, but has another definition
         --> m1.clif:1:22
          |
        1 | replaceable function %f() {
          |                      ^^
          |
         ::: m0.clif:1:22
          |
        1 | preemptible function %f() {
          |                      -- defined as not replaceable here

    "#]],
    );
    // The last definition is in force; the others must have its type.
    let other = "replaceable function %f(i32) {\nblock0(v0: i32):\n    return\n}\n";
    check(
        &[replaceable, other],
        expect![[r#"
        Signature: error: `%f` is declared as () system_v, but defined as (i32) system_v
         --> m0.clif:1:22
          |
        1 | replaceable function %f() {
          |                      ^^
          |
         ::: m1.clif:1:22
          |
        1 | replaceable function %f(i32) {
          |                      -- defined here

    "#]],
    );
}

#[test]
fn types_disagree() {
    check(
        &[CALLS_F_I32, F],
        expect![[r#"
        Signature: error: `%f` is declared as (i32) system_v, but defined as () system_v
         --> m0.clif:2:11
          |
        2 |     fn0 = %f(i32)
          |           ^^
          |
         ::: m1.clif:1:10
          |
        1 | function %f() {
          |          -- defined here

    "#]],
    );
    check(
        &[CALLS_F, CALLS_F_I32],
        expect![[r#"
        Signature: error: `%f` is declared as (i32) system_v, but first declared as () system_v
         --> m1.clif:2:11
          |
        2 |     fn0 = %f(i32)
          |           ^^
          |
         ::: m0.clif:2:11
          |
        2 |     fn0 = %f()
          |           -- first declared here

    "#]],
    );
    check(
        &[CALLS_F, "function %f() fast {\nblock0:\n    return\n}\n"],
        expect![[r#"
        Signature: error: `%f` is declared as () system_v, but defined as () fast
         --> m0.clif:2:11
          |
        2 |     fn0 = %f()
          |           ^^
          |
         ::: m1.clif:1:10
          |
        1 | function %f() fast {
          |          -- defined here

    "#]],
    );
    // The extension of a parameter is not part of its type.
    let callee = "function %f(i32 sext) {\nblock0(v0: i32):\n    return\n}\n";
    check(&[CALLS_F_I32, callee], expect![[""]]);
}

#[test]
fn data_as_function() {
    check(
        &[CALLS_F, "data %f { i8 1 }"],
        expect![[r#"
        Kind: error: `%f` is declared as a function, but defined as data
         --> m0.clif:2:11
          |
        2 |     fn0 = %f()
          |           ^^
          |
         ::: m1.clif:1:6
          |
        1 | data %f { i8 1 }
          |      -- defined here

    "#]],
    );
}

#[test]
fn undefined_names() {
    let modules = modules(&[
        CALLS_F,
        CALLS_F,
        "global %x = \"host\"\ndata %d { addr %x, addr %nowhere, addr %there }",
        "data %there { i8 0 }",
    ]);
    let modules: Vec<_> = modules.iter().collect();
    expect![[r#"
        Undefined: error: `%f` is not defined
         --> m0.clif:2:11
          |
        2 |     fn0 = %f()
          |           ^^

        Undefined: error: `%nowhere` is not defined
         --> m2.clif:2:25
          |
        2 | data %d { addr %x, addr %nowhere, addr %there }
          |                         ^^^^^^^^

    "#]]
    .assert_eq(&show(&undefined(&modules, &|_| false)));
    let faults = undefined(&modules, &|name| name == "f");
    assert_eq!(faults.len(), 1, "the host provides `f`");
}

#[test]
fn the_order_of_modules_does_not_change_what_is_found() {
    let modules = modules(&[F, F, CALLS_F_I32]);
    let forwards: Vec<_> = modules.iter().collect();
    let backwards: Vec<_> = modules.iter().rev().collect();
    assert_eq!(check_program(&forwards).len(), 2);
    assert_eq!(check_program(&backwards).len(), 2);
}
