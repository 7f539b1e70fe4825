//! `inspect --sizes`: what takes the bytes of an image.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kiln::image::ImageInfo;
use kiln::image::code::TableSizes;
use serde_json::json;

use super::shown::{IN_JSON, IN_TEXT, shown};
use crate::output::{count, name};

/// The number of sections, modules and functions that are shown to people.
const LARGEST: usize = 20;

/// The sizes of an image. Every list has the largest first.
struct Sizes<'i> {
    tables: TableSizes,
    sections: Vec<(&'i str, u64)>,
    /// Number, name, bytes of code, number of functions.
    modules: Vec<(u32, &'i str, u64, usize)>,
    /// Name, number of the module, bytes of code.
    functions: Vec<(&'i str, u32, u64)>,
}

impl<'i> Sizes<'i> {
    fn of(info: &'i ImageInfo) -> Self {
        let mut sections: Vec<_> =
            info.sections.iter().map(|section| (&*section.name, section.size)).collect();
        sections.sort_by_key(|(_, size)| Reverse(*size));
        let mut sizes =
            Self { tables: TableSizes::default(), sections, modules: Vec::new(), functions: Vec::new() };
        let Some(tables) = info.code_tables() else { return sizes };
        sizes.tables = tables.sizes();
        // The parts of a module are not side by side if functions were ordered.
        let mut modules = BTreeMap::new();
        for function in tables.functions() {
            let (Some(number), len) = (function.module(), u64::from(function.len())) else { continue };
            let (_, size, count) =
                modules.entry(number).or_insert((function.module_name().unwrap_or_default(), 0, 0));
            (*size, *count) = (*size + len, *count + 1);
            sizes.functions.push((function.name(), number, len));
        }
        let modules = modules.into_iter().map(|(number, (name, size, count))| (number, name, size, count));
        sizes.modules = modules.collect();
        sizes.modules.sort_by_key(|(_, _, size, _)| Reverse(*size));
        sizes.functions.sort_by_key(|(_, _, size)| Reverse(*size));
        sizes
    }
}

fn cut(text: &str, limit: usize) -> String {
    shown(Some(text), limit).unwrap_or_default().into_owned()
}

pub(super) fn text(info: &ImageInfo) {
    let sizes = Sizes::of(info);
    let code = sizes.tables.code;
    let share = |size: u64, of: u64| 100.0 * size as f64 / of.max(1) as f64;
    println!("code              {code:>10} in {} functions", sizes.tables.functions);
    for (part, size) in [("code tables", sizes.tables.total)].into_iter().chain(sizes.tables.parts()) {
        println!("{part:16}  {size:>10}  {:5.1} %", share(size as u64, code as u64));
    }
    println!("\nsections ({}), of the file:", sizes.sections.len());
    for (section, size) in sizes.sections.iter().take(LARGEST) {
        println!("  {size:>10}  {:5.1} %  {}", share(*size, info.file_len), name(section));
    }
    println!("\nmodules ({}), of the code:", sizes.modules.len());
    for (number, module, size, functions) in sizes.modules.iter().take(LARGEST) {
        let module = if module.is_empty() { format!("module {number}") } else { cut(module, IN_TEXT) };
        println!(
            "  {size:>10}  {:5.1} %  {} ({})",
            share(*size, code as u64),
            name(&module),
            count(*functions, "function")
        );
    }
    println!("\nfunctions ({}), of the code:", sizes.functions.len());
    for (function, module, size) in sizes.functions.iter().take(LARGEST) {
        let function = if function.is_empty() { "without a name".into() } else { cut(function, IN_TEXT) };
        println!("  {size:>10}  {:5.1} %  {} (module {module})", share(*size, code as u64), name(&function));
    }
}

pub(super) fn document(info: &ImageInfo) -> serde_json::Value {
    let sizes = Sizes::of(info);
    let parts = sizes.tables.parts().map(|(part, size)| (part.replace(' ', "_"), size.into()));
    let parts: serde_json::Map<_, _> = parts.into_iter().collect();
    json!({
        "functions": sizes.tables.functions, "code": sizes.tables.code, "code_tables": sizes.tables.total,
        "parts": parts,
        "by_section": sizes.sections.iter().map(|(section, size)| {
            json!({ "name": cut(section, IN_JSON), "size": size })
        }).collect::<Vec<_>>(),
        "by_module": sizes.modules.iter().map(|(number, module, size, count)| {
            json!({ "module": number, "name": cut(module, IN_JSON), "size": size, "functions": count })
        }).collect::<Vec<_>>(),
        "by_function": sizes.functions.iter().map(|(function, module, size)| {
            json!({ "name": cut(function, IN_JSON), "module": module, "size": size })
        }).collect::<Vec<_>>(),
    })
}
