//! Comparison C, for images of 1, 10 and 100 MB of code: the time should not depend on it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln::artifact::record::{FunctionRecord, Linkage, SectionKind, Str, Summary, SymbolKind, SymbolRecord};
use kiln::artifact::{Artifact, Contents};
use kiln::globals::GlobalTable;
use kiln::image::{Image, ImageOptions, save, write_image};

use super::{Library, dlsym, map_file, open_and_close};
use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// Bytes of a function.
const SIZE: usize = 400;
/// Numbers of functions, and names of the images.
const IMAGES: [(usize, &str); 3] =
    [(2_500, "1 MB of code"), (25_000, "10 MB of code"), (250_000, "100 MB of code")];

/// Measures the opening of generated images.
pub(crate) fn compare(setup: &Setup, folder: &Path) -> Result<Vec<Comparison>, Failure> {
    IMAGES.into_iter().map(|(count, name)| compare_one(setup, folder, count, name)).collect()
}

fn compare_one(setup: &Setup, folder: &Path, count: usize, name: &str) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(name, "C. opening a generated image (median of 200 in each round)");
    let path = folder.join(format!("functions-{count}.kiln"));
    save_functions(count, &path)?;
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let parts: &[&str] = &["open", "close"];
    let bound = || Ok(Image::open(&path)?.bind_array(&[])?);
    let called = || {
        let loaded = Image::open(&path)?.bind_array(&[])?;
        loaded.function("function_1").ok_or("no function")?;
        Ok(loaded)
    };
    let looked_up = || {
        let library = Library::open(&c_path)?;
        // SAFETY: the handle is open, and the name is a C string.
        let found = unsafe { dlsym(library.0, c"function_1".as_ptr()) };
        if found.is_null() { Err("no function".into()) } else { Ok(library) }
    };
    let (kiln, first) = ("kiln: open, bind, drop", "kiln: the same with one look-up");
    let (peer, peer_first) = ("dlopen(RTLD_NOW), dlclose", "dlopen, dlsym, dlclose");
    let nothing = "nothing: open, mmap, munmap";
    comparison.add(interleave(
        setup.rounds,
        vec![
            Contender::in_parts(kiln, parts, || open_and_close(bound)),
            Contender::in_parts(first, parts, || open_and_close(called)),
            Contender::in_parts(peer, parts, || open_and_close(|| Library::open(&c_path))),
            Contender::in_parts(peer_first, parts, || open_and_close(looked_up)),
            Contender::in_parts(nothing, parts, || open_and_close(|| map_file(&path))),
        ],
    )?);
    comparison.ratio(kiln, peer, Goal::AtMost(0.5));
    comparison.ratio(kiln, nothing, Goal::AtMost(2.5));
    comparison.ratio(first, peer_first, Goal::None);
    comparison.note("the first look-up checks and registers the unwind rows of all functions".to_owned());
    comparison.check(format!("{count} functions; both loaders find one by its name"));
    Ok(comparison)
}

/// Writes an image that exports functions `function_0`, `function_1` and so on, whose code is not
/// called.
pub(super) fn save_functions(count: usize, path: &Path) -> Result<(), Failure> {
    let image = write_image(&[functions(count)?], &GlobalTable::new(), &ImageOptions::default());
    Ok(save(path, &image.map_err(|errors| errors[0].to_string())?)?)
}

/// Assembles functions of traps, since to compile as many would take minutes.
fn functions(count: usize) -> Result<Artifact, Failure> {
    let triple = kiln::ir::Target::host().triple().to_string();
    let mut contents = Contents::default();
    let (triple, producer) = (contents.string(&triple), contents.string("benches/peers"));
    let align = 16.into();
    contents.summary = Summary {
        triple,
        producer,
        text_align: align,
        read_only_align: align,
        writable_align: align,
        zeroed_align: align,
        ..Summary::default()
    };
    // Code alignment 1, data alignment -8, return address 16; CFA = rsp + 8, return address there.
    contents.cie =
        [0x14, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0]
            .to_vec();
    let signature: Str = contents.string("() system_v");
    contents.signatures.push(signature);
    contents.text = vec![0xcc; count * SIZE];
    for number in 0..count {
        let start = number * SIZE;
        let name = contents.string(&format!("function_{number}"));
        contents.symbols.push(SymbolRecord {
            name,
            offset: (start as u64).into(),
            size: (SIZE as u64).into(),
            signature: 0.into(),
            kind: SymbolKind::Function as u8,
            linkage: Linkage::Export as u8,
            section: SectionKind::Text as u8,
            libcall: 0,
        });
        let rows = u32::try_from(contents.unwind.len())?;
        contents.unwind.extend([0x41, 0x0e, 0x10]); // advance 1; CFA offset 16
        contents.functions.push(FunctionRecord {
            symbol: u32::try_from(number)?.into(),
            start: u32::try_from(start)?.into(),
            len: u32::try_from(SIZE)?.into(),
            unwind_start: rows.into(),
            unwind_len: 3.into(),
            align: 1.into(),
            ..FunctionRecord::default()
        });
    }
    Ok(contents.finish())
}
