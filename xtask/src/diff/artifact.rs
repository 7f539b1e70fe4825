//! Comparison of two artifacts, function by function and datum by datum.

use kiln::artifact::record::{Reloc, SectionKind, SymbolKind, SymbolRecord};
use kiln::artifact::{Artifact, FunctionParts, Table};

use super::bytes::{self, pairs};
use super::report::Report;

/// Adds the differences of two artifacts.
pub(super) fn compare(a: &Artifact, b: &Artifact, report: &mut Report) {
    let before = report.all().len();
    report.values("target", Some(a.triple()), Some(b.triple()));
    report.values("compiler", Some(a.producer()), Some(b.producer()));
    report.sets("CPU feature", a.features(), b.features());
    report.values("access to globals", Some(a.global_access().name()), Some(b.global_access().name()));
    compare_symbols(a, b, report);
    compare_functions(a, b, report);
    compare_data(a, b, report);
    // What has no finer name. Numbers and offsets in these tables change with what was found.
    if report.all().len() == before {
        for &table in Table::ALL {
            bytes::compare(table.name(), a.table_bytes(table), b.table_bytes(table), report);
        }
        if report.all().len() == before {
            bytes::compare("header", a.as_bytes(), b.as_bytes(), report);
        }
    }
}

fn named<'a>(artifact: &'a Artifact, symbol: &SymbolRecord) -> &'a str {
    artifact.name(symbol)
}

/// Compares what symbols say about themselves: kind, linkage, type.
fn compare_symbols(a: &Artifact, b: &Artifact, report: &mut Report) {
    let list = |artifact: &Artifact| -> Vec<(String, String)> {
        let of = |symbol: &SymbolRecord| {
            let signature =
                symbol.signature().and_then(|index| artifact.signature(index)).unwrap_or_default();
            let import = if symbol.is_defined() { "" } else { " of another module" };
            let text =
                format!("{:?} {:?}{import} {signature}", symbol.linkage(), symbol.kind()).to_lowercase();
            (named(artifact, symbol).to_owned(), text.trim_end().to_owned())
        };
        artifact.symbols().iter().map(of).collect()
    };
    let (a, b) = (list(a), list(b));
    for (name, a, b) in pairs(&a, &b) {
        report.values(format!("symbol `{name}`"), a, b);
    }
}

/// A function, and the artifact that has it.
struct Function<'a> {
    artifact: &'a Artifact,
    number: usize,
    parts: FunctionParts<'a>,
}

fn functions(artifact: &Artifact) -> Vec<(String, Function<'_>)> {
    let all = artifact.functions_with_parts().enumerate().map(|(number, parts)| {
        let symbol = &artifact.symbols()[parts.record.symbol.get() as usize];
        (named(artifact, symbol).to_owned(), Function { artifact, number, parts })
    });
    all.collect()
}

impl Function<'_> {
    fn range(&self) -> std::ops::Range<u64> {
        let (start, len) = (self.parts.record.start.get(), self.parts.record.len.get());
        start.into()..u64::from(start) + u64::from(len)
    }

    fn code(&self) -> &[u8] {
        let range = self.range();
        &self.artifact.text()[range.start as usize..range.end as usize]
    }

    fn rows(&self) -> &[u8] {
        let record = self.parts.record;
        &self.artifact.unwind()[record.unwind_start.get() as usize..][..record.unwind_len.get() as usize]
    }

    /// Returns the stack maps, as text.
    fn stack_maps(&self) -> String {
        let range = self.range();
        let own = self.artifact.stack_maps().iter().filter(|map| {
            let at = u64::from(map.return_offset.get());
            range.start < at && at <= range.end
        });
        let mut text = String::new();
        for map in own {
            let first = map.entries_start.get() as usize;
            let entries = &self.artifact.stack_map_entries()[first..first + map.entries_len.get() as usize];
            let at = u64::from(map.return_offset.get()) - range.start;
            let roots: Vec<_> = entries.iter().map(|entry| (entry.offset.get(), entry.size.get())).collect();
            text += &format!("{at:#x}: {roots:?}; ");
        }
        text
    }
}

/// Returns the relocations of a range, each as text.
fn relocs(artifact: &Artifact, relocs: &[Reloc], range: std::ops::Range<u64>) -> Vec<String> {
    let own = relocs.iter().filter(|reloc| range.contains(&reloc.offset.get()));
    let text = |reloc: &Reloc| {
        let symbol = named(artifact, &artifact.symbols()[reloc.symbol.get() as usize]);
        let (at, addend) = (reloc.offset.get() - range.start, reloc.addend.get());
        format!("{at:#x}: {:?} `{symbol}` {addend:+}, flags {}", reloc.kind(), reloc.flags)
    };
    own.map(text).collect()
}

fn compare_relocs(what: &str, a: &[String], b: &[String], report: &mut Report) {
    let first = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let at = |list: &[String]| list.get(first).map(|text| format!("{} of {}: {text}", first + 1, list.len()));
    report.values(format!("{what}: relocation"), at(a), at(b));
}

fn compare_functions(a: &Artifact, b: &Artifact, report: &mut Report) {
    let (a, b) = (functions(a), functions(b));
    for (name, a, b) in pairs(&a, &b) {
        let what = format!("function `{name}`");
        let (Some(a), Some(b)) = (a, b) else {
            let len =
                |side: Option<&Function<'_>>| side.map(|function| format!("{} bytes", function.code().len()));
            report.add(what, len(a), len(b));
            continue;
        };
        bytes::compare(&what, a.code(), b.code(), report);
        let own = |function: &Function<'_>| {
            relocs(function.artifact, function.artifact.text_relocs(), function.range())
        };
        compare_relocs(&what, &own(a), &own(b), report);
        let part = |part: &str| format!("{what}: {part}");
        bytes::compare(&part("unwind rows"), a.rows(), b.rows(), report);
        for table in [Table::Traps, Table::CallSites, Table::SourceRanges] {
            let stream =
                |function: &Function<'_>| function.artifact.stream_of(function.number, table).to_vec();
            bytes::compare(&part(table.name()), &stream(a), &stream(b), report);
        }
        let base = |function: &Function<'_>| Some(function.parts.record.base_location.get());
        report.values(part("first source location"), base(a), base(b));
        let handlers = |function: &Function<'_>| {
            let start = function.parts.record.start.get();
            let of = |handler: &kiln::artifact::record::Handler| {
                let target = handler.target.get().wrapping_sub(start);
                format!("kind {} value {} at {target:#x}", handler.kind, handler.value.get())
            };
            function.parts.handlers.iter().map(of).collect::<Vec<_>>().join("; ")
        };
        report.values(part("exception handlers"), Some(handlers(a)), Some(handlers(b)));
        report.values(part("stack maps"), Some(a.stack_maps()), Some(b.stack_maps()));
    }
}

fn compare_data(a: &Artifact, b: &Artifact, report: &mut Report) {
    let list = |artifact: &Artifact| -> Vec<(String, usize)> {
        let symbols = artifact.symbols().iter().enumerate();
        let data = symbols.filter(|(_, symbol)| symbol.is_defined() && symbol.kind() != SymbolKind::Function);
        data.map(|(number, symbol)| (named(artifact, symbol).to_owned(), number)).collect()
    };
    let (a_list, b_list) = (list(a), list(b));
    for (name, a_number, b_number) in pairs(&a_list, &b_list) {
        let what = format!("data `{name}`");
        let (Some(&a_number), Some(&b_number)) = (a_number, b_number) else {
            let size = |artifact: &Artifact, number: Option<&usize>| {
                number.map(|&number| format!("{} bytes", artifact.symbols()[number].size.get()))
            };
            report.add(what, size(a, a_number), size(b, b_number));
            continue;
        };
        let [a_symbol, b_symbol] = [&a.symbols()[a_number], &b.symbols()[b_number]];
        let section =
            |symbol: &SymbolRecord| Some(format!("{:?}, {} bytes", symbol.section(), symbol.size.get()));
        report.values(&*what, section(a_symbol), section(b_symbol));
        let (a_bytes, a_relocs) = datum(a, a_symbol);
        let (b_bytes, b_relocs) = datum(b, b_symbol);
        bytes::compare(&what, a_bytes, b_bytes, report);
        compare_relocs(&what, &a_relocs, &b_relocs, report);
    }
}

/// Returns the bytes of a data object, and its relocations.
fn datum<'a>(artifact: &'a Artifact, symbol: &SymbolRecord) -> (&'a [u8], Vec<String>) {
    let (bytes, all) = match symbol.section() {
        SectionKind::ReadOnly => (artifact.read_only(), artifact.read_only_relocs()),
        SectionKind::Writable => (artifact.writable(), artifact.writable_relocs()),
        _ => return (&[], Vec::new()),
    };
    let range = symbol.offset.get()..symbol.offset.get().saturating_add(symbol.size.get());
    let own = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
    (own, relocs(artifact, all, range))
}
