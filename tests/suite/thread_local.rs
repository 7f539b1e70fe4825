//! Thread-local data: in sessions, in images that this crate's loader maps, and in those that
//! `dlopen` loads.

use std::sync::Barrier;

use kiln::globals::{Bindings, GlobalTable};
use kiln::image::link::{LeanOptions, Roots, lean};
use kiln::image::{Image, ImageOptions, Loaded, libcalls, write_image};
use kiln::ir::{Module, Target};
use kiln::{Compiler, Session};

use crate::common::module;

type Get = extern "C" fn() -> i64;

const THREADS: usize = 16;

/// A counter that begins with 40, a function that counts, and one that says where it is.
fn counter() -> Module {
    let text = "data %counter tls align=64 { i64 40, zeros 200 }
        function %bump() -> i64 system_v {
            gv0 = symbol colocated tls %counter
        block0:
            v0 = tls_value.i64 gv0
            v1 = load.i64 v0
            v2 = iconst.i64 1
            v3 = iadd v1, v2
            store v3, v0
            return v3
        }";
    module("counter", text)
}

/// A function of another module that returns the address of the counter.
fn place() -> Module {
    let text = "function %place() -> i64 system_v {
            gv0 = symbol tls %counter
        block0:
            v0 = tls_value.i64 gv0
            return v0
        }";
    module("place", text)
}

/// Calls both from many threads at once, which are all alive until the end.
fn use_from_threads(bump: Get, place: Get) {
    let barrier = Barrier::new(THREADS + 1);
    let run = || {
        assert_eq!([bump(), bump(), bump()], [41, 42, 43]);
        let address = place();
        assert!(address % 64 == 0);
        // SAFETY: this thread's copy, which has 208 bytes.
        let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, 208) };
        assert!(bytes[0] == 43 && bytes[1..].iter().all(|byte| *byte == 0));
        barrier.wait();
        assert_eq!((bump(), place()), (44, address));
        address
    };
    let mut places: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        barrier.wait();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), THREADS, "each thread has its own");
}

#[test]
fn threads_of_a_session_have_copies() {
    let session = Session::new(Target::host()).unwrap();
    let unit = session.add(&[counter()]).unwrap();
    let user = session.add(&[place()]).unwrap();
    // SAFETY: the IR above is sound, and nothing is removed while the pointers are used.
    let get = |name: &str| unsafe { session.function(name).unwrap().typed::<Get>().unwrap() };
    let (bump, place) = (get("bump"), get("place"));
    use_from_threads(bump, place);
    assert_eq!(bump(), 41);
    let own = session.thread_local_address("counter").unwrap();
    assert_eq!(own as i64, place());
    assert_eq!(session.thread_local_address("bump"), None);
    // Units go and come again, while this thread and another one have blocks.
    let (started, ended) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(bump(), 41);
            started.wait();
            ended.wait();
            let bump = get("bump");
            assert_eq!([bump(), bump()], [41, 42], "the new unit's data is another");
        });
        started.wait();
        session.remove(&[user, unit]).unwrap();
        session.add(&[counter()]).unwrap();
        ended.wait();
    });
    let bump = get("bump");
    assert_eq!([bump(), bump()], [41, 42]);
}

fn image_of(modules: &[Module]) -> Vec<u8> {
    let compiled = Compiler::new(Target::host()).compile(modules).unwrap();
    write_image(&compiled.artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap()
}

fn check_image(loaded: &Loaded) {
    // SAFETY: the IR above is sound, and the image lives while the pointers are used.
    let get = |name: &str| unsafe { loaded.function(name).unwrap().typed::<Get>().unwrap() };
    let (bump, place) = (get("bump"), get("place"));
    use_from_threads(bump, place);
    assert_eq!(bump(), 41);
    assert_eq!(loaded.address("counter").unwrap() as i64, place());
}

#[test]
fn threads_of_a_loaded_image_have_copies() {
    let bytes = image_of(&[counter(), place()]);
    let open = || Image::from_bytes(&bytes).unwrap();
    let by_name = open().bind(&libcalls::process).unwrap();
    check_image(&by_name);
    // The loader's own function is used whatever the client gives, and if it gives nothing.
    check_image(&open().bind(&Bindings::new()).unwrap());
    let count = open().slots().len();
    check_image(&open().bind_array(&vec![1; count]).unwrap());
    // Each image has its own data.
    // SAFETY: as above.
    let bump = unsafe { by_name.function("bump").unwrap().typed::<Get>().unwrap() };
    assert_eq!(bump(), 42);
}

/// The words of a file about thread-local data are checked, and following them does no harm.
#[test]
fn an_altered_segment_does_no_harm() {
    let bytes = image_of(&[counter(), place()]);
    let headers = (0..usize::from(bytes[56])).map(|number| 64 + 56 * number);
    let header = headers.into_iter().find(|&at| bytes[at..at + 4] == [7, 0, 0, 0]).unwrap();
    let mut refused = 0;
    // Offset, addresses, lengths and alignment.
    for field in (8..56).step_by(8) {
        for value in [0, 1, 3, 1 << 12, 1 << 30, 1 << 31, 1 << 40, u64::MAX - 7, u64::MAX] {
            let mut altered = bytes.clone();
            altered[header + field..header + field + 8].copy_from_slice(&value.to_le_bytes());
            let loaded = Image::from_bytes(&altered).and_then(|image| image.bind(&Bindings::new()));
            match loaded {
                Ok(loaded) => {
                    let _ = loaded.address("counter");
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("bad thread-local data"), "{text}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 20, "{refused}");
    // A relocation that is about code, which nobody writes.
    let info = kiln::image::ImageInfo::parse(&bytes).unwrap();
    let rela = info.sections.iter().find(|section| &*section.name == ".rela.dyn").unwrap();
    let table = rela.offset as usize..(rela.offset + rela.size) as usize;
    let at = table.step_by(24).find(|&at| bytes[at + 8..at + 16] == 16u64.to_le_bytes()).unwrap();
    for address in [0, 0x1000, u64::MAX - 3, 1 << 40] {
        let mut altered = bytes.clone();
        altered[at..at + 8].copy_from_slice(&address.to_le_bytes());
        let loaded = Image::from_bytes(&altered).and_then(|image| image.bind(&Bindings::new()));
        assert!(loaded.unwrap_err().to_string().contains("bad thread-local relocation"));
    }
}

#[test]
fn a_session_s_image_has_them_too() {
    let session = Session::new(Target::host()).unwrap();
    session.add(&[counter()]).unwrap();
    session.add(&[place()]).unwrap();
    let image = Image::from_bytes(&session.image().unwrap()).unwrap();
    check_image(&image.bind(&Bindings::new()).unwrap());
}

#[test]
fn leaner_programs_keep_what_is_reached() {
    let unused = module(
        "unused",
        "data %unused tls { i64 1 } function %never() -> i64 system_v {
            gv0 = symbol tls %unused
        block0:
            v0 = tls_value.i64 gv0
            return v0
        }",
    );
    let compiled = Compiler::new(Target::host()).compile(&[unused, counter(), place()]).unwrap();
    let roots = Roots::Names(vec!["bump".into(), "place".into(), "counter".into()]);
    let options = LeanOptions { roots: Some(roots), fold: true, ..LeanOptions::default() };
    let leaner = lean(&compiled.artifacts, &options).unwrap();
    let bytes = write_image(&leaner.artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let loaded = Image::from_bytes(&bytes).unwrap().bind(&Bindings::new()).unwrap();
    assert!(loaded.address("never").is_none() && loaded.address("unused").is_none());
    check_image(&loaded);
}

#[test]
fn other_uses_are_refused_by_name() {
    let plain = "data %plain { i64 1 } function %f() -> i64 system_v {
            gv0 = symbol tls %plain
        block0:
            v0 = tls_value.i64 gv0
            return v0
        }";
    let address = "function %g() -> i64 system_v {
            gv0 = symbol %counter
        block0:
            v0 = symbol_value.i64 gv0
            return v0
        }";
    let pointer = "data %pointer { addr %counter }";
    let missing = "function %h() -> i64 system_v {
            gv0 = symbol tls %missing
        block0:
            v0 = tls_value.i64 gv0
            return v0
        }";
    let not = "uses `plain` as thread-local data, but its definition is not thread-local";
    let as_address = "uses `counter` as if it were not thread-local, as its definition says";
    let nowhere = "uses `missing` as thread-local data, but no module of the program defines it";
    for (text, message) in [(plain, not), (address, as_address), (pointer, as_address), (missing, nowhere)] {
        let modules = [counter(), module("other", text)];
        let compiled = Compiler::new(Target::host()).compile(&modules).unwrap();
        let errors = write_image(&compiled.artifacts, &GlobalTable::new(), &ImageOptions::default());
        let error = errors.unwrap_err()[0].to_string();
        assert_eq!(error, format!("module 1 {message}"));
        let session = Session::new(Target::host()).unwrap();
        session.add(&modules[..1]).unwrap();
        let error = session.add(&modules[1..]).unwrap_err();
        let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let text: Vec<String> = chain.map(ToString::to_string).collect();
        let is_missing = message == nowhere;
        let expected = if is_missing { "symbol `missing`" } else { message };
        assert!(text.iter().any(|line| line.contains(expected)), "{text:?}");
    }
}
