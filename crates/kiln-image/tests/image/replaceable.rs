//! Replaceable functions: which definition is in force, and how calls and addresses reach it.

use kiln_artifact::record::{Linkage, Reloc, SectionKind};
use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::{GlobalTable, SlotKey};
use kiln_image::link::{Area, ExternalDefinition, Indirection, LinkError, plan};

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

/// Adds functions that use `f` in every way, 16 bytes apart: a direct call, a call through the slot,
/// the address from the slot, and the address relative to the code.
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
        let known = |key: &SlotKey| (key.text() == "f").then_some(external);
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
