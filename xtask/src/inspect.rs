//! `inspect`: shows the contents of an image.
//!
//! Exports and slots share their types, and ranges of code their files; both can be long. So they
//! are cut, or what is printed could be thousands of times as long as the image.

mod lines;
mod shown;
mod signed;
mod sizes;

use std::path::PathBuf;

use kiln::globals::SlotKey;
use kiln::image::{ImageInfo, SymbolType, VersionInfo, read_image, verify_bytes};
use serde_json::json;

use self::shown::{IN_JSON, IN_TEXT, shown};
use self::signed::Signed;
use crate::input;
use crate::no_image::no_image;
use crate::output::{Format, Outcome, bytes, name, print_json};
use crate::sign::TrustArgs;

/// Check everything that an image loads, and show its sections, exports and slots, and the images
/// that it is a layer on.
///
/// Works for images of every architecture. Types and names of files are cut after 200 bytes, in
/// JSON after 4096.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask inspect program.so
  cargo xtask inspect program.so --sizes
  cargo xtask inspect program.so --lines
  cargo xtask inspect program.so --verify release.pub
  cargo xtask inspect program.so --format json")]
pub(crate) struct InspectArgs {
    /// The image; `-` is standard input
    image: PathBuf,
    /// Show only what takes the bytes: sections, modules and functions, the largest first, and the
    /// parts of the code tables. JSON has all of them, text the 20 largest of each
    #[arg(long, conflicts_with = "lines")]
    sizes: bool,
    /// Show only the functions, with the file, line and column of each range of code. Without
    /// lines (`build -g`), show the numbers of source locations
    #[arg(long)]
    lines: bool,
    #[command(flatten)]
    trust: TrustArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn main(args: &InspectArgs) -> Outcome {
    let input = input::image(&args.image)?;
    let bytes = read_image(&input.path).map_err(|error| no_image(&input, error))?;
    let info = ImageInfo::parse(&bytes).map_err(|error| no_image(&input, error))?;
    verify_bytes(&bytes).map_err(|error| no_image(&input, error))?;
    let signed = Signed::of(&input, &bytes, &args.trust)?;
    match (args.format, args.sizes, args.lines) {
        (Format::Text, true, _) => sizes::text(&info),
        (Format::Json, true, _) => print_json(&sizes::document(&info)),
        (Format::Text, _, true) => lines::text(&info),
        (Format::Json, _, true) => print_json(&lines::document(&info)),
        (Format::Text, ..) => text(&info, &signed),
        (Format::Json, ..) => print_json(&document(&info, &signed)),
    }
    Ok(())
}

fn kind(kind: SymbolType) -> &'static str {
    match kind {
        SymbolType::Function => "function",
        SymbolType::Data => "data",
    }
}

fn slot_kind(key: &SlotKey) -> &'static str {
    match key {
        SlotKey::Global(_) => "global",
        SlotKey::Symbol(_) => "symbol",
        SlotKey::Routine(_) => "routine",
    }
}

fn text(info: &ImageInfo, signed: &Signed) {
    let features = if info.features.is_empty() { "none".into() } else { info.features.join(" ") };
    println!("target     {}", name(&info.triple));
    println!("features   {}", name(&features));
    println!("made by    kiln {}, {}", name(&info.kiln_version), name(&info.producers.join(", ")));
    println!("format     {}", info.format_version);
    println!("size       {}", bytes(info.file_len));
    println!("content    {}", signed.content);
    signed.lines().for_each(|line| println!("signed     {line}"));
    println!(
        "at load    {} slots to fill, {} internal, {} relative and {} symbolic pointers",
        info.slots.len(),
        info.internal_slots,
        info.relative_pointers,
        info.symbolic_pointers
    );
    if let Some(levels) = levels(info) {
        println!("levels     {levels}");
    }
    println!("id         {}", info.id);
    for base in &info.bases {
        println!("layer on   {}, id {}", name(&base.name), base.id);
    }
    println!("globals    {}, {} addresses in code to write at load", info.globals.name(), info.text_patches);
    println!("\nsections ({}):", info.sections.len());
    for section in &info.sections {
        let flag = |set, letter| if set { letter } else { '-' };
        let flags: String =
            [flag(section.loaded, 'r'), flag(section.writable, 'w'), flag(section.executable, 'x')]
                .iter()
                .collect();
        println!("  {:#10x} {:>9}  {flags}  {}", section.address, section.size, name(&section.name));
    }
    println!("\nexports ({}):", info.exports.len());
    for export in &info.exports {
        let signature = shown(export.signature.as_deref(), IN_TEXT).unwrap_or_default();
        println!(
            "  {:#10x} {:>9}  {:8}  {}{}{}",
            export.address,
            export.size,
            kind(export.kind),
            name(&export.name),
            name(&signature),
            export.replaceable.map_or(String::new(), |slot| format!("  replaceable, slot {slot:#x}"))
        );
    }
    if !info.versions.is_empty() {
        println!("\nbodies for other levels ({}):", info.versions.len());
    }
    for version in &info.versions {
        let (level, function) = body(info, version);
        println!(
            "  {:#10x} {:>9}  {:8}  {}  slot {:#x}",
            version.code,
            "",
            name(level),
            name(&function),
            version.slot
        );
    }
    println!("\nslots ({}):", info.slots.len());
    for (number, slot) in info.slots.iter().enumerate() {
        let signature = shown(slot.signature.as_deref(), IN_TEXT).unwrap_or_default();
        let base = slot.base.and_then(|base| info.bases.get(base as usize));
        let base = base.map_or(String::new(), |base| format!("  from {}", name(&base.name)));
        let (kind, key) = (slot_kind(&slot.key), name(slot.key.text()));
        println!("  {number:>10}  {kind:7}  {key}{}{base}", name(&signature));
    }
    if !info.replacements.is_empty() {
        println!("\nreplaces ({}):", info.replacements.len());
    }
    for new in &info.replacements {
        let base = info.bases.get(new.base as usize).map_or("", |base| &base.name);
        println!("  {:#10x}  {}  of {}", new.code, name(&new.name), name(base));
    }
}

/// Returns the levels of the processor, and how many functions differ; `None` if there is one
/// level.
fn levels(info: &ImageInfo) -> Option<String> {
    let names: Vec<_> = info.levels.iter().map(|level| name(&level.name)).collect();
    let slots: std::collections::BTreeSet<u64> = info.versions.iter().map(|version| version.slot).collect();
    (!names.is_empty()).then(|| format!("{}, {} functions differ", names.join(" "), slots.len()))
}

/// Returns the name of the level that a body is for, and the name of the body.
fn body<'i>(info: &'i ImageInfo, version: &VersionInfo) -> (&'i str, String) {
    let level = info.levels.get(version.level).map_or("", |level| &level.name);
    let function = info.locate(version.code).map(|place| place.name().to_owned());
    (level, function.unwrap_or_default())
}

fn document(info: &ImageInfo, signed: &Signed) -> serde_json::Value {
    json!({
        "content": signed.content.to_string(),
        "signatures": signed.document(),
        "target": info.triple,
        "features": info.features,
        "levels": info.levels.iter().map(|level| json!({
            "name": level.name, "features": level.features,
        })).collect::<Vec<_>>(),
        "versions": info.versions.iter().map(|version| {
            let (level, function) = body(info, version);
            json!({ "level": level, "function": function, "slot": version.slot, "code": version.code })
        }).collect::<Vec<_>>(),
        "kiln_version": info.kiln_version,
        "producers": info.producers,
        "format_version": info.format_version,
        "size": info.file_len,
        "internal_slots": info.internal_slots,
        "relative_pointers": info.relative_pointers,
        "symbolic_pointers": info.symbolic_pointers,
        "id": info.id.to_string(),
        "bases": info.bases.iter().map(|base| json!({
            "name": base.name, "id": base.id.to_string(),
        })).collect::<Vec<_>>(),
        "replacements": info.replacements.iter().map(|new| json!({
            "name": new.name, "base": new.base, "code": new.code,
        })).collect::<Vec<_>>(),
        "globals": info.globals.name(),
        "text_patches": info.text_patches,
        "sections": info.sections.iter().map(|section| json!({
            "name": section.name, "address": section.address, "offset": section.offset, "size": section.size,
            "loaded": section.loaded, "writable": section.writable, "executable": section.executable,
        })).collect::<Vec<_>>(),
        "exports": info.exports.iter().map(|export| json!({
            "name": export.name, "kind": kind(export.kind), "signature": shown(export.signature.as_deref(), IN_JSON),
            "address": export.address, "size": export.size, "replaceable": export.replaceable,
        })).collect::<Vec<_>>(),
        "slots": info.slots.iter().map(|slot| json!({
            "kind": slot_kind(&slot.key), "key": slot.key.text(), "signature": shown(slot.signature.as_deref(), IN_JSON),
            "base": slot.base,
        })).collect::<Vec<_>>(),
    })
}
