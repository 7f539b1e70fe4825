//! Tests of reuse: the events of a build say what was compiled and what was reused, and the result
//! is the same either way.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kiln::artifact::Artifact;
use kiln::cache::{Entry, Event, Events, Key, Lookup, MemoryStore, Store};
use kiln::ir::{Module, Target};
use kiln::jit::JitOptions;
use kiln::{Compiler, Lazy, LazyKey, Session, Stats, Verify};

use crate::common::{SharedStore, module, modules, shared};

/// Events by name, in the order of the alphabet.
#[derive(Default)]
pub(crate) struct Log(Mutex<BTreeMap<String, usize>>);

impl Events for Log {
    fn report(&self, event: &Event<'_>) {
        let text = match event {
            Event::Miss { reason, .. } => format!("miss: {reason}"),
            other => {
                let debug = format!("{other:?}");
                debug.split([' ', '{', '(']).next().unwrap_or("").to_lowercase()
            }
        };
        *self.0.lock().unwrap().entry(text).or_default() += 1;
    }
}

impl Log {
    /// Takes the events that were reported since the last call.
    pub(crate) fn take(&self) -> String {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        events.iter().map(|(event, count)| format!("{count} {event}")).collect::<Vec<_>>().join(", ")
    }
}

fn build(store: &SharedStore, log: &Arc<Log>, verify: Verify, modules: &[Module]) -> (Vec<Artifact>, Stats) {
    let compiler = Compiler::new(Target::host()).store(store.clone()).events(log.clone()).verify(verify);
    let compiled = compiler.compile(modules).unwrap();
    assert!(compiled.samples.is_empty() || verify != Verify::Nothing);
    compiled.samples.verify(&compiler);
    (compiled.artifacts, compiled.stats)
}

fn cold(modules: &[Module]) -> Vec<Artifact> {
    Compiler::new(Target::host()).compile(modules).unwrap().artifacts
}

pub(crate) const MODULE: &str = "
function %first(i64) -> i64 fast {
    fn0 = colocated %second(i64) -> i64 fast
block0(v0: i64):
    v1 = call fn0(v0)
    return v1
}
function %second(i64) -> i64 fast {
    fn0 = %outside(i64) -> i64 fast
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = iconst.i64 10
    v3 = iadd v1, v2
    return v3
}
local function %third() -> i64 fast {
block0:
    v0 = iconst.i64 3
    return v0
}
function %fourth() -> i64 fast {
    fn0 = colocated %third() -> i64 fast
block0:
    v0 = call fn0()
    return v0
}
";

#[test]
fn one_function_edited_compiles_that_function_alone() {
    let (store, log) = (shared(MemoryStore::new()), Arc::<Log>::default());
    let old = [module("m.clif", MODULE)];
    let (artifacts, stats) = build(&store, &log, Verify::Nothing, &old);
    assert_eq!((stats.compiled_functions, stats.reused_functions), (4, 0));
    assert_eq!(log.take(), "1 miss: never stored before");
    assert_eq!(artifacts, cold(&old));

    let edits = [
        ("iconst.i64 10", "iconst.i64 11", 1),
        // The callee's name is no part of the code.
        ("%outside", "%elsewhere", 0),
        // The kind of its reference is: the callee was colocated before.
        ("local function %third", "preemptible function %third", 1),
        // A call of it reads its slot.
        ("local function %third", "replaceable function %third", 1),
        // Names of local symbols are in the artifact, but not in the code.
        ("%third", "%renamed", 0),
        ("v0: i64", "v77: i64", 0),
    ];
    for (from, to, compiled) in edits {
        let mut text = MODULE.replace(from, to);
        if to == "v77: i64" {
            text = text.replace("(v0)", "(v77)");
        }
        let new = [module("m.clif", &text)];
        build(&store, &Arc::default(), Verify::Nothing, &old);
        let (artifacts, stats) = build(&store, &log, Verify::Nothing, &new);
        assert_eq!(
            (stats.compiled_functions, stats.reused_functions),
            (compiled, 4 - compiled),
            "{to}: {}",
            log.take()
        );
        assert!(artifacts == cold(&new), "{to}");
        log.take();
    }
}

#[test]
fn a_miss_says_why() {
    let (store, log) = (shared(MemoryStore::new()), Arc::<Log>::default());
    build(&store, &log, Verify::Nothing, &[module("m.clif", MODULE)]);
    log.take();
    let edited = MODULE.replace("iconst.i64 10", "iconst.i64 11");
    build(&store, &log, Verify::Nothing, &[module("m.clif", &edited)]);
    let told = log.take();
    assert!(told.starts_with("1 miss: ") && told.contains("IR"), "{told}");
    build(&store, &log, Verify::Nothing, &[module("m.clif", &edited)]);
    assert_eq!(log.take(), "1 hit");

    let target = Target::host().setting("opt_level", "none");
    let other = Compiler::new(target).store(store).events(log.clone());
    other.compile(&[module("m.clif", &edited)]).unwrap();
    let told = log.take();
    assert!(told.contains("opt_level") && told.contains("none"), "{told}");
}

#[test]
fn warm_half_warm_and_cold_are_one() {
    let all = modules();
    let (store, log) = (shared(MemoryStore::new()), Arc::<Log>::default());
    let expected = cold(&all);
    let half: Vec<Module> = all.iter().step_by(2).cloned().collect();
    build(&store, &log, Verify::Nothing, &half);
    let (half_warm, stats) = build(&store, &log, Verify::Nothing, &all);
    assert_eq!(stats.reused_modules, half.len());
    assert!(half_warm == expected);
    let (warm, stats) = build(&store, &log, Verify::Nothing, &all);
    assert_eq!((stats.reused_modules, stats.compiled_functions), (all.len(), 0));
    assert!(warm == expected);
}

/// A store that has the artifact of another module under every key.
struct Liar(MemoryStore, Artifact, Arc<AtomicUsize>);

impl Store for Liar {
    fn get(&self, key: &Key) -> Lookup {
        match self.0.get(key) {
            Lookup::Hit(entry, place) if self.2.load(Ordering::Relaxed) == 0 => {
                Lookup::Hit(Entry { artifact: self.1.clone(), ..entry }, place)
            }
            other => other,
        }
    }

    fn put(&self, key: &Key, entry: &Entry) -> std::io::Result<()> {
        self.0.put(key, entry)
    }

    fn quarantine(&self, key: &Key, reason: &str) -> std::io::Result<()> {
        self.2.fetch_add(1, Ordering::Relaxed);
        self.0.quarantine(key, reason)
    }
}

#[test]
fn wrong_code_in_a_store_is_found() {
    let one = [module("one.clif", "function %f() -> i64 fast {\nblock0:\n v0 = iconst.i64 1\n return v0\n}")];
    let two = [module("two.clif", "function %f() -> i64 fast {\nblock0:\n v0 = iconst.i64 2\n return v0\n}")];
    let log = Arc::<Log>::default();
    for (verify, told) in [
        // Only a sample is verified: this build has the wrong code, later builds do not.
        (Verify::Sample(NonZeroU32::MIN), "1 hit, 1 verifyfailed"),
        (Verify::All, "1 hit, 1 verifyfailed"),
        (Verify::Nothing, "1 hit"),
    ] {
        let quarantined = Arc::new(AtomicUsize::new(0));
        let liar = shared(Liar(MemoryStore::new(), cold(&two).remove(0), quarantined.clone()));
        build(&liar, &log, verify, &one);
        log.take();
        let (artifacts, stats) = build(&liar, &log, verify, &one);
        assert_eq!(log.take(), told, "{verify:?}");
        assert_eq!(artifacts == cold(&one), verify == Verify::All, "{verify:?}");
        assert_eq!(stats.wrong_entries, usize::from(verify == Verify::All));
        if verify != Verify::Nothing {
            assert_eq!(quarantined.load(Ordering::Relaxed), 1);
            // Later builds get the code that was compiled then, and compile nothing.
            assert!(build(&liar, &log, Verify::Nothing, &one).0 == cold(&one));
            assert_eq!(log.take(), "1 hit");
        }
        log.take();
    }
    // An honest store passes.
    let store = shared(MemoryStore::new());
    build(&store, &log, Verify::All, &one);
    log.take();
    build(&store, &log, Verify::All, &one);
    assert_eq!(log.take(), "1 hit, 1 verified");
    build(&store, &log, Verify::Sample(NonZeroU32::MIN), &one);
    assert_eq!(log.take(), "1 hit, 1 verified");
}

#[test]
fn one_module_in_512_is_compiled_again_unless_the_client_says_otherwise() {
    assert_eq!(Verify::default(), Verify::Sample(NonZeroU32::new(512).unwrap()));
    let compiler = Compiler::new(Target::host()).store(shared(MemoryStore::new()));
    let constant = |number| {
        module("m", &format!("function %f() -> i64 {{\nblock0:\n v0 = iconst.i64 {number}\n return v0\n}}"))
    };
    let sampled = |module: &Module| compiler.keys(module).unwrap().0.key().sampled(512);
    for chosen in [true, false] {
        let module = [(0..).map(constant).find(|module| sampled(module) == chosen).unwrap()];
        assert!(compiler.compile(&module).unwrap().samples.is_empty(), "nothing was reused");
        assert_eq!(compiler.compile(&module).unwrap().samples.len(), usize::from(chosen));
    }
}

#[test]
fn events_name_modules() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let events = move |event: &Event<'_>| {
        let (what, name) = match *event {
            Event::Hit { module, .. } => ("hit", module),
            Event::Miss { module, .. } => ("miss", module),
            Event::Verified { module, .. } => ("verified", module),
            ref other => panic!("{other:?}"),
        };
        log.lock().unwrap().push(format!("{what} {name}"));
    };
    let compiler = Compiler::new(Target::host())
        .store(shared(MemoryStore::new()))
        .events(Arc::new(events))
        .verify(Verify::Sample(NonZeroU32::MIN));
    let module = [module("some.clif", MODULE)];
    for _ in 0..2 {
        compiler.compile(&module).unwrap().samples.verify(&compiler);
    }
    let lazy = || {
        vec![Lazy::new("some.clif", LazyKey::new("test", *b"key"), || Ok::<_, Infallible>(module[0].clone()))]
    };
    compiler.clone().verify(Verify::All).compile_lazy(lazy()).unwrap();
    compiler.compile_lazy(lazy()).unwrap();
    let expected =
        ["miss", "hit", "verified", "hit", "verified", "hit"].map(|what| format!("{what} some.clif"));
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn a_session_uses_the_settings_of_its_compiler() {
    let (store, log) = (Arc::new(MemoryStore::new()), Arc::new(Log::default()));
    let text = MODULE.replace("%outside(i64)", "%first(i64)").replace("= %outside", "= colocated %first");
    let modules = [module("m.clif", &text)];
    let key = |module: &Module| Compiler::new(Target::host()).keys(module).unwrap().0.key();
    let compiler =
        Compiler::new(Target::host()).store(store.clone()).events(log.clone()).verify(Verify::Nothing);
    let run = |modules: &[Module], compiler: Compiler| {
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        session.add(modules).unwrap();
        session.stats()
    };
    assert_eq!(run(&modules, compiler.clone()).compiled_functions, 4);
    assert_eq!(log.take(), "1 miss: never stored before");
    assert_eq!(run(&modules, compiler.clone()).reused_modules, 1);
    assert_eq!(log.take(), "1 hit");
    // Everything is compiled, and equals what was stored.
    let stats = run(&modules, compiler.clone().verify(Verify::All));
    assert_eq!((stats.compiled_functions, stats.reused_modules), (4, 0));
    assert_eq!(log.take(), "1 hit, 1 verified");
    // Another ABI may mean other code.
    assert_eq!(run(&modules, compiler.clone().abi("layout 2")).compiled_functions, 4);
    let told = log.take();
    assert!(told.starts_with("1 miss: ABI of the client: "), "{told}");
    // Another program has no last build.
    let edited = [module("m.clif", &text.replace("iconst.i64 10", "iconst.i64 11"))];
    for (program, compiled) in [("another", 4), ("", 1)] {
        store.quarantine(&key(&edited[0]), "to compile it again").unwrap();
        let stats = run(&edited, compiler.clone().program(program));
        assert_eq!((stats.compiled_functions, stats.reused_functions), (compiled, 4 - compiled));
    }
}

#[test]
fn what_is_in_the_store_is_not_built() {
    let store = Arc::new(MemoryStore::new());
    let built = AtomicUsize::new(0);
    let all = modules();
    let lazy = |key: &'static str| -> Vec<Lazy<'_, Infallible>> {
        let one = |module: &Module| {
            let (copy, built) = (module.clone(), &built);
            Lazy::new(module.name.clone(), LazyKey::new("test", key.as_bytes()), move || {
                built.fetch_add(1, Ordering::Relaxed);
                Ok(copy)
            })
        };
        all.iter().map(one).collect()
    };
    let compiler = Compiler::new(Target::host()).store(store.clone()).verify(Verify::Nothing);
    let first = compiler.compile_lazy(lazy("a")).unwrap();
    assert_eq!(built.swap(0, Ordering::Relaxed), all.len());
    let again = compiler.compile_lazy(lazy("a")).unwrap();
    assert_eq!((built.swap(0, Ordering::Relaxed), again.stats.lazy_modules), (0, all.len()));
    assert!(again.artifacts == first.artifacts && first.artifacts == cold(&all));
    // Under other keys they are built, and found by their IR.
    let other = compiler.compile_lazy(lazy("b")).unwrap();
    assert_eq!(built.swap(0, Ordering::Relaxed), all.len());
    assert_eq!((other.stats.reused_modules, other.stats.compiled_functions), (all.len(), 0));
    // With another target or another ABI, the same keys find nothing.
    let target = Target::host().setting("opt_level", "none");
    let stats = Compiler::new(target).store(store.clone()).compile_lazy(lazy("a")).unwrap().stats;
    assert_eq!((built.swap(0, Ordering::Relaxed), stats.lazy_modules), (all.len(), 0));
    let stats = compiler.clone().abi("layout 2").compile_lazy(lazy("a")).unwrap().stats;
    assert_eq!((built.swap(0, Ordering::Relaxed), stats.reused_modules), (all.len(), 0));
    // A session takes lazy modules too.
    let session =
        Session::with_compiler(Compiler::new(Target::host()).store(store), JitOptions::default()).unwrap();
    let numbers = |text: &'static str| {
        Lazy::new("n", LazyKey::new("test", text.as_bytes()), move || Ok::<_, Infallible>(module("n", text)))
    };
    session
        .add_lazy(vec![numbers("function %n() -> i64 {\nblock0:\n v0 = iconst.i64 7\n return v0\n}")])
        .unwrap();
    assert!(session.function("n").is_some());
    assert_eq!(session.stats().compiled_functions, 1);
}

#[test]
fn every_module_that_cannot_be_built_is_named_in_order() {
    let lazy = |name: &'static str, fails: bool| {
        let text = "function %f() {\nblock0:\n return\n}";
        Lazy::without_key(
            name,
            move || if fails { Err(format!("{name} failed")) } else { Ok(module(name, text)) },
        )
    };
    let modules = vec![lazy("a", false), lazy("b", true), lazy("c", true)];
    let failures = Compiler::new(Target::host()).compile_lazy(modules).unwrap_err();
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["module b: b failed", "module c: c failed"]);
}

/// A module of one function, `f`, which returns `number`.
fn numbered(name: &str, number: i64) -> Module {
    let text = format!("function %f() -> i64 {{\nblock0:\n v0 = iconst.i64 {number}\n return v0\n}}");
    module(name, &text)
}

#[test]
fn a_lazy_key_is_that_of_one_module_of_one_program() {
    let store = shared(MemoryStore::new());
    let build = |program: &str, name: &str, version: &str, number: i64| {
        let compiler = Compiler::new(Target::host()).store(store.clone()).verify(Verify::Nothing);
        let module = numbered(name, number);
        let key = LazyKey::new(version, *b"the source");
        let lazy = Lazy::new(name, key, || Ok::<_, Infallible>(module.clone()));
        let compiled = compiler.program(program).compile_lazy(vec![lazy]).unwrap();
        assert!(compiled.artifacts == cold(&[module]), "{program}, {name}: code of another module");
        compiled.stats.lazy_modules
    };
    let all = [
        ("one", "a", "1", 1),
        ("one", "b", "1", 2),
        ("two", "a", "1", 3),
        ("one", "a", "2", 4),
        // Names that are the same when they are put together.
        ("one\0a", "b", "1", 5),
        ("one", "a\0b", "1", 6),
        ("onea", "", "1", 7),
        ("", "onea", "1", 8),
    ];
    for (program, name, version, number) in all {
        assert_eq!(build(program, name, version, number), 0, "{program}, {name}, {version}");
    }
    for (program, name, version, number) in all {
        assert_eq!(build(program, name, version, number), 1, "{program}, {name}, {version}");
    }
}

#[test]
fn lazy_hits_are_verified_like_others() {
    for verify in [Verify::Sample(NonZeroU32::MIN), Verify::All] {
        let (store, log) = (Arc::new(MemoryStore::new()), Arc::<Log>::default());
        let build = |verify, number| {
            let compiler = Compiler::new(Target::host()).store(store.clone()).events(log.clone());
            let compiler = compiler.verify(verify);
            // The client forgot the number in its key.
            let key = LazyKey::new("1", *b"the source");
            let lazy = Lazy::new("a", key, || Ok::<_, Infallible>(numbered("a", number)));
            let compiled = compiler.compile_lazy(vec![lazy]).unwrap();
            let right = compiled.artifacts == cold(&[numbered("a", number)]);
            let wrong = compiled.samples.verify(&compiler);
            (right, compiled.stats.lazy_modules, compiled.stats.wrong_keys, wrong)
        };
        build(Verify::Nothing, 1);
        assert_eq!(build(Verify::Nothing, 1), (true, 1, 0, 0));
        log.take();
        assert_eq!(build(verify, 1), (true, 0, 0, 0));
        assert_eq!(log.take(), "1 hit, 1 verified");
        assert_eq!(build(Verify::Nothing, 2), (false, 1, 0, 0), "nobody can know");
        log.take();
        assert_eq!(build(verify, 2), (true, 0, 1, 0));
        let told = log.take();
        assert!(told.contains("1 wronglazykey") && told.contains("1 miss: IR of the module"), "{told}");
        // The key is that of the new module now.
        assert_eq!(build(Verify::Nothing, 2), (true, 1, 0, 0));

        // Wrong code under a right key is found as well.
        let right = Compiler::new(Target::host()).keys(&numbered("a", 2)).unwrap();
        let artifact = cold(&[numbered("a", 3)]).remove(0);
        let (key, functions) = (right.0.key(), right.1.into());
        store.put(&key, &Entry { recipe: right.0, functions, artifact }).unwrap();
        log.take();
        let (right, _, wrong_keys, wrong) = build(verify, 2);
        assert_eq!((right, wrong_keys, wrong), (verify == Verify::All, 0, usize::from(!right)));
        assert!(log.take().contains("1 verifyfailed"));
        assert_eq!(build(Verify::Nothing, 2), (true, 1, 0, 0), "it was replaced");
    }
}

#[test]
fn the_error_of_a_lazy_module_that_is_verified_is_that_of_a_cold_build() {
    let store = shared(MemoryStore::new());
    let build = |verify, fails: bool| {
        let compiler = Compiler::new(Target::host()).store(store.clone()).verify(verify);
        let make = move || if fails { Err("the source is gone") } else { Ok(numbered("a", 1)) };
        let lazy = Lazy::new("a", LazyKey::new("1", *b"the source"), make);
        compiler.compile_lazy(vec![lazy]).map(|_| ()).map_err(|errors| errors[0].to_string())
    };
    assert_eq!(build(Verify::Nothing, false), Ok(()));
    assert_eq!(build(Verify::Nothing, true), Ok(()), "it is not called");
    assert_eq!(build(Verify::Sample(NonZeroU32::MIN), true), Err("module a: the source is gone".into()));
}
