//! Builds with a farm: the same artifacts and the same errors as without one, whatever it answers.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln::cache::{Counts, Entry, Event, Events, MemoryStore};
use kiln::farm::{Answer, Answers, Farm, Run, read_shard, write_results};
use kiln::ir::{Module, Target};
use kiln::{Compiler, Lazy, LazyKey, Verify};
use kiln_worker::compile_shard;

use crate::common::module;

/// Changes the results of a shard, or makes an error of them.
type Spoil = fn(usize, Vec<u8>) -> Option<Answer>;

/// A farm of one machine in this process.
struct TestFarm {
    spoil: Spoil,
    /// Whether it answers before `submit` returns.
    first: bool,
    shards: Arc<AtomicUsize>,
    withdrawn: Arc<AtomicUsize>,
}

struct TestRun {
    answers: Answers,
    spoil: Spoil,
    first: bool,
    shards: Arc<AtomicUsize>,
    withdrawn: Arc<AtomicUsize>,
    seen: Mutex<Vec<usize>>,
}

impl Farm for TestFarm {
    fn shard_time(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn begin(&self, answers: Answers) -> Box<dyn Run> {
        let Self { spoil, first, shards, withdrawn } = self;
        let (shards, withdrawn) = (Arc::clone(shards), Arc::clone(withdrawn));
        Box::new(TestRun { answers, spoil: *spoil, first: *first, shards, withdrawn, seen: Mutex::default() })
    }
}

impl Run for TestRun {
    fn submit(&self, number: usize, shard: Vec<u8>) -> bool {
        self.shards.fetch_add(1, SeqCst);
        self.seen.lock().unwrap().push(number);
        let (answers, spoil) = (Arc::clone(&self.answers), self.spoil);
        let work = move || {
            if let Some(answer) = spoil(number, compile_shard(&shard).unwrap()) {
                answers(number, answer);
            }
        };
        if self.first {
            work()
        } else {
            drop(std::thread::spawn(work))
        }
        true
    }

    fn withdraw(&self, number: usize) {
        // Perhaps it was not handed over: that is allowed.
        self.withdrawn.fetch_add(usize::from(self.seen.lock().unwrap().contains(&number)), SeqCst);
    }

    fn close(&self) {}
}

fn results(_: usize, bytes: Vec<u8>) -> Option<Answer> {
    Some(Answer::Results { bytes, cached: false })
}

fn farm(spoil: Spoil, first: bool) -> Arc<TestFarm> {
    Arc::new(TestFarm { spoil, first, shards: Arc::default(), withdrawn: Arc::default() })
}

/// Modules that are long enough to be compiled in the pool.
fn texts(count: usize) -> Vec<String> {
    let text = |n: usize| {
        let sums: String = (1..150).map(|v| format!(" v{} = iadd v{v}, v0\n", v + 1)).collect();
        format!(
            "function %next{n}(i64) -> i64 {{\nblock0(v0: i64):\n v1 = iconst.i64 {n}\n{sums} \
             return v150\n}}\n\
             function %own{n}(i64) -> i64 {{\n fn0 = %next{n}(i64) -> i64\nblock0(v0: i64):\n \
             v1 = call fn0(v0)\n{sums} return v150\n}}\n"
        )
    };
    (0..count).map(text).collect()
}

fn modules(count: usize) -> Vec<Module> {
    texts(count).iter().map(|text| module("m.clif", text)).collect()
}

/// A compiler whose threads let the farm go first: they sleep after a function.
fn compiler(farm: &Arc<TestFarm>, events: &Arc<Counts>) -> Compiler {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let slow = || std::thread::sleep(Duration::from_millis(20));
    let compiler = Compiler::new(Target::host()).pool(Arc::new(pool)).events(events.clone()).progress(slow);
    compiler.farm(farm.clone())
}

fn bytes(compiled: &kiln::Compiled) -> Vec<&[u8]> {
    compiled.artifacts.iter().map(|artifact| artifact.as_bytes()).collect()
}

#[test]
fn the_artifacts_are_the_same() {
    let modules = modules(9);
    let expected = Compiler::new(Target::host()).compile(&modules).unwrap();
    for first in [true, false] {
        let (farm, events) = (farm(results, first), Arc::default());
        let compiled = compiler(&farm, &events).compile(&modules).unwrap();
        assert!(bytes(&compiled) == bytes(&expected));
        let stats = compiled.stats;
        assert!(stats.farmed_modules > 0, "{stats:?}");
        assert_eq!(stats.farmed_functions, 2 * stats.farmed_modules);
        assert_eq!(stats.compiled_functions + stats.farmed_functions, 18);
        assert_eq!(events.tally().farmed, stats.farmed_modules as u64);
        // With everything to be verified, the farm is not asked.
        let verified = compiler(&farm, &events).verify(Verify::All).compile(&modules).unwrap();
        assert!(bytes(&verified) == bytes(&expected) && verified.stats.farmed_modules == 0);
    }
}

#[test]
fn a_farm_that_is_wrong_changes_nothing() {
    /// Makes the results of another module, with right keys: the artifacts of two are exchanged.
    fn exchanged(_: usize, bytes: Vec<u8>) -> Option<Answer> {
        let modules = modules(2);
        let compiled = Compiler::new(Target::host()).compile(&modules).unwrap();
        let entries: Vec<_> = [0, 1]
            .map(|n| {
                let (recipe, _) = Compiler::new(Target::host()).keys(&modules[n]).unwrap();
                let artifact = compiled.artifacts[1 - n].clone();
                Ok(Entry { recipe, functions: [].into(), artifact })
            })
            .into();
        let both: Vec<Vec<u8>> = entries.into_iter().map(|entry| write_results(&[entry])).collect();
        // Which of the two was asked for shows the key, near the beginning of the entry.
        let own = both.into_iter().find(|one| one[36..68] == bytes[36..68])?;
        results(0, own)
    }
    let spoils: [(&str, Spoil); 9] = [
        ("nothing", |_, _| None),
        ("failed", |_, _| Some(Answer::Failed("no machine".into()))),
        ("empty", |_, _| results(0, Vec::new())),
        ("cut off", |_, bytes| results(0, bytes[..bytes.len() - 1].to_vec())),
        ("altered", |_, mut bytes| {
            let place = bytes.len() / 2;
            bytes[place] ^= 1;
            results(0, bytes)
        }),
        ("no number", |_, bytes| results(0, [b"KilnRes1\xff\xff\xff\xff".as_slice(), &bytes].concat())),
        ("errors", |_, _| {
            let message = "no\nsuch \u{1b}[31mthing".into();
            let kind = kiln::farm::WorkerErrorKind::NotCompiled;
            results(0, write_results(&[Err(kiln::farm::WorkerError { kind, message })]))
        }),
        ("too many", |_, bytes| results(0, [bytes.as_slice(), b"more"].concat())),
        ("exchanged", exchanged),
    ];
    let modules = modules(2);
    let expected = Compiler::new(Target::host()).compile(&modules).unwrap();
    for (name, spoil) in spoils {
        let (farm, events) = (farm(spoil, true), Arc::<Counts>::default());
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let (events, log) = (events.clone(), log.clone());
            move |event: &Event<'_>| {
                events.report(event);
                log.lock().unwrap().push(format!("{event:?}"));
            }
        };
        let compiled = compiler(&farm, &events).events(Arc::new(sink)).compile(&modules).unwrap();
        assert!(bytes(&compiled) == bytes(&expected), "{name}");
        assert_eq!((compiled.stats.farmed_modules, events.tally().farmed), (0, 0), "{name}");
        assert!(name == "nothing" || events.tally().not_farmed > 0, "{name}: {:?}", log.lock().unwrap());
        let shown = log.lock().unwrap().join("");
        assert!(!shown.contains('\u{1b}'), "{name}: {shown}");
    }
}

#[test]
fn answers_to_numbers_that_nobody_gave_are_ignored() {
    struct Confused(Arc<TestFarm>);
    impl Farm for Confused {
        fn shard_time(&self) -> Duration {
            Duration::from_nanos(1)
        }
        fn begin(&self, answers: Answers) -> Box<dyn Run> {
            answers(usize::MAX, Answer::Failed("nobody asked".into()));
            let own = answers.clone();
            self.0.begin(Arc::new(move |shard, answer| {
                own(shard + 1000, Answer::Failed("nobody asked".into()));
                // Twice, and the first time for another one.
                if let Answer::Results { bytes, cached } = answer {
                    own(shard ^ 1, Answer::Results { bytes: bytes.clone(), cached });
                    own(shard, Answer::Results { bytes: bytes.clone(), cached });
                    own(shard, Answer::Results { bytes, cached });
                }
            }))
        }
    }
    let modules = modules(4);
    let expected = Compiler::new(Target::host()).compile(&modules).unwrap();
    let inner = farm(results, true);
    let compiler = compiler(&inner, &Arc::default()).farm(Arc::new(Confused(inner)));
    let compiled = compiler.compile(&modules).unwrap();
    assert!(bytes(&compiled) == bytes(&expected) && compiled.stats.farmed_modules > 0);
}

#[test]
fn errors_are_those_of_a_build_without_a_farm() {
    // It is valid IR that has no code on x86-64; on other machines nothing is wrong with it.
    let wrong = "function %wrong(i128, i128) -> i128 {\nblock0(v0: i128, v1: i128):\n \
                 v2 = umax v0, v1\n return v2\n}\n";
    let mut texts = texts(5);
    texts.insert(1, wrong.into());
    texts.push(wrong.replace("%wrong", "%other"));
    let modules: Vec<Module> = texts.iter().map(|text| module("m.clif", text)).collect();
    let told =
        |compiler: &Compiler| compiler.compile(&modules).map(|_| ()).map_err(|error| error.to_string());
    let alone = told(&Compiler::new(Target::host()));
    for first in [true, false] {
        let farm = farm(results, first);
        assert_eq!(told(&compiler(&farm, &Arc::default())), alone);
        assert!(farm.shards.load(SeqCst) > 0);
    }
    if cfg!(target_arch = "x86_64") {
        let error = Compiler::new(Target::host()).compile(&modules).unwrap_err();
        let kiln::CompilerError::Functions(errors) = error else { panic!("{error}") };
        assert_eq!(errors.iter().map(|error| error.module).collect::<Vec<_>>(), [1, 6]);
    }
}

#[test]
fn lazy_modules_and_stores_know_of_no_farm() {
    let texts = texts(6);
    let lazy = || -> Vec<Lazy<'_, String>> {
        let lazy = |(n, text): (usize, &String)| {
            let text = text.clone();
            let key = LazyKey::new("1", text.clone().into_bytes());
            Lazy::new(format!("m{n}"), key, move || Ok(module("m.clif", &text)))
        };
        texts.iter().enumerate().map(lazy).collect()
    };
    let expected = Compiler::new(Target::host()).compile_lazy(lazy()).unwrap();
    let store = Arc::new(MemoryStore::new());
    let (farm, events) = (farm(results, true), Arc::<Counts>::default());
    let own = compiler(&farm, &events).store(store.clone()).program("p");
    let first = own.compile_lazy(lazy()).unwrap();
    assert!(bytes(&first) == bytes(&expected) && first.stats.farmed_modules > 0);
    assert_eq!((events.tally().misses, events.tally().farmed), (6, first.stats.farmed_modules as u64));
    // What the farm has made is stored, and functions of it are reused.
    let shards = farm.shards.load(SeqCst);
    let second = own.compile_lazy(lazy()).unwrap();
    assert!(bytes(&second) == bytes(&expected));
    assert_eq!((second.stats.lazy_modules, farm.shards.load(SeqCst)), (6, shards));
    let edited = texts[0].replace("v1 = iconst.i64 0", "v1 = iconst.i64 77");
    let edited = [Lazy::<String>::new("m0", LazyKey::new("1", *b"edited"), || Ok(module("m.clif", &edited)))];
    let third = own.compile_lazy(edited.into()).unwrap();
    assert_eq!((third.stats.compiled_functions, third.stats.reused_functions), (1, 1));
    assert_eq!(farm.shards.load(SeqCst), shards);
    // A module that cannot be built is an error, and the others are compiled.
    let mut failing = lazy();
    failing[2] = Lazy::without_key("m2", || Err("no source".into()));
    let errors = compiler(&farm, &events).compile_lazy(failing).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("m2: no source"), "{}", errors[0]);
}

#[test]
fn equal_builds_make_equal_shards() {
    static SEEN: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    struct Keeps(TestFarm);
    impl Farm for Keeps {
        fn shard_time(&self) -> Duration {
            // Several modules in each.
            Duration::from_millis(1)
        }
        fn begin(&self, answers: Answers) -> Box<dyn Run> {
            struct KeepsRun(Box<dyn Run>);
            impl Run for KeepsRun {
                fn submit(&self, number: usize, shard: Vec<u8>) -> bool {
                    SEEN.lock().unwrap().push(shard.clone());
                    self.0.submit(number, shard)
                }
                fn withdraw(&self, number: usize) {
                    self.0.withdraw(number);
                }
                fn close(&self) {}
            }
            Box::new(KeepsRun(self.0.begin(answers)))
        }
    }
    let modules = modules(30);
    let shards = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let farm =
            TestFarm { spoil: |_, _| None, first: false, shards: Arc::default(), withdrawn: Arc::default() };
        let slow = || std::thread::sleep(Duration::from_millis(5));
        let compiler = Compiler::new(Target::host()).pool(Arc::new(pool)).progress(slow);
        compiler.farm(Arc::new(Keeps(farm))).compile(&modules).unwrap();
        std::mem::take(&mut *SEEN.lock().unwrap())
    };
    let (one, other) = (shards(1), shards(4));
    assert!(one.len() > 3 && one.iter().any(|shard| read_shard(shard).unwrap().len() > 1), "{}", one.len());
    // With more threads, the build may be over before the last ones are handed over.
    assert!(!other.is_empty() && one.starts_with(&other[..other.len().min(one.len())]));
}

#[test]
fn a_panic_in_a_thread_of_the_pool_ends_the_build() {
    let farm = farm(|_, _| None, false);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let compiler = Compiler::new(Target::host()).pool(Arc::new(pool)).farm(farm);
    let counter = AtomicUsize::new(0);
    let compiler = compiler.progress(move || assert!(counter.fetch_add(1, SeqCst) < 3, "told to panic"));
    let modules = modules(9);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compiler.compile(&modules)));
    assert!(caught.is_err());
}
