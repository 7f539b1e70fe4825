//! Leaner programs from artifacts that are assembled by hand: what is kept, folded and moved, and
//! what calls and tables say afterwards.

use kiln_artifact::Artifact;
use kiln_artifact::RelocKind::{X86GotPc32 as Got, X86Pc32 as Pc};
use kiln_artifact::record::{Linkage, Reloc, ResolvedCall, SectionKind};
use kiln_globals::GlobalTable;
use kiln_image::link::{Kept, Lean, LeanOptions, LinkError, Roots, lean};
use kiln_image::{Image, ImageInfo, ImageOptions, write_image};

use crate::support::{ADD3, I64_TO_I64, Module, TO_I64};

/// `call target; ret`
const CALL: [u8; 6] = [0xe8, 0, 0, 0, 0, 0xc3];
/// `lea rax, [rip + target]; ret`
const ADDRESS: [u8; 8] = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3];

fn names(list: &[&str]) -> Option<Roots> {
    Some(Roots::Names(list.iter().map(|name| (*name).into()).collect()))
}

/// The names of the functions of a leaner program, in order of address, with their modules.
fn functions(lean: &Lean) -> Vec<(String, u32)> {
    let image = image(lean);
    let info = ImageInfo::parse(&image).unwrap();
    let tables = info.code_tables().unwrap();
    tables.functions().map(|function| (function.name().to_owned(), function.module().unwrap())).collect()
}

fn image(lean: &Lean) -> Vec<u8> {
    let options = ImageOptions { module_numbers: lean.modules.clone(), ..ImageOptions::default() };
    write_image(&lean.artifacts, &GlobalTable::new(), &options).unwrap()
}

/// Calls a function without arguments in the image.
fn call(lean: &Lean, name: &str) -> i64 {
    let loaded = Image::from_bytes(&image(lean)).unwrap().bind(&kiln_globals::Bindings::new()).unwrap();
    let function = loaded.address(name).unwrap();
    // SAFETY: the functions of this test are as simple as they look.
    let function = unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i64>(function) };
    function()
}

/// Constants of which two are equal and private, and whose callers see no address.
fn twins(seen: bool) -> Vec<Artifact> {
    let nine = [0xb8, 9, 0, 0, 0, 0xc3];
    let mut a = Module::new();
    let left = a.function("left", Linkage::Local, TO_I64, &nine, &[]);
    let right = a.function("right", Linkage::Local, TO_I64, &nine, &[]);
    a.function("eight", Linkage::Local, TO_I64, &[0xb8, 8, 0, 0, 0, 0xc3], &[]);
    a.function("first", Linkage::Export, TO_I64, &CALL, &[(1, Pc, left, -4)]);
    // A call that the compiler resolved.
    let start = a.contents.text.len().next_multiple_of(16) as u32;
    let second = a.function("second", Linkage::Export, TO_I64, &CALL, &[]);
    assert_eq!(second, 4);
    let at = (start + 1) as usize;
    let distance = 16 - (start as i32 + 5);
    a.contents.text[at..at + 4].copy_from_slice(&distance.to_le_bytes());
    a.contents.resolved_calls.push(ResolvedCall {
        original: [0; 8],
        addend: (-4).into(),
        offset: (start + 1).into(),
        symbol: right.into(),
        kind: Pc as u8,
        reserved: [0; 3],
    });
    if seen {
        a.function("address_of_right", Linkage::Export, TO_I64, &ADDRESS, &[(3, Pc, right, -4)]);
        a.function("address_of_left", Linkage::Export, TO_I64, &ADDRESS, &[(3, Pc, left, -4)]);
    }
    // The same code in another module, known to others by name.
    let mut b = Module::new();
    let far = b.function("far", Linkage::Hidden, TO_I64, &nine, &[]);
    b.function("third", Linkage::Export, TO_I64, &CALL, &[(1, Pc, far, -4)]);
    let mut c = Module::new();
    let far = c.import("far", TO_I64);
    c.function("fourth", Linkage::Export, TO_I64, &CALL, &[(1, Pc, far, -4)]);
    vec![a.finish(), b.finish(), c.finish()]
}

#[test]
fn equal_functions_are_one_unless_their_addresses_are_seen() {
    let fold = LeanOptions { fold: true, ..LeanOptions::default() };
    let folded = lean(&twins(false), &fold).unwrap();
    assert_eq!(folded.folded_functions, (2, 12));
    let left: Vec<_> = functions(&folded).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["left", "eight", "first", "second", "third", "fourth"]);
    for name in ["first", "second", "third", "fourth"] {
        assert_eq!(call(&folded, name), 9, "{name}");
    }
    // Both addresses can be compared, so only the one of the other module is folded.
    let apart = lean(&twins(true), &fold).unwrap();
    assert_eq!(apart.folded_functions, (1, 6));
    let loaded = Image::from_bytes(&image(&apart)).unwrap().bind(&kiln_globals::Bindings::new()).unwrap();
    let [left, right] = ["address_of_left", "address_of_right"].map(|name| {
        let function = loaded.address(name).unwrap();
        // SAFETY: as above.
        unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> usize>(function)() }
    });
    assert_ne!(left, right);
    assert_eq!(call(&apart, "third"), 9);
}

#[test]
fn functions_that_call_each_other_are_equal_if_their_targets_are() {
    let module = |different: bool| {
        let mut module = Module::new();
        let base = module.import("base", TO_I64);
        let other = module.import("other", TO_I64);
        let last = module.contents.symbols.len() as u32;
        // Each calls the other, then `base`; the last two may call something else.
        let code = [0xe8, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0xc3];
        for (number, name) in ["a", "b", "c", "d"].iter().enumerate() {
            let target = if different && number > 1 { other } else { base };
            let next = last + (number as u32 ^ 1);
            let calls = [(1, Pc, next, -4), (6, Pc, target, -4)];
            module.function(name, Linkage::Local, TO_I64, &code, &calls);
        }
        for number in 0..4 {
            let name = format!("start{number}");
            module.function(&name, Linkage::Export, TO_I64, &CALL, &[(1, Pc, last + number, -4)]);
        }
        module.finish()
    };
    let fold = LeanOptions { fold: true, ..LeanOptions::default() };
    // A cycle of equal functions is one function that calls itself.
    assert_eq!(lean(&[module(false)], &fold).unwrap().folded_functions.0, 3);
    assert_eq!(lean(&[module(true)], &fold).unwrap().folded_functions.0, 2);
}

/// `main` calls `helper`, which reads `table`, which points at `last`; nothing reaches the others.
fn reached() -> Vec<Artifact> {
    let mut a = Module::new();
    let helper = a.import("helper", TO_I64);
    a.function("main", Linkage::Export, TO_I64, &CALL, &[(1, Pc, helper, -4)]);
    a.function("unused", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    let big = a.zeroed("big", Linkage::Local, 9000);
    a.zeroed("kept", Linkage::Export, 8);
    a.function("reads_big", Linkage::Local, TO_I64, &ADDRESS, &[(3, Pc, big, -4)]);
    let mut b = Module::new();
    let last = b.function("last", Linkage::Local, TO_I64, &[0xb8, 7, 0, 0, 0, 0xc3], &[]);
    b.data("before", Linkage::Local, SectionKind::Writable, &[1; 40], &[]);
    let table = b.data("table", Linkage::Hidden, SectionKind::Writable, &[0; 16], &[(8, last, 0)]);
    // mov rax, [rip + slot]; jmp [rax + 8]
    let code = [0x48, 0x8b, 0x05, 0, 0, 0, 0, 0xff, 0x60, 0x08];
    b.function("helper", Linkage::Hidden, TO_I64, &code, &[(3, Got, table, -4)]);
    vec![a.finish(), b.finish()]
}

#[test]
fn only_what_roots_reach_is_kept() {
    let all = lean(&reached(), &LeanOptions::default()).unwrap();
    assert_eq!((&all.artifacts, &*all.modules), (&reached(), &[0, 1][..]));
    let gc = LeanOptions { roots: Some(Roots::Exports), ..LeanOptions::default() };
    let gc = lean(&reached(), &gc).unwrap();
    assert_eq!((gc.dropped_functions, gc.dropped_data), ((1, 8), (2, 9040)));
    assert_eq!(call(&gc, "main"), 7);
    let one = LeanOptions { roots: names(&["main"]), ..LeanOptions::default() };
    let one = lean(&reached(), &one).unwrap();
    assert_eq!((one.dropped_functions.0, one.dropped_data), (2, (3, 9048)));
    let expected = [("main", 0), ("last", 1), ("helper", 1)].map(|(name, module)| (name.to_owned(), module));
    assert_eq!(functions(&one), expected);
    assert_eq!(call(&one, "main"), 7);

    let step = |name: &str, module| Kept::Referred { name: name.into(), module };
    let root = Kept::Root { name: "main".into(), module: 0 };
    let way = vec![root, step("helper", 1), step("table", 1), step("last", 1)];
    assert_eq!(one.why_kept("last"), Some(vec![way]));
    assert_eq!(one.why_kept("unused"), Some(Vec::new()));
    assert_eq!(one.why_kept("nowhere"), None);
    let missing = LeanOptions { roots: names(&["main", "last"]), ..LeanOptions::default() };
    let error = LinkError::UnknownRoot { name: "last".into() };
    assert_eq!(lean(&reached(), &missing).unwrap_err(), [error]);
}

#[test]
fn functions_stand_in_the_order_that_was_asked_for() {
    let order = ["last", "main", "helper", "nowhere", "last"].map(Into::into).to_vec();
    let ordered = lean(&reached(), &LeanOptions { order, ..LeanOptions::default() }).unwrap();
    assert_eq!(ordered.unknown_names, 1);
    assert_eq!(ordered.modules, [1, 0, 1, 0, 1]);
    let expected = [("last", 1), ("main", 0), ("helper", 1), ("unused", 0), ("reads_big", 0)];
    assert_eq!(functions(&ordered), expected.map(|(name, module)| (name.to_owned(), module)));
    assert_eq!(call(&ordered, "main"), 7);
    // Private symbols are known under their own names only.
    let image = image(&ordered);
    let file = object::File::parse(&*image).unwrap();
    use object::{Object as _, ObjectSymbol as _};
    let named: Vec<&str> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
    assert_eq!(named.iter().filter(|name| **name == "last").count(), 1);
    assert!(named.iter().all(|name| !name.contains(char::is_numeric)), "{named:?}");
    // Each row of the unwinder's index begins where a function does, and the stubs have none here.
    assert_eq!(ImageInfo::parse(&image).unwrap().code_tables().unwrap().sizes().functions, 5);
}

/// Private data in a named section, of which another part uses the middle through a slot.
#[test]
fn a_part_reaches_the_middle_of_what_another_has() {
    let mut module = Module::new();
    module.data("first", Linkage::Local, SectionKind::Writable, &[1; 8], &[]);
    let second = module.data("second", Linkage::Local, SectionKind::Writable, &[2; 8], &[]);
    // One object: the symbols share bytes.
    module.contents.symbols[0].size = 16.into();
    let code = [0x48, 0x8b, 0x05, 0, 0, 0, 0, 0x48, 0x8b, 0x00, 0xc3];
    module.function("read", Linkage::Export, TO_I64, &code, &[(3, Got, second, -4)]);
    let module = [module.finish()];
    let options = LeanOptions { order: vec!["read".into()], ..LeanOptions::default() };
    let ordered = lean(&module, &options).unwrap();
    assert_eq!(ordered.modules, [0, 0]);
    assert_eq!(call(&ordered, "read"), 0x0202_0202_0202_0202);
}

#[test]
fn sections_for_clients_and_what_cannot_be_taken_apart_are_kept() {
    let mut module = Module::new();
    module.function("main", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    module.function("private", Linkage::Local, I64_TO_I64, &ADD3, &[]);
    // A relocation outside of every function.
    let host = module.import("host", TO_I64);
    module.contents.text.extend([0x90; 16]);
    let offset = module.contents.text.len() as u64 - 8;
    module.contents.text_relocs.push(Reloc {
        offset: offset.into(),
        addend: (-4).into(),
        symbol: host.into(),
        kind: Pc as u8,
        flags: 0,
        reserved: [0; 2],
    });
    let artifact = module.finish();
    let options = LeanOptions { roots: names(&["main"]), fold: true, order: vec!["private".into()] };
    let lean = lean(std::slice::from_ref(&artifact), &options).unwrap();
    assert_eq!(lean.artifacts, [artifact]);
    let way = vec![Kept::Whole { name: "private".into(), module: 0 }];
    assert_eq!(lean.why_kept("private"), Some(vec![way]));
}
