//! The files of an image with debug information.

use std::path::Path;

use kiln::image::code::Location;
use kiln::image::{DebugInfo, Image, ImageInfo, ImageOptions, save, verify_bytes};
use libtest_mimic::Failed;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::program::{linked, program, with_debug};
use crate::tools::run;

const DEBUG_SECTIONS: [&str; 4] = [".debug_abbrev", ".debug_info", ".debug_line", ".debug_loclists"];

fn sections(file: &object::File<'_>) -> Vec<String> {
    file.sections().filter_map(|section| Some(section.name().ok()?.to_owned())).collect()
}

/// A file beside the image has what the image would have, and the two find each other.
pub(crate) fn separate() -> Result<(), Failed> {
    let artifacts = program(Path::new("/src"))?;
    let whole = linked(&artifacts, &with_debug(DebugInfo::InImage))?.image;
    let files = linked(&artifacts, &with_debug(DebugInfo::Separate("program.debug".into())))?;
    let debug = files.debug.ok_or("no file")?;
    verify_bytes(&files.image)?;
    let (whole, image, debug_file) =
        (object::File::parse(&*whole)?, object::File::parse(&*files.image)?, object::File::parse(&*debug)?);
    let data = |file: &object::File<'_>, name: &str| -> Vec<u8> {
        let section = file.section_by_name(name);
        section.and_then(|section| section.data().map(<[u8]>::to_vec).ok()).unwrap_or_default()
    };
    for name in DEBUG_SECTIONS {
        assert!(!sections(&image).iter().any(|own| own == name), "{name}");
        // Names of sections take room, but not so much that the code would move.
        assert!(!data(&whole, name).is_empty() && data(&whole, name) == data(&debug_file, name), "{name}");
    }
    let id = image.build_id()?.ok_or("no build id")?;
    assert!(id.len() == 20 && id != [0; 20] && debug_file.build_id()? == Some(id));
    let (name, sum) = image.gnu_debuglink()?.ok_or("no link")?;
    assert_eq!((name, sum), (&b"program.debug"[..], crc32(&debug)));
    // Symbols refer to sections by number, which are the same in both files.
    let symbols = |file: &object::File<'_>| -> Vec<(String, u64, Option<String>)> {
        let section = |symbol: &object::Symbol<'_, '_>| {
            let index = symbol.section_index()?;
            Some(file.section_by_index(index).ok()?.name().ok()?.to_owned())
        };
        let all = file
            .symbols()
            .map(|symbol| (symbol.name().unwrap_or("").to_owned(), symbol.address(), section(&symbol)));
        all.collect()
    };
    assert_eq!(symbols(&image), symbols(&debug_file));
    assert!(
        symbols(&image)
            .iter()
            .any(|(name, _, section)| name == "work" && section.as_deref() == Some(".text"))
    );
    let loaded = |file: &object::File<'_>| -> Vec<(String, u64, u64)> {
        let all = file.sections().filter(|section| section.address() != 0);
        all.map(|section| (section.name().unwrap_or("").to_owned(), section.address(), section.size()))
            .collect()
    };
    assert_eq!(loaded(&image), loaded(&debug_file));
    // Another program has another id.
    let other = linked(&program(Path::new("/other"))?, &with_debug(DebugInfo::Separate("x".into())))?;
    assert_ne!(object::File::parse(&*other.image)?.build_id()?.map(<[u8]>::to_vec), Some(id.to_vec()));
    Ok(())
}

/// CRC-32 as the link has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 != 0 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

/// A stripped image has dynamic symbols only, and no option changes code or tables that are loaded.
pub(crate) fn stripped() -> Result<(), Failed> {
    let artifacts = program(Path::new("/src"))?;
    let plain = linked(&artifacts, &ImageOptions::default())?.image;
    let strip = |debug| ImageOptions { strip: true, ..with_debug(debug) };
    let stripped = linked(&artifacts, &strip(DebugInfo::None))?.image;
    let both = linked(&artifacts, &strip(DebugInfo::InImage))?.image;
    verify_bytes(&stripped)?;
    verify_bytes(&both)?;
    let read = |bytes: &'static [u8]| object::File::parse(bytes);
    let leak = |bytes: Vec<u8>| -> &'static [u8] { bytes.leak() };
    let (plain, stripped, both) = (leak(plain), leak(stripped), leak(both));
    let names = sections(&read(stripped)?);
    assert!(!names.iter().any(|name| [".symtab", ".strtab"].contains(&&**name)), "{names:?}");
    assert!(sections(&read(plain)?).iter().any(|name| name == ".symtab"));
    assert!(stripped.len() < plain.len());
    let exports = |bytes: &[u8]| ImageInfo::parse(bytes).map(|info| info.exports.len());
    assert_eq!((exports(stripped)?, exports(both)?), (exports(plain)?, exports(plain)?));
    let names = sections(&read(both)?);
    assert!(names.iter().any(|name| name == ".debug_line") && !names.iter().any(|name| name == ".symtab"));
    let code = |bytes: &'static [u8]| -> Result<Vec<u8>, Failed> {
        Ok(read(bytes)?.section_by_name(".text").ok_or("no code")?.data()?.to_vec())
    };
    assert!(code(plain)? == code(stripped)? && code(plain)? == code(both)?);
    // Without lines there is nothing to write, and the image still has its sections.
    let bare = kiln::ir::parse(
        kiln::ir::Source::new("bare.clif", crate::program::PROGRAM).into(),
        &kiln::ir::Target::host(),
    );
    let bare = bare.map_err(|faults| faults[0].to_string())?;
    let bare = crate::program::compiled(&[bare], &kiln::ir::Target::host())?;
    let bare = linked(&bare, &with_debug(DebugInfo::InImage))?.image;
    verify_bytes(&bare)?;
    Ok(())
}

/// `strip` takes away names and lines of debuggers, and nothing of what `locate` says.
pub(crate) fn located_after_strip() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("program.so");
    let options = ImageOptions { module_names: vec!["program".into()], ..with_debug(DebugInfo::InImage) };
    save(&path, &linked(&program(Path::new("/src"))?, &options)?.image)?;
    let places = || -> Result<Vec<String>, Failed> {
        let info = ImageInfo::parse(&std::fs::read(&path)?)?;
        let loaded = Image::open(&path)?.bind_array(&[1])?;
        let text = loaded.text();
        let len = text.end.addr() - text.start.addr();
        let place = |at: usize| {
            let loaded = loaded.locate(text.start.wrapping_add(at));
            let read = info.locate(info.text() + at as u64);
            let shown = |place: Location<'_>| {
                let line = place.line().map(|line| (line.file, line.directory, line.line, line.column));
                format!("{:?} {:?} {} {line:?}", place.module_name(), place.name(), place.offset())
            };
            let (loaded, read) = (loaded.map(shown), read.map(shown));
            assert_eq!(loaded, read, "{at}");
            loaded.unwrap_or_default()
        };
        Ok((0..len).map(place).collect())
    };
    let before = places()?;
    let len = std::fs::metadata(&path)?.len();
    run("strip", &["program.so"], folder.path())?;
    assert!(std::fs::metadata(&path)?.len() < len && places()? == before);
    let mut lines = before.iter().filter(|place| place.starts_with("Some(\"program\") \"work\""));
    assert!(lines.any(|place| place.ends_with("Some((\"program.clif\", \"/src\", 14, 5))")));
    Ok(())
}

/// Other readers of DWARF find no fault.
pub(crate) fn verified() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let artifacts = program(Path::new("/src"))?;
    let whole = linked(&artifacts, &with_debug(DebugInfo::InImage))?.image;
    let files = linked(&artifacts, &with_debug(DebugInfo::Separate("program.debug".into())))?;
    save(folder.path().join("whole.so"), &whole)?;
    save(folder.path().join("program.so"), &files.image)?;
    save(folder.path().join("program.debug"), &files.debug.ok_or("no file")?)?;
    for name in ["whole.so", "program.debug"] {
        let text = run("llvm-dwarfdump", &["--verify", name], folder.path())?;
        assert!(text.contains("No errors."), "{text}");
        let text = run("readelf", &["--debug-dump=decodedline", "--wide", name], folder.path())?;
        assert!(text.contains("program.clif") && !text.to_lowercase().contains("warning"), "{text}");
        let text = run("readelf", &["--debug-dump=info", "--debug-dump=loc", "-SW", name], folder.path())?;
        assert!(text.contains("DW_OP_fbreg") && !text.to_lowercase().contains("warning"), "{text}");
    }
    Ok(())
}
