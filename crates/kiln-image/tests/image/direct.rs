//! Images of code that contains addresses: what the linker relaxes, what the loader writes and
//! where, and what happens where it may not.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use kiln_artifact::record::{Linkage, Reloc, SectionKind};
use kiln_artifact::{Artifact, GlobalAccess, RelocKind};
use kiln_globals::GlobalTable;
use kiln_image::link::LinkError;
use kiln_image::{
    Image, ImageInfo, ImageOptions, LoadError, Loaded, ObjectOptions, save, write_image, write_object,
};

use crate::elf::compile;
use crate::load::{child, get, in_child};
use crate::support::{ADD3, I64_TO_I64, Module, READ_THROUGH_SLOT, TO_I64};
use crate::tools::each_changed;

/// `movabs rax, address; mov rax, [rax]; ret`
pub(crate) const READ: [u8; 14] = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0x48, 0x8b, 0x00, 0xc3];
/// `movabs r11, address; jmp r11`
const JUMP: [u8; 13] = [0x49, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0xff, 0xe3];
/// `movabs rax, address; ret`
const ADDRESS: [u8; 11] = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3];

const ABS: RelocKind = RelocKind::Abs64;

pub(crate) fn direct() -> Module {
    let mut module = Module::new();
    module.contents.summary.globals = GlobalAccess::Direct.code();
    module
}

/// Marks the relocation that was added last: the code takes the address.
fn takes_address(module: &mut Module) {
    module.contents.text_relocs.last_mut().unwrap().flags = Reloc::TAKES_ADDRESS;
}

/// Two modules that use everything by its address: globals, functions and data of the host, and
/// those of the other module and of their own.
fn program() -> Vec<Artifact> {
    let mut a = direct();
    a.function("add3", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    a.data("answer", Linkage::Export, SectionKind::ReadOnly, &42u64.to_le_bytes(), &[]);
    a.data("written", Linkage::Export, SectionKind::Writable, &[7; 64], &[]);
    a.function("old", Linkage::Replaceable, TO_I64, &[0xb8, 1, 0, 0, 0, 0xc3], &[]);
    // More slots that the linker fills than the client has.
    for name in ["old1", "old2", "old3", "old4"] {
        a.function(name, Linkage::Replaceable, TO_I64, &[0xb8, 1, 0, 0, 0, 0xc3], &[]);
    }
    let mut b = direct();
    let first = b.global("object:first");
    let second = b.global("object:second");
    b.function("read_first", Linkage::Export, TO_I64, &READ, &[(2, ABS, first, 0)]);
    b.function("read_second", Linkage::Export, TO_I64, &READ, &[(2, ABS, second, 8)]);
    let host = b.import("host_double", I64_TO_I64);
    b.function("call_host", Linkage::Export, I64_TO_I64, &JUMP, &[(2, ABS, host, 0)]);
    let add3 = b.import("add3", I64_TO_I64);
    b.function("call_add3", Linkage::Export, I64_TO_I64, &JUMP, &[(2, ABS, add3, 0)]);
    let answer = b.import_data("answer");
    b.function("read_answer", Linkage::Export, TO_I64, &READ, &[(2, ABS, answer, 0)]);
    // The same where the instruction cannot be changed: mov eax, [moffs]
    let moffs = [0x48, 0xa1, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3];
    b.function("read_answer_at", Linkage::Export, TO_I64, &moffs, &[(2, ABS, answer, 0)]);
    let old = b.import("old", TO_I64);
    b.function("call_old", Linkage::Export, TO_I64, &JUMP, &[(2, ABS, old, 0)]);
    b.function("old_address", Linkage::Export, TO_I64, &ADDRESS, &[(2, ABS, old, 0)]);
    takes_address(&mut b);
    vec![a.finish(), b.finish()]
}

fn table() -> GlobalTable {
    let mut table = GlobalTable::new();
    table.intern("object:second");
    table
}

pub(crate) fn image() -> Vec<u8> {
    write_image(&program(), &table(), &ImageOptions::default()).unwrap()
}

extern "C" fn host_double(x: i64) -> i64 {
    2 * x
}

fn call(loaded: &Loaded, name: &str, argument: i64) -> i64 {
    let function = loaded.function(name).unwrap();
    // SAFETY: the code is that of this test, and the image lives.
    unsafe { function.typed::<extern "C" fn(i64) -> i64>() }.unwrap()(argument)
}

static OBJECTS: [i64; 3] = [111, 222, 333];

/// The values of the slots of [`program`], in order.
fn addresses() -> [usize; 3] {
    let at = |index: usize| &raw const OBJECTS[index] as usize;
    // `read_second` adds 8.
    [at(1), at(0), host_double as *const () as usize]
}

fn check(loaded: &Loaded) {
    assert_eq!(["read_first", "read_second"].map(|name| get(loaded, name)), [111, 333]);
    assert_eq!(["read_answer", "read_answer_at"].map(|name| get(loaded, name)), [42, 42]);
    assert_eq!((call(loaded, "call_host", 21), call(loaded, "call_add3", 4)), (42, 7));
    assert_eq!((get(loaded, "call_old"), get(loaded, "old")), (1, 1));
    assert_eq!(get(loaded, "old_address") as usize, loaded.address("old").unwrap() as usize);
}

#[test]
fn addresses_are_written_when_an_image_is_bound() {
    let bytes = image();
    let info = ImageInfo::parse(&bytes).unwrap();
    assert_eq!((info.globals, info.slots.len(), info.text_patches), (GlobalAccess::Direct, 3, 4));
    // No code reads a slot of the host, so there is no array of them.
    assert!(info.exports.iter().all(|export| &*export.name != "kiln_slots"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.so");
    save(&path, &bytes).unwrap();
    for image in [Image::open(&path), Image::open_private(&path), Image::from_bytes(&bytes)] {
        let image = image.unwrap();
        image.verify().unwrap();
        check(&image.bind_array(&addresses()).unwrap());
    }
    let error = Image::open(&path).unwrap().bind_array(&[]).unwrap_err();
    assert!(matches!(error, LoadError::At { .. }), "{error}");
}

/// A replaceable function has a slot, through which code reaches it in both ways.
#[test]
fn a_replaceable_function_stays_behind_its_slot() {
    let loaded = Image::from_bytes(&image()).unwrap().bind_array(&addresses()).unwrap();
    let other = loaded.function("read_answer").unwrap();
    // SAFETY: the code stays mapped as long as the image.
    unsafe { loaded.replace("old", other) }.unwrap();
    assert_eq!((get(&loaded, "call_old"), get(&loaded, "old")), (42, 42));
    assert_eq!(get(&loaded, "old_address") as usize, loaded.address("old").unwrap() as usize);
}

#[test]
fn what_is_in_the_program_is_reached_relative_to_the_code() {
    let bytes = image();
    let info = ImageInfo::parse(&bytes).unwrap();
    let text = info.sections.iter().find(|section| &*section.name == ".text").unwrap();
    let code = |name: &str| {
        let export = info.exports.iter().find(|export| &*export.name == name).unwrap();
        let start = (export.address - text.address + text.offset) as usize;
        bytes[start..start + 10].to_vec()
    };
    for (name, expected) in [
        ("call_add3", [0x4c, 0x8d, 0x1d]),   // lea r11, [rip + ..]
        ("read_answer", [0x48, 0x8d, 0x05]), // lea rax, [rip + ..]
        ("call_old", [0x4c, 0x8b, 0x1d]),    // mov r11, [rip + slot]
        ("old_address", [0x48, 0x8d, 0x05]), // lea rax, [rip + stub]
    ] {
        assert_eq!(code(name)[..3], expected, "{name}");
        assert_eq!(code(name)[7..], [0x0f, 0x1f, 0x00], "{name}");
    }
    assert_eq!(code("call_host")[..2], [0x49, 0xbb]);
}

/// An access through a slot and an address in code, in one program.
#[test]
fn modules_of_both_kinds_are_linked_together() {
    let mut slots = Module::new();
    let first = slots.global("object:first");
    let reloc = [(3, RelocKind::X86GotPc32, first, -4)];
    slots.function("read_slot", Linkage::Export, TO_I64, &READ_THROUGH_SLOT, &reloc);
    let mut modules = program();
    modules.push(slots.finish());
    let bytes = write_image(&modules, &table(), &ImageOptions::default()).unwrap();
    let info = ImageInfo::parse(&bytes).unwrap();
    assert_eq!((info.globals, info.slots.len(), info.text_patches), (GlobalAccess::Direct, 3, 4));
    let loaded = Image::from_bytes(&bytes).unwrap().bind_array(&addresses()).unwrap();
    check(&loaded);
    assert_eq!(get(&loaded, "read_slot"), 111);
    let array = loaded.address("kiln_slots").unwrap().cast::<[usize; 3]>();
    // SAFETY: the array is mapped, and nobody writes it.
    assert_eq!(unsafe { *array }, addresses());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    // With slots, code has no addresses.
    let mut module = Module::new();
    let global = module.global("object:first");
    module.function("f", Linkage::Export, TO_I64, &READ, &[(2, ABS, global, 0)]);
    let errors = write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap_err();
    assert!(matches!(&errors[..], [LinkError::TextRelocation { module: 0, .. }]), "{errors:?}");
    // Each is patched by itself.
    let mut module = direct();
    let global = module.global("object:first");
    let both = [(2, ABS, global, 0), (5, ABS, global, 0)];
    module.function("f", Linkage::Export, TO_I64, &READ, &both);
    let errors = write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap_err();
    assert!(matches!(&errors[..], [LinkError::Instruction { offset: 5, .. }]), "{errors:?}");
    // The code of an object.
    let errors = write_object(&program(), &GlobalTable::new(), &ObjectOptions::default()).unwrap_err();
    assert_eq!(errors, [0, 1].map(|module| LinkError::DirectObject { module }));
    assert_eq!(
        errors[1].to_string(),
        "module 1 reaches globals directly, which the code of an object cannot; compile it with slots"
    );
    // A key that is the name of no symbol, so that `dlopen` would not find it.
    let mut module = direct();
    let global = module.global("a\0b");
    module.function("f", Linkage::Export, TO_I64, &READ, &[(2, ABS, global, 0)]);
    let errors = write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap_err();
    assert!(matches!(&errors[..], [LinkError::NameWithZero { module: 0, .. }]), "{errors:?}");
}

/// The pages of an image that are copies, from the load address on.
fn written_pages(loaded: &Loaded, len: usize) -> BTreeSet<usize> {
    const PAGE: usize = 4096;
    let base = loaded.base() as usize;
    let map = std::fs::File::open("/proc/self/pagemap").unwrap();
    let is_copy = |page: &usize| {
        use std::os::unix::fs::FileExt as _;
        let mut entry = [0; 8];
        map.read_exact_at(&mut entry, ((base / PAGE + page) * 8) as u64).unwrap();
        // Present or swapped, and neither of a file nor shared.
        let entry = u64::from_le_bytes(entry);
        entry >> 62 != 0 && entry >> 61 & 1 == 0
    };
    (0..len.div_ceil(PAGE)).filter(is_copy).collect()
}

/// Modules with many functions, every third of which reads a global by the kind of code that
/// `access` says.
fn long_program(access: GlobalAccess) -> Vec<u8> {
    let mut module = if access == GlobalAccess::Direct { direct() } else { Module::new() };
    let mut table = GlobalTable::new();
    for number in 0..1500 {
        let key = format!("object:{number}");
        let name = format!("f{number}");
        if number % 3 > 0 {
            module.function(&name, Linkage::Local, TO_I64, &[0x90; 1000], &[]);
            continue;
        }
        table.intern(&key);
        let global = module.global(&key);
        match access {
            GlobalAccess::Direct => {
                module.function(&name, Linkage::Export, TO_I64, &READ, &[(2, ABS, global, 0)])
            }
            GlobalAccess::Slots => {
                let reloc = [(3, RelocKind::X86GotPc32, global, -4)];
                module.function(&name, Linkage::Export, TO_I64, &READ_THROUGH_SLOT, &reloc)
            }
        };
    }
    // One pointer in data, in both.
    let first = module.global("object:0");
    module.data("pointer", Linkage::Export, SectionKind::Writable, &[0; 8], &[(0, first, 0)]);
    write_image(&[module.finish()], &table, &ImageOptions::default()).unwrap()
}

/// The pages that a load writes are those of slots, of pointers in data, and of patched code.
#[test]
fn a_load_writes_no_other_pages() {
    let values: Vec<i64> = (0..500).collect();
    let pages = |range: Range<u64>| (range.start / 4096..range.end.div_ceil(4096)).map(|page| page as usize);
    for access in GlobalAccess::ALL {
        let bytes = long_program(access);
        let info = ImageInfo::parse(&bytes).unwrap();
        let section = |name: &str| {
            let found = info.sections.iter().find(|section| &*section.name == name);
            found.map_or(0..0, |section| section.address..section.address + section.size)
        };
        let mut expected: BTreeSet<usize> = pages(section(".kiln.slots")).collect();
        expected.extend(pages(section(".data")));
        if access == GlobalAccess::Direct {
            // The operand of each `movabs`.
            let functions = info.exports.iter().filter(|export| export.name.starts_with('f'));
            functions.for_each(|export| expected.extend(pages(export.address + 2..export.address + 10)));
            assert_eq!(info.text_patches, 500);
            assert!(expected.len() > 200, "patches are far from each other");
        }
        let len = info.sections.iter().map(|section| section.address + section.size).max().unwrap();
        let image = Image::from_bytes(&bytes).unwrap();
        let addresses: Vec<_> = values.iter().map(|value| &raw const *value as usize).collect();
        let loaded = image.bind_array(&addresses).unwrap();
        assert_eq!(written_pages(&loaded, len as usize), expected, "{}", access.name());
        assert_eq!(["f0", "f3", "f1497"].map(|name| get(&loaded, name)), [0, 1, 499]);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains(" rwx"), "nothing is writable and executable at once");
    }
}

#[test]
fn it_loads_where_memory_never_becomes_executable() {
    if let Some(path) = in_child() {
        if !crate::load::refuse_exec_gain() {
            println!("unknown to this kernel");
            return;
        }
        let bytes = std::fs::read(&path).unwrap();
        for image in [Image::open(&path), Image::open_private(&path), Image::from_bytes(&bytes)] {
            check(&image.unwrap().bind_array(&addresses()).unwrap());
            println!("it loads");
        }
        // Without a descriptor for a copy of the code.
        let image = Image::open(&path).unwrap();
        crate::load::no_more_files();
        let error = image.bind_array(&addresses()).unwrap_err();
        let sources = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        println!("{}", sources.map(ToString::to_string).collect::<Vec<_>>().join(": "));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.so");
    save(&path, &image()).unwrap();
    let output = child("direct::it_loads_where_memory_never_becomes_executable", None, &path);
    let stdout = String::from_utf8_lossy(&output.stdout);
    if stdout.contains("unknown to this kernel") {
        let _ = writeln!(std::io::stderr(), "skipped: this kernel has no PR_SET_MDWE");
        return;
    }
    assert_eq!(stdout.matches("it loads").count(), 3, "{output:?}");
    let expected = "cannot execute code of the image that addresses were written into: \
                    mprotect(PROT_READ | PROT_EXEC): Permission denied (os error 13); memfd_create: \
                    Too many open files (os error 24)";
    assert!(stdout.contains(expected), "{output:?}");
}

/// The list of patches is not checked when an image is opened, so a wrong one is found when it is
/// bound, before anything is written.
#[test]
fn altered_patches_write_nothing_outside_of_the_code() {
    let bytes = image();
    let info = ImageInfo::parse(&bytes).unwrap();
    let section = info.sections.iter().find(|section| &*section.name == ".kiln.patches").unwrap();
    let range = section.offset as usize..(section.offset + section.size) as usize;
    let bind = |bytes: &[u8]| {
        let image = Image::from_bytes(bytes)?;
        let verified = image.verify();
        image.bind_array(&addresses()).map(|_| verified)
    };
    let (mut refused, mut altered_count) = (0, 0);
    for at in range.clone() {
        for value in 0..=255 {
            let mut altered = bytes.clone();
            altered[at] = value;
            if altered == bytes {
                continue;
            }
            altered_count += 1;
            match bind(&altered) {
                Ok(verified) => assert!(verified.is_err(), "the checksum of the list"),
                Err(LoadError::Malformed { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            let _ = ImageInfo::parse(&altered);
        }
    }
    assert!(refused > altered_count / 4, "{refused} of {altered_count}");
    for (list, expected) in [
        (vec![0xff; range.len()], "a broken list of patches"),
        (vec![0x7f; range.len()], "a patch"),
        ([vec![2, 9], vec![0; range.len() - 2]].concat(), "a patch with an unknown slot"),
    ] {
        let mut altered = bytes.clone();
        altered[range.clone()].copy_from_slice(&list);
        let error = bind(&altered).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// A C program that has the globals as symbols of their keys.
const C_PROGRAM: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
long host_double(long x) { return 2 * x; }
#ifndef WITHOUT
long first __asm__("\"object:first\"") = 111, second[2] __asm__("\"object:second\"") = {222, 333};
#endif
#define GET(name, type) __typeof__(type) name = (type)dlsym(h, #name); if (!name) { puts("no " #name); return 2; }
int main(int argc, char **argv) {
    void *h = dlopen(argv[1], RTLD_NOW);
    if (!h) { puts(dlerror()); return 1; }
    GET(read_first, long (*)(void))
    GET(read_second, long (*)(void))
    GET(call_host, long (*)(long))
    GET(call_add3, long (*)(long))
    GET(read_answer, long (*)(void))
    GET(read_answer_at, long (*)(void))
    GET(call_old, long (*)(void))
    GET(old_address, void *(*)(void))
    printf("%ld %ld %ld %ld %ld %ld %ld %d\n", read_first(), read_second(), call_host(21), call_add3(4), read_answer(),
           read_answer_at(), call_old(), old_address() == dlsym(h, "old"));
    return 0;
}
"#;

/// `dlopen` relocates code, too, and finds the globals under their keys, or refuses the image. And
/// tools change such an image as they change any other.
#[test]
fn other_loaders_and_tools_know_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("main.c"), folder.path().join("main"));
    std::fs::write(&source, C_PROGRAM).unwrap();
    compile(&source, &program);
    let opened = |program: &Path, path: &Path| {
        let output = Command::new(program).arg(path).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    each_changed(&image(), |name, path| {
        let output = opened(&program, path);
        // What `strip` makes of a file that `patchelf` has changed is right or wrong by chance.
        if ["rpath, stripped", "everything"].contains(&name) && output.contains("not page-aligned") {
            // Not by `println!`, of which the test harness shows nothing.
            let skipped = format!("SKIPPED: {name}: the tools made a file that dlopen refuses: {output}\n");
            std::io::Write::write_all(&mut std::io::stderr(), skipped.as_bytes()).unwrap();
            return;
        }
        assert_eq!(output, "111 333 42 7 42 42 1 1\n", "{name}, dlopen");
        let bytes = std::fs::read(path).unwrap();
        for image in [Image::open(path), Image::from_bytes(&bytes)] {
            let image = image.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            image.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
            check(&image.bind_array(&addresses()).unwrap_or_else(|error| panic!("{name}: {error}")));
        }
    });
    std::fs::write(&source, C_PROGRAM.replace("#ifndef", "#ifdef")).unwrap();
    compile(&source, &program);
    let path = folder.path().join("image.so");
    save(&path, &image()).unwrap();
    let refused = opened(&program, &path);
    assert!(refused.contains("undefined symbol: object:"), "{refused}");
}
