//! Memory that fails: the n-th allocation or publication, for all n, or a full region. Resolvers
//! that panic.

use super::*;
use crate::memory::{Mapping, MemoryError, MemoryOptions, Region};

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

fn with_memory(memory: Arc<Memory>) -> Jit {
    Jit::new(JitOptions { memory: Some(memory), ..JitOptions::default() }).unwrap()
}

/// Knows every address.
fn host(_: &SlotKey) -> Option<usize> {
    Some(16)
}

/// Links a unit that takes memory of each kind: it replaces a function, defines another one, has
/// data in a section, a pointer to the host, and slots.
fn change(jit: &Jit) -> Result<Unit, JitError> {
    let defined = [
        ("f", Linkage::Replaceable, SymbolKind::Function),
        ("g", Linkage::Replaceable, SymbolKind::Function),
    ];
    let section = data("s_1", Linkage::Export, &[]);
    let user = data("new", Linkage::Export, &["one", "f", "g", "host", "another", "__start_s"]);
    jit.replace(&[artifact(&defined, &[]), section, user], &host)
}

/// Everything that a link changes.
fn state(jit: &Jit) -> ([usize; 2], Vec<Export>, Vec<Unit>, String) {
    (in_use(jit), jit.exports(), jit.units(), format!("{jit:?}"))
}

/// Links what `change` uses. The unit of `f` stays when `f` is replaced, because of its data.
fn base(jit: &Jit) {
    let f = [("f", Linkage::Replaceable, SymbolKind::Function), ("kept", Linkage::Export, SymbolKind::Data)];
    for artifact in
        [data("one", Linkage::Export, &[]), artifact(&f, &[]), data("user", Linkage::Export, &["f"])]
    {
        link(jit, &artifact).unwrap();
    }
}

#[test]
fn every_region_may_be_full_at_every_point() {
    for (mapping, step) in [(Mapping::Dual, 8), (Mapping::Protect, 4096)] {
        let memory = Memory::reserve(MemoryOptions { mapping, ..MemoryOptions::with_size(1 << 20) }).unwrap();
        let jit = with_memory(memory.clone());
        base(&jit);
        for region in [Region::Code, Region::ReadOnly, Region::Data] {
            for free in 0.. {
                let usage = memory.usage();
                let usage = [usage.code, usage.read_only, usage.data][region as usize];
                // What is free is not in one piece.
                let mut fill = usage.free - free * step;
                let mut fillers = Vec::new();
                let mut piece = fill;
                while fill > 0 && piece >= 8 {
                    match memory.allocate(region, piece.min(fill) as u64 / 8 * 8, 8) {
                        Ok(block) => {
                            fill -= piece.min(fill) / 8 * 8;
                            fillers.push(block);
                        }
                        Err(_) => piece /= 2,
                    }
                }
                let before = state(&jit);
                let result = change(&jit);
                let is_enough = result.is_ok();
                match result {
                    Ok(unit) => jit.remove(&[unit]).unwrap(),
                    Err(error) => {
                        assert!(matches!(error, JitError::Memory(MemoryError::Full { .. })), "{error}")
                    }
                }
                assert_eq!(state(&jit), before, "{mapping:?} {region} {free}");
                // SAFETY: nobody uses them.
                fillers.into_iter().for_each(|block| unsafe { memory.free(block) });
                if is_enough {
                    // There are no constants.
                    assert!(free > 0 || region == Region::ReadOnly, "{mapping:?} {region}");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_resolver_may_panic_at_any_question() {
    let memory = Memory::reserve(MemoryOptions::with_size(1 << 20)).unwrap();
    let jit = with_memory(memory);
    base(&jit);
    let before = state(&jit);
    let user = data("new", Linkage::Export, &["a", "b", "c", "one"]);
    for n in 0..3 {
        let asked = AtomicUsize::new(0);
        let resolver = |_: &SlotKey| {
            assert!(asked.fetch_add(1, Ordering::SeqCst) != n, "a fault of the client");
            Some(16_usize)
        };
        let link = || jit.link(std::slice::from_ref(&user), &resolver);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(link)).is_err());
        assert_eq!(state(&jit), before);
    }
    jit.link(&[user], &host).unwrap();
}
