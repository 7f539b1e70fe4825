//! Code for several levels of the processor in one image: which bodies are kept, who calls which,
//! and what the loader chooses.

use std::process::Command;

use kiln_artifact::record::{Linkage, Reloc, SectionKind};
use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::GlobalTable;
use kiln_image::link::{Level, Levels, LinkError, join_levels};
use kiln_image::{
    FunctionRef, Image, ImageInfo, ImageOptions, LoadError, ReplaceError, save, verify_bytes, write_image,
};

use crate::elf::compile;
use crate::support::{I64_TO_I64, Module, READ_THROUGH_SLOT, TO_I64};

const CALLS: [(&str, [i64; 3]); 8] = [
    // The result of each level.
    ("value", [10, 11, 11]),
    // Calls through the slot, from its own and another module.
    ("common", [10, 11, 11]),
    ("other", [10, 11, 11]),
    // A private function that differs, and one that differs and reads private data.
    ("by_local", [20, 20, 22]),
    ("constant", [7, 7, 7]),
    // One that differs on all levels calls another one of its level.
    ("differs", [10, 11, 11]),
    ("same", [3, 3, 3]),
    ("by_same", [3, 3, 3]),
];

/// `mov eax, number; ret`, and an instruction that does nothing for each level.
fn number(number: u8, padding: usize) -> Vec<u8> {
    [&vec![0x90; padding][..], &[0xb8, number, 0, 0, 0, 0xc3]].concat()
}

/// The modules for a level.
fn modules(level: usize, features: &[&str]) -> Vec<Artifact> {
    use RelocKind::{X86GotPc32 as Got, X86Pc32 as Pc};
    let mut a = Module::new();
    features.iter().for_each(|feature| a.feature(feature));
    // The same on the second and the third level.
    let value = a.function("value", Linkage::Export, TO_I64, &number(10 + level.min(1) as u8, 0), &[]);
    let jump = [0xe9, 0, 0, 0, 0];
    a.function("common", Linkage::Export, TO_I64, &jump, &[(1, Pc, value, -4)]);
    // The same on the first and the second level.
    let local = a.function("local", Linkage::Local, TO_I64, &number(20 + (level / 2 * 2) as u8, 0), &[]);
    a.function("by_local", Linkage::Export, TO_I64, &jump, &[(1, Pc, local, -4)]);
    let constant = a.data("", Linkage::Local, SectionKind::ReadOnly, &7u64.to_le_bytes(), &[]);
    let read = [&vec![0x90; level][..], &READ_THROUGH_SLOT].concat();
    a.function("constant", Linkage::Export, TO_I64, &read, &[(level as u64 + 3, Got, constant, -4)]);
    let call = [&vec![0x90; 16 * level][..], &jump].concat();
    a.function("differs", Linkage::Export, TO_I64, &call, &[(16 * level as u64 + 1, Pc, value, -4)]);
    // At another offset on each level.
    let same = a.function("same", Linkage::Export, TO_I64, &number(3, 0), &[]);
    a.function("by_same", Linkage::Export, TO_I64, &jump, &[(1, Pc, same, -4)]);
    a.data("later", Linkage::Export, SectionKind::Writable, &[0; 8], &[(0, same, 0)]);
    // lea rax, [rip + value]; ret
    let lea = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3];
    a.function("address", Linkage::Export, TO_I64, &lea, &[(3, Pc, value, -4)]);
    a.data("pointer", Linkage::Export, SectionKind::Writable, &[0; 8], &[(0, value, 0)]);
    let mut replaceable = number(30, level);
    replaceable[level + 1] = 30 + level as u8;
    a.function("replaceable", Linkage::Replaceable, TO_I64, &replaceable, &[]);
    for reloc in &mut a.contents.text_relocs {
        if reloc.kind() == Pc {
            reloc.flags = Reloc::OWN;
        }
    }

    let mut b = Module::new();
    features.iter().for_each(|feature| b.feature(feature));
    let value = b.import("value", TO_I64);
    b.function("other", Linkage::Export, TO_I64, &jump, &[(1, Pc, value, -4)]);
    vec![a.finish(), b.finish()]
}

/// Three levels; of the last, a processor must have the feature `last`.
fn levels(last: &str) -> Levels {
    let artifacts = [
        modules(0, &["has_sse3"]),
        modules(1, &["has_sse3", "has_ssse3"]),
        modules(2, &["has_sse3", "has_ssse3", last]),
    ];
    let names = ["low", "middle", "high"];
    let list: Vec<_> =
        names.iter().zip(&artifacts).map(|(name, artifacts)| Level { name, artifacts }).collect();
    join_levels(&list).unwrap()
}

fn image(last: &str) -> Vec<u8> {
    let Levels { artifacts, modules, table, .. } = levels(last);
    let options = ImageOptions { module_numbers: modules, levels: Some(table), ..ImageOptions::default() };
    let image = write_image(&artifacts, &GlobalTable::new(), &options).unwrap();
    verify_bytes(&image).unwrap();
    image
}

#[test]
fn each_level_has_its_code() {
    let bytes = image("has_sse41");
    for (number, level) in ["low", "middle", "high"].into_iter().enumerate() {
        let image = Image::from_bytes(&bytes).unwrap();
        assert_eq!(image.cpu_levels().collect::<Vec<_>>(), ["low", "middle", "high"]);
        assert_eq!(image.cpu_level(), Some("high"));
        let image = image.with_cpu_level(level).unwrap();
        assert_eq!(image.cpu_level(), Some(level));
        let loaded = image.bind_array(&[]).unwrap();
        let call = |name: &str| {
            // SAFETY: the code is that of this test.
            unsafe { loaded.function(name).unwrap().typed::<extern "C" fn() -> i64>() }.unwrap()()
        };
        for (name, results) in CALLS {
            assert_eq!(call(name), results[number], "{name}, {level}");
        }
        assert_eq!(call("replaceable"), 30 + number as i64);
        // There is one address of a function, whatever its body.
        let address = loaded.address("value").unwrap();
        assert_eq!(call("address"), address as i64);
        // SAFETY: a word of the image's data.
        assert_eq!(unsafe { loaded.address("pointer").unwrap().cast::<usize>().read() }, address as usize);
        let body = ["value", "value.middle", "value.middle"][number];
        assert_eq!(loaded.locate(address).unwrap().name(), body);

        // SAFETY: nothing is called.
        let other = unsafe { FunctionRef::new("other", address, TO_I64) };
        // SAFETY: as above.
        let refused = unsafe { loaded.replace("value", other) };
        assert!(matches!(refused, Err(ReplaceError::NotReplaceable { .. })), "{refused:?}");
        let other = loaded.function("same").unwrap();
        // SAFETY: it may be called like the other.
        unsafe { loaded.replace("replaceable", other) }.unwrap();
        assert_eq!(call("replaceable"), 3);
    }
}

#[test]
fn code_that_the_machine_cannot_run_is_not_chosen() {
    let bytes = image("has_telepathy");
    let image = Image::from_bytes(&bytes).unwrap();
    assert_eq!(image.cpu_level(), Some("middle"));
    let refused = |image: Image, level: &str| image.with_cpu_level(level).unwrap_err();
    let error = refused(image, "high");
    assert!(error.to_string().ends_with("does not have: has_telepathy"), "{error}");
    let error = refused(Image::from_bytes(&bytes).unwrap(), "x86-64-v9");
    assert_eq!(error.to_string(), "the image has no code for x86-64-v9, but for low, middle, high");
    let plain = write_image(&modules(0, &[]), &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let plain = Image::from_bytes(&plain).unwrap();
    assert_eq!(plain.cpu_level(), None);
    assert!(matches!(refused(plain, "low"), LoadError::Level { levels, .. } if levels.is_empty()));
    // The lowest level is needed in any case, and nothing of the others is.
    let info = ImageInfo::parse(&bytes).unwrap();
    assert_eq!(info.features, ["has_sse3".into()]);
    let lowest = [Level { name: "low", artifacts: &modules(0, &["has_telepathy"]) }];
    let Levels { artifacts, table, .. } = join_levels(&lowest).unwrap();
    let options = ImageOptions { levels: Some(table), ..ImageOptions::default() };
    let image = write_image(&artifacts, &GlobalTable::new(), &options).unwrap();
    assert!(
        matches!(Image::from_bytes(&image), Err(LoadError::Features { features }) if *features == ["has_telepathy".into()])
    );
}

/// A body is kept once for all levels that have it, and a function that is the same on all levels
/// has no slot.
#[test]
fn equal_bodies_are_kept_once() {
    let info = ImageInfo::parse(&image("has_sse41")).unwrap();
    let names: Vec<_> = info.levels.iter().map(|level| &*level.name).collect();
    assert_eq!(names, ["low", "middle", "high"]);
    let name = |address: u64| info.locate(address).unwrap().name().to_owned();
    let mut bodies: Vec<_> =
        info.versions.iter().map(|version| (version.level, name(version.code))).collect();
    bodies.sort();
    let of = |level: usize, names: &[&str]| {
        names.iter().map(|name| (level, (*name).to_owned())).collect::<Vec<_>>()
    };
    let expected = [
        of(1, &["constant.middle", "differs.middle", "replaceable.middle", "value.middle"]),
        of(2, &["constant.high", "differs.high", "local.high", "replaceable.high", "value.middle"]),
    ];
    assert_eq!(bodies, expected.concat());
    // One slot a function that differs: constant, differs, local, replaceable, value.
    assert_eq!(info.internal_slots, 5);
    let slots: std::collections::BTreeSet<_> = info.versions.iter().map(|version| version.slot).collect();
    assert_eq!(slots.len(), 5);
    // Only the one that says so can be replaced.
    let replaceable: Vec<_> = info
        .exports
        .iter()
        .filter(|export| export.replaceable.is_some())
        .map(|export| &*export.name)
        .collect();
    assert_eq!(replaceable, ["replaceable"]);
    assert!(info.exports.iter().all(|export| !export.name.contains('\0')));
}

/// Equal programs for all levels are one program.
#[test]
fn nothing_differs() {
    let same = [
        Level { name: "low", artifacts: &modules(0, &[]) },
        Level { name: "high", artifacts: &modules(0, &[]) },
    ];
    let joined = join_levels(&same).unwrap();
    assert_eq!((joined.table.functions(), joined.modules), (0, vec![0, 1]));
    for (artifact, own) in joined.artifacts.iter().zip(modules(0, &[])) {
        assert!(artifact.as_bytes() == own.as_bytes());
    }
}

#[test]
fn programs_that_do_not_belong_together() {
    let base = modules(0, &[]);
    let refused = |other: &[Artifact]| {
        let levels = [Level { name: "low", artifacts: &base }, Level { name: "high", artifacts: other }];
        join_levels(&levels).unwrap_err().remove(0)
    };
    assert!(matches!(refused(&base[..1]), LinkError::Levels { module: None, .. }));
    let mut other = Module::new();
    other.function("f", Linkage::Export, I64_TO_I64, &[0xc3], &[]);
    let error = refused(&[base[0].clone(), other.finish()]);
    let expected = "programs for several levels of a processor cannot be joined: module 1: its functions have other names";
    assert_eq!(error.to_string(), expected);
    let twice = [Level { name: "low", artifacts: &base }; 2];
    assert!(join_levels(&twice).unwrap_err()[0].to_string().ends_with("one is given twice"));
}

/// Loaders that know nothing of levels find the lowest.
#[test]
fn dlopen_calls_the_lowest_level() {
    const PROGRAM: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **args) {
    void *image = dlopen(args[1], RTLD_NOW);
    if (!image) { puts(dlerror()); return 1; }
    for (int i = 2; i < count; i++)
        printf("%ld ", ((long (*)(void)) dlsym(image, args[i]))());
    return 0;
}
"#;
    let folder = tempfile::tempdir().unwrap();
    let [source, program, path] = ["main.c", "main", "p.so"].map(|name| folder.path().join(name));
    std::fs::write(&source, PROGRAM).unwrap();
    compile(&source, &program);
    save(&path, &image("has_sse41")).unwrap();
    let output = Command::new(&program).arg(&path).args(CALLS.map(|(name, _)| name)).output().unwrap();
    let expected: String = CALLS.iter().map(|(_, results)| format!("{} ", results[0])).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

/// A body must be code of the image, in a slot that only the linker fills.
#[test]
fn misplaced_bodies_are_refused() {
    let bytes = image("has_sse41");
    let info = ImageInfo::parse(&bytes).unwrap();
    let note = info.sections.iter().find(|section| &*section.name == ".note.kiln").unwrap();
    let body = note.offset as usize + 20;
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    // After the span of the records, the head has three more and the id. Its length follows the
    // version.
    let head = u32::from_le_bytes(bytes[body + 20..body + 24].try_into().unwrap()) as usize;
    let (first, exports) = (body + number(body + head - 32 - 4 * 16), number(body + 136 + 8 * 16));
    assert_eq!(number(first) as u64, info.versions[0].slot);
    let text = info.text();
    for (at, value, expected) in [
        (0, info.versions[0].slot - 8 * 16, "a misplaced body of a function"),
        (0, info.versions[0].slot + 1, "a misplaced body of a function"),
        (8, text - 1, "a misplaced body of a function"),
        (8, text + (1 << 20), "a misplaced body of a function"),
        (16, 3, "bodies of functions out of order, or for no level"),
        (16, 0, "bodies of functions out of order, or for no level"),
        (16, 2, "bodies of functions out of order, or for no level"),
    ] {
        let mut altered = bytes.clone();
        altered[first + at..first + at + 8].copy_from_slice(&u64::to_le_bytes(value));
        let sum = crate::note_sum::note_sum(&altered[body + 8..body + exports]);
        altered[body..body + 8].copy_from_slice(&sum.to_le_bytes());
        let error = Image::from_bytes(&altered).unwrap_err().to_string();
        assert!(error.contains(expected), "{at}, {value:#x}: {error}");
    }
}

/// Records of levels and bodies that are altered are refused or harmless.
#[test]
fn hostile_tables_of_levels() {
    let bytes = image("has_sse41");
    let info = ImageInfo::parse(&bytes).unwrap();
    let note = info.sections.iter().find(|section| &*section.name == ".note.kiln").unwrap();
    let body = note.offset as usize + 20..(note.offset + note.size) as usize;
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let exports = number(&bytes[body.clone()], 136 + 8 * 16);
    let (mut refused, mut bound) = (0, 0);
    for at in body.start + 8..body.start + exports {
        for value in [0x00, 0x01, 0x7f, 0xff] {
            let mut altered = bytes.clone();
            altered[at] = value;
            let end = number(&altered[body.clone()], 136 + 8 * 16);
            if (8..body.len()).contains(&end) {
                let sum = crate::note_sum::note_sum(&altered[body.start + 8..body.start + end]);
                altered[body.start..body.start + 8].copy_from_slice(&sum.to_le_bytes());
            }
            let _ = ImageInfo::parse(&altered);
            let Ok(image) = Image::from_bytes(&altered) else {
                refused += 1;
                continue;
            };
            let names: Vec<String> = image.cpu_levels().map(str::to_owned).collect();
            assert!(names.len() <= 64);
            let Some(image) = names.last().map_or(Some(image), |_| Image::from_bytes(&altered).ok()) else {
                continue;
            };
            bound += usize::from(image.bind_array(&[]).is_ok());
        }
    }
    assert!(refused > 500 && bound > 500, "{refused} refused, {bound} bound");
}
