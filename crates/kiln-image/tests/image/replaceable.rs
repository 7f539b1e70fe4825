//! Replaceable functions: which definition is in force, and how calls and addresses reach it.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_artifact::record::{Linkage, Reloc, SectionKind};
use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::{Bindings, GlobalTable, KeyRef};
use kiln_image::code::name_of_stub;
use kiln_image::link::{
    Area, ExternalDefinition, Indirection, LinkError, plan, stub_size, write_stub_to_slot,
};
use kiln_image::{Arch, FunctionRef, Image, ImageInfo, ImageOptions, save, write_image};
use object::{Object, ObjectSymbol};

use crate::elf::compile;
use crate::hostile::Note;
use crate::link::{emit, i32_at, plain};
use crate::support::{ADD3, I64_TO_I64, Module, SLOT_VALUE, TO_I64};

const PC: RelocKind = RelocKind::X86Pc32;
const GOT: RelocKind = RelocKind::X86GotPc32;

/// `jmp f`
const JUMP: [u8; 5] = [0xe9, 0, 0, 0, 0];
/// `jmp [rip + slot]`
const JUMP_SLOT: [u8; 6] = [0xff, 0x25, 0, 0, 0, 0];
/// `lea rax, [rip + f]; ret`
const ADDRESS: [u8; 8] = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3];

/// A module that defines `f` with this linkage and type, as `lea rax, [rdi + add]; ret`.
fn defines(linkage: Linkage, signature: &str, add: u8) -> Artifact {
    let mut module = Module::new();
    module.function("f", linkage, signature, &[0x48, 0x8d, 0x47, add, 0xc3], &[]);
    module.finish()
}

fn replaceable(add: u8) -> Artifact {
    defines(Linkage::Replaceable, I64_TO_I64, add)
}

/// Adds functions that use `f` in every way, 16 bytes apart: a direct call, a call through the
/// slot, the address from the slot, and the address relative to the code.
fn add_users(module: &mut Module, f: u32) {
    let first = module.contents.text_relocs.len();
    module.function("call", Linkage::Export, I64_TO_I64, &JUMP, &[(1, PC, f, -4)]);
    module.function("call_slot", Linkage::Export, I64_TO_I64, &JUMP_SLOT, &[(2, GOT, f, -4)]);
    module.function("slot_value", Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, GOT, f, -4)]);
    module.function("address", Linkage::Export, TO_I64, &ADDRESS, &[(3, PC, f, -4)]);
    module.data("pointer", Linkage::Export, SectionKind::Writable, &[0; 8], &[(0, f, 0)]);
    module.contents.text_relocs[first + 2].flags = Reloc::TAKES_ADDRESS;
}

/// A module that defines `f` and uses it, also in `f` itself, which begins after the users.
fn own_user() -> Artifact {
    let mut module = Module::new();
    let f = module.function("f", Linkage::Replaceable, I64_TO_I64, &JUMP_SLOT, &[(2, GOT, 0, -4)]);
    add_users(&mut module, f);
    module.finish()
}

fn user() -> Artifact {
    let mut module = Module::new();
    let f = module.import("f", I64_TO_I64);
    add_users(&mut module, f);
    module.finish()
}

#[test]
fn the_last_replaceable_definition_is_in_force() {
    let artifacts = [replaceable(1), replaceable(2), user(), replaceable(3)];
    let plan = plain(&artifacts).unwrap();
    let f = plan.definitions().find(|definition| definition.name == "f").unwrap();
    assert_eq!((f.module, f.linkage), (3, Linkage::Replaceable));
    let Indirection { slot: Some(slot), stub: Some(_) } = f.indirection.unwrap() else {
        panic!("slot and stub are this link's own")
    };
    let (text, at, fixups) = emit(&plan).unwrap();
    let [content] = fixups.internal_slots[..] else { panic!("one slot") };
    assert_eq!((content.offset, content.target), (slot, at[Area::Text] + f.offset));
    assert_eq!(text[f.offset as usize + 3], 3);
    assert_eq!(plan.functions().filter(|function| function.name == "f").count(), 3);
}

#[test]
fn everything_goes_through_the_slot_or_the_stub() {
    for (artifacts, users, recursive) in [
        (vec![own_user()], 16, true),
        (vec![user(), replaceable(1)], 0, false),
        (vec![replaceable(1), user()], 16, false),
    ] {
        let plan = plain(&artifacts).unwrap();
        let f = plan.definitions().find(|definition| definition.name == "f").unwrap();
        let indirection = f.indirection.unwrap();
        let (slot, stub) = (indirection.slot.unwrap(), indirection.stub.unwrap());
        let (text, at, fixups) = emit(&plan).unwrap();
        let [code, slots] = [Area::Text, Area::Slots].map(|area| at[area] as i64);
        // The target of the four bytes at an offset, seen from the end of those.
        let target = |offset: usize| code + offset as i64 + 4 + i32_at(&text, offset);
        let (slot_address, stub_address) = (slots + slot as i64, code + stub as i64);
        assert_eq!(target(stub as usize + 2), slot_address, "the stub jumps through the slot");
        assert_eq!(text[stub as usize..][..2], [0xff, 0x25]);
        assert_eq!(target(users + 1), stub_address, "a direct call takes the stub");
        assert_eq!(target(users + 16 + 2), slot_address, "a call through the slot stays one");
        assert_eq!(text[users + 32 + 1], 0x8d, "an address in a slot is computed");
        assert_eq!(target(users + 32 + 3), stub_address);
        assert_eq!(target(users + 48 + 3), stub_address, "the address is the stub's");
        if recursive {
            assert_eq!(target(2), slot_address, "recursion too");
        }
        assert_eq!(fixups.pointers.len(), 1);
        assert_eq!(fixups.pointers[0].target as i64, stub_address, "a pointer is the stub's address");
        let slots: Vec<_> = fixups.internal_slots.iter().map(|slot| (slot.offset, slot.target)).collect();
        assert_eq!(slots, [(slot, at[Area::Text] + f.offset)], "there is one slot");
    }
}

#[test]
fn a_slot_that_is_known_is_used_by_callers_and_by_a_new_definition() {
    const SLOT: u64 = 0x40;
    const STUB: u64 = 0x80;
    let both = ExternalDefinition::Replaceable { slot: SLOT, stub: STUB };
    for (artifact, external, users) in
        [(user(), both, 0), (own_user(), both, 16), (own_user(), ExternalDefinition::Slot(SLOT), 16)]
    {
        let artifacts = [artifact];
        let known = |key: KeyRef<'_>| (key.text() == "f").then_some(external);
        let plan = plan(&artifacts, &GlobalTable::new(), &known).unwrap();
        assert!(plan.slots().is_empty());
        let f = plan.definitions().find(|definition| definition.name == "f");
        let (text, at, fixups) = emit(&plan).unwrap();
        let code = at[Area::Text];
        let target = |offset: usize| (code as i64 + offset as i64 + 4 + i32_at(&text, offset)) as u64;
        assert_eq!(target(users + 16 + 2), SLOT);
        let stub = match external {
            ExternalDefinition::Replaceable { .. } => {
                assert!(f.is_none_or(|f| f.indirection == Some(Indirection { slot: None, stub: None })));
                STUB
            }
            _ => {
                let Indirection { slot: None, stub: Some(stub) } = f.unwrap().indirection.unwrap() else {
                    panic!("the slot is known, the stub is not")
                };
                assert_eq!(target(stub as usize + 2), SLOT);
                code + stub
            }
        };
        assert_eq!(target(users + 32 + 3), stub);
        assert_eq!(target(users + 48 + 3), stub);
        assert_eq!(fixups.pointers[0].target, stub);
        // The slots that are this link's own hold the address of the stub.
        assert!(fixups.internal_slots.iter().all(|slot| slot.target == stub));
        if users > 0 {
            assert_eq!(target(2), SLOT, "the new definition calls itself through the known slot");
        }
    }
}

#[test]
fn a_stub_can_be_written_before_there_is_code() {
    let mut stub = [0; 8];
    write_stub_to_slot(Arch::X86_64, &mut stub, 0x1000, 0x3000).unwrap();
    // jmp [rip + 0x1ffa]; int3; int3
    assert_eq!(stub, [0xff, 0x25, 0xfa, 0x1f, 0, 0, 0xcc, 0xcc]);
    for arch in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64, Arch::S390x] {
        let mut stub = vec![0; stub_size(arch) as usize];
        write_stub_to_slot(arch, &mut stub, 0x1000, 0x3000).unwrap();
        let far = write_stub_to_slot(arch, &mut stub, 0x1000, 1 << 40);
        assert!(matches!(far, Err(LinkError::OutOfRange { .. })), "{arch:?}");
        let short = write_stub_to_slot(arch, &mut stub[1..], 0x1000, 0x3000);
        assert!(matches!(short, Err(LinkError::Buffer { .. })), "{arch:?}");
    }
}

#[test]
fn replaceable_and_other_definitions_of_a_name_do_not_mix() {
    use Linkage::{Export, Hidden, Preemptible, Replaceable};
    for (linkages, replaceable, other) in [
        (&[Replaceable, Export][..], 0, 1),
        (&[Export, Replaceable], 1, 0),
        (&[Preemptible, Replaceable], 1, 0),
        (&[Replaceable, Preemptible], 0, 1),
        (&[Replaceable, Replaceable, Hidden], 1, 2),
    ] {
        let artifacts: Vec<_> = linkages.iter().map(|&linkage| defines(linkage, I64_TO_I64, 1)).collect();
        let errors = plain(&artifacts).unwrap_err();
        let conflict = LinkError::ReplaceableConflict { name: "f".into(), replaceable, other };
        assert_eq!(errors, [conflict], "{linkages:?}");
        assert_eq!(errors[0].module(), Some(replaceable.max(other)));
    }
    let text = LinkError::ReplaceableConflict { name: "f".into(), replaceable: 0, other: 1 }.to_string();
    assert_eq!(text, "`f` is replaceable in module 0, but not in module 1");
    let mut twice = Module::new();
    twice.function("f", Replaceable, I64_TO_I64, &ADD3, &[]);
    twice.function("f", Replaceable, I64_TO_I64, &ADD3, &[]);
    let duplicate = LinkError::DuplicateDefinition { name: "f".into(), first: 0, second: 0 };
    assert_eq!(plain(&[twice.finish()]).unwrap_err(), [duplicate]);
}

#[test]
fn definitions_that_replace_each_other_have_one_type() {
    let artifacts = [replaceable(1), defines(Linkage::Replaceable, TO_I64, 2)];
    let errors = plain(&artifacts).unwrap_err();
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let text = "module 1 defines `f` as () -> i64 system_v, but the definition in module 0, which it \
                replaces, is (i64) -> i64 system_v";
    assert_eq!((&texts[..], errors[0].module()), (&[text.to_owned()][..], Some(1)));
    // Extensions of parameters are no difference, as between an import and its definition.
    let artifacts = [replaceable(1), defines(Linkage::Replaceable, "(i64 sext) -> i64 system_v", 2)];
    assert!(plain(&artifacts).is_ok());
}

#[test]
fn a_reference_to_the_own_code_is_not_replaced() {
    // lea rax, [rip + f + 3], which belongs to the code that is replaced
    let own = |add: i64| {
        let mut module = Module::new();
        module.function("f", Linkage::Replaceable, TO_I64, &ADDRESS, &[(3, PC, 0, add - 4)]);
        module.contents.text_relocs[0].flags = Reloc::OWN;
        module.finish()
    };
    let artifacts = [own(3), own(2)];
    let plan = plain(&artifacts).unwrap();
    let (text, ..) = emit(&plan).unwrap();
    assert_eq!((7 + i32_at(&text, 3), 7 + i32_at(&text, 16 + 3)), (3, 2));
}

/// An image of `f`, which adds 1, and of a module that uses it in every way.
pub(crate) fn image() -> Vec<u8> {
    let artifacts = [user(), replaceable(3), replaceable(1)];
    write_image(&artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap()
}

extern "C" fn add_100(value: i64) -> i64 {
    value + 100
}

#[test]
fn a_function_of_a_loaded_image_is_replaced_for_all_callers() {
    let loaded = Image::from_bytes(&image()).unwrap().bind(&Bindings::new()).unwrap();
    let call = |name: &str, value: i64| {
        // SAFETY: the image was made by this test and is alive.
        unsafe { loaded.function(name).unwrap().typed::<extern "C" fn(i64) -> i64>() }.unwrap()(value)
    };
    let address = |name: &str| {
        // SAFETY: as in `call`.
        unsafe { loaded.function(name).unwrap().typed::<extern "C" fn() -> usize>() }.unwrap()()
    };
    let results = || ["f", "call", "call_slot"].map(|name| call(name, 1));
    let f = loaded.address("f").unwrap();
    // Where a place in the stub leads: the name, whether it is the stub itself, and the offset.
    let led = |at: usize| {
        let place = loaded.locate(f.wrapping_add(at)).unwrap();
        assert!(place.is_stub() && place.source().is_none());
        (place.name().to_owned(), place.start() == f as u64, place.offset())
    };
    let taken: extern "C" fn(i64) -> i64 =
        // SAFETY: as in `call`.
        unsafe { loaded.function("f").unwrap().typed() }.unwrap();
    let addresses_agree = || {
        // SAFETY: `pointer` is 8 bytes of data.
        let pointer = unsafe { loaded.address("pointer").unwrap().cast::<usize>().read() };
        let all = [address("address"), address("slot_value"), pointer, loaded.address("f").unwrap() as usize];
        assert_eq!(all, [f as usize; 4], "the address of `f` is the same everywhere, and stays");
    };
    assert_eq!((results(), taken(1)), ([2; 3], 2), "the last definition is in force");
    addresses_agree();
    assert_eq!((led(0), led(7)), (("f".into(), false, 0), ("f".into(), false, 0)));
    let in_force = loaded.locate(f).unwrap();
    assert!(in_force.module().is_some() && !loaded.locate(in_force.start() as *const u8).unwrap().is_stub());

    // SAFETY: a function of this type that is there for ever.
    let new = unsafe { FunctionRef::new("new", add_100 as *const u8, I64_TO_I64) };
    // SAFETY: `f` takes and returns a number, and so does the new function.
    let old = unsafe { loaded.replace("f", new.clone()) }.unwrap();
    assert_eq!((results(), taken(1)), ([101; 3], 101));
    addresses_agree();
    // What is not the image's is not known here.
    assert_eq!((led(0), led(7)), (("f".into(), true, 0), ("f".into(), true, 7)));
    let stubs: Vec<_> = loaded.code_tables().unwrap().stubs().collect();
    assert_eq!(stubs.iter().map(name_of_stub).collect::<Vec<_>>(), ["f"], "its address is the function's");

    // SAFETY: the old code is still in the image.
    let old = unsafe { FunctionRef::new("old", old, I64_TO_I64) };
    // SAFETY: as above.
    assert_eq!(unsafe { loaded.replace("f", old) }.unwrap(), add_100 as *const u8);
    assert_eq!((results(), taken(1)), ([2; 3], 2));

    // SAFETY: nothing is replaced.
    let error = |name: &str, function| unsafe { loaded.replace(name, function) }.unwrap_err().to_string();
    assert_eq!(error("call", new.clone()), "the image has no replaceable function `call`");
    assert_eq!(error("nothing", new.clone()), "the image has no replaceable function `nothing`");
    assert_eq!(error("f", loaded.function("f").unwrap()), "`f` cannot be replaced by itself");
    let other = loaded.function("address").unwrap();
    assert_eq!(error("f", other), "`f` has type () -> i64 system_v, not (i64) -> i64 system_v");
    assert_eq!(results(), [2; 3]);
}

#[test]
fn threads_that_call_see_the_old_code_or_the_new() {
    let loaded = Image::from_bytes(&image()).unwrap().bind(&Bindings::new()).unwrap();
    // SAFETY: the image was made by this test and is alive until the threads have ended.
    let [call, call_slot]: [extern "C" fn(i64) -> i64; 2] =
        ["call", "call_slot"].map(|name| unsafe { loaded.function(name).unwrap().typed() }.unwrap());
    // SAFETY: a function of this type that is there for ever.
    let mut next = unsafe { FunctionRef::new("new", add_100 as *const u8, I64_TO_I64) };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for call in [call, call_slot] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    assert!(matches!(call(1), 2 | 101));
                }
            });
        }
        for round in 0..20_000 {
            // SAFETY: both functions have this type and outlive the threads.
            let old = unsafe { loaded.replace("f", next) }.unwrap();
            assert_eq!([call(1), call_slot(1)], [if round % 2 == 0 { 101 } else { 2 }; 2]);
            // SAFETY: as above.
            next = unsafe { FunctionRef::new("old", old, I64_TO_I64) };
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn an_image_says_which_functions_are_replaceable() {
    let info = ImageInfo::parse(&image()).unwrap();
    let slots = info.sections.iter().find(|section| &*section.name == ".kiln.slots").unwrap();
    for export in &info.exports {
        let slot = export.replaceable;
        assert_eq!(slot, (&*export.name == "f").then_some(slots.address), "{}", export.name);
    }
    let f = info.exports.iter().find(|export| &*export.name == "f").unwrap();
    assert_eq!((f.size, f.signature.as_deref(), slots.size), (8, Some(I64_TO_I64), 8));
    // Debuggers find the stub and the code of each definition under the name.
    let bytes = image();
    let file = object::File::parse(&*bytes).unwrap();
    let named: Vec<_> = file.symbols().filter(|symbol| symbol.name() == Ok("f")).collect();
    let [.., stub] = &named[..] else { panic!("no symbol") };
    assert_eq!((named.len(), stub.address(), stub.is_global()), (3, f.address, true));
    assert!(named[..2].iter().all(|symbol| symbol.is_local() && symbol.size() == 5));
}

#[test]
fn a_hostile_note_cannot_name_another_place_as_a_slot() {
    let bytes = image();
    let info = ImageInfo::parse(&bytes).unwrap();
    let slot = info.exports.iter().find_map(|export| export.replaceable).unwrap();
    let note = Note::of(&bytes);
    // After the head, whose spans end with those of the file, the first is that in the record.
    let tables = note.body.start + 96 + (9 + 7) * 16..note.body.end;
    let record = tables.into_iter().find(|&at| bytes[at..].starts_with(&slot.to_le_bytes())).unwrap();
    for wrong in [0, slot - 8, slot + 1, slot + 8, u64::MAX - 7] {
        let mut altered = bytes.clone();
        altered[record..record + 8].copy_from_slice(&wrong.to_le_bytes());
        note.reseal(&mut altered);
        let error = Image::from_bytes(&altered).unwrap_err().to_string();
        assert!(error.contains("a misplaced slot of a replaceable function"), "{wrong:#x}: {error}");
    }
    for symbol in [0u32, u32::MAX] {
        let mut altered = bytes.clone();
        altered[record - 8..record - 4].copy_from_slice(&symbol.to_le_bytes());
        note.reseal(&mut altered);
        assert!(Image::from_bytes(&altered).is_err(), "symbol {symbol}");
    }
}

const C_PROGRAM: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *h = dlopen(argv[1], RTLD_NOW);
    if (!h) { puts(dlerror()); return 1; }
    void *f = dlsym(h, "f");
    long (*call)(long) = (long (*)(long))dlsym(h, "call");
    long (*call_slot)(long) = (long (*)(long))dlsym(h, "call_slot");
    void *(*address)(void) = (void *(*)(void))dlsym(h, "address");
    void **pointer = dlsym(h, "pointer");
    printf("%ld %ld %ld %d %d\n", ((long (*)(long))f)(1), call(1), call_slot(1), address() == f, *pointer == f);
    return 0;
}
"#;

#[test]
fn the_c_library_loads_an_image_with_replaceable_functions() {
    let folder = tempfile::tempdir().unwrap();
    let (source, main) = (folder.path().join("main.c"), folder.path().join("main"));
    std::fs::write(&source, C_PROGRAM).unwrap();
    compile(&source, &main);
    let path = folder.path().join("program.so");
    save(&path, &image()).unwrap();
    let output = Command::new(&main).arg(&path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 2 2 1 1\n");
}
