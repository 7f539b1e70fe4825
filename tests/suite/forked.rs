//! A child of `fork` compiles, although it has no thread of its parent's pools.

use std::sync::Arc;

use kiln::ir::{Module, Target};
use kiln::jit::{JitOptions, Memory, MemoryOptions};
use kiln::{Compiler, Session};

use crate::common::module;

/// Modules that are compiled and linked by many threads.
fn large(name: &str) -> Vec<Module> {
    let function = |module: usize, number: usize| {
        format!(
            "function %{name}_{module}_{number}(i64) -> i64 system_v {{ block0(v0: i64): v1 = iconst.i64 {number} v2 = iadd v0, v1 return v2 }}\n"
        )
    };
    let text = |number| (0..100).map(|function_number| function(number, function_number)).collect::<String>();
    (0..20).map(|number| module(name, &text(number))).collect()
}

/// Adds modules, calls one of the functions, and writes an image.
fn works(session: &Session, name: &str, modules: &[Module]) -> bool {
    session.add(modules).is_ok()
        && session.image().is_ok()
        && session.function(name).is_some_and(|function| {
            // SAFETY: the type is checked, and the function reads no memory.
            let typed = unsafe { function.typed::<extern "C" fn(i64) -> i64>() };
            typed.is_ok_and(|function| function(40) >= 40)
        })
}

/// Runs `body` in a child, and returns whether it returned `true` within a minute.
fn child(body: impl FnOnce() -> bool + std::panic::UnwindSafe) -> bool {
    // SAFETY: the child runs code that needs none of the other threads.
    let id = unsafe { libc::fork() };
    assert!(id >= 0, "fork");
    if id == 0 {
        // A child that waits for a thread of its parent would wait for ever.
        // SAFETY: a limit of this process's time.
        unsafe { libc::alarm(60) };
        let good = std::panic::catch_unwind(body).unwrap_or(false);
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: it is a child of ours.
    let ended = unsafe { libc::waitpid(id, &raw mut status, 0) };
    (ended, status) == (id, 0)
}

#[test]
fn a_child_compiles_and_links() {
    let one = module("one", "function %one(i64) -> i64 system_v { block0(v0: i64): return v0 }");
    let (before, after) = (large("before"), large("after"));
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    for compiler in [Compiler::new(Target::host()), Compiler::new(Target::host()).pool(pool)] {
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        // The threads of the pool have started.
        assert!(works(&session, "before_0_1", &before));
        let session = std::panic::AssertUnwindSafe(&session);
        let (one, after) = (std::slice::from_ref(&one), &after);
        assert!(child(|| works(&session, "one", one)), "one function");
        assert!(child(|| works(&session, "after_3_99", after)), "many functions");
        assert!(
            child(|| works(&session, "after_1_1", after) && child(|| works(&session, "one", one))),
            "a child of a child"
        );
    }
}

#[test]
fn a_child_finds_code_and_waits_for_no_lookup_of_its_parent() {
    let memory = Memory::reserve(MemoryOptions::with_size(4 << 20)).unwrap();
    let options = JitOptions { memory: Some(memory.clone()), ..JitOptions::default() };
    let session = Session::with_compiler(Compiler::new(Target::host()), options).unwrap();
    let text = |name: &str| format!("function %{name}(i64) -> i64 system_v {{ block0(v0: i64): return v0 }}");
    let stays = session.add(&[module("stays", &text("stays"))]).unwrap();
    let address = stays.functions().next().unwrap().address as usize;
    let (found, end) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    let known = |address: usize| {
        let place = session.locate(address as *const u8);
        place.map(|place| place.location().name().to_owned())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let place = session.locate(address as *const u8);
            found.wait();
            // The thread is in the middle of a lookup while its process forks.
            end.wait();
            drop(place);
        });
        found.wait();
        let good = child(std::panic::AssertUnwindSafe(|| {
            let unit = session.add(&[module("more", &text("more"))]).unwrap();
            let more = unit.functions().next().unwrap().address as usize;
            let both = (known(address), known(more));
            session.remove(&[unit]).unwrap();
            session.jit().collect();
            let usage = memory.usage();
            both == (Some("stays".into()), Some("more".into()))
                && (known(address), known(more)) == (Some("stays".into()), None)
                && (usage.code.retired, usage.read_only.retired) == (0, 0)
        }));
        end.wait();
        assert!(good);
    });
    assert_eq!(known(address).as_deref(), Some("stays"));
}

/// Set in a process of its own, in which no test has made a compiler before.
const ALONE: &str = "KILN_FORKED_ALONE";

#[test]
fn a_child_compiles_whose_parent_started_the_global_pool_without_a_compiler() {
    if std::env::var_os(ALONE).is_none() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "forked::a_child_compiles_whose_parent_started_the_global_pool_without_a_compiler";
        let output = command.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let modules = large("many");
    // The threads start, in this process.
    assert_eq!(rayon::join(|| 1, || 2), (1, 2));
    let add = || works(&Session::new(Target::host()).unwrap(), "many_3_99", &modules);
    assert!(child(std::panic::AssertUnwindSafe(&add)), "in a child");
    assert!(child(|| child(std::panic::AssertUnwindSafe(&add))), "in a child of a child");
    assert!(add(), "in this process");
}
