//! Tells those who look at code from outside: the unwinder, debuggers and profilers.
//!
//! They are told before the code's names are published, so that a breakpoint in a function is set
//! before its first call, and forget it when every guard from before its removal is gone: until
//! then a thread may be in the code, and unwind through it. If no debugger is there and no profiler
//! is wanted, nothing is described or kept.
//!
//! A debugger that attaches later is told about all code at once, in groups of units: it needs some
//! milliseconds for each registration.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_artifact::Artifact;
use kiln_artifact::record::SymbolKind;
use kiln_debug::{Code, Function, PlainRows, Section, gdb, perf, unwind};
use kiln_image::code::{self, CodeTables, name_of_stub};
use kiln_image::dwarf;
use kiln_image::link::{Area, Plan};

use crate::blocks::Blocks;
use crate::counters::Counters;
use crate::indirection::stub_size;
use crate::jump::Jump;
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
    pub(crate) unsafe fn tell<'a>(
        &self,
        plan: &Plan<'_>,
        blocks: &Blocks,
        counters: Option<&Counters>,
        stubs: &dyn Fn() -> Vec<(&'a str, u64)>,
    ) -> Observed {
        let (layout, addresses) = (plan.layout(), &blocks.addresses);
        let range = |area: Area| {
            let start = addresses[area] as usize;
            start..start + layout[area].size as usize
        };
        let (code, rows) = (range(Area::Text), range(Area::EhFrame));
        let mut observed = Observed {
            unwinder: None,
            entries: None,
            debugger: Told::No,
            code: code.clone(),
            rows: rows.clone(),
            tables: range(Area::CodeTables),
        };
        // A section of 4 bytes has no entries, only the zero length that ends it.
        if self.unwind && rows.len() > 4 {
            let section = rows.start as *const u8;
            let rows = unwind::Rows { section, code: code.clone(), region: self.region.clone() };
            // SAFETY: the caller promises what the section is. All code in the region is ours, or
            // its rows are registered in the same way.
            observed.unwinder = Some(unsafe { unwind::Registration::new(rows) });
        }
        if let Some(counters) = counters.filter(|_| self.unwind) {
            let mut rows = Box::new(PlainRows::new(counters.code()));
            // SAFETY: the entries leave the stack alone. As above for the region.
            unsafe { rows.register(self.region.clone()) };
            observed.entries = Some(rows);
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
            // SAFETY: the caller promises it.
            let linked = unsafe { linked_stubs(&observed) };
            functions.extend(linked.iter().map(|(name, code)| described(name, code.start, code.len())));
            let stubs = stubs();
            let jumps = jumps(stubs.into_iter(), counters, plan.artifacts());
            functions.extend(jumps.iter().map(describe_jump));
            let jumps = JumpRows::new(&jumps);
            let ranges: Vec<_> = [code].into_iter().chain(jumps.ranges()).collect();
            let dwarf = if is_watched {
                dwarf::sections_of(plan, observed.code.start as u64)
            } else {
                Ok(Vec::new())
            };
            // What is too large for DWARF is known by name.
            let dwarf = dwarf.unwrap_or_default();
            let description = Code {
                functions: &functions,
                ranges: &ranges,
                // SAFETY: the caller promises it.
                rows: &jumps.after(vec![unsafe { section(&rows) }]),
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

    /// Tells debuggers about units that they do not know. `stubs` are the names and addresses of
    /// the stubs of each. Returns how many.
    pub(crate) fn catch_up(&self, units: &[Arc<UnitInfo>], stubs: &[Vec<(Arc<str>, u64)>]) -> usize {
        let _one_at_a_time = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = units.chunks(GROUP).zip(stubs.chunks(GROUP));
        groups.map(|(units, stubs)| self.catch_up_group(units, stubs)).sum()
    }

    fn catch_up_group(&self, units: &[Arc<UnitInfo>], stubs: &[Vec<(Arc<str>, u64)>]) -> usize {
        // While they are locked, they are not freed.
        let mut locked: Vec<_> = units
            .iter()
            .zip(stubs)
            .map(|(unit, stubs)| (unit, stubs, unit.observed.lock().unwrap_or_else(PoisonError::into_inner)))
            .filter(|(.., observed)| matches!(&**observed, Some(Observed { debugger: Told::No, .. })))
            .collect();
        if locked.is_empty() {
            return 0;
        }
        let handles: Vec<Unit> = locked.iter().map(|(unit, ..)| Unit((*unit).clone())).collect();
        let symbols = handles.iter().flat_map(Unit::symbols);
        let mut functions: Vec<Function<'_>> = symbols
            .filter(|symbol| symbol.kind == SymbolKind::Function)
            .map(|symbol| described(symbol.name, symbol.address as usize, symbol.size))
            .collect();
        let jumps: Vec<Vec<Jump<'_>>> = locked
            .iter()
            .map(|(unit, stubs, _)| {
                let stubs = stubs.iter().map(|(name, stub)| (&**name, *stub));
                jumps(stubs, unit.counters.as_deref(), &unit.artifacts)
            })
            .collect();
        functions.extend(jumps.iter().flatten().map(describe_jump));
        let linked = locked.iter().filter_map(|(.., observed)| observed.as_ref());
        // SAFETY: the units are not freed.
        let linked: Vec<_> = linked.flat_map(|observed| unsafe { linked_stubs(observed) }).collect();
        functions.extend(linked.iter().map(|(name, code)| described(name, code.start, code.len())));
        let jumps: Vec<JumpRows> = jumps.iter().map(|jumps| JumpRows::new(jumps)).collect();
        let observed = || locked.iter().filter_map(|(.., observed)| observed.as_ref());
        let code = observed().map(|observed| observed.code.clone());
        let ranges: Vec<Range<usize>> = code.chain(jumps.iter().flat_map(JumpRows::ranges)).collect();
        // SAFETY: the units are not freed.
        let rows = observed().map(|observed| unsafe { section(&observed.rows) }).collect();
        let rows = jumps.iter().fold(rows, |rows, jumps| jumps.after(rows));
        let modules: Vec<_> = locked.iter().flat_map(|(unit, ..)| unit.code()).collect();
        let dwarf = dwarf::sections(&modules).unwrap_or_default();
        let description = Code { functions: &functions, ranges: &ranges, rows: &rows, dwarf: &named(&dwarf) };
        let group = Arc::new(Mutex::new(gdb::Registration::new(&description)));
        for ((.., observed), jumps) in locked.iter_mut().zip(&jumps) {
            if let Some(observed) = &mut **observed {
                observed.debugger = Told::InGroup(group.clone(), jumps.ranges().collect());
                self.untold.fetch_sub(1, Ordering::Relaxed);
            }
        }
        locked.len()
    }

    /// Forgets a unit, in this order: unwinder, debugger. The file of a profiler has no word for
    /// that.
    pub(crate) fn forget(&self, unit: &UnitInfo) {
        let observed = unit.observed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Observed { unwinder, entries, debugger, code, .. }) = observed else { return };
        drop((unwinder, entries));
        match debugger {
            Told::No => drop(self.untold.fetch_sub(1, Ordering::Relaxed)),
            Told::Alone(registration) => drop(registration),
            Told::InGroup(group, jumps) => {
                // The last one drops the registration.
                if let Err(group) = Arc::try_unwrap(group) {
                    let mut group = group.lock().unwrap_or_else(PoisonError::into_inner);
                    [code].iter().chain(&jumps).for_each(|range| group.forget(range));
                }
            }
        }
    }
}

/// Returns the names and addresses of the stubs that the linker put into the code of a unit.
///
/// # Safety
///
/// The unit is in memory.
unsafe fn linked_stubs<'a>(observed: &Observed) -> Vec<(Cow<'a, str>, Range<usize>)> {
    // SAFETY: the caller promises it.
    let tables = unsafe { bytes(&observed.tables) };
    let stubs = CodeTables::read(tables).into_iter().flat_map(|tables| tables.stubs());
    let place = |stub: &code::Function<'_>| {
        let start = observed.code.start + stub.start() as usize;
        start..start + stub.len() as usize
    };
    stubs.map(|stub| (name_of_stub(&stub), place(&stub))).collect()
}

/// Returns stubs, which have names and addresses, and entries of a unit, in order of addresses.
fn jumps<'a>(
    stubs: impl Iterator<Item = (&'a str, u64)>,
    counters: Option<&'a Counters>,
    artifacts: &'a [Artifact],
) -> Vec<Jump<'a>> {
    let stubs = stubs.map(|(name, stub)| {
        let start = stub as usize;
        Jump { name, code: start..start + stub_size() as usize }
    });
    let entries = counters.into_iter().flat_map(|counters| counters.named(artifacts));
    let mut jumps: Vec<_> = stubs.chain(entries).collect();
    jumps.sort_unstable_by_key(|jump| jump.code.start);
    jumps
}

/// Rows for debuggers, one for each run of jumps without a gap.
struct JumpRows(Vec<(Range<usize>, PlainRows)>);

impl JumpRows {
    /// Makes rows of jumps, which are in order of addresses.
    fn new(jumps: &[Jump<'_>]) -> Self {
        let runs = jumps.chunk_by(|jump, next| jump.code.end == next.code.start);
        let runs = runs.filter_map(|run| Some(run.first()?.code.start..run.last()?.code.end));
        Self(runs.map(|run| (run.clone(), PlainRows::new(run))).collect())
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().map(|(range, _)| range.clone())
    }

    /// Returns the sections of the rows after others.
    fn after<'s>(&'s self, mut others: Vec<Section<'s>>) -> Vec<Section<'s>> {
        others.extend(self.0.iter().map(|(_, rows)| rows.section()));
        others
    }
}

/// Describes a function.
fn described(name: &str, address: usize, size: usize) -> Function<'_> {
    Function { name: if name.is_empty() { "<anonymous>" } else { name }, address, size }
}

/// Describes a stub, or an entry that counts.
fn describe_jump<'a>(jump: &Jump<'a>) -> Function<'a> {
    described(jump.name, jump.code.start, jump.code.len())
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
    // SAFETY: the caller promises it.
    let bytes = unsafe { bytes(rows) };
    Section { address: rows.start, bytes }
}

/// Returns bytes in memory.
///
/// # Safety
///
/// They are in memory, and do not change while the result is used.
unsafe fn bytes<'a>(range: &Range<usize>) -> &'a [u8] {
    if range.is_empty() {
        return &[];
    }
    // SAFETY: the caller promises it.
    unsafe { std::slice::from_raw_parts(range.start as *const u8, range.len()) }
}
