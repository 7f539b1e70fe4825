//! Bodies of fuzz targets, one for each reader of bytes that come from elsewhere.
//!
//! They panic when a property does not hold, and are called by `fuzz/` with what libFuzzer finds, and by `tests/oracle/readers.rs` with what
//! [`mutate`](crate::mutate) makes. Where a form has checksums, they are made to fit first, for otherwise nothing behind them would be reached.
//!
//! Properties: a reader ends with what it reads or with an error that has a place, it never panics, what it made is in
//! proportion to what it read, and what was read is written and read again as the same thing.
//!
//! Cranelift's reader and verifier do panic on some input; `kiln_ir` catches that, and names the function. Under libFuzzer every panic
//! ends the process, in the panic hook, before anything can be caught: [`let_cranelift_panic`] installs a hook that
//! lets those pass that come from Cranelift's files, and from nowhere else.

use std::sync::{Arc, LazyLock};

use kiln_artifact::{Artifact, Table};
use kiln_cache::{Entry, Key, Recipe};
use kiln_globals::{GlobalTable, SlotKey};
use kiln_image::{Image, ImageInfo, ImageOptions, verify_bytes, write_image};
use kiln_ir::{Body, Code, Diagnostic, Module, Modules, Source, Target, parse, print};

use crate::forms;

fn target() -> &'static Target {
    static TARGET: LazyLock<Target> =
        LazyLock::new(|| Target::parse("x86_64").expect("a known architecture"));
    &TARGET
}

/// Installs a panic hook that ends the process, unless the panic comes from a file of Cranelift's.
pub fn let_cranelift_panic() {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|place| is_cranelift(place.file())) {
            return;
        }
        show(panic);
        std::process::abort();
    }));
}

/// Installs a panic hook that says nothing about panics from files of Cranelift's, for tests.
pub fn quiet_cranelift() {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| is_cranelift(place.file())) {
            show(panic);
        }
    }));
}

fn is_cranelift(file: &str) -> bool {
    file.split(['/', '\\']).any(|part| part.starts_with("cranelift-"))
}

/// What was made of `length` bytes is not much more than they are.
fn bounded(module: &Module, length: usize) {
    let limit = 64 * length + 4096;
    assert!(module.symbols.len() <= length, "{} symbols of {length} bytes", module.symbols.len());
    let bytes = module.to_bytes().len();
    assert!(bytes <= limit, "{length} bytes became {bytes}");
    let values: usize = module.functions.iter().filter_map(|f| f.ir()).map(|ir| ir.dfg.num_values()).sum();
    assert!(values <= limit, "{length} bytes became {values} values");
}

/// Prints, and reads what is printed.
fn forms(module: &Module) {
    if let Err(difference) = forms::through_text(module, target()) {
        panic!("{difference}");
    }
    if let Err(difference) = forms::through_bytes(module, target()) {
        panic!("{difference}");
    }
    if let Err(difference) = forms::through_ir(module) {
        panic!("{difference}");
    }
}

fn has_place(fault: &Diagnostic, text: &str) {
    let lines: Vec<_> = text.lines().collect();
    let (line, column) = (fault.location.line as usize, fault.location.column as usize);
    assert!(line <= lines.len() + 1, "{fault:?}");
    let line = line.checked_sub(1).and_then(|line| lines.get(line)).unwrap_or(&"");
    assert!(column <= line.chars().count() + 1, "{fault:?} in {line:?}");
    assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{fault:?}");
}

/// Text, as `kiln_ir::parse` reads it.
///
/// # Panics
///
/// When a property does not hold.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse(Arc::new(Source::new("fuzz.clif", text)), target()) {
        Ok(mut module) => {
            bounded(&module, bytes.len());
            forms::only_printable_locations(&mut module);
            forms(&module);
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in &faults {
                has_place(fault, text);
                // A hundred are shown; it takes a pass over the text each.
                assert!(fault.to_string().contains("fuzz.clif"), "{fault:?}");
            }
        }
    }
}

/// Modules in binary form.
///
/// # Panics
///
/// When a property does not hold.
pub fn binary(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    fit_binary(&mut bytes);
    let mut at = 0;
    for read in Modules::new(&bytes[..]) {
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                assert!(error.to_string().starts_with("byte "), "{error}");
                return;
            }
        };
        let written = read.module().to_bytes();
        assert!(bytes[at..].starts_with(&written), "written otherwise than it was read");
        bounded(read.module(), written.len());
        at += written.len();
        read.fingerprint();
        if let Ok(module) = read.verify(target()) {
            // Not everything that Cranelift verifies has a text form, and a module that a client built may hold symbols in
            // another order than text would give them.
            if let Ok(text) = print(&module) {
                let _ = forms::read(&text, target());
            }
            // Bytes that nobody's encoder wrote may number things in another order; what is encoded from them does not.
            let mut encoded = module;
            for function in &mut encoded.functions {
                if let Some(ir) = function.ir() {
                    function.code = Code::Ir(Body::new(&ir).unwrap_or_else(|error| panic!("{error}")));
                }
            }
            if let Err(difference) = forms::through_ir(&encoded) {
                panic!("{difference}");
            }
        }
    }
    assert_eq!(at, bytes.len());
}

/// Makes the lengths and the checksum of the first module fit, if that is what `bytes` begin with.
fn fit_binary(bytes: &mut [u8]) {
    const HEADER: usize = 64;
    if bytes.len() < HEADER || !bytes.starts_with(b"KilnIR\0\0") {
        return;
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let producer = number(8) >> 32;
    let Some(rest) = (bytes.len() as u64 - HEADER as u64).checked_sub(producer) else { return };
    let (content, notes) = (number(16), number(24));
    if content.checked_add(notes) != Some(rest) {
        let content = if content <= rest { content } else { rest.saturating_sub(notes) };
        bytes[16..24].copy_from_slice(&content.to_le_bytes());
        bytes[24..32].copy_from_slice(&(rest - content).to_le_bytes());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..32]);
    hasher.update(&bytes[HEADER..]);
    let sum = *hasher.finalize().as_bytes();
    bytes[32..HEADER].copy_from_slice(&sum);
}

/// An artifact: read, looked at, and linked.
///
/// # Panics
///
/// When a property does not hold.
pub fn artifact(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 24 {
        let len = bytes.len() as u64;
        bytes[16..24].copy_from_slice(&len.to_le_bytes());
    }
    match Artifact::from_bytes(bytes.clone()) {
        Ok(artifact) => {
            assert!(artifact.as_bytes() == bytes);
            look(&artifact);
            link(&artifact);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Everything that an artifact says.
fn look(artifact: &Artifact) {
    let sections: usize = Table::ALL.iter().map(|section| artifact.table_bytes(*section).len()).sum();
    assert!(sections <= artifact.as_bytes().len());
    for symbol in artifact.symbols() {
        let _ = (artifact.name(symbol), symbol.kind(), symbol.linkage());
    }
    for index in 0..artifact.signatures().len() {
        assert!(artifact.signature(index).is_some());
    }
    assert_eq!(artifact.features().count(), artifact.features().len());
    let _ = (artifact.triple(), artifact.producer(), artifact.summary(), artifact.globals().count());
    let relocs = [artifact.text_relocs(), artifact.read_only_relocs(), artifact.writable_relocs()];
    for reloc in relocs.into_iter().flatten() {
        let _ = format!("{reloc:?}");
    }
    let _ = (artifact.unwind(), artifact.cie(), artifact.call_sites(), artifact.handlers());
}

/// An artifact that was accepted is linked, or refused for a reason; an image of it is one.
fn link(artifact: &Artifact) {
    let mut globals = GlobalTable::new();
    artifact.globals().for_each(|key| {
        globals.intern(key);
    });
    match write_image(std::slice::from_ref(artifact), &globals, &ImageOptions::default()) {
        Ok(image) => {
            let info = ImageInfo::parse(&image).unwrap_or_else(|error| panic!("own image: {error}"));
            assert_eq!(info.file_len, image.len() as u64);
            verify_bytes(&image).unwrap_or_else(|error| panic!("own image: {error}"));
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            errors.iter().for_each(|error| assert!(!error.to_string().is_empty()));
        }
    }
}

/// An image: what tools say of it, and what the loader makes of it. Nothing in it is called.
///
/// # Panics
///
/// When a property does not hold.
pub fn image(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    fit_image(&mut bytes);
    let info = ImageInfo::parse(&bytes);
    let _ = verify_bytes(&bytes);
    let Ok(image) = Image::from_bytes(&bytes) else { return };
    let _ = (image.slots(), image.triple(), image.kiln_version(), image.verify());
    let _ = (image.producers().count(), image.features().count());
    let exports = info.map(|info| info.exports).unwrap_or_default();
    for export in &exports {
        let _ = image.signature(&export.name);
    }
    if let Ok(loaded) = image.bind(&|_: &SlotKey| Some(0x1000)) {
        for export in &exports {
            let _ = loaded.address(&export.name);
        }
    }
}

/// Makes the checksums of an image's headers and of its note fit.
fn fit_image(bytes: &mut [u8]) {
    const PREFIX: usize = 20;
    let number = |bytes: &[u8], at: usize| {
        let number = bytes.get(at..at.checked_add(8)?)?;
        usize::try_from(u64::from_le_bytes(number.try_into().ok()?)).ok()
    };
    let sum =
        |bytes: &[u8]| *blake3::hash(bytes).as_bytes().first_chunk::<16>().expect("a hash has 32 bytes");
    let note = (|| {
        let headers = number(bytes, 0x20)?;
        let count = usize::from(u16::from_le_bytes([*bytes.get(0x38)?, *bytes.get(0x39)?]));
        let header = (0..count.min(64)).map(|n| headers.saturating_add(n * 56));
        let note = header
            .filter(|at| bytes.get(*at..at.saturating_add(4)) == Some(&[4, 0, 0, 0]))
            .find_map(|at| Some((number(bytes, at + 8)?, number(bytes, at + 32)?)))?;
        let end = note.0.checked_add(note.1)?;
        (note.1 >= PREFIX + 56 && end <= bytes.len()).then_some((note.0, end))
    })();
    let Some((start, end)) = note else { return };
    let length = (bytes.len() as u64).to_le_bytes();
    let headers = sum(&bytes[..start]);
    let body = &mut bytes[start + PREFIX..end];
    body[32..40].copy_from_slice(&length);
    body[40..56].copy_from_slice(&headers);
    let sum = sum(&body[16..]);
    body[..16].copy_from_slice(&sum);
}

/// An entry of a cache.
///
/// # Panics
///
/// When a property does not hold.
pub fn cache_entry(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let Some(key) = fit_entry(&mut bytes) else { return };
    match Entry::from_bytes(&key, bytes.clone()) {
        Ok(entry) => {
            assert!(entry.to_bytes() == bytes, "written otherwise than it was read");
            assert_eq!(entry.file_len(), bytes.len() as u64);
            assert!(entry.check(&key).is_ok() && entry.recipe.key() == key);
            look(&entry.artifact);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Makes the key, the length and the checksums of an entry fit, and gives the key.
fn fit_entry(bytes: &mut [u8]) -> Option<Key> {
    const HEADER: usize = 104;
    let number = |bytes: &[u8], at: usize| {
        usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
    };
    if bytes.len() < HEADER {
        return None;
    }
    let (recipe, keys) = (number(bytes, 12)?, number(bytes, 48)?);
    if let Some(recipe) = bytes.get(HEADER..HEADER.checked_add(recipe)?)
        && let Ok(recipe) = Recipe::from_bytes(recipe)
    {
        bytes[16..48].copy_from_slice(recipe.key().as_bytes());
    }
    let end = HEADER.checked_add(recipe)?.checked_add(keys.checked_mul(16)?)?;
    let start = end.next_multiple_of(16);
    // The reader does not look at what is between the parts.
    bytes[52..56].fill(0);
    if let Some(padding) = bytes.get_mut(end..start) {
        padding.fill(0);
    }
    if let Some(artifact) = bytes.len().checked_sub(start) {
        bytes[56..64].copy_from_slice(&(artifact as u64).to_le_bytes());
    }
    let sum = *blake3::hash(&bytes[HEADER..]).as_bytes();
    bytes[64..96].copy_from_slice(&sum);
    let sum = blake3::hash(&bytes[..96]);
    bytes[96..HEADER].copy_from_slice(&sum.as_bytes()[..8]);
    bytes[16..48].iter().map(|byte| format!("{byte:02x}")).collect::<String>().parse().ok()
}
