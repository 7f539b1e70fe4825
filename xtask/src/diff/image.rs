//! Comparison of two images, function by function and section by section.

use kiln::image::code::Function;
use kiln::image::{ExportInfo, ImageInfo, SectionInfo, SlotInfo};

use super::bytes::{self, pairs};
use super::report::Report;

/// An image, and the bytes of its file.
pub(super) type Side<'i> = (&'i ImageInfo, &'i [u8]);

/// Adds the differences of two images.
pub(super) fn compare(a: Side<'_>, b: Side<'_>, report: &mut Report) {
    let before = report.all().len();
    report.values("target", Some(&a.0.triple), Some(&b.0.triple));
    report.values("version of the image format", Some(a.0.format_version), Some(b.0.format_version));
    report.values("version of Kiln", Some(&a.0.kiln_version), Some(&b.0.kiln_version));
    report.sets("compiler", texts(&a.0.producers), texts(&b.0.producers));
    report.sets("CPU feature", texts(&a.0.features), texts(&b.0.features));
    report.values("access to globals", Some(a.0.globals.name()), Some(b.0.globals.name()));
    report.sets("base", bases(a.0).iter().map(|base| &**base), bases(b.0).iter().map(|base| &**base));
    let replaced = |image: &ImageInfo| -> Vec<Box<str>> {
        image.replacements.iter().map(|new| new.name.clone()).collect()
    };
    report.sets("replaced function", texts(&replaced(a.0)), texts(&replaced(b.0)));
    compare_lists("export", &exports(a.0), &exports(b.0), report);
    compare_lists("slot", &slots(a.0), &slots(b.0), report);
    let pointers = |image: &ImageInfo| {
        Some(format!(
            "{} relative, {} symbolic, {} internal slots, {} addresses in code",
            image.relative_pointers, image.symbolic_pointers, image.internal_slots, image.text_patches
        ))
    };
    report.values("pointers", pointers(a.0), pointers(b.0));
    compare_functions(a, b, report);
    compare_data(a, b, report);
    compare_sections(a, b, report);
    if report.all().len() == before {
        bytes::compare("headers, or gaps between sections", a.1, b.1, report);
    }
}

/// Returns the images that an image is a layer on.
fn bases(image: &ImageInfo) -> Vec<String> {
    image.bases.iter().map(|base| format!("{} with id {}", base.name, base.id)).collect()
}

fn texts(list: &[Box<str>]) -> impl Iterator<Item = &str> {
    list.iter().map(|text| &**text)
}

fn compare_lists(what: &str, a: &[(String, String)], b: &[(String, String)], report: &mut Report) {
    for (name, a, b) in pairs(a, b) {
        report.values(format!("{what} `{name}`"), a, b);
    }
}

/// Returns what exports say about themselves, without addresses.
fn exports(image: &ImageInfo) -> Vec<(String, String)> {
    let of = |export: &ExportInfo| {
        let replaceable = if export.replaceable.is_some() { "replaceable " } else { "" };
        let signature = export.signature.as_deref().unwrap_or_default();
        (export.name.to_string(), format!("{replaceable}{:?} {signature}", export.kind).to_lowercase())
    };
    image.exports.iter().map(of).collect()
}

/// Returns the slots, each with its number.
fn slots(image: &ImageInfo) -> Vec<(String, String)> {
    let of = |(number, slot): (usize, &SlotInfo)| {
        let signature = slot.signature.as_deref().unwrap_or_default();
        (slot.key.text().to_owned(), format!("number {number} {signature}"))
    };
    image.slots.iter().enumerate().map(of).collect()
}

/// Returns the bytes of a range of addresses that are in the file.
fn at<'i>((image, file): Side<'i>, address: u64, len: u64) -> &'i [u8] {
    let section = image.sections.iter().find(|section| {
        section.loaded && address >= section.address && address - section.address < section.size
    });
    let start = section.and_then(|section| section.offset.checked_add(address - section.address));
    let range = start.and_then(|start| Some(start as usize..start.checked_add(len)? as usize));
    range.and_then(|range| file.get(range)).unwrap_or_default()
}

/// A function's name with its module, and the function.
fn functions(image: &ImageInfo) -> Vec<(String, Function<'_>)> {
    let all = image.code_tables().into_iter().flat_map(|tables| tables.functions());
    let name = |function: &Function<'_>| match function.module_name() {
        Some(module) => format!("`{}` of module `{module}`", function.name()),
        None => format!("`{}` of module {}", function.name(), function.module().unwrap_or_default()),
    };
    all.map(|function| (name(&function), function)).collect()
}

fn compare_functions(a: Side<'_>, b: Side<'_>, report: &mut Report) {
    let (a_list, b_list) = (functions(a.0), functions(b.0));
    let mut same_length = Report::default();
    for (name, a_function, b_function) in pairs(&a_list, &b_list) {
        let what = format!("function {name}");
        let (Some(one), Some(other)) = (a_function, b_function) else {
            let len = |side: Option<&Function<'_>>| side.map(|function| format!("{} bytes", function.len()));
            report.add(what, len(a_function), len(b_function));
            continue;
        };
        let code = |side: Side<'_>, function: &Function<'_>| {
            at(side, side.0.text() + u64::from(function.start()), function.len().into()).to_vec()
        };
        let moved = one.start() != other.start();
        let report = if one.len() == other.len() { &mut same_length } else { &mut *report };
        let what = if moved { format!("{what}, which moved") } else { what };
        bytes::compare(&what, &code(a, one), &code(b, other), report);
    }
    report.append(same_length);
}

fn compare_data(a: Side<'_>, b: Side<'_>, report: &mut Report) {
    let list = |image: &ImageInfo| -> Vec<(String, (u64, u64))> {
        let data = image.exports.iter().filter(|export| export.kind == kiln::image::SymbolType::Data);
        data.map(|export| (export.name.to_string(), (export.address, export.size))).collect()
    };
    let (a_list, b_list) = (list(a.0), list(b.0));
    for (name, one, other) in pairs(&a_list, &b_list) {
        let (Some(&(a_at, a_len)), Some(&(b_at, b_len))) = (one, other) else { continue };
        report.values(format!("size of data `{name}`"), Some(a_len), Some(b_len));
        bytes::compare(&format!("data `{name}`"), at(a, a_at, a_len), at(b, b_at, b_len), report);
    }
}

fn compare_sections(a: Side<'_>, b: Side<'_>, report: &mut Report) {
    let list = |image: &ImageInfo| -> Vec<(String, SectionInfo)> {
        image.sections.iter().map(|section| (section.name.to_string(), section.clone())).collect()
    };
    let (a_list, b_list) = (list(a.0), list(b.0));
    for (name, one, other) in pairs(&a_list, &b_list) {
        let what = format!("section `{name}`");
        let (Some(one), Some(other)) = (one, other) else {
            let size = |side: Option<&SectionInfo>| side.map(|section| format!("{} bytes", section.size));
            report.add(what, size(one), size(other));
            continue;
        };
        let flags = |section: &SectionInfo| {
            Some(format!(
                "loaded {}, writable {}, code {}",
                section.loaded, section.writable, section.executable
            ))
        };
        report.values(format!("{what}: flags"), flags(one), flags(other));
        let contents = |(_, file): Side<'_>, section: &SectionInfo| {
            // Zeroed data has no bytes in the file.
            let end = section.offset.saturating_add(section.size);
            file.get(section.offset as usize..end as usize).unwrap_or_default().to_vec()
        };
        let is_zeroed = name == ".bss" || name == ".tbss";
        match is_zeroed {
            true => report.values(what, Some(one.size), Some(other.size)),
            false => bytes::compare(&what, &contents(a, one), &contents(b, other), report),
        }
    }
}
