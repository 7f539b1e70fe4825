//! Tells those who look at code from outside: the unwinder, debuggers and profilers.
//!
//! They are told before the code's names are published, so that a breakpoint in a function is set
//! before its first call, and forget it when every guard from before its removal is gone: until
//! then a thread may be in the code, and unwind through it. If no debugger is there and no profiler
//! is wanted, nothing is described or kept.
//!
//! A debugger that attaches later is told about all code at once, in groups of units: it needs some
//! milliseconds for each registration.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_artifact::record::SymbolKind;
use kiln_debug::{Code, Function, Section, gdb, perf, unwind};
use kiln_image::dwarf;
use kiln_image::link::{Area, Plan};

use crate::blocks::Blocks;
use crate::memory::Memory;
use crate::observed::{Observed, Told};
use crate::options::{Debugger, JitOptions, Profiler};
use crate::unit::{Unit, UnitInfo};

/// The most units of a group.
const GROUP: usize = 1024;

/// Who is told.
#[derive(Debug)]
pub(crate) struct Observers {
    unwind: bool,
    debugger: Debugger,
    profiler: Option<Profiler>,
    /// All code of the memory.
    region: Range<usize>,
    /// The number of units that no debugger knows.
    untold: AtomicUsize,
    /// Held by the thread that tells a debugger about units from before.
    catching_up: Mutex<()>,
}

impl Observers {
    pub(crate) fn new(options: &JitOptions, memory: &Memory) -> Self {
        Self {
            unwind: options.unwind,
            debugger: options.debugger,
            profiler: options.profiler,
            region: memory.code_range(),
            untold: AtomicUsize::new(0),
            catching_up: Mutex::new(()),
        }
    }

    /// Whether code should be in memory that debuggers and perf can work with.
    pub(crate) fn want_one_mapping(options: &JitOptions) -> bool {
        options.debugger.is_watched() || options.profiler.is_some_and(Profiler::confuses_reuse)
    }

    /// Whether a debugger is to be told what is published now.
    fn is_watched(&self) -> bool {
        self.debugger.is_watched()
    }

    /// Whether a debugger is there that does not know everything.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_watched() && self.untold.load(Ordering::Relaxed) > 0
    }

    /// Whether addresses of removed code should not be used again soon.
    pub(crate) fn keep_addresses(&self) -> bool {
        self.profiler.is_some_and(Profiler::confuses_reuse)
    }

    /// Tells everybody about a unit that is about to be published.
    ///
    /// # Safety
    ///
    /// The blocks were written for this plan, and are published. They are not freed before the
    /// result is dropped.
    pub(crate) unsafe fn tell(&self, plan: &Plan<'_>, blocks: &Blocks) -> Observed {
        let (layout, addresses) = (plan.layout(), &blocks.addresses);
        let range = |area: Area| {
            let start = addresses[area] as usize;
            start..start + layout[area].size as usize
        };
        let (code, rows) = (range(Area::Text), range(Area::EhFrame));
        let mut observed =
            Observed { unwinder: None, debugger: Told::No, code: code.clone(), rows: rows.clone() };
        // A section of 4 bytes has no entries, only the zero length that ends it.
        if self.unwind && rows.len() > 4 {
            let section = rows.start as *const u8;
            let rows = unwind::Rows { section, code: code.clone(), region: self.region.clone() };
            // SAFETY: the caller promises what the section is. All code in the region is ours, or
            // its rows are registered in the same way.
            observed.unwinder = Some(unsafe { unwind::Registration::new(rows) });
        }
        let is_watched = self.is_watched();
        if !is_watched {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
        if is_watched || self.profiler.is_some() {
            let mut functions = Vec::new();
            for function in plan.functions() {
                let address = code.start + function.offset as usize;
                functions.push(described(function.name, address, function.size as usize));
            }
            let dwarf = if is_watched { dwarf::sections_of(plan, code.start as u64) } else { Ok(Vec::new()) };
            // What is too large for DWARF is known by name.
            let dwarf = dwarf.unwrap_or_default();
            let description = Code {
                functions: &functions,
                ranges: std::slice::from_ref(&code),
                // SAFETY: the caller promises it.
                rows: &[unsafe { section(&rows) }],
                dwarf: &named(&dwarf),
            };
            if is_watched {
                observed.debugger = Told::Alone(gdb::Registration::new(&description));
            }
            if let Some(kind) = self.profiler {
                // SAFETY: the code is in memory.
                unsafe { perf::add(kind, &description) };
            }
        }
        observed
    }

    /// Tells debuggers about units that they do not know. Returns how many.
    pub(crate) fn catch_up(&self, units: &[Arc<UnitInfo>]) -> usize {
        let _one_at_a_time = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        units.chunks(GROUP).map(|units| self.catch_up_group(units)).sum()
    }

    fn catch_up_group(&self, units: &[Arc<UnitInfo>]) -> usize {
        // While they are locked, they are not freed.
        let mut locked: Vec<_> = units
            .iter()
            .map(|unit| (unit, unit.observed.lock().unwrap_or_else(PoisonError::into_inner)))
            .filter(|(_, observed)| matches!(&**observed, Some(Observed { debugger: Told::No, .. })))
            .collect();
        if locked.is_empty() {
            return 0;
        }
        let handles: Vec<Unit> = locked.iter().map(|(unit, _)| Unit((*unit).clone())).collect();
        let symbols = handles.iter().flat_map(Unit::symbols);
        let functions: Vec<Function<'_>> = symbols
            .filter(|symbol| symbol.kind == SymbolKind::Function)
            .map(|symbol| described(symbol.name, symbol.address as usize, symbol.size))
            .collect();
        let observed = || locked.iter().filter_map(|(_, observed)| observed.as_ref());
        let ranges: Vec<Range<usize>> = observed().map(|observed| observed.code.clone()).collect();
        // SAFETY: the units are not freed.
        let rows: Vec<Section<'_>> = observed().map(|observed| unsafe { section(&observed.rows) }).collect();
        let modules: Vec<_> = locked.iter().flat_map(|(unit, _)| unit.code()).collect();
        let dwarf = dwarf::sections(&modules).unwrap_or_default();
        let description = Code { functions: &functions, ranges: &ranges, rows: &rows, dwarf: &named(&dwarf) };
        let group = Arc::new(Mutex::new(gdb::Registration::new(&description)));
        for (_, observed) in &mut locked {
            if let Some(observed) = &mut **observed {
                observed.debugger = Told::InGroup(group.clone());
                self.untold.fetch_sub(1, Ordering::Relaxed);
            }
        }
        locked.len()
    }

    /// Forgets a unit, in this order: unwinder, debugger. The file of a profiler has no word for
    /// that.
    pub(crate) fn forget(&self, unit: &UnitInfo) {
        let observed = unit.observed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Observed { unwinder, debugger, code, rows: _ }) = observed else { return };
        drop(unwinder);
        match debugger {
            Told::No => drop(self.untold.fetch_sub(1, Ordering::Relaxed)),
            Told::Alone(registration) => drop(registration),
            Told::InGroup(group) => {
                // The last one drops the registration.
                if let Err(group) = Arc::try_unwrap(group) {
                    group.lock().unwrap_or_else(PoisonError::into_inner).forget(&code);
                }
            }
        }
    }
}

/// Describes a function.
fn described(name: &str, address: usize, size: usize) -> Function<'_> {
    Function { name: if name.is_empty() { "<anonymous>" } else { name }, address, size }
}

/// Describes DWARF sections; empty ones are left out.
fn named(sections: &[dwarf::Section]) -> Vec<(&str, &[u8])> {
    let sections = sections.iter().filter(|section| !section.bytes.is_empty());
    sections.map(|section| (section.name, &*section.bytes)).collect()
}

/// Describes a section of rows.
///
/// # Safety
///
/// It is in memory, and does not change while the result is used.
unsafe fn section<'a>(rows: &Range<usize>) -> Section<'a> {
    if rows.is_empty() {
        return Section { address: rows.start, bytes: &[] };
    }
    // SAFETY: the caller promises it.
    let bytes = unsafe { std::slice::from_raw_parts(rows.start as *const u8, rows.len()) };
    Section { address: rows.start, bytes }
}
