//! Named sections: their data, their order, and what other readers find.

use kiln_artifact::record::{Linkage, NamedData, SectionKind};
use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::{Bindings, GlobalTable};
use kiln_image::link::{Area, Bound, LinkError, plan, section_bound};
use kiln_image::{Image, ImageInfo, ImageOptions, verify_bytes, write_image};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags};

use crate::support::{ADD3, I64_TO_I64, Module, TO_I64};

impl Module {
    /// Adds a data object that is a run of named data on its own.
    fn named(
        &mut self,
        section: &str,
        name: &str,
        place: SectionKind,
        align: u32,
        bytes: &[u8],
        pointers: &[(u64, u32, i64)],
    ) -> u32 {
        // There is a gap between runs, and they are aligned as `align` says.
        let all = if place == SectionKind::ReadOnly {
            &mut self.contents.read_only
        } else {
            &mut self.contents.writable
        };
        let start = (all.len() + 1).next_multiple_of(align.max(8) as usize);
        all.resize(start, 0xee);
        let number = self.data(name, Linkage::Local, place, bytes, pointers);
        let section = self.contents.string(section);
        self.contents.named_data.push(NamedData {
            name: section,
            start: (start as u64).into(),
            len: (bytes.len() as u64).into(),
            align: align.into(),
            section: place as u8,
            reserved: [0; 3],
        });
        number
    }
}

fn image(artifacts: &[Artifact]) -> Vec<u8> {
    write_image(artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap()
}

fn errors(artifacts: &[Artifact]) -> Vec<String> {
    plan(artifacts, &GlobalTable::new(), &|_| None)
        .map(|_| Vec::new())
        .unwrap_or_else(|errors| errors.iter().map(LinkError::to_string).collect())
}

/// `lea rax, [rip + symbol]; ret`, and through a slot: `mov rax, [rip + slot]; ret`.
const LEA: [u8; 8] = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3];
const SLOT: [u8; 8] = [0x48, 0x8b, 0x05, 0, 0, 0, 0, 0xc3];

/// Three modules with records of 12 bytes, data without a section between them, and pointers in one
/// of two read-only sections.
fn modules() -> Vec<Artifact> {
    let mut a = Module::new();
    a.function("add3", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    a.data("plain", Linkage::Export, SectionKind::ReadOnly, &[1; 5], &[]);
    a.data("plain_writable", Linkage::Export, SectionKind::Writable, &[2; 3], &[]);
    a.named("records", "a1", SectionKind::ReadOnly, 4, &[11; 12], &[]);
    a.named(".tables", "a2", SectionKind::ReadOnly, 8, &[0; 8], &[]);
    a.named("state", "a3", SectionKind::Writable, 1, &[13; 3], &[]);
    let mut b = Module::new();
    b.named("records", "b1", SectionKind::ReadOnly, 4, &[21; 24], &[]);
    b.named(".empty", "b2", SectionKind::ReadOnly, 1, &[], &[]);
    b.named("state", "b3", SectionKind::Writable, 16, &[23; 5], &[]);
    let mut c = Module::new();
    let add3 = c.import("add3", I64_TO_I64);
    c.data("c0", Linkage::Export, SectionKind::ReadOnly, &[4; 4], &[]);
    let start = c.import_data("__start_records");
    let stop = c.import_data("__stop_records");
    c.data("bounds", Linkage::Export, SectionKind::ReadOnly, &[0; 16], &[(0, start, 0), (8, stop, -12)]);
    c.named("records", "c1", SectionKind::ReadOnly, 4, &[31; 12], &[]);
    c.named(".tables", "c2", SectionKind::ReadOnly, 8, &[0; 16], &[(8, add3, 0)]);
    c.function("start", Linkage::Export, TO_I64, &LEA, &[(3, RelocKind::X86Pc32, start, -4)]);
    c.function("stop", Linkage::Export, TO_I64, &SLOT, &[(3, RelocKind::X86GotPc32, stop, -4)]);
    vec![a.finish(), b.finish(), c.finish()]
}

#[test]
fn a_section_has_the_data_of_all_modules_and_nothing_else() {
    let bytes = image(&modules());
    let file = object::File::parse(&*bytes).unwrap();
    let data = |name: &str| file.section_by_name(name).unwrap().data().unwrap().to_vec();
    assert_eq!(data("records"), [[11; 12], [21; 12], [21; 12], [31; 12]].concat());
    assert_eq!(data("state"), [&[13; 3][..], &[0; 13], &[23; 5]].concat());
    assert_eq!(data(".empty"), []);
    // The data outside named sections has the size that it has without them.
    assert!(data(".rodata").starts_with(&[1; 5]) && data(".rodata").len() < 48);
    assert!(!data(".rodata").contains(&11) && !data(".data").contains(&13));
    // Pointers: filled at load, so writable for the loader.
    let flags = |name: &str| match file.section_by_name(name).unwrap().flags() {
        SectionFlags::Elf { sh_flags } => sh_flags,
        _ => unreachable!(),
    };
    assert_eq!(["records", "state", ".tables", ".empty"].map(flags), [2, 3, 3, 2]);
    // Symbols are in their sections.
    for (name, section, offset) in [
        ("a1", "records", 0),
        ("b1", "records", 12),
        ("c1", "records", 36),
        ("b3", "state", 16),
        ("c2", ".tables", 8),
    ] {
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
        let home = file.section_by_name(section).unwrap();
        assert_eq!(symbol.address() - home.address(), offset, "{name}");
        assert_eq!(symbol.section_index(), Some(home.index()), "{name}");
    }
    // No two sections share a byte, and each is aligned.
    let info = ImageInfo::parse(&bytes).unwrap();
    let mut loaded: Vec<_> = info.sections.iter().filter(|section| section.loaded).collect();
    loaded.sort_by_key(|section| (section.address, section.size));
    assert!(loaded.windows(2).all(|pair| pair[0].address + pair[0].size <= pair[1].address), "{loaded:?}");
    assert!(file.sections().all(|section| section.address().is_multiple_of(section.align().max(1))));
}

#[test]
fn every_section_has_a_checksum() {
    let bytes = image(&modules());
    let file = object::File::parse(&*bytes).unwrap();
    for name in ["records", "state", ".tables"] {
        let (start, _) = file.section_by_name(name).unwrap().file_range().unwrap();
        let mut altered = bytes.clone();
        altered[start as usize] ^= 1;
        let message = verify_bytes(&altered).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn code_and_data_find_the_bounds() {
    let bytes = image(&modules());
    let info = ImageInfo::parse(&bytes).unwrap();
    let loaded = Image::from_bytes(&bytes).unwrap().bind(&Bindings::new()).unwrap();
    // SAFETY: these functions only compute addresses.
    let [start, stop] = ["start", "stop"]
        .map(|name| unsafe { loaded.function(name).unwrap().typed::<extern "C" fn() -> i64>() }.unwrap()());
    assert_eq!(stop - start, 48);
    // SAFETY: the section is mapped, and never written.
    let records = unsafe { std::slice::from_raw_parts(start as *const u8, 48) };
    assert_eq!(records, [[11; 12], [21; 12], [21; 12], [31; 12]].concat());
    let bounds = loaded.address("bounds").unwrap().cast::<[i64; 2]>();
    // SAFETY: a data object of 16 bytes, aligned to 8.
    assert_eq!(unsafe { *bounds }, [start, stop - 12]);
    // A pointer inside a named section: in the last 8 of 24 bytes.
    let place = info.exports.iter().find(|export| &*export.name == "bounds").unwrap().address;
    let tables = info.sections.iter().find(|section| &*section.name == ".tables").unwrap();
    let tables = bounds.cast::<u8>().wrapping_sub(place as usize).wrapping_add(tables.address as usize);
    // SAFETY: the section is mapped, and aligned to 8.
    let pointers = unsafe { *tables.cast::<[usize; 3]>() };
    assert_eq!(pointers, [0, 0, loaded.address("add3").unwrap() as usize]);
}

#[test]
fn definitions_override_bounds_and_bounds_exist_only_with_their_section() {
    let import = || {
        let mut module = Module::new();
        let symbol = module.import_data("__start_s");
        module.function("f", Linkage::Export, TO_I64, &SLOT, &[(3, RelocKind::X86GotPc32, symbol, -4)]);
        module.finish()
    };
    let section = |name: &str| {
        let mut module = Module::new();
        module.named(name, "d", SectionKind::ReadOnly, 1, &[1], &[]);
        module.finish()
    };
    let slots = |artifacts: &[Artifact]| {
        let plan = plan(artifacts, &GlobalTable::new(), &|_| None).unwrap();
        (plan.slots().len(), plan.sections().filter(|section| section.bounds_used).count())
    };
    assert_eq!(slots(&[import()]), (1, 0));
    assert_eq!(slots(&[import(), section("other")]), (1, 0));
    assert_eq!(slots(&[import(), section("s")]), (0, 1));
    let mut own = Module::new();
    own.data("__start_s", Linkage::Export, SectionKind::ReadOnly, &[1], &[]);
    assert_eq!(slots(&[import(), section("s"), own.finish()]), (0, 0));
    let mut call = Module::new();
    let symbol = call.import("__stop_s", TO_I64);
    call.function("g", Linkage::Export, TO_I64, &[0xe9, 0, 0, 0, 0], &[(1, RelocKind::X86Pc32, symbol, -4)]);
    assert_eq!(
        errors(&[call.finish(), section("s")]),
        ["function `g` of module 0 uses `__stop_s` as a function, but module 1 defines it as data"]
    );
}

#[test]
fn only_identifiers_have_bounds() {
    assert_eq!(section_bound("__start_a_1"), Some((Bound::Start, "a_1")));
    assert_eq!(section_bound("__stop__"), Some((Bound::Stop, "_")));
    for other in
        ["__start_", "__stop_", "__start_.a", "__start_1a", "__start_a-b", "start_a", "__stop_\u{e4}"]
    {
        assert_eq!(section_bound(other), None, "{other}");
    }
}

#[test]
fn writable_and_read_only_data_do_not_mix() {
    let module = |place| {
        let mut module = Module::new();
        module.named("mixed", "d", place, 1, &[1], &[]);
        module.finish()
    };
    let plain = || Module::new().finish();
    assert_eq!(
        errors(&[plain(), module(SectionKind::ReadOnly), plain(), module(SectionKind::Writable)]),
        ["section `mixed` has both writable and read-only data: that of module 1 and of module 3"]
    );
    let mut both = Module::new();
    both.named("mixed", "d", SectionKind::ReadOnly, 1, &[1], &[]);
    both.named("mixed", "e", SectionKind::Writable, 1, &[1], &[]);
    assert_eq!(
        errors(&[both.finish()]),
        ["section `mixed` has both writable and read-only data: that of module 0 and of module 0"]
    );
}

#[test]
fn sections_of_images_are_not_for_data() {
    let module = |section: &str| {
        let mut module = Module::new();
        module.named(section, "d", SectionKind::Writable, 1, &[1], &[]);
        module.finish()
    };
    let own = ImageInfo::parse(&crate::support::image()).unwrap();
    let own = own.sections.iter().map(|section| section.name.to_string());
    let others = [".init_array", ".init_array.5", ".note.x", ".tdata", ".interp", ".debug_info", ".kiln.x"];
    let mut count = 0;
    for section in own.chain(others.map(str::to_owned)) {
        assert_eq!(
            errors(&[Module::new().finish(), module(&section)]),
            [format!("module 1 has data in section `{section}`, a name that is not for data")]
        );
        count += 1;
    }
    assert!(count > 20);
    assert!(errors(&[module(".data.mine"), module("data"), module(".textual")]).is_empty());
}

#[test]
fn what_is_too_large_is_an_error() {
    let mut module = Module::new();
    for number in 0..0xfe01 {
        module.named(&format!("s{number}"), "", SectionKind::ReadOnly, 1, &[], &[]);
        module.contents.symbols.pop();
    }
    assert_eq!(errors(&[module.finish()]), ["65025 named sections, limit 65024"]);
}

#[test]
fn an_area_of_nothing_but_named_data_has_no_section_of_its_own() {
    let mut module = Module::new();
    module.contents.read_only.clear();
    module.named("only", "d", SectionKind::Writable, 1, &[9], &[]);
    // Only padding precedes the run.
    let artifacts = [module.finish()];
    let plan = plan(&artifacts, &GlobalTable::new(), &|_| None).unwrap();
    let sections: Vec<_> = plan.sections().collect();
    assert_eq!((sections[0].name, sections[0].area, sections[0].size), ("only", Area::Data, 1));
    assert_eq!(plan.unnamed(Area::Rodata).size, 0);
    let bytes = image(&artifacts);
    let names = ImageInfo::parse(&bytes).unwrap().sections;
    assert!(names.iter().all(|section| &*section.name != ".rodata"));
}
