//! Sessions that start on loaded images, and the layers that they save.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::Session;
use kiln::globals::{Bindings, Resolve as _};
use kiln::image::{Image, LoadError, Loaded, OpenOptions, libcalls};
use kiln::ir::{Module, Target};

use crate::common::module;

type Get = extern "C" fn() -> i64;
type Map = extern "C" fn(i64) -> i64;

/// A program with a replaceable function and one that calls it, data, thread-local data, and an
/// object of the host.
fn base() -> Module {
    let text = r#"
    global %counter = "rt:counter"
    data %total writable { i64 5 }
    data %own tls { i64 7 }
    replaceable function %rate() -> i64 system_v {
    block0:
        v0 = iconst.i64 10
        return v0
    }
    function %price(i64) -> i64 system_v {
        fn0 = %rate() -> i64 system_v
    block0(v0: i64):
        v1 = call fn0()
        v2 = imul v0, v1
        return v2
    }
    function %read_total() -> i64 system_v {
        gv0 = symbol %total
    block0:
        v0 = symbol_value.i64 gv0
        v1 = load.i64 v0
        return v1
    }
    function %read_own() -> i64 system_v {
        gv0 = symbol tls %own
    block0:
        v0 = tls_value.i64 gv0
        v1 = load.i64 v0
        return v1
    }
    function %count() -> i64 system_v {
        gv0 = symbol %counter
    block0:
        v0 = symbol_value.i64 gv0
        v1 = load.i64 v0
        v2 = iconst.i64 1
        v3 = iadd v1, v2
        store v3, v0
        return v3
    }
    function %address_of_rate() -> i64 system_v {
        fn0 = %rate() -> i64 system_v
    block0:
        v0 = func_addr.i64 fn0
        return v0
    }"#;
    module("base", text)
}

/// A module that uses all of that.
fn above() -> Module {
    let text = r#"
    global %counter = "rt:counter"
    data %table writable { addr %price, addr %total }
    function %twice(i64) -> i64 system_v {
        fn0 = %price(i64) -> i64 system_v
    block0(v0: i64):
        v1 = call fn0(v0)
        v2 = iadd v1, v1
        return v2
    }
    function %add(i64) -> i64 system_v {
        gv0 = symbol %total
    block0(v0: i64):
        v1 = symbol_value.i64 gv0
        v2 = load.i64 v1
        v3 = iadd v2, v0
        store v3, v1
        return v3
    }
    function %peek() -> i64 system_v {
        gv0 = symbol %counter
    block0:
        v0 = symbol_value.i64 gv0
        v1 = load.i64 v0
        return v1
    }
    function %through_table(i64) -> i64 system_v {
        gv0 = symbol %table
        sig0 = (i64) -> i64 system_v
    block0(v0: i64):
        v1 = symbol_value.i64 gv0
        v2 = load.i64 v1
        v3 = call_indirect sig0, v2(v0)
        return v3
    }
    function %rate_here() -> i64 system_v {
        fn0 = %rate() -> i64 system_v
    block0:
        v0 = func_addr.i64 fn0
        return v0
    }"#;
    module("above", text)
}

/// The rate, defined again.
fn rate(value: i64) -> Module {
    returns("replaceable function", "rate", value)
}

/// A function that returns a number.
fn constant(name: &str, value: i64) -> Module {
    returns("function", name, value)
}

fn returns(kind: &str, name: &str, value: i64) -> Module {
    let text = format!(
        "{kind} %{name}() -> i64 system_v {{
        block0:
            v0 = iconst.i64 {value}
            return v0
        }}"
    );
    module(name, &text)
}

/// A folder for images, and the object of the host.
struct Home {
    folder: tempfile::TempDir,
    counter: Box<i64>,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), counter: Box::new(0) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bindings(&self) -> Bindings {
        let mut bindings = Bindings::new();
        bindings.bind("rt:counter", &raw const *self.counter as usize);
        bindings
    }

    /// Writes an image of modules that need nothing.
    fn save(&self, name: &str, modules: &[Module]) -> PathBuf {
        self.save_on(name, &[], |session| {
            session.bind_global("rt:counter", &raw const *self.counter as usize).unwrap();
            session.add(modules).unwrap();
        })
    }

    /// Writes the layer that a session on images becomes.
    fn save_on(&self, name: &str, images: &[Arc<Loaded>], work: impl FnOnce(&Session)) -> PathBuf {
        let session = Session::on(images, Target::host()).unwrap();
        work(&session);
        session.save_image(&self.path(name)).unwrap();
        self.path(name)
    }

    fn open(&self, name: &str) -> Result<Arc<Loaded>, LoadError> {
        self.open_with(name, &OpenOptions::default())
    }

    fn open_with(&self, name: &str, options: &OpenOptions) -> Result<Arc<Loaded>, LoadError> {
        Loaded::open(self.path(name), options, &self.bindings().or(&libcalls::process))
    }
}

fn get(image: &Loaded, name: &str) -> i64 {
    // SAFETY: the type is compared, and the image lives.
    unsafe { image.function(name).unwrap().typed::<Get>() }.unwrap()()
}

fn map(image: &Loaded, name: &str, value: i64) -> i64 {
    // SAFETY: as above.
    unsafe { image.function(name).unwrap().typed::<Map>() }.unwrap()(value)
}

fn get_in(session: &Session, name: &str) -> i64 {
    // SAFETY: the type is compared, and the session lives.
    unsafe { session.function(name).unwrap().typed::<Get>() }.unwrap()()
}

fn map_in(session: &Session, name: &str, value: i64) -> i64 {
    // SAFETY: as above.
    unsafe { session.function(name).unwrap().typed::<Map>() }.unwrap()(value)
}

/// Returns an error with its sources.
fn chain(error: impl std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[test]
fn a_session_goes_on_from_an_image() {
    let home = Home::new();
    home.save("base.so", &[base()]);
    let image = home.open("base.so").unwrap();
    let session = Session::on(std::slice::from_ref(&image), Target::host()).unwrap();
    session.add(&[above()]).unwrap();
    assert_eq!(map_in(&session, "twice", 4), 80);
    // Data is the image's own.
    assert_eq!((map_in(&session, "add", 3), get(&image, "read_total")), (8, 8));
    // So is the binding of a global, which the session did not name.
    assert_eq!((get(&image, "count"), get_in(&session, "peek")), (1, 1));
    assert_eq!(map_in(&session, "through_table", 2), 20);
    // What the image exports is found through the session.
    assert_eq!(map_in(&session, "price", 2), 20);
    let names: Vec<_> = session.exports().into_iter().map(|export| export.name).collect();
    assert!(["price", "twice", "own"].iter().all(|name| names.iter().any(|known| **known == **name)));
    let rate_here = get_in(&session, "rate_here");
    assert_eq!(rate_here, get(&image, "address_of_rate"));

    // Replaced for everybody, and under the same address.
    let unit = session.replace(&[rate(3)]).unwrap();
    assert_eq!((map_in(&session, "twice", 4), map(&image, "price", 4)), (24, 12));
    assert_eq!(get_in(&session, "rate_here"), rate_here);
    assert_eq!(session.address("rate").unwrap().addr() as i64, rate_here);
    session.replace(&[rate(2)]).unwrap();
    assert!(unit.is_freed(), "replaced code goes");
    assert_eq!((map_in(&session, "twice", 4), get_in(&session, "rate")), (16, 2));
    let unit = session.jit().unit_of("rate").unwrap();
    session.remove(&[unit]).unwrap();
    assert_eq!((map_in(&session, "twice", 4), get_in(&session, "rate")), (80, 10));
    session.replace(&[rate(1)]).unwrap();
    assert_eq!(get(&image, "rate"), 1);
    drop(session);
    assert_eq!((get(&image, "rate"), map(&image, "price", 4)), (10, 40));
}

unsafe extern "C" {
    fn backtrace(frames: *mut *mut libc::c_void, count: libc::c_int) -> libc::c_int;
}

thread_local! {
    /// The return addresses that were on the stack when [`look`] was called last.
    static SEEN: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) };
}

extern "C" fn look() {
    let mut frames = [std::ptr::null_mut(); 32];
    // SAFETY: it fills the array.
    let count = unsafe { backtrace(frames.as_mut_ptr(), 32) } as usize;
    SEEN.set(frames[..count].iter().map(|frame| *frame as u64).collect());
}

/// A module whose function `name` calls `callee`.
fn calls(name: &str, callee: &str) -> Module {
    let text = format!(
        "function %{name}() system_v {{
            fn0 = %{callee}() system_v
        block0:
            call fn0()
            return
        }}"
    );
    module(name, &text)
}

#[test]
fn a_walk_over_the_stack_goes_through_layers() {
    let home = Home::new();
    let mut bindings = Bindings::new();
    bindings.bind_symbol("look", look as *const () as usize);
    home.save_on("low.so", &[], |session| {
        session.bind_symbol("look", look as *const () as usize).unwrap();
        session.add(&[calls("low", "look")]).unwrap();
    });
    let low = Loaded::open(home.path("low.so"), &OpenOptions::default(), &bindings).unwrap();
    home.save_on("high.so", &[low], |session| {
        session.add(&[calls("high", "low")]).unwrap();
    });
    let high = Loaded::open(home.path("high.so"), &OpenOptions::default(), &bindings).unwrap();
    let session = Session::on(std::slice::from_ref(&high), Target::host()).unwrap();
    session.add(&[calls("top", "high")]).unwrap();
    // SAFETY: the type is compared, and the session lives.
    unsafe { session.function("top").unwrap().typed::<extern "C" fn()>() }.unwrap()();

    let name_of = |frame: u64| Some(session.locate_call(frame as *const u8)?.location().name().to_owned());
    let names: Vec<String> = SEEN.take().into_iter().filter_map(name_of).collect();
    assert_eq!(names, ["low", "high", "top"]);
    // An image knows its own code, and not that of its bases.
    let [of_low, of_high] = ["low", "high"].map(|name| session.address(name).unwrap());
    assert_eq!(high.locate(of_high).unwrap().name(), "high");
    assert!(high.locate(of_low).is_none());
    assert_eq!(high.bases()[0].locate(of_low).unwrap().name(), "low");
}

#[test]
fn code_of_a_session_finds_thread_local_data_of_an_image() {
    let home = Home::new();
    home.save("base.so", &[base()]);
    let image = home.open("base.so").unwrap();
    let session = Session::on(std::slice::from_ref(&image), Target::host()).unwrap();
    let text = "function %bump() -> i64 system_v {
        gv0 = symbol tls %own
    block0:
        v0 = tls_value.i64 gv0
        v1 = load.i64 v0
        v2 = iconst.i64 1
        v3 = iadd v1, v2
        store v3, v0
        return v3
    }";
    session.add(&[module("bump", text)]).unwrap();
    let run = || (get_in(&session, "bump"), get_in(&session, "bump"), get(&image, "read_own"));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| [run().0, run().0]);
        assert_eq!(thread.join().unwrap(), [8, 10]);
    });
    assert_eq!(run(), (8, 9, 9));
    let error = session.save_image(&home.path("layer.so")).unwrap_err();
    let expected = "`own` is thread-local data of the base image `base.so`, which a layer cannot use yet";
    assert!(chain(&error).contains(expected), "{}", chain(&error));
}

#[test]
fn a_session_refuses_what_does_not_fit_to_its_image() {
    let home = Home::new();
    home.save("base.so", &[base()]);
    let image = home.open("base.so").unwrap();
    let session = Session::on(std::slice::from_ref(&image), Target::host()).unwrap();
    let refused = |text: &str, expected: &str| {
        let error = session.replace(&[module("m", text)]).unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
    };
    refused(
        "function %f() -> f64 system_v {
            fn0 = %rate() -> f64 system_v
        block0:
            v0 = call fn0()
            return v0
        }",
        "`f` of module 0 uses `rate` as () -> f64 system_v, but the base image `base.so` has it as () -> i64",
    );
    refused(
        "function %price(i64) -> i64 system_v {
        block0(v0: i64):
            return v0
        }",
        "module 0 defines `price`, which is a function of the base image `base.so`",
    );
    refused("data %total { i64 1 }", "module 0 defines `total`, which is data of the base image `base.so`");
    refused(
        "function %f() system_v {
            fn0 = %total() system_v
        block0:
            call fn0()
            return
        }",
        "`f` of module 0 uses `total` as something else than data",
    );
    refused(
        "replaceable function %rate(i64) -> i64 system_v {
        block0(v0: i64):
            return v0
        }",
        "uses `rate` as (i64) -> i64 system_v, but the base image `base.so` has it as () -> i64 system_v",
    );
    let error = session.add(&[rate(1)]).unwrap_err();
    assert!(chain(&error).contains("it is replaceable, so replace it instead"), "{}", chain(&error));
    // Code of the image goes on to use what it is bound to.
    let error = session.bind_global("rt:counter", 0x1000).unwrap_err();
    assert_eq!(
        error.to_string(),
        "global \"rt:counter\" cannot be bound again: the base image `base.so` has it"
    );
    session.bind_global("rt:counter", &raw const *home.counter as usize).unwrap();
    // Nothing of all that is left.
    assert_eq!(session.jit().units().len(), 0);
    assert_eq!(map(&image, "price", 4), 40);
    // Two copies of an image have two states.
    let again = home.open("base.so").unwrap();
    let error = Session::on(&[image, again], Target::host()).unwrap_err();
    assert!(chain(&error).contains("`base.so` is loaded twice"), "{}", chain(&error));
}

#[test]
fn a_layer_is_loaded_on_its_base() {
    let home = Home::new();
    home.save("base.so", &[base()]);
    let image = home.open("base.so").unwrap();
    let path = home.save_on("layer.so", std::slice::from_ref(&image), |session| {
        session.add(&[above()]).unwrap();
        session.replace(&[rate(4)]).unwrap();
        session.replace(&[rate(3)]).unwrap();
    });
    assert_eq!(map(&image, "price", 4), 40);

    let layer = Image::open(&path).unwrap();
    let bases: Vec<_> = layer.bases().map(|(name, content)| (name.to_owned(), content)).collect();
    assert_eq!(bases, [("base.so".to_owned(), image.id())]);
    // The resolver is asked for nothing: the base has it all.
    let layer = layer.bind_on(std::slice::from_ref(&image), &|_: &_| None).unwrap();
    assert_eq!((map(&layer, "twice", 4), map(&image, "price", 4)), (24, 12));
    assert_eq!((map(&layer, "add", 3), get(&image, "read_total")), (8, 8));
    assert_eq!((get(&image, "count"), get(&layer, "peek")), (1, 1));
    assert_eq!(map(&layer, "through_table", 2), 6);
    assert_eq!(get(&layer, "rate_here"), get(&image, "address_of_rate"));
    assert_eq!(image.function("rate").unwrap().address().addr() as i64, get(&layer, "rate_here"));
    drop(layer);
    assert_eq!((get(&image, "rate"), map(&image, "price", 4)), (10, 40));
    // The base is found in the folder, and stays as long as the layer.
    let layer = home.open("layer.so").unwrap();
    drop(image);
    assert_eq!(map(&layer, "twice", 4), 24);
    assert_eq!(layer.bases().len(), 1);
}

#[test]
fn layers_are_on_layers_and_next_to_each_other() {
    let home = Home::new();
    home.save("base.so", &[base()]);
    let image = home.open("base.so").unwrap();
    home.save_on("one.so", std::slice::from_ref(&image), |session| {
        session.add(&[above()]).unwrap();
        session.replace(&[rate(3)]).unwrap();
    });
    home.save_on("other.so", std::slice::from_ref(&image), |session| {
        session.replace(&[rate(7)]).unwrap();
        session.add(&[constant("own_of_other", 1)]).unwrap();
    });
    let shared = OpenOptions { loaded: vec![image.clone()], ..OpenOptions::default() };
    let one = home.open_with("one.so", &shared).unwrap();
    let text = "function %four(i64) -> i64 system_v {
        fn0 = %twice(i64) -> i64 system_v
        fn1 = %price(i64) -> i64 system_v
    block0(v0: i64):
        v1 = call fn0(v0)
        v2 = call fn1(v0)
        v3 = iadd v1, v2
        return v3
    }";
    home.save_on("two.so", std::slice::from_ref(&one), |session| {
        session.add(&[module("four", text)]).unwrap();
        assert_eq!(map_in(session, "four", 1), 9);
        session.replace(&[rate(100)]).unwrap();
        assert_eq!(map_in(session, "four", 1), 300);
    });
    assert_eq!(map(&image, "price", 1), 3);
    let shared = OpenOptions { loaded: vec![one.clone()], ..OpenOptions::default() };
    let two = home.open_with("two.so", &shared).unwrap();
    assert_eq!((map(&two, "four", 1), map(&image, "price", 1)), (300, 100));
    // The last is in force, whichever goes first.
    let other = home.open_with("other.so", &shared).unwrap();
    assert_eq!(map(&two, "four", 1), 21);
    drop(two);
    assert_eq!(map(&one, "twice", 1), 14);
    drop(other);
    assert_eq!(map(&one, "twice", 1), 6);
    drop((one, shared));
    assert_eq!(map(&image, "price", 1), 10);
    // All three by one name.
    drop(image);
    let two = home.open("two.so").unwrap();
    let names: Vec<_> = two.bases().iter().map(|base| kiln::image::Base::name(&**base).to_owned()).collect();
    assert_eq!((names, map(&two, "four", 1)), (vec!["base.so".to_owned(), "one.so".to_owned()], 300));
}

#[test]
fn a_base_that_is_missing_or_another_is_an_error_that_says_so() {
    let home = Home::new();
    home.save("base.so", &[base()]);
    let image = home.open("base.so").unwrap();
    let old = image.id();
    home.save_on("layer.so", std::slice::from_ref(&image), |session| {
        session.add(&[above()]).unwrap();
        session.replace(&[rate(3)]).unwrap();
    });
    let error = |options: &OpenOptions| chain(home.open_with("layer.so", options).unwrap_err());
    let strict = OpenOptions::default();
    let others = OpenOptions { allow_other_bases: true, ..OpenOptions::default() };

    // Built again with the same exports and types, and other code.
    home.save("base.so", &[base(), constant("more", 1)]);
    let new = Image::open(home.path("base.so")).unwrap().id();
    let expected = format!("a layer on `base.so` with id {old}, but `base.so` has {new}");
    assert!(error(&strict).contains(&expected), "{}", error(&strict));
    let layer = home.open_with("layer.so", &others).unwrap();
    assert_eq!((map(&layer, "twice", 4), get(&layer.bases()[0], "more")), (24, 1));
    // The same if the client has opened both.
    let base = home.open("base.so").unwrap();
    let bind = |allow| {
        let image = Image::open(home.path("layer.so")).unwrap().allow_other_bases(allow);
        image.bind_on(std::slice::from_ref(&base), &home.bindings().or(&libcalls::process))
    };
    let refused = chain(bind(false).unwrap_err());
    assert!(refused.contains(&expected), "{refused}");
    assert_eq!(map(&bind(true).unwrap(), "twice", 4), 24);
    // The old one is in memory still, although its file was replaced.
    let shared = OpenOptions { loaded: vec![image.clone()], ..OpenOptions::default() };
    assert_eq!(map(&home.open_with("layer.so", &shared).unwrap(), "twice", 4), 24);
    assert_eq!(map(&layer, "twice", 4), 24);

    // Built again with other types. All that differs is said at once.
    let text = "data %total writable { i64 5, i64 6 }
    function %rate() -> i64 system_v {
    block0:
        v0 = iconst.i64 10
        return v0
    }
    function %price(f64) -> f64 system_v {
    block0(v0: f64):
        return v0
    }";
    home.save("base.so", &[module("base", text)]);
    let text = error(&others);
    for expected in [
        "the base image `base.so` is not as it was",
        "`price` was a function (i64) -> i64 system_v, and is a function (f64) -> f64 system_v",
        "`total` was data of 8 bytes, and is data of 16 bytes",
        "`rate` was a replaceable function () -> i64 system_v, and is a function () -> i64 system_v",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    home.save("base.so", &[constant("nothing", 1)]);
    assert!(error(&others).contains("`price` was a function (i64) -> i64 system_v, and is not there"));

    std::fs::remove_file(home.path("base.so")).unwrap();
    let expected = format!("a layer on `base.so` with id {old}, which is missing");
    assert!(error(&strict).contains(&expected) && error(&others).contains(&expected));
    let alone = Image::open(home.path("layer.so")).unwrap().bind(&|_: &_| Some(1)).unwrap_err();
    assert!(chain(alone).contains(&expected));
    // What was loaded is as it was.
    assert_eq!((map(&layer, "twice", 4), map(&image, "price", 1)), (24, 10));
}

#[test]
fn a_truncated_base_is_refused_and_a_private_one_stays() {
    let home = Home::new();
    home.save("base.so", &[base()]);
    let image = home.open("base.so").unwrap();
    home.save_on("layer.so", std::slice::from_ref(&image), |session| {
        session.add(&[above()]).unwrap();
    });
    drop(image);
    let private = OpenOptions { private: true, ..OpenOptions::default() };
    let layer = home.open_with("layer.so", &private).unwrap();
    let truncate =
        |len| std::fs::OpenOptions::new().write(true).open(home.path("base.so")).unwrap().set_len(len);
    for len in [5000, 100, 0] {
        truncate(len).unwrap();
        let error = home.open("layer.so").unwrap_err();
        assert!(chain(&error).contains("base.so"), "{}", chain(&error));
        assert_eq!((map(&layer, "twice", 4), get(&layer, "peek")), (80, 0));
    }
}

/// Writes a file as a layer on one whose name is `base`, by changing the name in its note.
fn rename_base(path: &Path, old: &str, new: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(old.len()).position(|window| window == old.as_bytes()).unwrap();
    bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    kiln_oracle::fuzz::fit_image(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn layers_on_themselves_are_refused() {
    let home = Home::new();
    home.save("aaaa.so", &[constant("one", 1)]);
    let image = home.open("aaaa.so").unwrap();
    home.save_on("bbbb.so", &[image], |session| {
        session.add(&[constant("two", 1)]).unwrap();
    });
    let layer = home.open("bbbb.so").unwrap();
    home.save_on("cccc.so", std::slice::from_ref(&layer.bases()[0]), |session| {
        session.add(&[constant("three", 1)]).unwrap();
    });
    rename_base(&home.path("bbbb.so"), "aaaa.so", "cccc.so");
    rename_base(&home.path("cccc.so"), "aaaa.so", "bbbb.so");
    let others = OpenOptions { allow_other_bases: true, ..OpenOptions::default() };
    let error = chain(home.open_with("bbbb.so", &others).unwrap_err());
    assert!(error.contains("the image is a layer on itself"), "{error}");
    let error = chain(home.open("bbbb.so").unwrap_err());
    assert!(error.contains("a layer on `cccc.so` with id"), "{error}");
    // A name is never a path.
    rename_base(&home.path("bbbb.so"), "cccc.so", "../c.so");
    let error = chain(home.open_with("bbbb.so", &others).unwrap_err());
    assert!(error.contains("a base whose name is that of no file"), "{error}");
}
