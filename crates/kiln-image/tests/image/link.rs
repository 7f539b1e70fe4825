//! Resolution, slots, relaxation and stubs, as plans have them.

use kiln_artifact::record::{Linkage, SectionKind};
use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::{GlobalTable, KeyRef, SlotKey};
use kiln_image::link::{Addresses, Area, ExternalDefinition, Fixups, LinkError, Output, Plan, plan};

use crate::support::{ADD3, I64_TO_I64, Module, READ_THROUGH_SLOT, SLOT_VALUE, TO_I64};

const PC: RelocKind = RelocKind::X86Pc32;
const GOT: RelocKind = RelocKind::X86GotPc32;

pub(crate) fn plain(artifacts: &[Artifact]) -> Result<Plan<'_>, Vec<LinkError>> {
    plan(artifacts, &GlobalTable::new(), &|_| None)
}

/// Emits with all areas in sequence from address 0x10000, each at a page.
pub(crate) fn emit(plan: &Plan<'_>) -> Result<(Vec<u8>, Addresses, Fixups), LinkError> {
    let mut addresses = Addresses::default();
    let mut next = 0x10000;
    for area in Area::ALL {
        addresses[area] = next;
        next = (next + plan.layout()[area].size).next_multiple_of(4096);
    }
    let bytes = |area: Area| vec![0x55; plan.layout()[area].size as usize];
    let mut code_tables = bytes(Area::CodeTables);
    let (mut text, mut eh_frame, mut eh_frame_hdr) =
        (bytes(Area::Text), bytes(Area::EhFrame), bytes(Area::EhFrameHdr));
    let (mut rodata, mut relro, mut data) = (bytes(Area::Rodata), bytes(Area::Relro), bytes(Area::Data));
    let output = Output {
        text: &mut text,
        eh_frame: &mut eh_frame,
        eh_frame_hdr: &mut eh_frame_hdr,
        code_tables: &mut code_tables,
        rodata: &mut rodata,
        relro: &mut relro,
        data: &mut data,
    };
    let fixups = plan.emit(&addresses, output)?;
    Ok((text, addresses, fixups))
}

pub(crate) fn i32_at(text: &[u8], offset: usize) -> i64 {
    i32::from_le_bytes(text[offset..offset + 4].try_into().unwrap()).into()
}

fn defines(linkage: Linkage) -> Artifact {
    let mut module = Module::new();
    module.function("f", linkage, I64_TO_I64, &ADD3, &[]);
    module.finish()
}

#[test]
fn a_strong_definition_wins_over_a_preemptible_one() {
    use Linkage::{Export, Hidden, Preemptible};
    for (linkages, winner) in [
        (&[Preemptible, Export, Preemptible][..], 1),
        (&[Export, Preemptible], 0),
        (&[Preemptible, Preemptible], 0),
        (&[Preemptible, Hidden], 1),
    ] {
        let artifacts: Vec<_> = linkages.iter().map(|&linkage| defines(linkage)).collect();
        let plan = plain(&artifacts).unwrap();
        let definitions: Vec<_> = plan.definitions().map(|definition| definition.module).collect();
        assert_eq!(definitions, [winner], "{linkages:?}");
        assert_eq!(plan.functions().count(), linkages.len());
    }
    let artifacts = [defines(Linkage::Local), defines(Linkage::Local)];
    assert_eq!(plain(&artifacts).unwrap().definitions().count(), 0);
}

#[test]
fn every_error_is_collected_in_order() {
    let mut user = Module::new();
    user.import("f", "(f64) -> i64 system_v");
    let artifacts =
        [defines(Linkage::Export), user.finish(), defines(Linkage::Export), defines(Linkage::Hidden)];
    let duplicate = |second| LinkError::DuplicateDefinition { name: "f".into(), first: 0, second };
    let conflict = LinkError::SignatureConflict {
        name: "f".into(),
        importer: 1,
        user: "".into(),
        import_signature: "(f64) -> i64 system_v".into(),
        definer: 0,
        definition_signature: I64_TO_I64.into(),
    };
    assert_eq!(plain(&artifacts).unwrap_err(), [duplicate(2), duplicate(3), conflict]);
}

#[test]
fn data_is_not_a_function_but_a_function_is_data() {
    let mut definer = Module::new();
    definer.data("d", Linkage::Export, SectionKind::Writable, &[0; 8], &[]);
    definer.function("f", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    let mut user = Module::new();
    user.import_data("f");
    let d = user.import("d", I64_TO_I64);
    let jump = [0xe9, 0, 0, 0, 0];
    user.function("idle", Linkage::Export, TO_I64, &READ_THROUGH_SLOT, &[]);
    user.function("caller", Linkage::Export, TO_I64, &jump, &[(1, PC, d, -4)]);
    let errors = plain(&[definer.finish(), user.finish()]).unwrap_err();
    let user = "caller".into();
    assert_eq!(errors, [LinkError::KindConflict { name: "d".into(), importer: 1, user, definer: 0 }]);
    assert_eq!(
        errors[0].to_string(),
        "function `caller` of module 1 uses `d` as a function, but module 0 defines it as data"
    );
}

#[test]
fn targets_must_agree_and_be_known() {
    let artifacts = [Module::new().finish(), Module::for_triple("aarch64-unknown-linux-gnu").finish()];
    assert!(matches!(&plain(&artifacts).unwrap_err()[..], [LinkError::TargetMismatch { module: 1, .. }]));
    let artifacts = [Module::for_triple("pdp11-unknown-linux").finish()];
    assert!(matches!(&plain(&artifacts).unwrap_err()[..], [LinkError::UnsupportedTarget { .. }]));
}

#[test]
fn code_must_not_hold_addresses() {
    let mut module = Module::new();
    let f = module.import("f", I64_TO_I64);
    let code = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3];
    module.function("g", Linkage::Export, TO_I64, &code, &[(2, RelocKind::Abs64, f, 0)]);
    let errors = plain(&[module.finish()]).unwrap_err();
    let function = "g".into();
    assert_eq!(errors, [LinkError::TextRelocation { module: 0, function, offset: 2, symbol: "f".into() }]);
}

#[test]
fn the_function_and_the_data_that_an_error_is_about_are_named() {
    // The function is found by its offset, also if it is not the first, and a long name is cut.
    let mut module = Module::new();
    let f = module.import("f", I64_TO_I64);
    let code = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3];
    module.function("a", Linkage::Export, TO_I64, &[0xc3], &[]);
    module.function(&"g".repeat(5000), Linkage::Export, TO_I64, &code, &[(2, RelocKind::Abs64, f, 0)]);
    module.function("z", Linkage::Export, TO_I64, &[0xc3], &[]);
    let errors = plain(&[module.finish()]).unwrap_err();
    let expected = format!(
        "function `{}...` of module 0 (at 0x12 of its code) needs a text relocation for `f`",
        "g".repeat(200)
    );
    assert_eq!(errors[0].to_string(), expected);

    let zeroed = |name: &str| {
        let mut module = Module::new();
        module.zeroed("small", Linkage::Local, 8);
        module.zeroed(name, Linkage::Export, 1 << 30);
        module.finish()
    };
    let errors = plain(&[zeroed("one"), zeroed("two"), zeroed("three")]).unwrap_err();
    assert_eq!(errors[0].module(), Some(1));
    assert_eq!(
        errors[0].to_string(),
        "module 1: `.bss` with its data (the largest object is `two`, 1073741824 bytes) is too large: 2147483664 bytes, limit 2147483648"
    );
}

#[test]
fn an_undefined_symbol_cannot_be_referred_to_directly() {
    let mut module = Module::new();
    let f = module.import("f", I64_TO_I64);
    let e = module.import("e", I64_TO_I64);
    // cmp rax, [rip + f]
    let compare = [0x48, 0x3b, 0x05, 0, 0, 0, 0, 0xc3];
    module.function("g", Linkage::Export, TO_I64, &compare, &[(3, PC, f, -4)]);
    module.function("h", Linkage::Export, TO_I64, &[0x1f, 0, 0, 0, 0x94], &[(0, RelocKind::A64Call26, e, 0)]);
    // A symbol is reported once: thousands of relocations may share one of any length.
    for _ in 0..5000 {
        module.function("i", Linkage::Local, TO_I64, &compare, &[(3, PC, f, -4)]);
    }
    let errors = plain(&[module.finish()]).unwrap_err();
    assert!(matches!(errors[0], LinkError::DirectReference { module: 0, offset: 3, .. }));
    assert!(matches!(errors[1], LinkError::ForeignRelocation { module: 0, offset: 16, .. }));
    assert_eq!(errors.len(), 2);
}

#[test]
fn a_slot_access_is_relaxed_unless_the_instruction_forbids_it() {
    let mut module = Module::new();
    let object = module.data("d", Linkage::Local, SectionKind::Writable, &[7; 8], &[]);
    module.function("relaxed", Linkage::Export, TO_I64, &READ_THROUGH_SLOT, &[(3, GOT, object, -4)]);
    // add rax, [rip + slot]
    module.function(
        "kept",
        Linkage::Export,
        TO_I64,
        &[0x48, 0x03, 0x05, 0, 0, 0, 0, 0xc3],
        &[(3, GOT, object, -4)],
    );
    let artifacts = [module.finish()];
    let plan = plain(&artifacts).unwrap();
    assert_eq!((plan.slots().len(), plan.internal_slot_count()), (0, 1));
    let (text, at, fixups) = emit(&plan).unwrap();
    let (here, data, slots) = (at[Area::Text] as i64, at[Area::Data], at[Area::Slots] as i64);
    assert_eq!(text[..3], [0x48, 0x8d, 0x05]);
    assert_eq!(here + 7 + i32_at(&text, 3), data as i64);
    assert_eq!(text[16..19], [0x48, 0x03, 0x05]);
    assert_eq!(here + 16 + 7 + i32_at(&text, 19), slots);
    assert_eq!(fixups.internal_slots.iter().map(|p| (p.offset, p.target)).collect::<Vec<_>>(), [(0, data)]);
}

#[test]
fn internal_slots_follow_external_slots() {
    let mut module = Module::new();
    let datum = module.data("d", Linkage::Local, SectionKind::Writable, &[7; 8], &[]);
    let host = module.import("host", I64_TO_I64);
    // add rax, [rip + slot]
    let add = [0x48, 0x03, 0x05, 0, 0, 0, 0, 0xc3];
    module.function("internal", Linkage::Export, TO_I64, &add, &[(3, GOT, datum, -4)]);
    module.function("external", Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, GOT, host, -4)]);
    let artifacts = [module.finish()];
    let plan = plain(&artifacts).unwrap();
    assert_eq!((plan.slots().len(), plan.internal_slot_count()), (1, 1));
    let (text, at, fixups) = emit(&plan).unwrap();
    let slots = (at[Area::Slots] - at[Area::Text]) as i64;
    assert_eq!((7 + i32_at(&text, 3), 16 + 7 + i32_at(&text, 19)), (slots + 8, slots));
    let contents: Vec<_> = fixups.internal_slots.iter().map(|slot| (slot.offset, slot.target)).collect();
    assert_eq!(contents, [(8, at[Area::Data])]);
}

#[test]
fn one_stub_serves_all_calls() {
    let mut module = Module::new();
    let f = module.import("f", I64_TO_I64);
    for name in ["a", "b"] {
        module.function(name, Linkage::Export, I64_TO_I64, &[0xe9, 0, 0, 0, 0], &[(1, PC, f, -4)]);
    }
    let artifacts = [module.finish()];
    let plan = plain(&artifacts).unwrap();
    let (text, at, _) = emit(&plan).unwrap();
    assert_eq!(text.len(), 32, "two functions and one stub of 8 bytes, at 24");
    assert_eq!(i32_at(&text, 1), 24 - 5);
    assert_eq!(i32_at(&text, 17), 24 - 21);
    assert_eq!(text[24..26], [0xff, 0x25]);
    assert_eq!(at[Area::Text] as i64 + 30 + i32_at(&text, 26), at[Area::Slots] as i64);
    assert_eq!(text[5..16], [0xcc; 11], "gaps trap");
}

/// The example of the documentation of `kiln_image::link`.
#[test]
fn a_call_between_modules_a_host_function_and_a_global() {
    let mut user = Module::new();
    let twice = user.import("twice", I64_TO_I64);
    let stdout = user.global("stdout");
    // call twice; mov rcx, [rip + slot]; ret
    let code = [0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x0d, 0, 0, 0, 0, 0xc3];
    user.function("main", Linkage::Export, I64_TO_I64, &code, &[(1, PC, twice, -4), (8, GOT, stdout, -4)]);
    let mut definer = Module::new();
    let puts = definer.import("puts", I64_TO_I64);
    // jmp puts
    definer.function("twice", Linkage::Export, I64_TO_I64, &[0xe9, 0, 0, 0, 0], &[(1, PC, puts, -4)]);
    let artifacts = [user.finish(), definer.finish()];
    let plan = plain(&artifacts).unwrap();
    let keys: Vec<_> = plan.slots().keys().iter().map(SlotKey::text).collect();
    assert_eq!((&keys[..], plan.internal_slot_count()), (&["stdout", "puts"][..], 0));
    let (text, at, fixups) = emit(&plan).unwrap();
    let slots = (at[Area::Slots] - at[Area::Text]) as i64;
    assert_eq!(text.len(), 24 + 8, "modules at 0 and 16, the stub at 24");
    assert_eq!(5 + i32_at(&text, 1), 16, "`main` calls `twice` directly");
    assert_eq!(12 + i32_at(&text, 8), slots, "`main` reads slot 0");
    assert_eq!(21 + i32_at(&text, 17), 24, "`twice` jumps to the stub");
    assert_eq!(30 + i32_at(&text, 26), slots + 8, "the stub reads slot 1");
    assert!(fixups.is_empty());
}

#[test]
fn stubs_and_their_slots_are_in_order_of_modules_then_calls() {
    let user = |hosts: [&str; 2]| {
        let mut module = Module::new();
        // The order of symbols is not that of calls.
        let [second, first] = [hosts[1], hosts[0]].map(|host| module.import(host, I64_TO_I64));
        let code = [0xe8, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
        module.function("", Linkage::Local, I64_TO_I64, &code, &[(1, PC, first, -4), (6, PC, second, -4)]);
        module.finish()
    };
    let artifacts = [user(["d", "b"]), user(["b", "c"]), user(["a", "d"])];
    let plan = plain(&artifacts).unwrap();
    let keys: Vec<_> = plan.slots().keys().iter().map(SlotKey::text).collect();
    assert_eq!(keys, ["d", "b", "c", "a"]);
    let (text, at, _) = emit(&plan).unwrap();
    let stub_of = |call: usize| (call as i64 + 4 + i32_at(&text, call) - 48) / 8;
    let calls = [1, 6, 17, 22, 33, 38].map(stub_of);
    assert_eq!(calls, [0, 1, 1, 2, 3, 0], "modules at 0, 16 and 32, stubs from 48 on");
    for stub in 0..4 {
        let end = 48 + 8 * stub + 6;
        let slot = at[Area::Text] as i64 + end + i32_at(&text, end as usize - 4);
        assert_eq!(slot, at[Area::Slots] as i64 + 8 * stub);
    }
}

#[test]
fn slots_are_ordered_by_table_then_modules_then_symbols() {
    let mut table = GlobalTable::new();
    table.intern("t0");
    table.intern("t1");
    let mut a = Module::new();
    let f = a.import("late", I64_TO_I64);
    let unused = a.import("unused", I64_TO_I64);
    let g = a.global("g0");
    let t = a.global("t1");
    a.function("a", Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, GOT, f, -4)]);
    a.function("b", Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, GOT, t, -4)]);
    a.function("c", Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, GOT, g, -4)]);
    let mut b = Module::new();
    let h = b.import("first_in_b", I64_TO_I64);
    let g = b.global("g1");
    b.function("d", Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, GOT, h, -4), (3, GOT, g, -4)]);
    let artifacts = [a.finish(), b.finish()];
    let plan = plan(&artifacts, &table, &|_| None).unwrap();
    let keys: Vec<_> = plan.slots().keys().iter().map(SlotKey::text).collect();
    assert_eq!(keys, ["t0", "t1", "g0", "g1", "late", "first_in_b"]);
    let _ = unused;
}

#[test]
fn known_addresses_and_slots_are_used() {
    let mut module = Module::new();
    let near = module.import("near", I64_TO_I64);
    let far = module.import("far", I64_TO_I64);
    let shared = module.global("shared");
    module.function("a", Linkage::Export, I64_TO_I64, &[0xe9, 0, 0, 0, 0], &[(1, PC, near, -4)]);
    module.function("b", Linkage::Export, I64_TO_I64, &[0xe9, 0, 0, 0, 0], &[(1, PC, far, -4)]);
    module.function("c", Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, GOT, shared, -4)]);
    module.data("d", Linkage::Export, SectionKind::Writable, &[0; 16], &[(0, far, 1), (8, shared, 2)]);
    let artifacts = [module.finish()];
    const FAR: u64 = 0x7fff_0000_0000;
    let known = |key: KeyRef<'_>| match key.text() {
        "near" => Some(ExternalDefinition::Address(0x20)),
        "far" => Some(ExternalDefinition::Address(FAR)),
        "shared" => Some(ExternalDefinition::Slot(0x40)),
        _ => None,
    };
    let plan = plan(&artifacts, &GlobalTable::new(), &known).unwrap();
    assert!(plan.slots().is_empty());
    let (mut text, at, fixups) = emit(&plan).unwrap();
    let here = at[Area::Text] as i64;
    assert_eq!(here + 5 + i32_at(&text, 1), 0x20);
    assert_eq!(here + 32 + 7 + i32_at(&text, 35), 0x40);
    // The far call goes through a stub and its internal slot.
    let stub = (16 + 5 + i32_at(&text, 17)) as usize;
    assert_eq!(text[stub..stub + 2], [0xff, 0x25]);
    let slot = here + stub as i64 + 6 + i32_at(&text, stub + 2) - at[Area::Slots] as i64;
    let content = fixups.internal_slots.iter().find(|pointer| pointer.offset as i64 == slot).unwrap();
    assert_eq!(content.target, FAR);
    let mut data = vec![0; 16];
    let mut slots = vec![0; plan.layout()[Area::Slots].size as usize];
    let out =
        kiln_image::link::FixupOutput { text: &mut text, relro: &mut [], data: &mut data, slots: &mut slots };
    assert!(out.fits(plan.layout()));
    fixups.apply(out, &mut |_| 0x1000, &mut |_| [0; 2]);
    assert_eq!(data[..8], (FAR + 1).to_ne_bytes());
    assert_eq!(data[8..], 0x1002u64.to_ne_bytes());
}

#[test]
fn out_of_range_is_an_error_that_names_everything() {
    let mut module = Module::new();
    let object = module.data("d", Linkage::Local, SectionKind::Writable, &[7; 8], &[]);
    let lea = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3];
    module.function("f", Linkage::Export, TO_I64, &lea, &[(3, PC, object, -4)]);
    let artifacts = [module.finish()];
    let plan = plain(&artifacts).unwrap();
    let mut at = Addresses::default();
    at[Area::Data] = 0x1_0000_0000;
    let size = |area: Area| vec![0; plan.layout()[area].size as usize];
    let output = Output {
        text: &mut size(Area::Text),
        eh_frame: &mut size(Area::EhFrame),
        eh_frame_hdr: &mut size(Area::EhFrameHdr),
        code_tables: &mut size(Area::CodeTables),
        rodata: &mut size(Area::Rodata),
        relro: &mut size(Area::Relro),
        data: &mut size(Area::Data),
    };
    assert_eq!(
        plan.emit(&at, output).unwrap_err().to_string(),
        "function `f` of module 0 (at 0x3 of its code): `d` is 4294967289 bytes away, limit 2147483648"
    );
}

#[test]
fn identical_cies_are_shared() {
    let artifacts = [defines(Linkage::Local), defines(Linkage::Local)];
    let plan = plain(&artifacts).unwrap();
    // One CIE of 24 bytes, two FDEs of 17 + 3 bytes with padding, the terminator.
    assert_eq!(plan.layout()[Area::EhFrame].size, 24 + 2 * 24 + 4);
    assert_eq!(plan.layout()[Area::EhFrameHdr].size, 12 + 2 * 8);
}

#[test]
fn modules_share_stubs_and_the_gap_between_them_traps() {
    let user = |name: &str| {
        let mut module = Module::new();
        let host = module.import("host", I64_TO_I64);
        module.function(name, Linkage::Export, I64_TO_I64, &[0xe9, 0, 0, 0, 0], &[(1, PC, host, -4)]);
        module.finish()
    };
    let artifacts = [user("a"), user("b")];
    let plan = plain(&artifacts).unwrap();
    let (text, ..) = emit(&plan).unwrap();
    assert_eq!(text.len(), 32, "two modules at 0 and 16, one stub at 24");
    assert_eq!((i32_at(&text, 1), i32_at(&text, 17)), (24 - 5, 24 - 21));
    assert_eq!((&text[5..16], &text[21..24]), (&[0xcc; 11][..], &[0xcc; 3][..]));
}
