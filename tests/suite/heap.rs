//! A session whose program has made objects is saved with them, and goes on where it is loaded.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::Arc;

use kiln::artifact::record::SymbolKind;
use kiln::globals::{Bindings, GlobalTable};
use kiln::heap::{Fault, Input, Name, Object, Registry, Root, Temperature, snapshot};
use kiln::image::link::LinkError;
use kiln::image::{Image, ImageBase, ImageInfo, ImageOptions, Loaded, OpenOptions, write_image};
use kiln::ir::Target;
use kiln::{SavedHeap, Saving, Session, SessionError, WritableData};

use crate::common::module;

/// Objects of four words: a number, the next object, a function or data, something of the host.
const PROGRAM: &str = r#"
    global %list = "heap:list"
    global %host = "host:number"
    data %table align=8 { i64 5, i64 7 }
    replaceable function %twice(i64) -> i64 system_v {
    block0(v0: i64):
        v1 = iadd v0, v0
        return v1
    }
    function %thrice(i64) -> i64 system_v {
    block0(v0: i64):
        v1 = iconst.i64 3
        v2 = imul v0, v1
        return v2
    }
    local function %secret(i64) -> i64 system_v {
    block0(v0: i64):
        return v0
    }
    function %keep() -> i64 system_v {
        gv0 = symbol %secret
    block0:
        v0 = symbol_value.i64 gv0
        return v0
    }
    function %sum() -> i64 system_v {
        gv0 = symbol %list
        sig0 = (i64) -> i64 system_v
    block0:
        v0 = symbol_value.i64 gv0
        v1 = iconst.i64 0
        jump block1(v0, v1)
    block1(v2: i64, v3: i64):
        v4 = load.i64 v2
        v5 = load.i64 v2+16
        v6 = call_indirect sig0, v5(v4)
        v7 = iadd v3, v6
        v8 = load.i64 v2+8
        v9 = symbol_value.i64 gv0
        v10 = icmp eq v8, v9
        brif v10, block2(v7), block1(v8, v7)
    block2(v11: i64):
        return v11
    }
    function %bump() -> i64 system_v {
        gv0 = symbol %list
        gv1 = symbol %host
    block0:
        v0 = symbol_value.i64 gv0
        v1 = load.i64 v0
        v2 = symbol_value.i64 gv1
        v3 = load.i64 v2
        v4 = iadd v1, v3
        store v4, v0
        return v4
    }"#;

type Get = extern "C" fn() -> i64;

static NUMBER: i64 = 100;

/// Objects of four words, at addresses that stay.
struct Heap {
    memory: Box<[[usize; 4]]>,
    registry: Registry,
}

impl Heap {
    fn new(count: usize) -> Self {
        let memory = vec![[0; 4]; count].into_boxed_slice();
        let mut registry = Registry::new();
        for object in &memory {
            let (address, temperature) = (object.as_ptr().expose_provenance(), Temperature::Hot);
            let object = Object { address, size: 32, align: 8, mutable: true, temperature };
            // SAFETY: the heap owns the memory, which does not move.
            unsafe { registry.register(object, [8, 16, 24]) }.unwrap();
        }
        Self { memory, registry }
    }

    fn address(&self, index: usize) -> usize {
        self.memory[index].as_ptr().expose_provenance()
    }
}

/// A session whose list has the numbers 1 and 10, and leads back to its start.
fn session() -> (Session, Heap) {
    let session = Session::new(Target::host()).unwrap();
    let mut heap = Heap::new(3);
    session.bind_global("heap:list", heap.address(0)).unwrap();
    session.bind_global("host:number", (&raw const NUMBER).expose_provenance()).unwrap();
    session.add(&[module("program", PROGRAM)]).unwrap();
    let address = |name| session.address(name).unwrap().expose_provenance();
    let number = (&raw const NUMBER).expose_provenance();
    heap.memory[0] = [1, heap.address(1), address("twice"), number];
    heap.memory[1] = [10, heap.address(0), address("thrice"), address("table") + 8];
    (session, heap)
}

fn call(loaded: &Loaded, name: &str) -> i64 {
    // SAFETY: the type is checked, and the code reads what this file has made.
    unsafe { loaded.function(name).unwrap().typed::<Get>() }.unwrap()()
}

fn bindings() -> Bindings {
    let mut bindings = Bindings::new();
    bindings.bind("host:number", (&raw const NUMBER).expose_provenance());
    bindings
}

fn saving(heap: &mut Heap) -> Saving<'_> {
    let heap = SavedHeap { roots: &["heap:list"], visitor: &mut heap.registry };
    Saving { heap: Some(heap), ..Saving::default() }
}

/// Returns the words of an object of a loaded image.
fn words(address: usize) -> [usize; 4] {
    // SAFETY: the image has an object there, if what this file tests is right.
    unsafe { std::ptr::with_exposed_provenance::<[usize; 4]>(address).read() }
}

#[test]
fn a_loaded_program_goes_on_with_its_objects() {
    let (session, mut heap) = session();
    // The program runs, and changes its objects.
    // SAFETY: as in `call`.
    let [bump, sum] =
        ["bump", "sum"].map(|name| unsafe { session.function(name).unwrap().typed::<Get>() }.unwrap());
    assert_eq!((sum(), bump(), sum()), (32, 101, 232));
    let image = session.image_with(saving(&mut heap)).unwrap();
    assert_eq!(image, session.image_with(saving(&mut heap)).unwrap(), "equal heaps, equal bytes");
    // Not saved: this is another life.
    assert_eq!((bump(), sum()), (201, 432));

    let info = ImageInfo::parse(&image).unwrap();
    assert_ne!(info.base, 0);
    let keys: Vec<_> = info.slots.iter().map(|slot| slot.key.text()).collect();
    assert_eq!(keys, ["host:number"], "the root needs no slot that the host fills");
    // At its address, and moved.
    let images = [(); 2].map(|()| Image::from_bytes(&image).unwrap().bind(&bindings()).unwrap());
    assert_eq!(images[0].base().addr() as u64, info.base);
    assert_ne!(images[1].base().addr() as u64, info.base);
    for loaded in &images {
        assert_eq!((call(loaded, "sum"), call(loaded, "bump"), call(loaded, "sum")), (232, 201, 432));
        let list = loaded.address("heap:list").unwrap().expose_provenance();
        let address = |name| loaded.address(name).unwrap().addr();
        let first = words(list);
        assert_eq!((first[0], first[2]), (201, address("twice")));
        assert_eq!(first[3], (&raw const NUMBER).addr());
        let second = words(first[1]);
        assert_eq!(second, [10, list, address("thrice"), address("table") + 8]);
    }
}

#[test]
fn dlopen_loads_it_too() {
    let (session, mut heap) = session();
    // No loader but ours knows the host's globals.
    heap.memory[0][3] = 0;
    for base in [ImageBase::Auto, ImageBase::Anywhere] {
        let options = ImageOptions { base, ..ImageOptions::default() };
        let image = session.image_with(Saving { options, ..saving(&mut heap) }).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), image).unwrap();
        let path = CString::new(file.path().to_str().unwrap()).unwrap();
        // SAFETY: the image has no initializers; `sum` has this type, and reads no global of the
        // host.
        unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!library.is_null(), "{:?}", CStr::from_ptr(libc::dlerror()));
            let sum = libc::dlsym(library, c"sum".as_ptr());
            let sum: Get = std::mem::transmute::<*mut libc::c_void, Get>(sum);
            assert_eq!(sum(), 32);
            let list = libc::dlsym(library, c"heap:list".as_ptr());
            assert_eq!(words(list.expose_provenance())[0], 1);
            assert_eq!(libc::dlclose(library), 0);
        }
    }
}

/// A list of three objects on the program of [`session`], as a layer: the first two are new. They
/// point at the third, which no name leads to, and at what else the image `loaded` has.
fn save_above(loaded: &Arc<Loaded>, path: &Path) {
    let session = Session::on(std::slice::from_ref(loaded), Target::host()).unwrap();
    let mut heap = Heap::new(2);
    session.bind_global("heap:above", heap.address(0)).unwrap();
    session.add(&[module("above", ABOVE)]).unwrap();
    let [list, table] = ["heap:list", "table"].map(|name| loaded.address(name).unwrap().expose_provenance());
    let thrice = loaded.address("thrice").unwrap().expose_provenance();
    heap.memory[0] = [100, heap.address(1), thrice, list];
    heap.memory[1] = [1000, words(list)[1], thrice, table + 8];
    let saved = SavedHeap { roots: &["heap:above"], visitor: &mut heap.registry };
    session.save_image_with(path, Saving { heap: Some(saved), ..Saving::default() }).unwrap();
}

/// A function that adds up the numbers of its list as far as the list of the base begins again, and
/// one that reads the list of the base itself.
const ABOVE: &str = r#"
    global %above = "heap:above"
    global %list = "heap:list"
    function %total() -> i64 system_v {
        gv0 = symbol %above
        gv1 = symbol %list
    block0:
        v0 = symbol_value.i64 gv0
        v1 = iconst.i64 0
        jump block1(v0, v1)
    block1(v2: i64, v3: i64):
        v4 = load.i64 v2
        v5 = iadd v3, v4
        v6 = load.i64 v2+8
        v7 = symbol_value.i64 gv1
        v8 = icmp eq v6, v7
        brif v8, block2(v5), block1(v6, v5)
    block2(v9: i64):
        return v9
    }"#;

#[test]
fn the_heap_of_a_layer_leads_into_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let [first, other, above] = ["first.so", "other.so", "above.so"].map(|name| folder.path().join(name));
    let (session, mut heap) = session();
    session.save_image_with(&first, saving(&mut heap)).unwrap();
    heap.memory[1][0] = 11;
    session.save_image_with(&other, saving(&mut heap)).unwrap();
    let loaded = Loaded::open(&first, &OpenOptions::default(), &bindings()).unwrap();
    save_above(&loaded, &above);

    // On the same image in memory, and on one at another address.
    let options = OpenOptions { loaded: vec![loaded.clone()], ..OpenOptions::default() };
    let on_same = Loaded::open(&above, &options, &bindings()).unwrap();
    let on_moved = Loaded::open(&above, &OpenOptions::default(), &bindings()).unwrap();
    assert!(Arc::ptr_eq(&on_same.bases()[0], &loaded));
    assert_ne!(on_moved.bases()[0].base(), loaded.base());
    for layer in [&on_same, &on_moved] {
        assert_eq!(call(layer, "total"), 1110);
        let base = &layer.bases()[0];
        let address = |name| base.address(name).unwrap().expose_provenance();
        let of_layer = words(layer.address("heap:above").unwrap().expose_provenance());
        assert_eq!((of_layer[2], of_layer[3]), (address("thrice"), address("heap:list")));
        let second = words(of_layer[1]);
        assert_eq!((second[1], second[3]), (words(address("heap:list"))[1], address("table") + 8));
    }
    // The base's own objects are not in the layer.
    assert!(std::fs::metadata(&above).unwrap().len() < std::fs::metadata(&first).unwrap().len());

    // Another image has the same exports, but not this object.
    let on_other =
        OpenOptions { bases: vec![first.clone()], allow_other_bases: true, ..OpenOptions::default() };
    std::fs::rename(&other, &first).unwrap();
    let error = Loaded::open(&above, &on_other, &bindings()).map(drop).unwrap_err();
    let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .map(|error| format!("{error}: "))
        .collect::<String>();
    assert!(text.contains("kiln_start:") && text.contains(&loaded.id().to_string()), "{text}");
}

#[test]
fn a_heap_that_points_into_another_image_is_linked_on_no_image() {
    let mut heap = Heap::new(1);
    heap.memory[0][1] = (&raw const NUMBER).addr();
    let (mut registry, roots) =
        (heap.registry, [Root { key: "heap:list", address: heap.memory[0].as_ptr().addr() }]);
    let start = "kiln_start:0123";
    let mut names = |_| Ok(Name { kind: SymbolKind::Data, name: start.into(), offset: 8 });
    let triple = Target::host().triple().to_string();
    let mut input = Input { triple: &triple, roots: &roots, names: &mut names };
    let artifact = snapshot(&mut input, &mut registry).unwrap().artifact;
    let errors = write_image(&[artifact], &GlobalTable::new(), &ImageOptions::default()).unwrap_err();
    assert_eq!(errors, [LinkError::PlaceOfOtherImage { name: start.into(), module: 0 }]);
}

#[test]
fn a_layer_takes_globals_of_the_heap_below_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("first.so");
    let (session, mut heap) = session();
    session.save_image_with(&path, saving(&mut heap)).unwrap();
    let loaded = Loaded::open(&path, &OpenOptions::default(), &bindings()).unwrap();
    // `table` is data of a module. A global with this key is another thing, as within one image.
    let session = Session::on(std::slice::from_ref(&loaded), Target::host()).unwrap();
    let own = 77i64;
    session.bind_global("table", (&raw const own).expose_provenance()).unwrap();
    let text = r#"
        global %list = "heap:list"
        global %own = "table"
        function %list_and_own() -> i64 system_v {
            gv0 = symbol %list
            gv1 = symbol %own
        block0:
            v0 = symbol_value.i64 gv0
            v1 = load.i64 v0
            v2 = symbol_value.i64 gv1
            v3 = load.i64 v2
            v4 = iadd v1, v3
            return v4
        }"#;
    session.add(&[module("above", text)]).unwrap();
    // SAFETY: as in `call`.
    let function = unsafe { session.function("list_and_own").unwrap().typed::<Get>() }.unwrap();
    assert_eq!(function(), 78);
    let above = folder.path().join("above.so");
    session.save_image(&above).unwrap();
    let mut bindings = bindings();
    bindings.bind("table", (&raw const own).expose_provenance());
    let layer = Loaded::open(&above, &OpenOptions::default(), &bindings).unwrap();
    assert_eq!(call(&layer, "list_and_own"), 78);
}

#[test]
fn what_cannot_be_saved_is_named_with_the_way() {
    let (session, mut heap) = session();
    // SAFETY: as in `call`.
    let keep = unsafe { session.function("keep").unwrap().typed::<Get>() }.unwrap();
    let sum = session.address("sum").unwrap().expose_provenance();
    let faults = HashMap::from([
        (keep() as usize, "leads to the private function `secret` of module `program`: export it"),
        (sum + 1, "leads to the middle of the function `sum`"),
        (0x1234_5678, "leads to nothing that can be saved"),
    ]);
    for (word, expected) in faults {
        heap.memory[1][2] = word;
        let error = session.image_with(saving(&mut heap)).unwrap_err();
        let SessionError::Snapshot(error) = error else { panic!("{error}") };
        assert_eq!((&*error.path.root, &*error.path.offsets), ("heap:list", &[8][..]));
        assert!(matches!(error.fault, Fault::Unnamed { .. } | Fault::Unknown { .. }));
        let found = error.to_string();
        assert!(found.starts_with("at `heap:list` +8: the word 0x") && found.ends_with(expected), "{found}");
    }
    heap.memory[1][2] = 0;
    session.image_with(saving(&mut heap)).unwrap();
    let unbound = SavedHeap { roots: &["heap:other"], visitor: &mut heap.registry };
    let error = session.image_with(Saving { heap: Some(unbound), ..Saving::default() }).unwrap_err();
    assert_eq!(error.to_string(), "the root `heap:other` of the heap is not bound");
}

/// Data that the program changes: a number, a pointer at a private object, data that was zero.
const CHANGING: &str = r#"
    data %number writable align=8 { i64 1 }
    local data %one align=8 { i64 5 }
    local data %two align=8 { i64 9 }
    data %chosen writable align=8 { addr %one }
    data %room writable align=16 { zeros 64 }
    function %change() -> i64 system_v {
        gv0 = symbol %number
        gv1 = symbol %chosen
        gv2 = symbol %two
        gv3 = symbol %room
        gv4 = symbol %read
    block0:
        v0 = symbol_value.i64 gv0
        v1 = load.i64 v0
        v2 = iconst.i64 10
        v3 = iadd v1, v2
        store v3, v0
        v4 = symbol_value.i64 gv1
        v5 = symbol_value.i64 gv2
        store v5, v4
        v6 = symbol_value.i64 gv3
        v7 = symbol_value.i64 gv4
        store v7, v6+16
        store v2, v6+24
        return v3
    }
    function %read() -> i64 system_v {
        gv0 = symbol %number
        gv1 = symbol %chosen
        gv2 = symbol %room
        gv3 = symbol %read
    block0:
        v0 = symbol_value.i64 gv0
        v1 = load.i64 v0
        v2 = symbol_value.i64 gv1
        v3 = load.i64 v2
        v4 = load.i64 v3
        v5 = iconst.i64 100
        v6 = imul v4, v5
        v7 = iadd v1, v6
        v8 = symbol_value.i64 gv2
        v9 = load.i64 v8+16
        v10 = symbol_value.i64 gv3
        v11 = icmp eq v9, v10
        v12 = uextend.i64 v11
        v13 = iconst.i64 10000
        v14 = imul v12, v13
        v15 = iadd v7, v14
        v16 = load.i64 v8+24
        v17 = iadd v15, v16
        return v17
    }"#;

#[test]
fn data_is_saved_as_it_is_now_or_as_it_was() {
    let session = Session::new(Target::host()).unwrap();
    session.add(&[module("changing", CHANGING)]).unwrap();
    let get = |name: &str| {
        // SAFETY: as in `call`.
        unsafe { session.function(name).unwrap().typed::<Get>() }.unwrap()()
    };
    let saved = |data| {
        let image = session.image_with(Saving { data, ..Saving::default() }).unwrap();
        call(&Image::from_bytes(&image).unwrap().bind(&Bindings::new()).unwrap(), "read")
    };
    // Nothing has changed, so both are the same.
    assert_eq!((get("read"), saved(WritableData::AtFirst), saved(WritableData::Now)), (501, 501, 501));
    assert_eq!((get("change"), get("read")), (11, 10921));
    assert_eq!((saved(WritableData::AtFirst), saved(WritableData::Now)), (501, 10921));
    let room = session.address("chosen").unwrap().cast_mut().cast::<usize>();
    // SAFETY: writable data of the session, which no code uses now.
    unsafe { room.write(0x1234) };
    let error = session.image_with(Saving { data: WritableData::Now, ..Saving::default() }).unwrap_err();
    assert_eq!(error.to_string(), "data `chosen` of module `changing` has a pointer at 0x1234");
}

#[test]
fn a_key_that_is_also_a_function_is_refused() {
    let (session, mut heap) = session();
    session.bind_global("sum", heap.address(2)).unwrap();
    let heap = SavedHeap { roots: &["sum"], visitor: &mut heap.registry };
    let error = session.image_with(Saving { heap: Some(heap), ..Saving::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`sum` is defined by module 1 and by module 0; module 0 is program, module 1 is (heap)"
    );
}
