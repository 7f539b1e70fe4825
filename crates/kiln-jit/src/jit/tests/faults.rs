//! Memory that fails: the n-th allocation or publication, for all n.

use super::*;

/// Does `change` with every allocation failing in turn, until none is left to fail. A failure
/// leaves everything as it was, and the same change works afterwards. Returns how many failed.
fn every_failure(base: &[Artifact], change: impl Fn(&Jit) -> Result<Unit, JitError>) -> usize {
    for n in 0.. {
        let jit = jit();
        for artifact in base {
            link(&jit, artifact).unwrap();
        }
        let (units, before, names) = (jit.units(), in_use(&jit), jit.exports().len());
        jit.memory().fail_at(n);
        let result = change(&jit);
        let left = jit.memory().fail_at(usize::MAX);
        let Err(error) = result else {
            assert!(left <= n, "nothing failed");
            return n;
        };
        assert!(matches!(error, JitError::Memory(_)), "{error}");
        assert_eq!((jit.units(), in_use(&jit), jit.exports().len()), (units, before, names), "failure {n}");
        change(&jit).unwrap();
        let all = jit.units();
        jit.remove(&all).unwrap();
        jit.collect();
        assert_eq!(in_use(&jit), [0, 0], "failure {n}");
    }
    unreachable!()
}

#[test]
fn any_allocation_of_a_link_may_fail() {
    let kinds = [
        ("f", Linkage::Export, SymbolKind::Function),
        ("r", Linkage::Replaceable, SymbolKind::Function),
        ("d", Linkage::Export, SymbolKind::Data),
    ];
    let base = [data("one", Linkage::Export, &[])];
    let failures = every_failure(&base, |jit| {
        let host = |_: &SlotKey| Some(0x1000);
        jit.link(&[artifact(&kinds, &["one", "host"])], &host)
    });
    assert!(failures >= 4, "{failures}");
}

#[test]
fn any_allocation_of_a_replacement_may_fail() {
    let base = [replaceable("f"), data("user", Linkage::Export, &["f"])];
    let failures = every_failure(&base, |jit| jit.replace(std::slice::from_ref(&replaceable("f")), &nothing));
    assert!(failures >= 2, "{failures}");
}
