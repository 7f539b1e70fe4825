//! Loading in all ways: twice, from memory, from a file that is replaced meanwhile, where memory
//! never becomes executable, and from where nothing may be executed.

use std::error::Error as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use kiln_artifact::record::Linkage;
use kiln_globals::{Bindings, GlobalTable, SlotKey};
use kiln_image::{Image, ImageOptions, LoadError, Loaded, Profiler, libcalls, save, write_image};

use crate::support::{I64_TO_I64, Module, TO_I64, image};

/// Calls an exported function without parameters.
pub(crate) fn get(loaded: &Loaded, name: &str) -> i64 {
    let function = loaded.function(name).unwrap();
    // SAFETY: the code is that of this test, and the image lives.
    unsafe { function.typed::<extern "C" fn() -> i64>() }.unwrap()()
}

fn saved(folder: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join("image.so");
    save(&path, bytes).unwrap();
    path
}

/// An image whose function `answer` returns a number.
fn answer(number: u8) -> Vec<u8> {
    let mut module = Module::new();
    module.function("answer", Linkage::Export, TO_I64, &[0xb8, number, 0, 0, 0, 0xc3], &[]);
    write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap()
}

#[test]
fn an_image_that_is_loaded_twice_has_its_data_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), &image());
    let [first, second] = [(); 2].map(|()| Image::open(&path).unwrap().bind_array(&[1, 2, 3]).unwrap());
    assert_eq!([&first, &first, &second, &first].map(|loaded| get(loaded, "count")), [1, 2, 1, 3]);
    assert_ne!(first.base(), second.base());
    drop(first);
    assert_eq!(get(&second, "count"), 2);
}

#[test]
fn a_file_that_is_replaced_meanwhile_does_not_change_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), &answer(1));
    let opened = Image::open(&path).unwrap();
    saved(folder.path(), &answer(2));
    let first = opened.bind_array(&[]).unwrap();
    let second = Image::open(&path).unwrap().bind_array(&[]).unwrap();
    saved(folder.path(), &answer(3));
    std::fs::remove_file(&path).unwrap();
    assert_eq!([get(&first, "answer"), get(&second, "answer")], [1, 2]);
}

#[test]
fn slots_are_bound_by_name_by_array_and_by_closure() {
    extern "C" fn host_double(x: i64) -> i64 {
        2 * x
    }
    let function: extern "C" fn(i64) -> i64 = host_double;
    let (first, second) = (111_i64, 222_i64);
    let [first_at, second_at] = [&raw const first as usize, &raw const second as usize];
    let mut names = Bindings::new();
    names.bind("object:first", first_at).bind("object:second", second_at);
    kiln_image::bind_function(&mut names, "host_double", function);
    let closure = |key: &SlotKey| match key.text() {
        "object:first" => Some(first_at),
        "object:second" => Some(second_at),
        _ => Some(function as usize),
    };
    let open = || Image::from_bytes(&image()).unwrap();
    let array = [second_at, first_at, function as usize];
    for loaded in [open().bind(&names), open().bind_array(&array), open().bind(&closure)] {
        let loaded = loaded.unwrap();
        assert_eq!([get(&loaded, "read_first"), get(&loaded, "read_second")], [111, 222]);
    }
}

/// Symbols of the process, if the client asks for them.
#[test]
fn symbols_of_the_process_are_found_if_asked() {
    let mut module = Module::new();
    let abs = module.import("labs", I64_TO_I64);
    let jump = [0xe9, 0, 0, 0, 0];
    let call = [(1, kiln_artifact::RelocKind::X86Pc32, abs, -4)];
    module.function("f", Linkage::Export, I64_TO_I64, &jump, &call);
    let bytes = write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap();
    assert!(Image::from_bytes(&bytes).unwrap().bind(&Bindings::new()).is_err());
    let loaded = Image::from_bytes(&bytes).unwrap().bind(&libcalls::process).unwrap();
    let f = loaded.function("f").unwrap();
    // SAFETY: the code is that of this test, and the C library has the function.
    assert_eq!(unsafe { f.typed::<extern "C" fn(i64) -> i64>() }.unwrap()(-5), 5);
}

#[test]
fn errors_name_file_slot_and_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), &image());
    let mut names = Bindings::new();
    names.bind("object:first", 1);
    let error = Image::open(&path).unwrap().bind(&names).unwrap_err();
    assert_eq!(error.to_string(), format!("image {}", path.display()));
    assert_eq!(
        error.source().unwrap().to_string(),
        "2 slot(s) without an address: global \"object:second\" (used by `read_second`), \
         symbol `host_double` (used by `call_host`)"
    );
    let error = Image::open(&path).unwrap().bind_array(&[]).unwrap_err();
    assert_eq!(error.to_string(), format!("image {}", path.display()));
    assert_eq!(error.source().unwrap().to_string(), "0 addresses for 3 slots");
    // An image that is in memory has no path.
    let error = Image::from_bytes(&image()).unwrap().bind(&names).unwrap_err();
    assert!(matches!(error, LoadError::Unbound { .. }), "{error}");
}

/// The variable that tells a child of this test what to do, and the image's path.
const CHILD: &str = "KILN_TEST_CHILD";

/// Runs one test of this binary again, in a process of its own.
pub(crate) fn child(test: &str, program: Option<&[&str]>, path: &Path) -> Output {
    let this = std::env::current_exe().unwrap();
    let mut command = match program {
        Some([program, arguments @ ..]) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
        _ => Command::new(this),
    };
    command.args(["--exact", test, "--nocapture"]).env(CHILD, path).output().unwrap()
}

/// Returns the path of the image, if this process is a child that a test has started.
pub(crate) fn in_child() -> Option<std::ffi::OsString> {
    std::env::var_os(CHILD)
}

#[repr(C)]
struct Limit {
    now: u64,
    most: u64,
}

unsafe extern "C" {
    fn prctl(option: i32, ...) -> i32;
    fn setrlimit(resource: i32, limit: *const Limit) -> i32;
}

/// Lets no memory of this process become executable from now on. Returns whether the system can.
pub(crate) fn refuse_exec_gain() -> bool {
    const PR_SET_MDWE: i32 = 65;
    const REFUSE_EXEC_GAIN: usize = 1;
    // SAFETY: this process exists for the rest of one test. The other arguments must be zero.
    unsafe { prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0_usize, 0_usize, 0_usize) == 0 }
}

/// Lets this process open no more files.
pub(crate) fn no_more_files() {
    const RLIMIT_NOFILE: i32 = 7;
    // SAFETY: this process exists for the rest of one test.
    assert_eq!(unsafe { setrlimit(RLIMIT_NOFILE, &Limit { now: 0, most: 0 }) }, 0);
}

#[test]
fn it_loads_where_memory_never_becomes_executable() {
    if let Some(path) = in_child() {
        if !refuse_exec_gain() {
            println!("unknown to this kernel");
            return;
        }
        let bytes = std::fs::read(&path).unwrap();
        for image in [Image::open(&path), Image::open_private(&path), Image::from_bytes(&bytes)] {
            let loaded = image.unwrap().bind_array(&[]).unwrap();
            println!("answer {}", get(&loaded, "answer"));
        }
        // The code stays mapped from the file, although perf then reads no map.
        let (loaded, file) = with_map(Image::open(&path).unwrap());
        assert!(file.ends_with(".so"), "{file}");
        println!("answer {}", get(&loaded, "answer"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), &answer(42));
    let output = child("load::it_loads_where_memory_never_becomes_executable", None, &path);
    let stdout = String::from_utf8_lossy(&output.stdout);
    if stdout.contains("unknown to this kernel") {
        let _ = writeln!(std::io::stderr(), "skipped: this kernel has no PR_SET_MDWE");
        return;
    }
    assert_eq!(stdout.matches("answer 42").count(), 4, "{output:?}");
}

/// Binds an image while a map for perf is written. Returns the file that the code is mapped from.
fn with_map(image: Image) -> (Loaded, String) {
    let loaded = image.profiler(Some(Profiler::Map)).bind_array(&[]).unwrap();
    let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", std::process::id()));
    let code = loaded.text().start.addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_code = |line: &&str| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        (address(start)..address(end)).contains(&code)
    };
    let line = maps.lines().find(is_code).unwrap();
    assert!(line.contains(" r-xp "), "{line}");
    let file = line.split_ascii_whitespace().nth(5).unwrap_or_default().to_owned();
    (loaded, file)
}

#[test]
fn perf_reads_a_map_for_code_that_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), &answer(42));
    let bytes = std::fs::read(&path).unwrap();
    for image in [Image::open(&path), Image::open_private(&path), Image::from_bytes(&bytes)] {
        let (loaded, file) = with_map(image.unwrap());
        assert_eq!((get(&loaded, "answer"), &*file), (42, ""));
    }
}

#[test]
fn an_error_says_which_mount_does_not_allow_to_execute() {
    if let Some(path) = std::env::var_os(CHILD) {
        let path = Path::new(&path);
        let error = Image::open(path).unwrap_err();
        println!("{error}: {}", error.source().unwrap());
        // A copy in memory can be executed.
        let loaded = Image::open_private(path).unwrap().bind_array(&[]).unwrap();
        println!("answer {}", get(&loaded, "answer"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mount, kept) = (folder.path().join("a mount"), folder.path().join("kept.so"));
    std::fs::create_dir(&mount).unwrap();
    std::fs::write(&kept, answer(42)).unwrap();
    let path = mount.join("image.so");
    // In a namespace, which needs no privileges where they are allowed.
    let script = format!(
        "mount -t tmpfs -o noexec tmpfs '{0}' && cp '{1}' '{2}' && exec \"$0\" \"$@\"",
        mount.display(),
        kept.display(),
        path.display(),
    );
    let program = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script];
    let Ok(true) = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg(format!("mount -t tmpfs -o noexec tmpfs '{}'", mount.display()))
        .output()
        .map(|output| output.status.success())
    else {
        let _ = writeln!(std::io::stderr(), "skipped: this machine does not allow to mount in a namespace");
        return;
    };
    let output = child("load::an_error_says_which_mount_does_not_allow_to_execute", Some(&program), &path);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let expected = format!(
        "image {}: cannot execute code from {}, which is mounted noexec",
        path.display(),
        mount.display()
    );
    assert!(stdout.contains(&expected) && stdout.contains("answer 42"), "{output:?}");
}

unsafe extern "C" {
    /// Finds the rows of an address in all that is registered: libgcc's `unwind-dw2-fde.h`.
    fn _Unwind_Find_FDE(pc: *const u8, bases: *mut [usize; 3]) -> *const u8;
}

/// Rows are registered when somebody gets an address, since nobody runs code before that.
#[test]
fn unwind_rows_are_registered_with_the_first_address() {
    let bytes = image();
    let info = kiln_image::ImageInfo::parse(&bytes).unwrap();
    let address = |name: &str| {
        info.sections.iter().find(|section| &*section.name == name).map(|section| section.address as usize)
    };
    let (frame, text) = (address(".eh_frame").unwrap(), address(".text").unwrap());
    let open = || Image::from_bytes(&bytes).unwrap();
    let known = |loaded: &Loaded| {
        // The rows themselves are not code.
        let pc = loaded.eh_frame().unwrap().start.wrapping_sub(frame).wrapping_add(text + 2);
        let mut bases = [0; 3];
        // SAFETY: the array has the length of the struct that is filled.
        !unsafe { _Unwind_Find_FDE(pc, &raw mut bases) }.is_null()
    };
    let gives: [fn(&Loaded); 6] = [
        |loaded| assert!(!loaded.function("add3").unwrap().address().is_null()),
        |loaded| assert!(loaded.functions().all(|function| !function.address().is_null())),
        |loaded| {
            let add3 = loaded.function("add3").unwrap();
            // SAFETY: the linker of this test wrote it.
            unsafe { add3.typed::<extern "C" fn(i64) -> i64>() }.unwrap();
        },
        |loaded| assert!(loaded.address("names").is_some()),
        |loaded| assert!(!loaded.base().is_null()),
        |loaded| loaded.register_unwind_rows().unwrap(),
    ];
    for give in gives {
        let loaded = open().bind_array(&[1, 2, 3]).unwrap();
        assert!(loaded.function("add3").is_some() && loaded.functions().count() > 0);
        assert!(!known(&loaded), "nobody has an address");
        give(&loaded);
        assert!(known(&loaded));
    }
    let loaded = open().unwind(false).bind_array(&[1, 2, 3]).unwrap();
    assert!(!loaded.function("add3").unwrap().address().is_null() && !known(&loaded));
    loaded.register_unwind_rows().unwrap();
    assert!(known(&loaded));
}
