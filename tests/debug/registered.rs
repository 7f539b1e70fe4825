//! The files that debuggers are told about loaded images, read from the list of the interface.

use kiln::globals::Bindings;
use kiln::image::{DebugInfo, Debugger, Image, ImageInfo, Loaded, bind_function, dwarf};
use libtest_mimic::Failed;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::memory::host;
use crate::program::{PROGRAM, compiled, linked, module, with_debug};

/// An entry of the list; the layout is the interface's.
#[repr(C)]
struct Entry {
    next: *const Entry,
    previous: *const Entry,
    file: *const u8,
    len: u64,
}

/// The list.
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *const Entry,
    first: *const Entry,
}

unsafe extern "C" {
    static __jit_debug_descriptor: Descriptor;
}

/// Returns the files in the list. Only this test adds some.
fn registered() -> Vec<&'static [u8]> {
    // SAFETY: no other thread changes the list, and the result is used before it changes.
    unsafe {
        let mut entry = (&raw const __jit_debug_descriptor.first).read();
        let mut files = Vec::new();
        while let Some(at) = entry.as_ref() {
            files.push(std::slice::from_raw_parts(at.file, at.len as usize));
            entry = at.next;
        }
        files
    }
}

fn bound(image: Image) -> Result<Loaded, Failed> {
    let mut bindings = Bindings::new();
    bind_function(&mut bindings, "host", host as extern "C" fn(i64) -> i64);
    Ok(image.debugger(Debugger::Any).bind(&bindings)?)
}

/// The DWARF of a loaded image is that of the same code in memory, byte for byte. The file has the
/// functions and the unwind rows, and is forgotten with the image. Altered sections are read or
/// left out.
pub(crate) fn loaded_image() -> Result<(), Failed> {
    let target = kiln::ir::Target::host();
    let other = PROGRAM.replace("%work", "%other").replace("%square", "%cube");
    let texts = [("program.clif", PROGRAM), ("other.clif", &other)];
    let modules: Result<Vec<_>, _> =
        texts.iter().map(|(name, text)| module(name, text, "/src", &target)).collect();
    let artifacts = compiled(&modules?, &target)?;
    let bytes = linked(&artifacts, &with_debug(DebugInfo::InImage))?.image;

    let loaded = bound(Image::from_bytes(&bytes)?)?;
    let [file] = *registered() else { return Err("not one file".into()) };
    let file = object::File::parse(file)?;
    let text = loaded.text().start as u64;
    let functions: Vec<_> = loaded.code_tables().ok_or("no tables")?.functions().collect();
    let mut code = Vec::new();
    for (number, artifact) in artifacts.iter().enumerate() {
        let first = functions.iter().find(|function| function.module() == Some(number as u32));
        let first = first.ok_or("a module without functions")?;
        let own_start = artifact.functions()[0].start.get();
        code.push(dwarf::Code { artifact, address: text + u64::from(first.start() - own_start) });
    }
    let expected = dwarf::sections(&code)?;
    assert_eq!(expected.len(), dwarf::NAMES.len());
    for section in expected.iter().filter(|section| !section.bytes.is_empty()) {
        let found = file.section_by_name(section.name).ok_or("a section is missing")?;
        assert!(found.data()? == section.bytes, "{} differs", section.name);
    }
    let mut symbols: Vec<_> =
        file.symbols().map(|symbol| (symbol.address(), symbol.name().unwrap_or("").to_owned())).collect();
    symbols.sort_unstable();
    let mut names: Vec<_> = functions
        .iter()
        .map(|function| (text + u64::from(function.start()), function.name().to_owned()))
        .collect();
    names.sort_unstable();
    assert_eq!(symbols, names);
    // The rows are those in memory, at their address.
    let rows = loaded.eh_frame().ok_or("no rows")?;
    let rows = rows.start as u64..rows.end as u64;
    let found = file.section_by_name(".eh_frame").ok_or("no rows")?;
    assert_eq!((found.address(), found.size()), (rows.start, rows.end - rows.start));
    // SAFETY: the image is loaded.
    let in_memory = unsafe { std::slice::from_raw_parts(rows.start as *const u8, found.size() as usize) };
    assert!(found.data()? == in_memory);
    drop(loaded);
    assert!(registered().is_empty());
    altered(&bytes)
}

/// Alters each byte of the sections, and of their headers, in turn.
fn altered(bytes: &[u8]) -> Result<(), Failed> {
    let info = ImageInfo::parse(bytes)?;
    let sections = info.sections.iter().filter(|section| section.name.starts_with(".debug_"));
    let mut places: Vec<usize> = sections
        .flat_map(|section| section.offset as usize..(section.offset + section.size) as usize)
        .collect();
    places.extend(u64::from_le_bytes(bytes[40..48].try_into()?) as usize..bytes.len());
    let mut left_out = 0;
    for at in places {
        for value in [0, bytes[at] ^ 1, 0x7f, 0xff] {
            let mut altered = bytes.to_vec();
            altered[at] = value;
            let Ok(image) = Image::from_bytes(&altered) else { continue };
            let loaded = bound(image)?;
            let [file] = *registered() else { return Err("not one file".into()) };
            left_out += usize::from(object::File::parse(file)?.section_by_name(".debug_info").is_none());
            drop(loaded);
        }
    }
    assert!(left_out > 100, "{left_out} of the altered sections were left out");
    Ok(())
}
