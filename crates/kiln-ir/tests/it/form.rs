//! The canonical form of a function: what it is made from and what it decodes to.

use expect_test::expect;

use crate::module;

/// A block may precede the block that defines what it uses, and name it by an alias.
#[test]
fn values_used_before_their_definition() {
    let text = |first: &str, second: &str| {
        module(&format!(
            "function %f(i64) -> i64 {{
block0({first}: i64):
    jump block2
block1:
    v8 = iadd.i64 v7, {first}
    return v8
block2:
    {second} = iconst.i64 3
    v7 -> {second}
    jump block1
}}
"
        ))
    };
    let one = text("v0", "v1");
    let body = one.functions[0].body().unwrap();
    expect![[r#"
        function u0:0(i64) -> i64 system_v {
        block0(v0: i64):
            jump block2

        block1:
            v1 = iadd.i64 v2, v0  ; v2 = 3
            return v1

        block2:
            v2 = iconst.i64 3
            jump block1
        }
    "#]]
    .assert_eq(&body.decode(one.functions[0].symbol).display().to_string());
    // The form does not depend on the numbers of values.
    assert_eq!(text("v5", "v3").functions[0].body(), Some(body));
}

/// Files and keys of this version must be equal, whatever made them. If this test fails because the
/// form has changed, change the version in `crates/kiln-ir/src/binary/header.rs`, or the names of
/// kinds of fingerprints if only fingerprints have changed.
#[test]
fn bytes_of_this_version() {
    let module = module(
        "test run
set opt_level=speed
target x86_64 has_avx
global %host = \"runtime:host\"
data %table align=4 { i32 7, addr %f + 1 }
function %f(i64, f32) -> i64 { ; a comment
    gv0 = symbol %host
block0(v0: i64, v1: f32):
@0010 v2 = symbol_value.i64 gv0
    v3 = load.i64 notrap aligned v2+8
    v4 = iadd v3, v0
    brif v4, block1, block2(v4)
block1:
    trap user1
block2(v5: i64):
    return v5
}
code %m() { bytes #c3 }
",
    );
    let hex: Vec<String> =
        module.to_bytes().chunks(48).map(|line| line.iter().map(|b| format!("{b:02x}")).collect()).collect();
    expect![[r#"
        4b696c6e495200000400000007000000c00000000000000057000000000000006b024466f29a83d33fd6becc427a9cfb
        aa9e5d4af18bae6935c8e9d45d16bd3f302e3133352e3801096f70745f6c6576656c0105737065656401067838365f36
        3401076861735f6176780000040003016601020277007a0001770002000c72756e74696d653a686f7374000003016d01
        0200000103057461626c650002000010010145020277007a000177000001010000000000000103000001000006030477
        7a3277001e770010024a77020802770201000201080000050100027708010200010102000000000002010101c3000103
        000400010c07000000000000000000000001040002000009746573742e636c696601096f70745f6c6576656c01057370
        6565640201067838365f36340301076861735f6176780000030108746573742072756e060412050006010b3b20612063
        6f6d6d656e7401000b0012000500"#]]
    .assert_eq(&hex.join("\n"));
    expect!["a18fbc7c0b217d4e3cac3a9f64b1591ac54036d3233462041c9dfe07f3f01080"]
        .assert_eq(&module.fingerprint().to_string());
    let of_functions =
        module.functions.iter().map(|function| module.function_fingerprint(function).to_string());
    expect![[r#"
        f7bce2db89f81f372b9c5ae8a50e159bbc3874200fa71c51b02123b4a696e348
        77860687898680c84c633d9364dab1f3b42e5dac89b25b29fba20389a45f0af6"#]]
    .assert_eq(&of_functions.collect::<Vec<_>>().join("\n"));
}
