//! The bodies of the fuzz targets, one for each reader of untrusted bytes.
//!
//! They panic when a property does not hold. `fuzz/` calls them with inputs from libFuzzer, and
//! `tests/oracle/readers.rs` with inputs from [`mutate`](crate::mutate). If a format has checksums,
//! they are corrected first; otherwise the reader would refuse nearly every input at the checksum.
//!
//! Properties: a reader returns a result or an error with a location, and never panics. The size of
//! the result is in proportion to the size of the input. A result that is written and read again is
//! the same.
//!
//! Cranelift's reader and verifier do panic on some input; `kiln_ir` catches that, and names the
//! function. Under libFuzzer every panic ends the process, in the panic hook, before it can be
//! caught: [`let_cranelift_panic`] installs a hook that ignores the panics from Cranelift's files,
//! and no others.

mod fit;

use std::sync::{Arc, LazyLock};

use kiln_artifact::{Artifact, Table};
use kiln_cache::Entry;
use kiln_globals::{GlobalTable, SlotKey};
use kiln_image::code::{CodeTables, Function, Location, name_of_stub};
use kiln_image::keys::Signer;
use kiln_image::link::{LeanOptions, Level, Roots, join_levels, lean};
use kiln_image::{
    Debugger, EmbeddedArtifacts, GlobalSymbols, Image, ImageInfo, ImageOptions, ImageSignature, LoadError,
    ObjectOptions, Trust, content_hash, image_signatures, sign_image, verify_bytes, verify_signed_bytes,
    write_image, write_object,
};
use kiln_ir::{Body, Code, Diagnostic, Module, Modules, Source, Target, parse, parse_unverified, print};

pub use self::fit::fit_image;
use self::fit::{fit_artifact, fit_binary, fit_code_tables, fit_entry};
use crate::forms;

fn target() -> &'static Target {
    static TARGET: LazyLock<Target> =
        LazyLock::new(|| Target::parse("x86_64").expect("a known architecture"));
    &TARGET
}

/// Installs a panic hook that ends the process, unless the panic comes from one of Cranelift's
/// files.
pub fn let_cranelift_panic() {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|location| is_cranelift(location.file())) {
            return;
        }
        show(panic);
        std::process::abort();
    }));
}

/// Installs a panic hook that prints nothing for panics from Cranelift's files. It is for tests.
pub fn quiet_cranelift() {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| is_cranelift(location.file())) {
            show(panic);
        }
    }));
}

fn is_cranelift(file: &str) -> bool {
    file.split(['/', '\\']).any(|part| part.starts_with("cranelift-"))
}

/// Asserts that the size of a module is in proportion to the `length` bytes that it was read from.
fn bounded(module: &Module, length: usize) {
    let limit = 64 * length + 4096;
    assert!(module.symbols.len() <= length, "{} symbols of {length} bytes", module.symbols.len());
    let bytes = module.to_bytes().len();
    assert!(bytes <= limit, "{length} bytes became {bytes}");
    let values: usize = module.functions.iter().filter_map(|f| f.ir()).map(|ir| ir.dfg.num_values()).sum();
    assert!(values <= limit, "{length} bytes became {values} values");
}

/// Asserts that the module survives a round trip through each of its forms.
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

fn has_location(fault: &Diagnostic, text: &str) {
    let lines: Vec<_> = text.lines().collect();
    let (line, column) = (fault.location.line as usize, fault.location.column as usize);
    assert!(line <= lines.len() + 1, "{fault:?}");
    let line = line.checked_sub(1).and_then(|line| lines.get(line)).unwrap_or(&"");
    assert!(column <= line.chars().count() + 1, "{fault:?} in {line:?}");
    assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{fault:?}");
}

/// Reads the input as text with `kiln_ir::parse`, and without the verifier.
///
/// # Panics
///
/// If a property does not hold.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Arc::new(Source::new("fuzz.clif", text));
    let read = parse(source.clone(), target());
    unverified(source, read.as_ref().ok());
    match read {
        Ok(mut module) => {
            bounded(&module, bytes.len());
            forms::only_printable_locations(&mut module);
            forms(&module);
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in &faults {
                has_location(fault, text);
                // To show a diagnostic takes a pass over the text.
                assert!(fault.to_string().contains("fuzz.clif"), "{fault:?}");
            }
        }
    }
}

/// Reads text without the verifier. Verifying it afterwards gives the module that `parse` reads.
fn unverified(source: Arc<Source>, module: Option<&Module>) {
    match parse_unverified(source, target()) {
        Ok(read) => {
            let _ = print(read.module());
            for function in &read.module().functions {
                function.ir();
            }
            match (read.verify(target()), module) {
                (Ok(verified), Some(module)) => assert!(verified.fingerprint() == module.fingerprint()),
                (verified, module) => assert!(verified.is_ok() == module.is_some(), "{verified:?}"),
            }
        }
        Err(faults) => assert!(!faults.is_empty() && module.is_none(), "{faults:?}"),
    }
}

/// Reads the input as modules in binary form.
///
/// # Panics
///
/// If a property does not hold.
pub fn binary(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    fit_binary(&mut bytes);
    let mut offset = 0;
    for read in Modules::new(&bytes[..]) {
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                assert!(error.to_string().starts_with("byte "), "{error}");
                return;
            }
        };
        let written = read.module().to_bytes();
        assert!(bytes[offset..].starts_with(&written), "written otherwise than it was read");
        bounded(read.module(), written.len());
        offset += written.len();
        read.fingerprint();
        if let Ok(module) = read.verify(target()) {
            // Some modules that Cranelift verifies have no text form, and the text of others gives
            // the symbols another order. So the module that is read from the text is not compared.
            if let Ok(text) = print(&module) {
                let _ = forms::read(&text, target());
            }
            // The code is encoded first, because altered bytes may number values in an order that
            // the encoder does not use.
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
    assert_eq!(offset, bytes.len());
}

/// Reads the input as an artifact, uses all its accessors, and links it.
///
/// # Panics
///
/// If a property does not hold.
pub fn artifact(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    fit_artifact(&mut bytes);
    match Artifact::from_bytes(bytes.clone()) {
        Ok(artifact) => {
            assert!(artifact.as_bytes() == bytes);
            use_accessors(&artifact);
            link(&artifact);
            take_apart(&artifact);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Makes the artifact leaner in every way, writes objects of it, and joins it with itself.
fn take_apart(artifact: &Artifact) {
    let artifacts = std::slice::from_ref(artifact);
    let levels = ["low", "high"].map(|name| Level { name, artifacts });
    if let Ok(joined) = join_levels(&levels) {
        assert_eq!(joined.table.functions(), 0, "nothing differs from itself");
    }
    let symbols = artifact.symbols().iter().rev();
    let order: Vec<Box<str>> = symbols.step_by(2).map(|symbol| artifact.name(symbol).into()).collect();
    let whole = LeanOptions { fold: true, order: order.clone(), ..LeanOptions::default() };
    for options in [whole.clone(), LeanOptions { roots: Some(Roots::Exports), ..whole }] {
        let Ok(lean) = lean(std::slice::from_ref(artifact), &options) else { continue };
        let size: usize = lean.artifacts.iter().map(|part| part.as_bytes().len()).sum();
        // A part has the tables of the module that it needs, and its own head.
        let limit = 64 * artifact.as_bytes().len() + 4096 * lean.artifacts.len();
        assert!(size <= limit, "{} bytes became {size}", artifact.as_bytes().len());
        assert!(order.iter().all(|name| lean.why_kept(name).is_none_or(|ways| ways.len() < limit)));
        for globals in [GlobalSymbols::default(), GlobalSymbols::Named] {
            let options = ObjectOptions { globals, ..ObjectOptions::default() };
            if let Ok(object) = write_object(&lean.artifacts, &GlobalTable::new(), &options) {
                assert!(object.len() <= limit + (1 << 19), "{} bytes became an object", object.len());
            }
        }
    }
}

/// Uses every accessor of an artifact.
fn use_accessors(artifact: &Artifact) {
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

/// Asserts that an artifact that the reader accepted links to a valid image, or that the linker
/// refuses it with an error.
fn link(artifact: &Artifact) {
    let mut globals = GlobalTable::new();
    artifact.globals().for_each(|key| {
        globals.intern(key);
    });
    match write_image(std::slice::from_ref(artifact), &globals, &ImageOptions::default()) {
        Ok(image) => {
            let info = ImageInfo::parse(&image).unwrap_or_else(|error| panic!("own image: {error}"));
            assert_eq!(info.file_len, image.len() as u64);
            // The image is limited to a multiple of the artifact's size, because an image has a
            // bounded number of bytes for each record of the artifact. The constant is for padding,
            // because every segment begins on a page of its own.
            let limit = 64 * artifact.as_bytes().len() + (1 << 19);
            assert!(image.len() <= limit, "{} bytes became {}", artifact.as_bytes().len(), image.len());
            verify_bytes(&image).unwrap_or_else(|error| panic!("own image: {error}"));
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            errors.iter().for_each(|error| assert!(!error.to_string().is_empty()));
        }
    }
}

/// Reads the input as an image, with the reader for tools and with the loader. Calls nothing in it.
///
/// # Panics
///
/// If a property does not hold.
pub fn image(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    fit_image(&mut bytes);
    let info = ImageInfo::parse(&bytes);
    let _ = verify_bytes(&bytes);
    signatures_of(&bytes);
    if let Ok(embedded) = EmbeddedArtifacts::of_image(&bytes) {
        let size: usize = embedded.modules.iter().map(|module| module.artifact.as_bytes().len()).sum();
        assert!(size <= 257 * bytes.len(), "{} bytes became {size}", bytes.len());
    }
    let Ok(image) = Image::from_bytes(&bytes) else { return };
    let _ = (image.slots(), image.triple(), image.kiln_version(), image.verify());
    let _ = (image.producers().count(), image.features().count());
    let exports = info.map(|info| info.exports).unwrap_or_default();
    for export in &exports {
        let _ = image.signature(&export.name);
    }
    // The code for every level that this machine has.
    let levels: Vec<String> = image.cpu_levels().map(str::to_owned).collect();
    for level in levels {
        let chosen = Image::from_bytes(&bytes).and_then(|image| image.with_cpu_level(&level));
        let _ = chosen.and_then(|image| image.bind(&|_: &SlotKey| Some(0x1000)));
    }
    // Debuggers are told, although nobody is there, so that all sections are read.
    if let Ok(loaded) = image.debugger(Debugger::Any).bind(&|_: &SlotKey| Some(0x1000)) {
        for export in &exports {
            let _ = loaded.address(&export.name);
        }
        // The tables may be anything: they are not checked when an image is loaded.
        let text = loaded.text();
        for at in (0..4096).map(|at| text.start.wrapping_add(at)).take_while(|at| *at < text.end) {
            let _ = loaded.locate(at).map(|place| (place.name(), place.line(), place.trap()));
            let _ = loaded.locate_call(at).map(|place| (place.call(), place.stack_map()));
        }
    }
}

/// Reads the signatures of an image, and signs it. Nobody signed what the fuzzer made, so none is
/// accepted before.
fn signatures_of(bytes: &[u8]) {
    let signer = Signer::from_seed(&[7; 32]);
    let trust = Trust::new([signer.public()]);
    let found = image_signatures(bytes);
    assert!(found.is_err() || found.is_ok_and(|found| found.len() <= bytes.len() / 64));
    let refused = verify_signed_bytes(bytes, &trust);
    assert!(refused.is_err(), "{refused:?}");
    let opened = Image::from_bytes_verified(bytes, &trust);
    assert!(opened.is_err());
    let mut signed = bytes.to_vec();
    if sign_image(&mut signed, &signer).is_ok() {
        let content = content_hash(bytes).expect("it was signed");
        assert_eq!(content_hash(&signed).expect("it was signed"), content);
        assert_eq!(verify_signed_bytes(&signed, &trust).expect("the signature is right"), [signer.public()]);
        // It may be refused for other reasons, but not for its signature.
        if let Err(LoadError::Untrusted(error)) = Image::from_bytes_verified(&signed, &trust) {
            panic!("{error}");
        }
    }
}

/// Reads the input as a file of signatures of an image, and as one of keys.
///
/// # Panics
///
/// If what is read is printed and read again, and is not the same.
pub fn signatures(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(read) = ImageSignature::parse_list(text) {
        let known = read.iter().filter(|one| one.algorithm == kiln_image::Algorithm::Ed25519);
        for one in known {
            assert_eq!(
                ImageSignature::parse_list(&one.to_string()).as_deref(),
                Ok(std::slice::from_ref(one))
            );
        }
        assert!(read.len() <= text.lines().count());
    }
    if let Ok(keys) = kiln_image::keys::PublicKey::parse_list(text) {
        for key in keys {
            assert_eq!(kiln_image::keys::PublicKey::parse_list(&key.to_string()), Ok(vec![key]));
        }
    }
    let _ = Signer::parse(text);
}

/// Joins two images to an input of [`layer`].
pub fn join_images(base: &[u8], layer: &[u8]) -> Vec<u8> {
    [&(base.len() as u32).to_le_bytes(), base, layer].concat()
}

/// Reads the input as an image and a layer on it, or on anything, and binds both: the length of the
/// first as four bytes, the first, the second. Calls nothing in them.
///
/// # Panics
///
/// If a property does not hold.
pub fn layer(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk() else { return };
    let len = u32::from_le_bytes(*len) as usize;
    let Some((base, layer)) = rest.split_at_checked(len) else { return };
    let open = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        fit_image(&mut bytes);
        Image::from_bytes(&bytes)
    };
    let resolve = |_: &SlotKey| Some(0x1000);
    let (Ok(base), Ok(layer)) = (open(base), open(layer)) else { return };
    let Ok(base) = base.named(BASE).bind(&resolve) else { return };
    let base = [Arc::new(base)];
    // Of a function, the code in force, whichever the layer replaces.
    let functions = || base[0].functions().filter_map(|f| base[0].locate(f.address())).count();
    let before = functions();
    let _ = (layer.bases().count(), layer.id());
    match layer.allow_other_bases(true).bind_on(&base, &resolve) {
        Ok(layer) => {
            let _ = (layer.exports().count(), layer.bases().len(), functions());
            drop(layer);
            assert_eq!(functions(), before, "what a layer replaced is as it was");
        }
        Err(error) => assert!(error.to_string().len() < 1 << 20, "a message of bounded length"),
    }
}

/// The name of the base of the layers that [`layer`] reads.
pub const BASE: &str = "base.so";

/// Reads the input as code tables: asks for everything that is known about places in it.
///
/// # Panics
///
/// If an answer has more parts than the input has bytes.
pub fn code_tables(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    fit_code_tables(&mut bytes);
    let Some(tables) = CodeTables::read(&bytes) else { return };
    let ask = |function: Function<'_>, at: u32| {
        let _ = (function.name(), function.module_name(), function.source_at(at), function.trap_at(at));
        assert!(function.is_stub() || function.slot().is_none(), "only stubs have slots");
        assert!(name_of_stub(&function).len() <= bytes.len() + 4, "a name is not longer than the tables");
        let handlers = function.call_at(at).map_or(0, |call| call.handlers().count());
        let roots = function.stack_map_at(at).map_or(0, |map| map.roots().count());
        assert!(handlers.max(roots) <= bytes.len(), "{handlers} handlers, {roots} roots");
    };
    let (mut count, mut stubs) = (0, 0);
    for function in tables.functions().chain(tables.stubs()) {
        *(if function.is_stub() { &mut stubs } else { &mut count }) += 1;
        let (start, len) = (function.start(), function.len());
        for at in [start, start + len / 3, start + len / 2, start + len] {
            ask(function, at);
            tables.find(at).into_iter().for_each(|found| {
                assert!(found.start() <= at && at < found.start() + found.len(), "{at} is not in {found:?}");
                ask(found, at);
            });
        }
    }
    assert!(count + stubs <= bytes.len(), "{count} functions, {stubs} stubs of {} bytes", bytes.len());
    let sizes = tables.sizes();
    assert!(sizes.functions == count && sizes.total == bytes.len(), "{sizes:?}");
    for at in (0..2000).step_by(61).chain([u32::MAX]) {
        tables.find(at).into_iter().for_each(|function| ask(function, at));
        for find in [Location::find, Location::find_call, Location::find_through_stub] {
            let _ = find(tables, 0, at.into()).map(|place| (place.line(), place.trap(), place.offset()));
        }
    }
}

/// Reads the input as a cache entry.
///
/// # Panics
///
/// If a property does not hold.
pub fn cache_entry(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let Some(key) = fit_entry(&mut bytes) else { return };
    match Entry::from_bytes(&key, bytes.clone()) {
        Ok(entry) => {
            assert!(entry.to_bytes() == bytes, "written otherwise than it was read");
            assert_eq!(entry.file_len(), bytes.len() as u64);
            assert!(entry.check(&key).is_ok() && entry.recipe.key() == key);
            use_accessors(&entry.artifact);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
