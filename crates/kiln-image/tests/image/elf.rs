//! Images as other readers see them: `object`, `readelf`, `gimli` and the C library's loader.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use kiln_artifact::record::Linkage;
use kiln_globals::{GlobalTable, SlotKey};
use kiln_image::{ImageInfo, ImageOptions, save, write_image};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::support::{ADD3, I64_TO_I64, Module, image, program, table};

#[test]
fn two_writes_are_identical() {
    assert_eq!(image(), image());
}

#[test]
fn object_reads_the_intended_layout() {
    let bytes = image();
    let file = object::File::parse(&*bytes).unwrap();
    assert_eq!(file.architecture(), object::Architecture::X86_64);
    let names: Vec<_> =
        file.sections().filter_map(|section| section.name().ok().map(str::to_owned)).collect();
    let expected = [
        ".note.kiln",
        ".note.gnu.build-id",
        ".gnu.hash",
        ".dynsym",
        ".dynstr",
        ".rela.dyn",
        ".rodata",
        ".eh_frame_hdr",
        ".eh_frame",
        ".kiln.code",
        ".text",
        ".data.rel.ro",
        ".dynamic",
        ".kiln.slots",
        ".data",
        ".bss",
        ".symtab",
        ".strtab",
        ".shstrtab",
    ];
    assert_eq!(
        names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect::<Vec<_>>(),
        expected
    );
    let mut exports: Vec<_> = file.exports().unwrap().iter().map(|export| export.name().to_vec()).collect();
    exports.sort();
    let mut expected = [
        "add3",
        "add8",
        "answer",
        "by_table",
        "call_host",
        "count",
        "host_address",
        "kiln_slots",
        "names",
        "names_slot",
        "read_answer",
        "read_first",
        "read_second",
        "table",
        "zeros",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    expected.sort();
    assert_eq!(exports, expected);
    let text = file.section_by_name(".text").unwrap();
    for symbol in file.dynamic_symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        assert!((text.address()..text.address() + text.size()).contains(&symbol.address()));
        assert!(symbol.size() > 0);
    }
    let add3 = file.dynamic_symbols().find(|symbol| symbol.name() == Ok("add3")).unwrap();
    let at = (add3.address() - text.address()) as usize;
    assert_eq!(&text.data().unwrap()[at..at + add3.size() as usize], ADD3);
    let all: Vec<_> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
    for name in ["local", "hidden", "counter", "add8"] {
        assert!(all.contains(&name), "{name} in the full symbol table");
    }
    let undefined: Vec<_> =
        file.dynamic_symbols().filter(|s| s.is_undefined()).map(|s| s.name().unwrap()).collect();
    assert_eq!(undefined, ["host_double"]);
    for segment in file.segments() {
        assert_eq!(segment.address() % 4096, 0);
    }
}

#[test]
fn info_says_what_was_written() {
    let info = ImageInfo::parse(&image()).unwrap();
    assert_eq!(info.triple.as_ref(), "x86_64-unknown-linux-gnu");
    assert_eq!(info.slots.len(), 3);
    assert_eq!(info.slots[2].key, SlotKey::Symbol("host_double".into()));
    assert_eq!(info.slots[2].signature.as_deref(), Some(I64_TO_I64));
    assert_eq!((info.internal_slots, info.relative_pointers, info.symbolic_pointers), (0, 3, 2));
    let add3 = info.exports.iter().find(|export| export.name.as_ref() == "add3").unwrap();
    assert_eq!((add3.signature.as_deref(), add3.size), (Some(I64_TO_I64), 5));
    assert_eq!(info.producers, ["test 1.0".into()]);
}

#[test]
fn readelf_has_no_complaint() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("program", image()),
        ("empty", write_image(&[], &GlobalTable::new(), &ImageOptions::default()).unwrap()),
    ] {
        let path = folder.path().join(name);
        save(&path, &bytes).unwrap();
        let readelf = Command::new("readelf").args(["-aW", "--debug-dump=frames"]).arg(&path).output();
        let Ok(output) = readelf else {
            // Not through the test harness, which would swallow it.
            assert!(std::env::var_os("CI").is_none(), "readelf is not installed, and CI must have it");
            let _ = writeln!(std::io::stderr(), "skipped: readelf is not installed");
            return;
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(!stdout.to_lowercase().contains("warning"), "{stdout}");
    }
}

pub(crate) const C_PROGRAM: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
long host_double(long x) { return 2 * x; }
long first = 111, second[2] = {222, 333};
#define GET(name, type) __typeof__(type) name = (type)dlsym(h, #name); if (!name) { puts("no " #name); return 2; }
int main(int argc, char **argv) {
    void *h = dlopen(argv[1], RTLD_NOW);
    if (!h) { puts(dlerror()); return 1; }
    GET(kiln_slots, void **)
    GET(add8, long (*)(long))
    GET(by_table, long (*)(long))
    GET(call_host, long (*)(long))
    GET(count, long (*)(void))
    GET(read_first, long (*)(void))
    GET(read_second, long (*)(void))
    GET(read_answer, long (*)(void))
    GET(names, long *)
    void *fill[2] = {second, &first};
    memcpy(kiln_slots, fill, sizeof fill);
    count();
    printf("%ld %ld %ld %ld %ld %ld %ld %d\n", add8(1), by_table(1), call_host(21), count(), read_first(),
           read_second(), read_answer(), names[1] == (long)&host_double);
    return 0;
}
"#;

/// Compiles a C program. Rust links with the same compiler, so it is installed.
pub(crate) fn compile(source: &Path, program: &Path) {
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-rdynamic", "-o"]).arg(program).arg(source).arg("-ldl");
    assert!(cc.status().expect("a C compiler").success());
}

#[test]
fn the_c_library_loads_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("main.c");
    std::fs::write(&source, C_PROGRAM).unwrap();
    let program_path = folder.path().join("main");
    compile(&source, &program_path);
    let path = folder.path().join("program.so");
    let options = ImageOptions { soname: Some("program.so".into()), ..ImageOptions::default() };
    save(&path, &write_image(&program(), &table(), &options).unwrap()).unwrap();
    let output = Command::new(&program_path).arg(&path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "9 6 42 2 111 222 42 1\n");
    assert!(output.status.success());
}

#[test]
fn gimli_finds_the_unwind_rows_of_every_function() {
    use gimli::{BaseAddresses, EhFrame, EhFrameHdr, LittleEndian, UnwindSection};
    let bytes = image();
    let file = object::File::parse(&*bytes).unwrap();
    let section = |name: &str| file.section_by_name(name).unwrap();
    let (text, frame, hdr) = (section(".text"), section(".eh_frame"), section(".eh_frame_hdr"));
    let bases = BaseAddresses::default()
        .set_text(text.address())
        .set_eh_frame(frame.address())
        .set_eh_frame_hdr(hdr.address());
    let parsed = EhFrameHdr::new(hdr.data().unwrap(), LittleEndian).parse(&bases, 8).unwrap();
    assert_eq!(parsed.eh_frame_ptr(), gimli::Pointer::Direct(frame.address()));
    let frame = EhFrame::new(frame.data().unwrap(), LittleEndian);
    let table = parsed.table().unwrap();
    let functions: Vec<_> = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text).collect();
    assert_eq!(functions.len(), 13);
    assert!(functions.iter().any(|symbol| symbol.name() == Ok("host_double@plt") && symbol.is_local()));
    for symbol in &functions {
        let name = symbol.name().unwrap();
        let (start, end) = (symbol.address(), symbol.address() + symbol.size());
        for address in [start, end - 1] {
            let fde = table.fde_for_address(&frame, &bases, address, EhFrame::cie_from_offset).unwrap();
            assert_eq!((fde.initial_address(), fde.end_address()), (start, end), "{name}");
            assert_eq!(fde.cie().return_address_register(), gimli::X86_64::RA);
        }
    }
    let mut count = 0;
    let mut entries = frame.entries(&bases);
    while entries.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, functions.len() + 1, "one common entry");
}

const UNWINDING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <stdio.h>
long host_double(long x) {
    void *frames[8];
    int n = backtrace(frames, 8);
    for (int i = 1; i < 4 && i < n; i++) {
        Dl_info info;
        printf("%s ", dladdr(frames[i], &info) && info.dli_sname ? info.dli_sname : "?");
    }
    return 2 * x;
}
int main(int argc, char **argv) {
    void *h = dlopen(argv[1], RTLD_NOW);
    long (*outer)(long) = (long (*)(long))dlsym(h, "outer");
    printf("%ld\n", outer(21));
    return 0;
}
"#;

#[test]
fn the_c_library_unwinds_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let (source, main) = (folder.path().join("main.c"), folder.path().join("main"));
    std::fs::write(&source, UNWINDING).unwrap();
    compile(&source, &main);
    let caller = |name: &str, callee: &str| {
        let mut module = Module::new();
        let callee = module.import(callee, I64_TO_I64);
        // sub rsp, 8; call callee; add rsp, 8; ret
        let code = [0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 8, 0xc3];
        let relocs = [(5, kiln_artifact::RelocKind::X86Pc32, callee, -4)];
        module.function(name, Linkage::Export, I64_TO_I64, &code, &relocs);
        module.finish()
    };
    let artifacts = [caller("outer", "inner"), caller("inner", "host_double")];
    let path = folder.path().join("program.so");
    save(&path, &write_image(&artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap()).unwrap();
    let output = Command::new(&main).arg(&path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "inner outer main 42\n");
}

#[test]
fn a_libcall_brings_the_c_library() {
    let mut module = Module::new();
    let ceil = module.libcall("ceil", "(f64) -> f64 system_v");
    let code = [0xe9, 0, 0, 0, 0];
    let relocs = [(1, kiln_artifact::RelocKind::X86Pc32, ceil, -4)];
    module.function("up", Linkage::Export, "(f64) -> f64 system_v", &code, &relocs);
    let bytes = write_image(&[module.finish()], &GlobalTable::new(), &ImageOptions::default()).unwrap();
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(has(b"\0libm.so.6\0") && has(b"\0libc.so.6\0"));
}

#[test]
fn images_of_other_architectures_are_written_and_read() {
    for (triple, page) in [
        ("aarch64-unknown-linux-gnu", 65536),
        ("riscv64gc-unknown-linux-gnu", 4096),
        ("s390x-unknown-linux-gnu", 4096),
    ] {
        let mut module = Module::for_triple(triple);
        if triple.starts_with("s390x") {
            module.contents.cie[..4].copy_from_slice(&20u32.to_be_bytes());
        }
        let data =
            module.data("datum", Linkage::Export, kiln_artifact::record::SectionKind::ReadOnly, &[1; 8], &[]);
        module.data(
            "pointer",
            Linkage::Export,
            kiln_artifact::record::SectionKind::Writable,
            &[0; 8],
            &[(0, data, 0)],
        );
        module.function("f", Linkage::Export, I64_TO_I64, &[0; 8], &[]);
        let bytes = write_image(&[module.finish()], &table(), &ImageOptions::default()).unwrap();
        let info = ImageInfo::parse(&bytes).unwrap();
        assert_eq!(info.triple.as_ref(), triple);
        assert_eq!(info.exports.len(), 4);
        kiln_image::verify_bytes(&bytes).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let loads: Vec<_> = file.segments().map(|segment| segment.address() % page).collect();
        assert_eq!(loads, [0; 4]);
        assert!(kiln_image::Image::from_bytes(&bytes).unwrap_err().to_string().contains(triple));
    }
}
