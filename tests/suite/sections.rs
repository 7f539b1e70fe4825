//! Named sections end to end: modules that register themselves, found by code in memory and in an
//! image, and what a session refuses because its image would see it differently.

use kiln::globals::Bindings;
use kiln::image::{Image, ImageInfo};
use kiln::ir::{Module, Target};
use kiln::jit::JitOptions;
use kiln::{Compiler, Session};

use crate::common::module;

type Get = extern "C" fn() -> i64;

/// A module that registers a function and a number.
fn plugin(number: i64) -> Module {
    let text = format!(
        r#"
        data %record{number} section = "plugins" {{ addr %get{number}, i64 {number} }}
        function %get{number}() -> i64 system_v {{
        block0:
            v0 = iconst.i64 {number}00
            return v0
        }}"#
    );
    module(&format!("plugin{number}"), &text)
}

/// Walks over the records: the sum of all, each weighted with its position.
const WALK: &str = r#"
    function %walk() -> i64 system_v {
        gv0 = symbol %__start_plugins
        gv1 = symbol %__stop_plugins
        sig0 = () -> i64 system_v
    block0:
        v0 = symbol_value.i64 gv0
        v1 = symbol_value.i64 gv1
        v2 = iconst.i64 0
        v3 = iconst.i64 1
        jump block1(v0, v2, v3)
    block1(v4: i64, v5: i64, v6: i64):
        v7 = icmp uge v4, v1
        brif v7, block3, block2
    block2:
        v8 = load.i64 v4
        v9 = call_indirect sig0, v8()
        v10 = load.i64 v4+8
        v11 = iadd v9, v10
        v12 = imul v11, v6
        v13 = iadd v5, v12
        v14 = iconst.i64 16
        v15 = iadd v4, v14
        v16 = iadd v6, v3
        jump block1(v15, v13, v16)
    block3:
        return v5
    }"#;

fn call(session: &Session, name: &str) -> i64 {
    // SAFETY: the type is checked, and these functions read only their own data.
    unsafe { session.function(name).unwrap().typed::<Get>() }.unwrap()()
}

fn call_image(image: &[u8], name: &str) -> i64 {
    let loaded = Image::from_bytes(image).unwrap().bind(&Bindings::new()).unwrap();
    // SAFETY: as in `call`.
    unsafe { loaded.function(name).unwrap().typed::<Get>() }.unwrap()()
}

#[test]
fn code_walks_over_what_modules_registered() {
    let session = Session::new(Target::host()).unwrap();
    session.add(&[plugin(1), module("walk", WALK), plugin(2), plugin(5)]).unwrap();
    let expected = 101 + 2 * 202 + 3 * 505;
    assert_eq!(call(&session, "walk"), expected);
    let image = session.image().unwrap();
    assert_eq!(call_image(&image, "walk"), expected);
    let info = ImageInfo::parse(&image).unwrap();
    let section = info.sections.iter().find(|section| &*section.name == "plugins").unwrap();
    assert_eq!((section.size, section.executable), (48, false));
}

#[test]
fn bounds_are_those_of_an_earlier_batch_and_then_stay() {
    let session = Session::new(Target::host()).unwrap();
    session.add(&[plugin(1), plugin(2)]).unwrap();
    session.add(&[module("walk", WALK)]).unwrap();
    assert_eq!(call(&session, "walk"), 101 + 2 * 202);
    assert_eq!(call_image(&session.image().unwrap(), "walk"), 101 + 2 * 202);
    let error = session.add(&[plugin(3)]).unwrap_err().to_string();
    assert_eq!(
        error,
        "module `plugin3` adds `record3` to section `plugins`, but `walk` of module `walk` linked before uses its bounds"
    );
}

#[test]
fn what_an_image_would_see_differently_is_refused() {
    let add = |session: &Session, modules: &[Module]| {
        session.add(modules).map_or_else(|error| error.to_string(), |_| "added".to_owned())
    };
    let new = || Session::new(Target::host()).unwrap();
    // A section in two places has no bounds.
    let mut session = new();
    assert_eq!(add(&mut session, &[plugin(1)]), "added");
    assert_eq!(
        add(&mut session, &[plugin(2), module("walk", WALK)]),
        "`walk` of module `walk` uses `__start_plugins`, a bound of section `plugins`, which was not linked all at once"
    );
    assert_eq!(add(&mut session, &[plugin(2)]), "added");
    assert_eq!(
        add(&mut session, &[module("walk", WALK)]),
        "`walk` of module `walk` uses `__start_plugins`, a bound of section `plugins`, which was not linked all at once"
    );
    assert_eq!(
        add(&mut session, &[module("w", r#"data %w writable section = "plugins" { i64 1 }"#)]),
        "section `plugins` has both writable and read-only data: `w` of module `w` of this link, and that of module `plugin1` linked before"
    );
    assert_eq!(
        add(&mut session, &[module("d", "data %__start_plugins { i64 1 }")]),
        "`__start_plugins` is defined by module `d` of this link and by module `plugin1` linked before"
    );
    // The host's symbol, used before there was a section.
    let mut session = new();
    session.bind_symbol("__start_plugins", 0x1000).unwrap();
    session.bind_symbol("__stop_plugins", 0x1000).unwrap();
    assert_eq!(add(&mut session, &[module("walk", WALK)]), "added");
    assert_eq!(call(&session, "walk"), 0);
    assert_eq!(
        add(&mut session, &[plugin(1)]),
        "`__start_plugins` is defined by module `plugin1` of this link, but `walk` of module `walk` linked before uses the host's"
    );
    // An earlier definition keeps its meaning, in the image too.
    let mut session = new();
    let empty = "data %__start_plugins { addr %get7, i64 0 } data %__stop_plugins { i64 0 }
        function %get7() -> i64 system_v { block0: v0 = iconst.i64 7 return v0 }";
    assert_eq!(add(&mut session, &[module("own", empty)]), "added");
    assert_eq!(add(&mut session, &[plugin(1), module("walk", WALK)]), "added");
    assert_eq!(call(&session, "walk"), 7);
    assert_eq!(call_image(&session.image().unwrap(), "walk"), 7);
}

#[test]
fn images_do_not_depend_on_threads() {
    let image = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let compiler = Compiler::new(Target::host()).pool(std::sync::Arc::new(pool));
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        session.add(&[plugin(1), plugin(2), module("walk", WALK), plugin(3)]).unwrap();
        session.image().unwrap()
    };
    assert!(image(1) == image(2));
}
