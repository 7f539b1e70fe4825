//! Tests of links with limits smaller than the real limits, and of links of code for other
//! processors.

mod bounds;

use kiln_artifact::record::{
    FunctionRecord, Linkage, NONE, Reloc, SectionKind, Summary, SymbolKind, SymbolRecord,
};
use kiln_artifact::{Artifact, Contents, RelocKind};
use kiln_globals::GlobalTable;

use super::definitions::Definitions;
use super::plan::{Input, Purpose, plan_within};
use super::reach::Reach;
use super::{Addresses, Area, Fixups, Indirection, Output, Plan, plan};
use crate::arch::Arch;
use crate::code::{CodeTables, Function};

/// A symbol: its name, linkage, section and offset in the section.
type Sym<'s> = (&'s str, Linkage, SectionKind, u64);

fn module(triple: &str, symbols: &[Sym<'_>], text: &[u8], relocs: &[(u64, RelocKind, u32, i64)]) -> Artifact {
    contents(triple, symbols, text, relocs).finish()
}

fn contents(
    triple: &str,
    symbols: &[Sym<'_>],
    text: &[u8],
    relocs: &[(u64, RelocKind, u32, i64)],
) -> Contents {
    let mut contents = Contents::default();
    let one = 1u32.into();
    contents.summary = Summary {
        triple: contents.string(triple),
        text_align: 16u32.into(),
        read_only_align: one,
        writable_align: one,
        zeroed_align: one,
        ..Summary::default()
    };
    contents.text = text.to_vec();
    contents.writable = vec![0; 32];
    for (number, &(name, linkage, section, offset)) in symbols.iter().enumerate() {
        let name = contents.string(name);
        let mut signature = NONE;
        if linkage == Linkage::Replaceable {
            let text = contents.string("() system_v");
            contents.signatures = vec![text];
            signature = 0;
        }
        contents.symbols.push(SymbolRecord {
            name,
            offset: offset.into(),
            size: 0.into(),
            signature: signature.into(),
            kind: SymbolKind::Function as u8 + u8::from(section == SectionKind::Writable),
            linkage: linkage as u8,
            section: section as u8,
            libcall: 0,
        });
        if section == SectionKind::Text {
            contents.functions.push(FunctionRecord {
                symbol: (number as u32).into(),
                start: (offset as u32).into(),
                len: 0.into(),
                unwind_start: 0.into(),
                unwind_len: 0.into(),
                align: 1.into(),
                ..Default::default()
            });
        }
    }
    contents.text_relocs = relocs
        .iter()
        .map(|&(offset, kind, symbol, addend)| Reloc {
            offset: offset.into(),
            addend: addend.into(),
            symbol: symbol.into(),
            kind: kind as u8,
            flags: 0,
            reserved: [0; 2],
        })
        .collect();
    contents
}

/// Returns the code, linked for text at 0x10000, data at 0x20000, slots at 0x30000, and the fixups.
fn emit(plan: &Plan<'_>) -> (Vec<u8>, Fixups) {
    let mut at = Addresses::default();
    at[Area::Text] = 0x10000;
    at[Area::Data] = 0x20000;
    at[Area::Slots] = 0x30000;
    let size = |area: Area| vec![0; plan.layout()[area].size as usize];
    let mut text = size(Area::Text);
    let output = Output {
        text: &mut text,
        eh_frame: &mut size(Area::EhFrame),
        eh_frame_hdr: &mut size(Area::EhFrameHdr),
        code_tables: &mut size(Area::CodeTables),
        rodata: &mut size(Area::Rodata),
        relro: &mut size(Area::Relro),
        data: &mut size(Area::Data),
    };
    let fixups = plan.emit(&at, output).unwrap();
    (text, fixups)
}

fn words(text: &[u8]) -> Vec<u32> {
    text.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn code(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

const NO_REACH: Reach = Reach { data: 0, call: 0 };

/// Plans a program for aarch64 as if it were so large that nothing is within reach.
fn far_plan(artifacts: &[Artifact]) -> Plan<'_> {
    let definitions = &Definitions::new(artifacts);
    let input = Input { artifacts, names: &[], definitions };
    plan_within(Arch::Aarch64, input, &GlobalTable::new(), &|_| None, NO_REACH, Purpose::file(false)).unwrap()
}

#[test]
fn where_calls_do_not_reach_each_module_has_its_own_stubs() {
    let triple = "aarch64-unknown-linux-gnu";
    let call = |name: &'static str, other: &'static str| {
        let symbols = [
            (name, Linkage::Export, SectionKind::Text, 0),
            (other, Linkage::Import, SectionKind::Undefined, 0),
            ("host", Linkage::Import, SectionKind::Undefined, 0),
        ];
        // bl other; bl host
        let relocs = [(0, RelocKind::A64Call26, 1, 0), (4, RelocKind::A64Call26, 2, 0)];
        module(triple, &symbols, &code(&[0x9400_0000, 0x9400_0000]), &relocs)
    };
    let artifacts = [call("a", "b"), call("b", "a")];
    let plan = far_plan(&artifacts);
    // Each module has 8 bytes of code, and two stubs of 16 bytes each from offset 16.
    assert_eq!(plan.layout()[Area::Text].size, 96);
    assert_eq!(plan.placement.stubs, [16, 32, 64, 80]);
    let (text, fixups) = emit(&plan);
    let text = words(&text);
    // The definition is in reach, so the call is direct; the module's second stub calls the host.
    assert_eq!(text[..2], [0x9400_000c, 0x9400_0007]);
    assert_eq!(text[12..14], [0x97ff_fff4, 0x9400_0007]);
    // To a definition without a slot: bti c; adrp x16, page; add x16, x16, #48; br x16.
    assert_eq!(text[4..8], [0xd503_245f, 0x9000_0010, 0x9100_c210, 0xd61f_0200]);
    // To the host: bti c; adrp x16, +0x20 pages; ldr x16, [x16]; br x16.
    assert_eq!(text[8..12], [0xd503_245f, 0x9000_0110, 0xf940_0210, 0xd61f_0200]);
    assert!(fixups.internal_slots.is_empty());
    // They have names, and belong to their modules.
    let named: Vec<_> = plan.stubs().map(|stub| (stub.name, stub.offset, stub.size)).collect();
    assert_eq!(named, [("b", 16, 16), ("host", 32, 16), ("a", 64, 16), ("host", 80, 16)]);
    assert_eq!(
        located(&plan, &[16, 31, 32, 64, 95]),
        [(0, "b"), (0, "b"), (0, "host"), (1, "a"), (1, "host")]
    );
}

/// Finds stubs in the code tables of a plan. Returns their modules and names.
fn located<'t>(plan: &Plan<'_>, places: &[u32]) -> Vec<(u32, &'t str)> {
    let tables = CodeTables::read(plan.code_tables().leak()).unwrap();
    let found = places.iter().map(|&place| tables.find(place).filter(Function::is_stub).unwrap());
    found.map(|stub| (stub.module().unwrap_or(NONE), stub.name())).collect()
}

#[test]
fn veneers_have_the_names_of_what_they_lead_to() {
    let triple = "aarch64-unknown-linux-gnu";
    // The smallest code in which the compiler makes veneers. Between the functions: a gap, and two
    // veneers.
    const ISLAND: u64 = (1 << 24) + 16;
    let mut text = vec![0; ISLAND as usize + 64];
    for at in [64, ISLAND, ISLAND + 12] {
        text[at as usize..][..12].copy_from_slice(&code(&[0x9000_0010, 0xf940_0210, 0xd61f_0200]));
    }
    let symbols = [
        ("first", Linkage::Export, SectionKind::Text, 0),
        ("second", Linkage::Export, SectionKind::Text, ISLAND + 32),
        ("host", Linkage::Import, SectionKind::Undefined, 0),
    ];
    let veneer = |at, symbol| {
        [(at, RelocKind::A64AdrGotPage21, symbol, 0), (at + 4, RelocKind::A64Ld64GotLo12, symbol, 0)]
    };
    // An access of a function, which is no veneer.
    let relocs = [veneer(64, 2), veneer(ISLAND, 2), veneer(ISLAND + 12, 1)];
    let mut contents = contents(triple, &symbols, &text, relocs.as_flattened());
    for (number, len) in [(0, 1u32 << 24), (1, 32)] {
        contents.functions[number].len = len.into();
        contents.symbols[number].size = u64::from(len).into();
    }
    let artifacts = [contents.finish()];
    let plan = plan(&artifacts, &GlobalTable::new(), &|_| None).unwrap();
    let named: Vec<_> = plan.stubs().map(|stub| (stub.name, stub.offset, stub.size)).collect();
    assert_eq!(named, [("host", ISLAND, 12), ("second", ISLAND + 12, 12)]);
    let island = ISLAND as u32;
    assert_eq!(
        located(&plan, &[island, island + 11, island + 12]),
        [(0, "host"), (0, "host"), (0, "second")]
    );
    let tables = CodeTables::read(plan.code_tables().leak()).unwrap();
    let name = |at: u32| tables.find(at).map(|found| (found.name(), found.is_stub()));
    assert_eq!(name(island - 16), None);
    assert_eq!((name(64), name(island + 40)), (Some(("first", false)), Some(("second", false))));
    assert_eq!(tables.functions().map(|found| found.name()).collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn where_calls_do_not_reach_a_replaceable_function_has_a_stub_in_each_module_and_one_more() {
    let triple = "aarch64-unknown-linux-gnu";
    // bl f; adrp x3, slot; ldr x4, [x3]; adrp x5, slot; ldr x6, [x5]
    let text = code(&[0x9400_0000, 0x9000_0003, 0xf940_0064, 0x9000_0005, 0xf940_00a6]);
    let relocs = [
        (0, RelocKind::A64Call26, 1, 0),
        (4, RelocKind::A64AdrGotPage21, 1, 0),
        (8, RelocKind::A64Ld64GotLo12, 1, 0),
        (12, RelocKind::A64AdrGotPage21, 1, 0),
        (16, RelocKind::A64Ld64GotLo12, 1, 0),
    ];
    let module = |name, linkage, section| {
        let symbols = [(name, Linkage::Export, SectionKind::Text, 0), ("f", linkage, section, 0)];
        let mut contents = contents(triple, &symbols, &text, &relocs);
        // The second access takes the address.
        contents.text_relocs[3..].iter_mut().for_each(|reloc| reloc.flags = Reloc::TAKES_ADDRESS);
        contents.finish()
    };
    let artifacts = [
        module("a", Linkage::Import, SectionKind::Undefined),
        module("b", Linkage::Replaceable, SectionKind::Text),
    ];
    let plan = far_plan(&artifacts);
    // Code of 20 bytes and a stub at 32, the same from 48, and the stub that is the address.
    assert_eq!(plan.placement.stubs, [96, 32, 80]);
    let f = plan.definitions().find(|definition| definition.name == "f").unwrap();
    assert_eq!(f.indirection, Some(Indirection { slot: Some(0), stub: Some(96) }));
    let (text, fixups) = emit(&plan);
    let text = words(&text);
    // The first slot has the address of the code, the second that of the stub.
    let slots: Vec<_> = fixups.internal_slots.iter().map(|slot| (slot.offset, slot.target)).collect();
    assert_eq!(slots, [(0, 0x10030), (8, 0x10060)]);
    for module in [0, 12] {
        // The shared stub happens to be in reach: bl +96 and bl +48.
        assert_eq!(text[module], 0x9400_0000 | (96 / 4 - module as u32));
        // adrp x3, +0x20 pages; ldr x4, [x3]; adrp x5, +0x20 pages; ldr x6, [x5, #8]
        assert_eq!(text[module + 1..][..4], [0x9000_0103, 0xf940_0064, 0x9000_0105, 0xf940_04a6]);
    }
    assert_eq!(located(&plan, &[32, 80, 96]), [(0, "f"), (1, "f"), (NONE, "f")]);
    let is_function: Vec<_> = plan.stubs().map(|stub| (stub.offset, stub.is_function)).collect();
    assert_eq!(is_function, [(32, false), (80, false), (96, true)]);
    for stub in [8, 20, 24] {
        // bti c; adrp x16, +0x20 pages; ldr x16, [x16]; br x16
        assert_eq!(text[stub..][..4], [0xd503_245f, 0x9000_0110, 0xf940_0210, 0xd61f_0200]);
    }
}

#[test]
fn two_symbols_of_one_name_share_a_stub_of_their_module() {
    let triple = "aarch64-unknown-linux-gnu";
    let host = ("host", Linkage::Import, SectionKind::Undefined, 0);
    let symbols = [("f", Linkage::Local, SectionKind::Text, 0), host, host];
    // bl host; bl host
    let relocs = [(0, RelocKind::A64Call26, 1, 0), (4, RelocKind::A64Call26, 2, 0)];
    let user = || module(triple, &symbols, &code(&[0x9400_0000, 0x9400_0000]), &relocs);
    let artifacts = [user(), user()];
    let plan = far_plan(&artifacts);
    assert_eq!((&plan.placement.stubs[..], plan.slots().len()), (&[16, 48][..], 1));
    let text = words(&emit(&plan).0);
    // Both calls of a module, at 0 and 4 of it, jump to its stub, at 16 of it.
    assert_eq!(
        (&text[..2], &text[8..10]),
        (&[0x9400_0004, 0x9400_0003][..], &[0x9400_0004, 0x9400_0003][..])
    );
}

#[test]
fn where_data_is_far_slots_stay() {
    let symbols = [
        ("f", Linkage::Export, SectionKind::Text, 0),
        ("d", Linkage::Local, SectionKind::Writable, 8),
        ("e", Linkage::Local, SectionKind::Writable, 16),
    ];
    let text = code(&[0x9000_0003, 0xf940_0064, 0x9000_0003, 0xf940_0064]);
    let relocs = [
        (0, RelocKind::A64AdrGotPage21, 1, 0),
        (4, RelocKind::A64Ld64GotLo12, 1, 0),
        (8, RelocKind::A64AdrGotPage21, 2, 0),
        (12, RelocKind::A64Ld64GotLo12, 2, 0),
    ];
    let artifacts = [module("aarch64-unknown-linux-gnu", &symbols, &text, &relocs)];
    let far = far_plan(&artifacts);
    let (text, fixups) = emit(&far);
    // adrp x3, +0x20 pages; ldr x4, [x3, #0 and #8]
    assert_eq!(words(&text), [0x9000_0103, 0xf940_0064, 0x9000_0103, 0xf940_0464]);
    let slots: Vec<_> = fixups.internal_slots.iter().map(|slot| (slot.offset, slot.target)).collect();
    assert_eq!(slots, [(0, 0x20008), (8, 0x20010)]);
    let near = plan(&artifacts, &GlobalTable::new(), &|_| None).unwrap();
    let (text, fixups) = emit(&near);
    // adrp x3, +0x10 pages; add x4, x3, #8 and #16
    assert_eq!(words(&text), [0x9000_0083, 0x9100_2064, 0x9000_0083, 0x9100_4064]);
    assert!(fixups.internal_slots.is_empty());
}

#[test]
fn the_low_part_of_a_riscv_pair_follows_its_auipc() {
    let symbols = [
        ("f", Linkage::Export, SectionKind::Text, 4),
        ("d", Linkage::Local, SectionKind::Writable, 8),
        ("host", Linkage::Import, SectionKind::Undefined, 0),
    ];
    // nop; auipc a0; ld a0; auipc a1; ld a1; auipc ra; jalr ra
    let text = code(&[0x13, 0x517, 0x0005_3503, 0x597, 0x0005_b583, 0x97, 0x80e7]);
    let relocs = [
        (4, RelocKind::RvGotHi20, 1, 0),
        // the `auipc`s of the low parts are at 0 and 8 from `f`
        (8, RelocKind::RvPcrelLo12I, 0, 0),
        (12, RelocKind::RvGotHi20, 2, 0),
        (16, RelocKind::RvPcrelLo12I, 0, 8),
        (20, RelocKind::RvCallPlt, 2, 0),
    ];
    let artifacts = [module("riscv64gc-unknown-linux-gnu", &symbols, &text, &relocs)];
    let plan = plan(&artifacts, &GlobalTable::new(), &|_| None).unwrap();
    assert_eq!(plan.slots().len(), 1);
    let (text, _) = emit(&plan);
    let text = words(&text);
    // d = 0x20008, from 0x10004: auipc a0, 0x10; addi a0, a0, 4
    assert_eq!(text[1..3], [0x0001_0517, 0x0045_0513]);
    // slot = 0x30000, from 0x1000c: auipc a1, 0x20; ld a1, -12(a1)
    assert_eq!(text[3..5], [0x0002_0597, 0xff45_b583]);
    // the stub is at 32, 12 from the call: auipc ra, 0; jalr ra, 12(ra)
    assert_eq!(text[5..7], [0x0000_0097, 0x00c0_80e7]);
}

#[test]
fn larl_cannot_make_an_odd_address() {
    let symbols = [
        ("f", Linkage::Export, SectionKind::Text, 0),
        ("even", Linkage::Local, SectionKind::Writable, 8),
        ("odd", Linkage::Local, SectionKind::Writable, 9),
    ];
    let text = [0xc4, 0x28, 0, 0, 0, 0, 0xc4, 0x28, 0, 0, 0, 0];
    let relocs = [(2, RelocKind::S390xGotEnt, 1, 2), (8, RelocKind::S390xGotEnt, 2, 2)];
    let artifacts = [module("s390x-unknown-linux-gnu", &symbols, &text, &relocs)];
    let plan = plan(&artifacts, &GlobalTable::new(), &|_| None).unwrap();
    let (text, fixups) = emit(&plan);
    // larl %r2, 0x20008 from 0x10000; lgrl %r2, 0x30000 from 0x10006
    assert_eq!(text, [0xc0, 0x20, 0, 0, 0x80, 0x04, 0xc4, 0x28, 0, 0, 0xff, 0xfd]);
    assert_eq!(fixups.internal_slots[0].target, 0x20009);
}
