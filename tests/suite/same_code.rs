//! The machine code in memory, in an image and in an artifact is the same, byte for byte, except
//! for patch sites.

use kiln::Session;
use kiln::artifact::{Artifact, GlobalAccess, RelocKind};
use kiln::image::{ImageInfo, SymbolType};
use kiln::ir::{Module, Target};
use kiln::jit::Unit;
use object::{Object as _, ObjectSymbol as _};

use crate::common::{module, modules};

/// A session with everything the test files need.
fn session(modules: &[Module], access: GlobalAccess) -> Session {
    let session = Session::new(Target::host().globals(access)).unwrap();
    for key in modules.iter().flat_map(Module::globals) {
        // The code is compared, not called.
        session.bind_global(key, 0x1000).unwrap();
    }
    session.add(modules).unwrap();
    session
}

/// The code of a function in an artifact, with patch sites set to zero, and for each byte whether
/// it is part of a patch site.
fn masked(artifact: &Artifact, start: usize, len: usize) -> (Vec<u8>, Vec<bool>) {
    let mut touched = vec![false; artifact.text().len()];
    for reloc in artifact.text_relocs() {
        let at = reloc.offset.get() as usize;
        // Relaxing a slot access, or an address in code, replaces the opcode before the patch site
        // too.
        let before = if matches!(reloc.kind(), RelocKind::X86GotPc32 | RelocKind::Abs64) { 2 } else { 0 };
        touched[at - before..at + reloc.kind().width()].fill(true);
    }
    let touched = touched[start..start + len].to_vec();
    (apply(&artifact.text()[start..start + len], &touched), touched)
}

fn apply(code: &[u8], touched: &[bool]) -> Vec<u8> {
    code.iter().zip(touched).map(|(&byte, &touched)| if touched { 0 } else { byte }).collect()
}

#[test]
fn session_image_and_artifact_hold_the_same_code() {
    GlobalAccess::ALL.into_iter().for_each(compare);
}

fn compare(access: GlobalAccess) {
    let modules = modules();
    let session = session(&modules, access);
    let image = session.image().unwrap();
    let info = ImageInfo::parse(&image).unwrap();
    let file = object::File::parse(&*image).unwrap();
    let text = info.sections.iter().find(|section| &*section.name == ".text").unwrap();

    let mut compared = 0;
    let units = session.jit().units();
    let mut in_memory = units.iter().flat_map(Unit::functions);
    for artifact in &session.artifacts() {
        for function in artifact.functions() {
            let symbol = &artifact.symbols()[function.symbol.get() as usize];
            let name = artifact.name(symbol);
            let (start, len) = (function.start.get() as usize, function.len.get() as usize);
            let (expected, touched) = masked(artifact, start, len);

            let found = in_memory.next().unwrap();
            assert_eq!((found.name, found.size), (name, len));
            // SAFETY: the code is in memory while the session lives.
            let code = unsafe { std::slice::from_raw_parts(found.address, found.size) };
            assert_eq!(apply(code, &touched), expected, "{name} in memory");

            let export = info.exports.iter().find(|export| &*export.name == name);
            if let Some(export) = export.filter(|export| export.kind == SymbolType::Function) {
                let (address, size) = match export.replaceable {
                    None => (export.address, export.size),
                    // The address is that of the stub; the code has a local symbol.
                    Some(_) => {
                        let mut symbols = file.symbols().filter(|symbol| symbol.is_local());
                        let code = symbols.find(|symbol| symbol.name() == Ok(name)).unwrap();
                        (code.address(), code.size())
                    }
                };
                let at = (address - text.address + text.offset) as usize;
                assert_eq!(size as usize, len);
                assert_eq!(apply(&image[at..at + len], &touched), expected, "{name} in the image");
                compared += 1;
            }
        }
    }
    assert!(in_memory.next().is_none());
    assert!(compared >= 40, "only {compared} functions were compared");
}

#[test]
fn an_image_saved_to_a_file_is_the_image_in_memory() {
    let session = session(&modules(), GlobalAccess::Slots);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.so");
    session.save_image(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == session.image().unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_call_inside_a_module_needs_no_relocation() {
    let text = "function %f() system_v { block0: return }
                function %g() system_v { fn0 = %f() system_v block0: call fn0() return }";
    let session = session(&[module("inside", text)], GlobalAccess::Slots);
    assert_eq!(session.artifacts()[0].text_relocs().len(), 0);
}
