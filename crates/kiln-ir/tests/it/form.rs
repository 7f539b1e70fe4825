//! The canonical form of a function: what it is made from and what it decodes to.

use expect_test::expect;

use crate::module;

/// A block may stand before the one that defines what it uses, and name it by an alias.
#[test]
fn values_used_before_they_stand() {
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
    // Whatever the numbers were.
    assert_eq!(text("v5", "v3").functions[0].body(), Some(body));
}
