//! Images that are loaded and called in this process.

use std::error::Error;

use kiln_artifact::record::{Linkage, NONE};
use kiln_globals::{Bindings, GlobalTable, SlotKey};
use kiln_image::{Image, ImageOptions, LoadError, Loaded, save, write_image};

use crate::support::{ADD3, I64_TO_I64, Module, image};

extern "C" fn host_double(value: i64) -> i64 {
    value * 2
}

static FIRST: i64 = 111;
static SECOND: [i64; 2] = [222, 333];

fn bindings() -> Bindings {
    let mut bindings = Bindings::new();
    bindings
        .bind("object:first", &raw const FIRST as usize)
        .bind("object:second", &raw const SECOND as usize)
        .bind_symbol("host_double", host_double as *const () as usize);
    bindings
}

fn get(loaded: &Loaded, name: &str) -> i64 {
    // SAFETY: the image was made by this test and is alive.
    unsafe { loaded.function(name).unwrap().typed::<extern "C" fn() -> i64>() }.unwrap()()
}

fn call(loaded: &Loaded, name: &str, value: i64) -> i64 {
    // SAFETY: as in `get`.
    unsafe { loaded.function(name).unwrap().typed::<extern "C" fn(i64) -> i64>() }.unwrap()(value)
}

fn exercise(loaded: &Loaded) {
    assert_eq!(call(loaded, "add3", 1), 4);
    assert_eq!(call(loaded, "add8", 1), 9);
    assert_eq!(call(loaded, "by_table", 1), 6);
    assert_eq!(call(loaded, "call_host", 21), 42);
    assert_eq!(get(loaded, "read_answer"), 42);
    assert_eq!(get(loaded, "count"), 1);
    assert_eq!(get(loaded, "count"), 2);
    assert_eq!(get(loaded, "read_first"), 111);
    assert_eq!(get(loaded, "read_second"), 222);
    assert_eq!(get(loaded, "host_address"), host_double as *const () as usize as i64);
    // names: second + 8, host
    assert_eq!(get(loaded, "names_slot"), &raw const SECOND[1] as i64);
    // SAFETY: `zeros` are 512 bytes.
    assert_eq!(unsafe { loaded.address("zeros").unwrap().cast::<[u8; 512]>().read() }, [0; 512]);
    let table = loaded.address("table").unwrap().cast::<extern "C" fn() -> i64>();
    // SAFETY: the third word of `table` points at a function of this type.
    assert_eq!(unsafe { *table.add(2) }(), 9);
}

#[test]
fn an_image_in_a_file_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.kiln");
    save(&path, &image()).unwrap();
    let opened = Image::open(&path).unwrap();
    opened.verify().unwrap();
    assert_eq!(opened.triple(), "x86_64-unknown-linux-gnu");
    assert_eq!(opened.features().collect::<Vec<_>>(), ["has_sse3"]);
    assert_eq!(opened.producers().collect::<Vec<_>>(), ["test 1.0"]);
    assert_eq!(opened.kiln_version(), env!("CARGO_PKG_VERSION"));
    let loaded = opened.bind(&bindings()).unwrap();
    exercise(&loaded);
    let add3 = loaded.function("add3").unwrap();
    assert_eq!((add3.name(), add3.signature()), ("add3", I64_TO_I64));
    assert_eq!(Some(add3.address()), loaded.address("add3"));
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary file is left");
}

#[test]
fn an_image_in_memory_runs_and_slots_are_filled_by_an_array() {
    let opened = Image::from_bytes(&image()).unwrap();
    opened.verify().unwrap();
    let keys = [
        SlotKey::Global("object:second".into()),
        SlotKey::Global("object:first".into()),
        SlotKey::Symbol("host_double".into()),
    ];
    assert_eq!(opened.slots(), keys);
    let addresses =
        [&raw const SECOND as usize, &raw const FIRST as usize, host_double as *const () as usize];
    let loaded = opened.bind_array(&addresses).unwrap();
    exercise(&loaded);
}

#[test]
fn a_loaded_image_can_move_between_threads() {
    let loaded = Image::from_bytes(&image()).unwrap().bind(&bindings()).unwrap();
    std::thread::spawn(move || assert_eq!(call(&loaded, "add8", 2), 10)).join().unwrap();
}

#[test]
fn missing_slots_are_named() {
    let error = Image::from_bytes(&image()).unwrap().bind(&Bindings::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "3 slot(s) without an address: global \"object:second\" (used by `read_second`), \
         global \"object:first\" (used by `read_first`), symbol `host_double` (used by `call_host`)"
    );
    let error = Image::from_bytes(&image()).unwrap().bind_array(&[1]).unwrap_err();
    assert!(matches!(error, LoadError::SlotCount { found: 1, expected: 3 }));
}

#[test]
fn a_function_of_another_type_is_refused() {
    let loaded = Image::from_bytes(&image()).unwrap().bind(&bindings()).unwrap();
    // SAFETY: nothing is called.
    let error = unsafe { loaded.function("add3").unwrap().typed::<extern "C" fn(f64) -> i64>() }.unwrap_err();
    assert_eq!(error.to_string(), "`add3` has type (i64) -> i64 system_v, not (f64) -> i64 system_v");
}

#[test]
fn a_function_without_a_recorded_type_has_an_address_alone() {
    let mut module = Module::new();
    let f = module.function("f", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    module.contents.symbols[f as usize].signature = NONE.into();
    let bytes = write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let loaded = Image::from_bytes(&bytes).unwrap().bind_array(&[]).unwrap();
    assert!(loaded.address("f").is_some() && loaded.function("f").is_none());
}

#[test]
fn only_exported_functions_are_found() {
    let loaded = Image::from_bytes(&image()).unwrap().bind(&bindings()).unwrap();
    assert!(loaded.address("answer").is_some() && loaded.function("answer").is_none(), "data");
    for name in ["hidden", "local", "host_double", "nothing", ""] {
        assert!(loaded.address(name).is_none() && loaded.function(name).is_none(), "{name}");
    }
}

#[test]
fn relocated_data_is_sealed_and_code_is_not_writable() {
    let loaded = Image::from_bytes(&image()).unwrap().bind(&bindings()).unwrap();
    let permissions = |address: *const u8| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let parse = |text| usize::from_str_radix(text, 16).unwrap();
            (parse(start)..parse(end)).contains(&(address as usize))
        });
        line.unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(permissions(loaded.address("add3").unwrap()), "r-xp");
    assert_eq!(permissions(loaded.address("names").unwrap()), "r--p");
    assert_eq!(permissions(loaded.address("table").unwrap()), "rw-p");
    assert_eq!(permissions(loaded.address("kiln_slots").unwrap()), "rw-p");
    assert_eq!(permissions(loaded.address("answer").unwrap()), "r--p");
    assert!(loaded.text().contains(&loaded.address("add3").unwrap()));
    let frame = loaded.eh_frame().unwrap();
    // SAFETY: the last word of the unwind rows is readable.
    assert_eq!(unsafe { frame.end.cast::<u32>().sub(1).read_unaligned() }, 0);
}

#[test]
fn dropping_unmaps_everything() {
    let loaded = Image::from_bytes(&image()).unwrap().bind(&bindings()).unwrap();
    let base = format!("{:x}-", loaded.base() as usize);
    assert!(std::fs::read_to_string("/proc/self/maps").unwrap().contains(&base));
    let counted = |text: String| text.lines().filter(|line| line.starts_with(&base)).count();
    drop(loaded);
    // Another thread may have mapped something at this address since; an image has several
    // mappings.
    assert!(counted(std::fs::read_to_string("/proc/self/maps").unwrap()) <= 1);
}

#[test]
fn an_image_of_nothing_loads() {
    let bytes = write_image(&[], &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let opened = Image::from_bytes(&bytes).unwrap();
    opened.verify().unwrap();
    let loaded = opened.bind_array(&[]).unwrap();
    assert_eq!(loaded.address("anything"), None);
    assert!(loaded.text().is_empty());
    assert_eq!(loaded.eh_frame(), None);
}

#[test]
fn the_error_of_open_has_the_path() {
    let error = Image::open("/no/such/image").unwrap_err();
    let messages = std::iter::successors(Some(&error as &(dyn Error + 'static)), |&error| error.source());
    assert_eq!(
        messages.map(ToString::to_string).collect::<Vec<_>>(),
        ["image /no/such/image", "cannot open the image", "No such file or directory (os error 2)"]
    );
    let error = Image::open("/proc/self").unwrap_err();
    assert!(matches!(error, LoadError::At { .. }));
}

#[test]
fn features_that_the_cpu_lacks_are_refused() {
    let mut module = Module::new();
    module.function("f", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    module.feature("has_sse3");
    module.feature("has_telepathy");
    let bytes = write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let error = Image::from_bytes(&bytes).unwrap_err();
    assert!(error.to_string().ends_with("does not have: has_telepathy"), "{error}");
}
