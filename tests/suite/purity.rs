//! An artifact depends on its module and the target, and on nothing else; an image on its
//! artifacts, and on nothing else.

use std::sync::Arc;

use kiln::Compiler;
use kiln::cache::{DiskStore, MemoryStore};
use kiln::globals::{GlobalAccess, GlobalTable};
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Module, OptLevel, Target};

use crate::common::{module, modules, shared};

fn pool(threads: usize) -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

#[test]
fn artifacts_do_not_depend_on_threads_neighbours_or_order() {
    GlobalAccess::ALL.into_iter().for_each(pure);
}

fn pure(access: GlobalAccess) {
    let modules = modules();
    let compile = |modules: &[Module], threads| {
        Compiler::new(Target::host().globals(access)).pool(pool(threads)).compile(modules).unwrap().artifacts
    };
    let one = compile(&modules, 1);
    assert!(one == compile(&modules, 4), "threads");
    let mut reversed: Vec<_> = modules.clone();
    reversed.reverse();
    let mut other = compile(&reversed, 3);
    other.reverse();
    assert!(one == other, "order");
    for (module, artifact) in modules.iter().zip(&one) {
        assert!(*artifact == compile(std::slice::from_ref(module), 2)[0], "neighbours of {}", module.name);
    }
}

#[test]
fn artifacts_from_a_store_are_those_that_were_compiled() {
    let modules = modules();
    let folder = tempfile::tempdir().unwrap();
    let stores = [shared(MemoryStore::new()), shared(DiskStore::new(folder.path()))];
    let functions: usize = modules.iter().map(|module| module.functions.len()).sum();
    for store in stores {
        let compiler = Compiler::new(Target::host()).store(store.clone());
        let cold = compiler.compile(&modules).unwrap();
        assert_eq!((cold.stats.compiled_functions, cold.stats.reused_modules), (functions, 0));
        let warm = compiler.compile(&modules).unwrap();
        assert_eq!((warm.stats.compiled_functions, warm.stats.reused_modules), (0, modules.len()));
        assert_eq!(warm.stats.reused_functions, functions);
        assert!(cold.artifacts == warm.artifacts);
        // A different setting that alters code finds nothing.
        let other = Compiler::new(Target::host().opt_level(OptLevel::None)).store(store.clone());
        assert_eq!(other.compile(&modules[..1]).unwrap().stats.reused_modules, 0);
        // A different layout of run-time objects finds nothing either.
        let other = Compiler::new(Target::host()).store(store.clone()).abi(b"v2");
        assert_eq!(other.compile(&modules[..1]).unwrap().stats.reused_modules, 0);
    }
}

#[test]
fn the_name_of_a_file_and_comments_reach_no_artifact() {
    let compile =
        |name, text| Compiler::new(Target::host()).compile(&[module(name, text)]).unwrap().artifacts;
    let plain = compile("a.clif", "function %f() -> i32 { block0: v0 = iconst.i32 1 return v0 }");
    let dressed = compile(
        "elsewhere/b.clif",
        "; a comment\n\nfunction %f() -> i32 {\nblock7: ; another\n v9 = iconst.i32 1\n return v9\n}\n; run: %f() == 1",
    );
    assert!(plain == dressed);
}

#[test]
fn an_image_of_no_module_is_an_image() {
    let image = write_image(&[], &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let info = kiln::image::ImageInfo::parse(&image).unwrap();
    assert_eq!((info.exports.iter().filter(|e| &*e.name != "kiln_slots").count(), info.slots.len()), (0, 0));
}
