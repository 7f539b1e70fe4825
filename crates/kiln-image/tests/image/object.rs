//! Relocatable objects as another reader sees them: sections, symbols and relocations. The folder
//! `tests/cross` of the repository links them.

use kiln_artifact::RelocKind::{X86GotPc32 as Got, X86Pc32 as Pc};
use kiln_artifact::record::{Linkage, SectionKind};
use kiln_globals::GlobalTable;
use kiln_image::link::LinkError;
use kiln_image::{GlobalSymbols, ObjectOptions, write_object};
use object::elf;
use object::read::elf::{ElfFile64, Rela as _};
use object::{Endianness, Object, ObjectSection, ObjectSymbol};

use crate::support::{ADD3, I64_TO_I64, Module, SLOT_VALUE, TO_I64, program, table};

fn named() -> ObjectOptions {
    ObjectOptions { globals: GlobalSymbols::Named, ..ObjectOptions::default() }
}

/// The relocations of a section: offset, type, symbol (or the section of a section symbol), addend.
fn relocs(bytes: &[u8], section: &str) -> Vec<(u64, u32, String, i64)> {
    let file = ElfFile64::<Endianness>::parse(bytes).unwrap();
    let endian = file.endian();
    let index = file.section_by_name(section).unwrap().index();
    let sections = file.elf_section_table();
    let table = sections.iter().find(|header| {
        header.sh_type.get(endian) == elf::SHT_RELA && header.sh_info.get(endian) as usize == index.0
    });
    let Some(table) = table else { return Vec::new() };
    let (relas, _) = object::read::elf::SectionHeader::rela(table, endian, bytes).unwrap().unwrap();
    let name = |symbol: u32| {
        let symbol = file.symbol_by_index(object::SymbolIndex(symbol as usize)).unwrap();
        let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
        match symbol.name().unwrap() {
            "" => section.unwrap().name().unwrap().to_owned(),
            name => name.to_owned(),
        }
    };
    let relas = relas.iter().map(|rela| {
        let (symbol, kind) = (rela.r_sym(endian, false), rela.r_type(endian, false));
        (rela.r_offset(endian), kind, name(symbol), rela.r_addend(endian))
    });
    relas.collect()
}

/// The symbols that others see: binding, visibility, name, section.
fn globals(bytes: &[u8]) -> Vec<(u8, u8, String, String)> {
    let file = ElfFile64::<Endianness>::parse(bytes).unwrap();
    let symbols = file.symbols().filter(|symbol| symbol.elf_symbol().st_bind() != elf::STB_LOCAL);
    let symbols = symbols.map(|symbol| {
        let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
        let section = section.map_or(String::new(), |section| section.name().unwrap().to_owned());
        let raw = symbol.elf_symbol();
        (raw.st_bind(), raw.st_visibility(), symbol.name().unwrap().to_owned(), section)
    });
    symbols.collect()
}

#[test]
fn the_whole_program_has_the_intended_relocations() {
    let bytes = write_object(&program(), &table(), &named()).unwrap();
    assert_eq!(bytes, write_object(&program(), &table(), &named()).unwrap());
    let expected = [
        // An exported symbol has one address everywhere; the linker may relax the load.
        (0x13, elf::R_X86_64_REX_GOTPCRELX, "answer", -4),
        // `lea` of data of the object.
        (0x43, elf::R_X86_64_PC32, ".data", -4),
        (0x53, elf::R_X86_64_PC32, ".bss", 512 - 4),
        // The calls of `add3` and `hidden` are patched; the one of the host may take a stub.
        (0x81, elf::R_X86_64_PLT32, "host_double", -4),
        // `lea` of a symbol that may be far became a load.
        (0x93, elf::R_X86_64_REX_GOTPCRELX, "host_double", -4),
        (0xa3, elf::R_X86_64_REX_GOTPCRELX, "object:first", -4),
        (0xb3, elf::R_X86_64_REX_GOTPCRELX, "object:second", -4),
        (0xc3, elf::R_X86_64_REX_GOTPCRELX, "names", -4),
    ];
    let owned = |list: &[(u64, u32, &str, i64)]| -> Vec<(u64, u32, String, i64)> {
        list.iter().map(|&(offset, kind, name, addend)| (offset, kind, name.to_owned(), addend)).collect()
    };
    assert_eq!(relocs(&bytes, ".text"), owned(&expected));
    let expected = [
        (0, elf::R_X86_64_64, "add3", 0),
        (8, elf::R_X86_64_64, ".text", 0x20),
        (16, elf::R_X86_64_64, ".text", 0x30),
    ];
    assert_eq!(relocs(&bytes, ".data"), owned(&expected));
    let expected = [(0, elf::R_X86_64_64, "object:second", 8), (8, elf::R_X86_64_64, "host_double", 0)];
    assert_eq!(relocs(&bytes, ".data.rel.ro"), owned(&expected));
    // Each function's row begins where the function does.
    let rows = relocs(&bytes, ".eh_frame");
    assert!(rows.iter().all(|(_, kind, name, _)| *kind == elf::R_X86_64_PC32 && name == ".text"));
    let starts = [0, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x80, 0x90, 0xa0, 0xb0, 0xc0];
    assert_eq!(rows.iter().map(|row| row.3).collect::<Vec<_>>(), starts);

    let file = ElfFile64::<Endianness>::parse(&*bytes).unwrap();
    let text = file.section_by_name(".text").unwrap().data().unwrap();
    let target =
        |at: usize| at as i64 + 4 + i64::from(i32::from_le_bytes(text[at..at + 4].try_into().unwrap()));
    assert_eq!((target(0x65), target(0x6d)), (0, 0x20), "direct calls");
    assert_eq!(text[0x91], 0x8b, "`lea` became `mov`");
    let stack = file.section_by_name(".note.GNU-stack").unwrap();
    assert_eq!((stack.size(), stack.elf_section_header().sh_flags.get(file.endian())), (0, 0));
}

#[test]
fn linkage_becomes_binding_and_visibility() {
    let mut module = Module::new();
    for (name, linkage) in [
        ("exported", Linkage::Export),
        ("hidden", Linkage::Hidden),
        ("weak", Linkage::Preemptible),
        ("local", Linkage::Local),
        ("replaceable", Linkage::Replaceable),
    ] {
        module.function(name, linkage, I64_TO_I64, &ADD3, &[]);
    }
    let weak = 2;
    // Both must find the definition that overrides the weak one.
    let code = [0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x05, 0, 0, 0, 0, 0xc3];
    module.function("caller", Linkage::Export, TO_I64, &code, &[(1, Pc, weak, -4), (8, Got, weak, -4)]);
    let unused = module.import("unused", TO_I64);
    assert_eq!(unused, 6);
    let first = module.global("first");
    module.function("read", Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, Got, first, -4)]);
    let module = [module.finish()];
    let array = GlobalSymbols::Array("my_slots".into());
    let options = ObjectOptions { globals: array, ..ObjectOptions::default() };
    let bytes = write_object(&module, &GlobalTable::new(), &options).unwrap();
    let (global, weak) = (elf::STB_GLOBAL, elf::STB_WEAK);
    let expected = [
        (global, elf::STV_DEFAULT, "exported", ".text"),
        (global, elf::STV_HIDDEN, "hidden", ".text"),
        (weak, elf::STV_DEFAULT, "weak", ".text"),
        (global, elf::STV_DEFAULT, "kiln_slot_replaceable", ".kiln.slots"),
        (global, elf::STV_DEFAULT, "replaceable", ".text"),
        (global, elf::STV_DEFAULT, "caller", ".text"),
        (global, elf::STV_DEFAULT, "read", ".text"),
        (global, elf::STV_DEFAULT, "my_slots", ".kiln.slots"),
    ];
    let expected =
        expected.map(|(bind, other, name, section)| (bind, other, name.to_owned(), section.to_owned()));
    assert_eq!(globals(&bytes), expected);
    let found: Vec<_> = relocs(&bytes, ".text").into_iter().map(|(_, kind, name, _)| (kind, name)).collect();
    let expected = [
        (elf::R_X86_64_PLT32, "weak"),
        (elf::R_X86_64_REX_GOTPCRELX, "weak"),
        // The slot of the global, and that of the stub of the replaceable function.
        (elf::R_X86_64_PC32, ".kiln.slots"),
        (elf::R_X86_64_PC32, ".kiln.slots"),
    ];
    assert_eq!(found, expected.map(|(kind, name)| (kind, name.to_owned())));
    assert_eq!(relocs(&bytes, ".kiln.slots"), [(8, elf::R_X86_64_64, ".text".to_owned(), 0x40)]);
    let stripped = ObjectOptions { strip: true, ..options };
    let stripped = write_object(&module, &GlobalTable::new(), &stripped).unwrap();
    let names = |bytes: &[u8]| -> Vec<String> {
        let file = ElfFile64::<Endianness>::parse(bytes).unwrap();
        file.symbols().map(|symbol| symbol.name().unwrap().to_owned()).collect()
    };
    assert!(names(&bytes).contains(&"local".to_owned()));
    assert!(!names(&stripped).contains(&"local".to_owned()));
    assert_eq!(globals(&stripped), globals(&bytes));
}

#[test]
fn what_an_object_cannot_hold_is_refused_by_name() {
    let errors = |module: Module, options: &ObjectOptions| {
        write_object(&[module.finish()], &GlobalTable::new(), options).unwrap_err()
    };
    let array =
        |name: &str| ObjectOptions { globals: GlobalSymbols::Array(name.into()), ..ObjectOptions::default() };
    // The linker knows only names, so it would take the module's `floor` for the C library's.
    let mut module = Module::new();
    module.function("floor", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    let routine = module.libcall("floor", "(f64) -> f64 system_v");
    module.function("user", Linkage::Local, TO_I64, &[0xe8, 0, 0, 0, 0, 0xc3], &[(1, Pc, routine, -4)]);
    let (name, user) = ("floor".into(), "user".into());
    assert_eq!(errors(module, &named()), [LinkError::RoutineConflict { name, module: 0, user, definer: 0 }]);
    // A private one is another symbol.
    let mut module = Module::new();
    module.function("floor", Linkage::Local, I64_TO_I64, &ADD3, &[]);
    let routine = module.libcall("floor", "(f64) -> f64 system_v");
    module.function("user", Linkage::Local, TO_I64, &[0xe8, 0, 0, 0, 0, 0xc3], &[(1, Pc, routine, -4)]);
    write_object(&[module.finish()], &GlobalTable::new(), &named()).unwrap();

    let mut module = Module::new();
    let global = module.global("object:a");
    module.data("pointer", Linkage::Export, SectionKind::Writable, &[0; 8], &[(0, global, 0)]);
    let global = "object:a".into();
    assert_eq!(errors(module, &array("s")), [LinkError::GlobalInData { module: 0, global }]);

    let reader = |name: &str, key: &str| {
        let mut module = Module::new();
        let global = module.global(key);
        module.function(name, Linkage::Export, TO_I64, &SLOT_VALUE, &[(3, Got, global, -4)]);
        module
    };
    let reserved = |name: &str| [LinkError::ReservedName { module: 0, name: name.into() }];
    assert_eq!(errors(reader("mine", "a"), &array("mine")), reserved("mine"));
    assert_eq!(
        errors(reader("f", "a\0b"), &named()),
        [LinkError::NameWithZero { module: 0, name: "a\0b".into() }]
    );
    let mut module = reader("kiln_slot_f", "a");
    module.function("f", Linkage::Replaceable, TO_I64, &ADD3, &[]);
    assert_eq!(errors(module, &array("s")), reserved("kiln_slot_f"));
    // A global and a definition of one name are one thing, if globals are symbols.
    let mut module = reader("f", "g");
    module.function("g", Linkage::Export, TO_I64, &ADD3, &[]);
    let bytes = write_object(&[module.finish()], &GlobalTable::new(), &named()).unwrap();
    assert_eq!(relocs(&bytes, ".text")[0].2, "g");
    assert_eq!(globals(&bytes).len(), 2);
}

/// As in images, a promise is one of all modules.
#[test]
fn landing_pads_are_promised_by_all_modules_or_by_none() {
    let module = |has_pads: bool| {
        let mut module = Module::for_triple("aarch64-unknown-linux-gnu");
        if has_pads {
            module.feature("use_bti");
        }
        module.finish()
    };
    let note = |modules: &[kiln_artifact::Artifact]| {
        let bytes = write_object(modules, &GlobalTable::new(), &named()).unwrap();
        let file = ElfFile64::<Endianness>::parse(&*bytes).unwrap();
        let note = file.section_by_name(".note.gnu.property")?;
        let header = note.elf_section_header();
        assert_eq!(header.sh_flags.get(file.endian()), elf::SHF_ALLOC.into());
        Some(note.data().unwrap().to_vec())
    };
    let words = note(&[module(true), module(true)]).unwrap();
    assert_eq!((words.len(), words[16], words[24]), (32, 0, 1));
    assert_eq!(note(&[module(true), module(false)]), None);
}

/// Objects are made by many threads if there is enough to do, with the same result.
#[test]
fn many_modules_have_the_bytes_that_one_thread_writes() {
    let artifacts: Vec<_> = (0..300)
        .map(|number| {
            let mut module = Module::new();
            let next = module.import(&format!("f{}", (number + 1) % 300), TO_I64);
            let host = module.import("host", TO_I64);
            let mut code = vec![0xe8, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0];
            code.resize(2000, 0x90);
            let calls = [(1, Pc, next, -4), (6, Pc, host, -4)];
            module.function(&format!("f{number}"), Linkage::Export, TO_I64, &code, &calls);
            module.finish()
        })
        .collect();
    let make = || write_object(&artifacts, &GlobalTable::new(), &named()).unwrap();
    let bytes = make();
    assert_eq!(relocs(&bytes, ".text").len(), 300);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one.install(make), bytes);
}
