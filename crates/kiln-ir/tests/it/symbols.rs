//! The things that become symbols, their order, and the references of functions to them.

use expect_test::expect;

use crate::{describe, module};

#[test]
fn order_of_first_appearance() {
    let module = module(
        "function %main() {
    fn1 = %later()
    gv0 = symbol %data
    fn0 = %first()
    fn7 = %never()
block0:
    call fn0()
    call fn1()
    v0 = symbol_value.i64 gv0
    return
}
function %later() {
    fn0 = %CeilF32(f32) -> f32
    fn1 = %first()
block0:
    v0 = f32const 0.0
    v1 = call fn0(v0)
    call fn1()
    return
}
",
    );
    let expected = expect![[r#"
        0: Export Function "main" () system_v line 1
        1: Import Data "data"  line 3
        2: Import Function "first" () system_v line 4
        3: Export Function "later" () system_v line 12
        function 0 line 1
        function u0:0() system_v {
            gv0 = symbol userextname0
            sig0 = () system_v
            sig1 = () system_v
            fn0 = u0:2 sig0
            fn1 = u0:3 sig1

        block0:
            call fn0()
            call fn1()
            v0 = symbol_value.i64 gv0
            return
        }

        function 3 line 12
        function u0:3() system_v {
            sig0 = (f32) -> f32 system_v
            sig1 = () system_v
            fn0 = %CeilF32 sig0
            fn1 = u0:2 sig1

        block0:
            v0 = f32const 0.0
            v1 = call fn0(v0)  ; v0 = 0.0
            call fn1()
            return
        }

    "#]];
    expected.assert_eq(&describe(&module));
}

#[test]
fn sparse_numbers_leave_no_trace() {
    let module = module(
        "function %f(i64 vmctx) -> i64 {
    gv0 = vmctx
    gv3 = load.i64 notrap aligned gv7+8
    gv7 = vmctx
    gv9 = symbol %unused
    gv11 = symbol %used
    sig4 = (i64)
    fn5 = %callee sig4
    fn8 = u0:3() system_v
    stack_limit = gv3
block0(v0: i64):
    v1 = symbol_value.i64 gv11
@0010 call fn5(v0)
    v2 = func_addr.i64 fn8
    return v2
}
",
    );
    let expected = expect![[r#"
        0: Export Function "f" (i64 vmctx) -> i64 system_v line 1
        1: Import Data "used"  line 6
        2: Import Function "callee" (i64) system_v line 8
        3: Import Function "u0:3" () system_v line 9
        function 0 line 1
        function u0:0(i64 vmctx) -> i64 system_v {
            gv0 = load.i64 notrap aligned gv2+8
            gv1 = symbol userextname0
            gv2 = vmctx
            sig0 = (i64) system_v
            sig1 = () system_v
            fn0 = u0:2 sig0
            fn1 = u0:3 sig1
            stack_limit = gv0

                                        block0(v0: i64):
                                            v1 = symbol_value.i64 gv1
        @0010                               call fn0(v0)
                                            v2 = func_addr.i64 fn1
                                            return v2
        }

    "#]];
    expected.assert_eq(&describe(&module));
    // Hashing and cloning visit everything in a function.
    let function = module.functions[0].ir().unwrap();
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&function.stencil, &mut hasher);
    assert!(function.dfg.ext_funcs.values().all(|f| function.dfg.signatures.is_valid(f.signature)));
}

#[test]
fn used_as_address_and_as_function_is_one_function() {
    let module = module(
        "function %f() -> i64 {
    gv0 = symbol %g
block0:
    v0 = symbol_value.i64 gv0
    return v0
}
function %h() {
    fn0 = %g(i32)
block0:
    v0 = iconst.i32 0
    call fn0(v0)
    return
}
",
    );
    let expected = expect![[r#"
        0: Export Function "f" () -> i64 system_v line 1
        1: Import Function "g" (i32) system_v line 2
        2: Export Function "h" () system_v line 7
        function 0 line 1
        function u0:0() -> i64 system_v {
            gv0 = symbol userextname0

        block0:
            v0 = symbol_value.i64 gv0
            return v0
        }

        function 2 line 7
        function u0:2() system_v {
            sig0 = (i32) system_v
            fn0 = u0:1 sig0

        block0:
            v0 = iconst.i32 0
            call fn0(v0)  ; v0 = 0
            return
        }

    "#]];
    expected.assert_eq(&describe(&module));
}

#[test]
fn run_lines() {
    let module = module(
        "; run: before everything belongs to nobody
function %f() -> i32 { ; run: %f() == 1
block0:
    v0 = iconst.i32 1 ; running is not a command
    ; print: %f()
    return v0
}
; some text
   ;; run: %f() == 2
; run

function %g() {
block0:
    return
}
data %d { i8 0 }
; run: %g()
",
    );
    let lines: Vec<_> = module.functions.iter().map(|f| f.run_lines().collect::<Vec<_>>()).collect();
    expect![[r#"
        [
            [
                RunLine {
                    line: 2,
                    text: "run: %f() == 1",
                },
                RunLine {
                    line: 5,
                    text: "print: %f()",
                },
                RunLine {
                    line: 9,
                    text: "run: %f() == 2",
                },
                RunLine {
                    line: 10,
                    text: "run",
                },
            ],
            [],
        ]
    "#]]
    .assert_debug_eq(&lines);
}

#[test]
fn the_default_convention_is_the_target_s() {
    let module = module("function %f() {\nblock0:\n return\n}\nfunction %g() fast {\nblock0:\n return\n}");
    let conventions: Vec<_> =
        module.functions.iter().map(|f| f.ir().unwrap().signature.call_conv.to_string()).collect();
    assert_eq!(conventions, ["system_v", "fast"]);
}

#[test]
fn nothing_at_all() {
    for text in ["", "\n", "; comment", "test compile"] {
        let module = module(text);
        assert!(module.symbols.is_empty() && module.functions.is_empty() && module.data.is_empty());
    }
}
