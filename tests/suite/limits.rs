//! Input that needs too much memory gets an error, quickly and without taking the memory.

use std::sync::Arc;

use kiln::globals::GlobalTable;
use kiln::image::{ImageInfo, ImageOptions, write_image};
use kiln::ir::{Code, Module, ModuleSettings, Source, Target, parse};
use kiln::jit::{JitOptions, Memory, MemoryOptions};
use kiln::{Compiler, Session};

use crate::common::module;

fn error(text: &str) -> String {
    let module = module("large", text);
    match Compiler::new(Target::host()).compile(&[module]) {
        Ok(_) => panic!("compiled"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn data_of_more_than_two_gigabytes() {
    for attributes in ["", "writable"] {
        let error = error(&format!("data %d {attributes} {{ zeros 4_000_000_000 }}"));
        assert!(error.contains("has 4000000000 bytes, limit 2147483648"), "{error}");
    }
}

#[test]
fn functions_aligned_to_more_than_a_page() {
    let text = "set log2_min_function_alignment=20
        function %f() { block0: return }
        function %g() { fn0 = %f() block0: call fn0() return }";
    let error = error(text);
    assert!(error.contains("at most 4096"), "{error}");
}

#[test]
fn a_reservation_that_is_too_small() {
    let memory = Memory::reserve(MemoryOptions::with_size(1 << 16)).unwrap();
    let options = JitOptions { memory: Some(memory), ..Default::default() };
    let session = Session::with_compiler(Compiler::new(Target::host()), options).unwrap();
    let error = session.add(&[module("d", "data %d writable { zeros 100_000 }")]).unwrap_err().to_string();
    assert!(error.starts_with("no room for 100000 bytes of writable data"), "{error}");
}

/// The address that the call or jump of aarch64 at `at` of an image goes to: of code, or of the
/// slot that a veneer reads.
fn follow(image: &[u8], at: u64) -> (u64, bool) {
    let word = |at: u64| u32::from_le_bytes(image[at as usize..][..4].try_into().unwrap());
    let signed = |value: u32, bits: u32| i64::from((value << (32 - bits)) as i32 >> (32 - bits));
    assert_eq!(word(at) & 0x7c00_0000, 0x1400_0000, "a call at {at:#x}");
    let target = at.wrapping_add_signed(4 * signed(word(at) & 0x03ff_ffff, 26));
    // A stub of the linker begins with a landing pad, `bti c`; a veneer does not.
    let code = target + if word(target) == 0xd503_245f { 4 } else { 0 };
    let adrp = word(code);
    if adrp & 0x9f00_001f != 0x9000_0010 {
        return (target, false);
    }
    let pages = signed((adrp >> 5 & 0x7_ffff) << 2 | adrp >> 29 & 3, 21);
    let page = (code & !0xfff).wrapping_add_signed(pages << 12);
    let second = word(code + 4);
    let number = u64::from(second >> 10 & 0xfff);
    assert_eq!(word(code + 8), 0xd61f_0200, "br x16");
    match second & 0xffc0_03ff {
        0x9100_0210 => (page + number, false),
        0xf940_0210 => (page + 8 * number, true),
        other => panic!("{other:#x} in a veneer"),
    }
}

/// A module for aarch64 of more than 128 MiB, which is what a call reaches; `None` without a code
/// generator for it.
fn module_beyond_reach(blob: usize) -> Option<(Target, Module)> {
    let target = Target::parse("aarch64").unwrap();
    target.isa(&ModuleSettings::default()).ok()?;
    let text = "
        function %first() { fn0 = colocated %last() fn1 = colocated %near() fn2 = colocated %away()
            block0: call fn0() call fn1() call fn2() return }
        function %near() { block0: return }
        local code %blob1() { bytes #00000000 }
        preemptible function %weak() { fn0 = colocated %away() block0: call fn0() return }
        local code %blob2() { bytes #00000000 }
        function %last() { fn0 = colocated %first() fn1 = colocated %weak()
            block0: call fn0() call fn1() return }";
    let mut module = match parse(Arc::new(Source::new("far", text)), &target) {
        Ok(module) => module,
        Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()),
    };
    for function in &mut module.functions {
        if let Code::Machine(code) = &mut function.code {
            code.bytes = vec![0; blob].into();
        }
    }
    Some((target, module))
}

#[test]
fn calls_reach_all_of_a_large_module() {
    // One that is close to the limit, and one far beyond it.
    for blob in [66_900_000, 90_000_000] {
        let Some((target, module)) = module_beyond_reach(blob) else {
            println!("skipped, needs the feature `all-arch`");
            return;
        };
        let artifacts = Compiler::new(target).compile(&[module]).unwrap().artifacts;
        let image = write_image(&artifacts, &GlobalTable::new(), &ImageOptions::default()).unwrap();
        let info = ImageInfo::parse(&image).unwrap();
        let address = |name: &str| info.exports.iter().find(|export| &*export.name == name).unwrap();
        let calls = |name: &str| {
            let export = address(name);
            (export.address..export.address + export.size)
                .step_by(4)
                .filter(|&at| image[at as usize + 3] & 0xfc == 0x94)
                .map(|at| follow(&image, at))
                .collect::<Vec<_>>()
        };
        let to = |name: &str| (address(name).address, false);
        assert!(address("last").address - address("first").address > 2 * blob as u64);
        let first = calls("first");
        assert_eq!(first[..2], [to("last"), to("near")]);
        assert_eq!(calls("last"), [to("first"), to("weak")]);
        // The slot of `away` is the image's only one.
        let slots = address("kiln_slots").address;
        assert_eq!((first[2], calls("weak")), ((slots, true), vec![(slots, true)]));
    }
}

#[test]
fn a_function_that_calls_do_not_get_out_of() {
    let Some((target, mut module)) = module_beyond_reach(4) else { return };
    let first = module.functions[0].symbol;
    let Code::Machine(code) = &mut module.functions[2].code else { panic!("the first blob") };
    code.bytes = vec![0; 140_000_000].into();
    code.relocs.push(kiln::ir::CodeReloc {
        offset: 0,
        kind: cranelift_codegen::binemit::Reloc::Arm64Call,
        target: kiln::ir::CodeTarget::Symbol(first),
        addend: 0,
    });
    let error = Compiler::new(target).compile(&[module]).map(drop).unwrap_err().to_string();
    assert!(error.contains("`blob1` of module far") && error.contains("limit 134217728"), "{error}");
}
