//! Options of the image as a shared object: names, libraries, exports, alignment, packed
//! relocations.

use std::path::Path;
use std::process::Command;

use kiln_artifact::record::Linkage;
use kiln_globals::GlobalTable;
use kiln_image::link::LinkError;
use kiln_image::{Image, ImageInfo, ImageOptions, save, verify_bytes, write_image};
use object::{Object, ObjectSection, ObjectSymbol};

use crate::direct;
use crate::elf::{C_PROGRAM, compile};
use crate::replaceable;
use crate::support::{I64_TO_I64, Module, TO_I64, image, program, table};
use crate::tools::run;

fn image_with(options: &ImageOptions) -> Vec<u8> {
    write_image(&program(), &table(), options).unwrap()
}

/// The options that change what dynamic linkers read.
fn all() -> ImageOptions {
    ImageOptions {
        soname: Some("libprogram.so.1".into()),
        needed: vec!["libm.so.6".into(), "libm.so.6".into(), "libdl.so.2".into()],
        text_align: 1 << 21,
        pack_relocations: true,
        strip: true,
        ..ImageOptions::default()
    }
}

#[test]
fn every_option_at_once_loads_with_both_loaders() {
    let folder = tempfile::tempdir().unwrap();
    let (source, main) = (folder.path().join("main.c"), folder.path().join("main"));
    std::fs::write(&source, C_PROGRAM).unwrap();
    compile(&source, &main);
    let path = folder.path().join("program.so");
    let bytes = image_with(&all());
    save(&path, &bytes).unwrap();
    let output = Command::new(&main).arg(&path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "9 6 42 2 111 222 42 1\n");

    let image = Image::open(&path).unwrap();
    image.verify().unwrap();
    let loaded = image.bind_array(&[1, 2, 3]).unwrap();
    assert!((loaded.text().start as usize).is_multiple_of(1 << 21), "{:?}", loaded.text());
    let by_table = loaded.function("by_table").unwrap();
    // SAFETY: the code is that of this test, and reads only its own data.
    assert_eq!(unsafe { by_table.typed::<extern "C" fn(i64) -> i64>() }.unwrap()(1), 6);
    let table = loaded.address("table").unwrap().cast::<*const u8>();
    // SAFETY: three words of the image's data.
    let table = unsafe { [table.read(), table.add(1).read(), table.add(2).read()] };
    assert_eq!(table[0], loaded.function("add3").unwrap().address());
    assert!(table.iter().all(|pointer| loaded.text().contains(pointer)), "{table:?}");
}

#[test]
fn names_and_libraries_are_in_the_dynamic_section() {
    let text = |options| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.so");
        save(&path, &image_with(&options)).unwrap();
        let output = Command::new("readelf").args(["-dVW"]).arg(&path).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Ok(text_of_all) = text(all()) else {
        assert!(!run("readelf --version", Path::new("")), "it was not found");
        return;
    };
    let find = |what: &str| text_of_all.matches(what).count();
    assert_eq!(find("Library soname: [libprogram.so.1]"), 1);
    let order = ["[libm.so.6]", "[libdl.so.2]", "[libc.so.6]"].map(|name| text_of_all.find(name));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{text_of_all}");
    assert_eq!((find("(NEEDED)"), find("(RELR)"), find("GLIBC_ABI_DT_RELR")), (3, 1, 1));
    let text = text(ImageOptions::default()).unwrap();
    assert!(!text.contains("NEEDED") && !text.contains("RELR"), "{text}");

    for name in ["", "a\0b"] {
        let options = ImageOptions { needed: vec![name.into()], ..ImageOptions::default() };
        let errors = write_image(&program(), &table(), &options).unwrap_err();
        assert!(matches!(&errors[..], [LinkError::Needed { name: found }] if &**found == name));
    }
}

/// Relocations are packed where they can be: the file becomes smaller, and no pointer is lost.
#[test]
fn packed_relocations_are_the_same_pointers() {
    let mut module = Module::new();
    let f = module.function("f", Linkage::Export, TO_I64, &[0xb8, 9, 0, 0, 0, 0xc3], &[]);
    let mut pointers: Vec<_> = (0..600).map(|number| (8 * number, f, 0)).collect();
    pointers.retain(|(offset, ..)| offset / 8 % 70 != 3);
    // One that is not aligned has a relocation of the other kind.
    let mut crooked = vec![0; 4900];
    crooked[4803..4811].fill(0);
    pointers.push((4803, f, 0));
    let place = kiln_artifact::record::SectionKind::Writable;
    module.data("many", Linkage::Export, place, &crooked, &pointers);
    let modules = [module.finish()];
    let write = |pack_relocations| {
        let options = ImageOptions { pack_relocations, ..ImageOptions::default() };
        write_image(&modules, &GlobalTable::new(), &options).unwrap()
    };
    let (plain, packed) = (write(false), write(true));
    assert!(packed.len() + 8000 < plain.len(), "{} {}", packed.len(), plain.len());
    let count = |bytes: &[u8]| ImageInfo::parse(bytes).unwrap().relative_pointers;
    assert_eq!((count(&plain), count(&packed)), (pointers.len() as u64, pointers.len() as u64));
    for bytes in [plain, packed] {
        let loaded = Image::from_bytes(&bytes).unwrap().bind_array(&[]).unwrap();
        let (f, many) = (loaded.address("f").unwrap(), loaded.address("many").unwrap());
        for at in (0..600).map(|number| 8 * number).chain([4803]) {
            // SAFETY: a word of the image's data.
            let word = unsafe { many.add(at).cast::<*const u8>().read_unaligned() };
            let expected = pointers.iter().any(|(offset, ..)| *offset == at as u64);
            assert_eq!(word, if expected { f } else { std::ptr::null() }, "{at}");
        }
    }
}

#[test]
fn only_listed_names_are_exported() {
    let exports = vec!["add3".into(), "names".into()];
    let options = ImageOptions { exports: Some(exports), ..ImageOptions::default() };
    let bytes = image_with(&options);
    let info = ImageInfo::parse(&bytes).unwrap();
    let mut names: Vec<_> = info.exports.iter().map(|export| &*export.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["add3", "kiln_slots", "names"]);
    let loaded = Image::from_bytes(&bytes).unwrap().bind_array(&[1, 2, 3]).unwrap();
    assert!(loaded.function("add3").is_some() && loaded.function("add8").is_none());
    // Debuggers know the others, which are no part of the interface.
    let file = object::File::parse(&*bytes).unwrap();
    let is_global = |name: &str| {
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
        symbol.is_global()
    };
    assert!(is_global("add3") && !is_global("add8") && !is_global("table"));

    let exports = vec!["add3".into(), "nothing".into(), "hidden".into()];
    let options = ImageOptions { exports: Some(exports), ..ImageOptions::default() };
    let errors = write_image(&program(), &table(), &options).unwrap_err();
    let names: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[0], "the list of exports names `nothing`, which no module exports");
}

#[test]
fn an_alignment_that_no_page_has_is_refused() {
    for align in [3, 1 << 31, u64::MAX] {
        let options = ImageOptions { text_align: align, ..ImageOptions::default() };
        let errors = write_image(&program(), &table(), &options).unwrap_err();
        assert!(matches!(errors[..], [LinkError::TextAlign { align: found, .. }] if found == align));
    }
}

#[test]
fn a_build_id_is_that_of_what_is_loaded() {
    let id = |bytes: &[u8]| object::File::parse(bytes).unwrap().build_id().unwrap().unwrap().to_vec();
    let plain = id(&image());
    assert_eq!(plain.len(), 20);
    assert_eq!(id(&image_with(&ImageOptions { strip: true, ..ImageOptions::default() })), plain);
    assert_ne!(id(&replaceable::image()), plain);
    let mut module = Module::new();
    module.function("f", Linkage::Export, TO_I64, &[0xb8, 9, 0, 0, 0, 0xc3], &[]);
    let mut other = Module::new();
    other.function("f", Linkage::Export, TO_I64, &[0xb8, 8, 0, 0, 0, 0xc3], &[]);
    let ids = [module, other].map(|module| {
        id(&write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap())
    });
    assert_ne!(ids[0], ids[1]);
}

/// The property that all code has landing pads is that of an image only if all modules have them.
#[test]
fn the_property_of_landing_pads_is_that_of_all_modules() {
    let module = |triple: &str, has_pads: bool, name: &str| {
        let mut module = Module::for_triple(triple);
        if has_pads {
            module.feature("use_bti");
        }
        // bti c; ret
        let code = [0x5f, 0x24, 0x03, 0xd5, 0xc0, 0x03, 0x5f, 0xd6];
        module.function(name, Linkage::Export, I64_TO_I64, &code, &[]);
        module.finish()
    };
    let arm = "aarch64-unknown-linux-gnu";
    let cases = [
        (vec![module(arm, true, "f"), module(arm, true, "g")], true),
        (vec![module(arm, true, "f"), module(arm, false, "g")], false),
        (vec![module(arm, false, "f")], false),
        (vec![module("x86_64-unknown-linux-gnu", true, "f")], false),
    ];
    for (modules, expected) in cases {
        let bytes = write_image(&modules, &GlobalTable::new(), &ImageOptions::default()).unwrap();
        verify_bytes(&bytes).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let note = file.section_by_name(".note.gnu.property").map(|section| section.data().unwrap());
        let property = [4, 0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, b'G', b'N', b'U', 0, 0, 0, 0, 0xc0, 4, 0, 0, 0];
        let property = [&property[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(note, expected.then_some(&*property));
        let headers = usize::from(bytes[56]);
        let kinds = (0..headers).map(|index| bytes[64 + 56 * index..68 + 56 * index].to_vec());
        assert_eq!(kinds.filter(|kind| kind == &[0x53, 0xe5, 0x74, 0x64]).count(), usize::from(expected));
    }
}

/// The strictest checker of ELF files finds nothing.
#[test]
fn elflint_has_no_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let mut zeroed = Module::new();
    zeroed.zeroed("zeros", Linkage::Export, 512);
    let empty = |modules: &[_]| write_image(modules, &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let strip = ImageOptions { strip: true, ..ImageOptions::default() };
    let listed = ImageOptions { exports: Some(vec!["add3".into()]), ..ImageOptions::default() };
    let packed = ImageOptions { pack_relocations: true, ..ImageOptions::default() };
    let images = [
        ("a program", image()),
        ("stripped", image_with(&strip)),
        ("with a list", image_with(&listed)),
        ("packed", image_with(&packed)),
        ("with every option", image_with(&all())),
        ("replaceable", replaceable::image()),
        ("direct", direct::image()),
        ("empty", empty(&[])),
        ("only zeroed data", empty(&[zeroed.finish()])),
    ];
    for (name, bytes) in images {
        verify_bytes(&bytes).unwrap();
        let path = folder.path().join("image.so");
        save(&path, &bytes).unwrap();
        let output = Command::new("eu-elflint").args(["--strict", "--quiet"]).arg(&path).output();
        let Ok(output) = output else {
            assert!(!run("eu-elflint --version", &path), "it was not found");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        // Versions up to 0.188 do not know this type of section. And code that contains addresses
        // has relocations, which the ABI discourages.
        let known = ["'.relr.dyn' has wrong type", "level 2 tag TEXTREL used"];
        let complaints = text.lines().filter(|line| !known.iter().any(|known| line.contains(known)));
        assert_eq!(complaints.collect::<Vec<_>>(), [""; 0], "{name}");
    }
}
