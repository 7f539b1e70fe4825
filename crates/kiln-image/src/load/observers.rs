//! Tells the unwinder, debuggers and profilers about a loaded image.
//!
//! Debuggers and profilers see the file of an image only in the list of mappings: gdb looks for
//! shared objects in the list of the dynamic loader, and an image may have no file. So they are
//! told as they are told about code in memory. What is told is read from the image: names from the
//! code tables, also if the image was stripped; lines and variables from sections of the file that
//! are not mapped. If nobody is there, nothing is read.

use std::ops::Range;
use std::sync::PoisonError;

use kiln_debug::gdb::{self, Debugger};
use kiln_debug::perf::{self, Kind as Profiler};
use kiln_debug::{Code, Function, Section};

use super::bind::Loaded;
use super::origin::Origin;
use super::unmapped::Unmapped;
use crate::read::{DebugSection, debug_sections};

/// Who is told about an image when it is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observers {
    pub(super) unwind: bool,
    pub(super) debugger: Debugger,
    pub(super) profiler: Option<Profiler>,
}

impl Default for Observers {
    fn default() -> Self {
        Self { unwind: true, debugger: Debugger::Present, profiler: None }
    }
}

/// The part of an image's file that is not mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest<'a> {
    pub(super) unmapped: &'a Unmapped,
    /// The number of bytes that are mapped.
    pub(super) mapped_len: usize,
    pub(super) file_len: u64,
}

impl Loaded {
    /// Tells debuggers and profilers who want to know.
    pub(super) fn tell(&mut self, observers: Observers, rest: Rest<'_>) {
        let watched = observers.debugger.is_watched();
        if !watched && observers.profiler.is_none() {
            return;
        }
        let sections = if watched { self.debug_sections(Some(rest)) } else { Vec::new() };
        self.describe(&sections, |code| {
            if let Some(kind) = observers.profiler {
                // SAFETY: the code is mapped.
                unsafe { perf::add(kind, code) };
            }
        });
        if watched {
            let registration = self.describe(&sections, gdb::Registration::new);
            *self.debugger.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(registration);
        }
    }

    /// Tells debuggers about the image's code, if they do not know it and one is there: one that
    /// attached after the image was bound. Returns whether they know it now.
    ///
    /// Lines and variables are read from the image's file again, and are left out if it was removed
    /// or replaced, or if the image was not made by [`Image::open`](crate::Image::open).
    pub fn tell_debugger(&self) -> bool {
        let mut debugger = self.debugger.lock().unwrap_or_else(PoisonError::into_inner);
        if debugger.is_none() && gdb::is_watching() {
            let file = self.origin.as_ref().and_then(Origin::open).map(Unmapped::File);
            let file_len = self.mapped.tables().note.head.file_len.get();
            let rest = file.as_ref().map(|unmapped| Rest { unmapped, mapped_len: 0, file_len });
            *debugger = Some(self.describe(&self.debug_sections(rest), gdb::Registration::new));
        }
        debugger.is_some()
    }

    /// Describes the code.
    fn describe<R>(&self, sections: &[DebugSection], tell: impl FnOnce(&Code<'_>) -> R) -> R {
        let text = self.text();
        let text = text.start.addr()..text.end.addr();
        let tables = self.code_tables();
        let functions = tables.iter().flat_map(|tables| tables.functions()).filter_map(|function| {
            let start = text.start.checked_add(function.start() as usize)?;
            let end = start.checked_add(function.len() as usize).filter(|&end| end <= text.end)?;
            let name = if function.name().is_empty() { "<anonymous>" } else { function.name() };
            Some(Function { name, address: start, size: end - start })
        });
        let functions: Vec<_> = functions.collect();
        let mapped = self.mapped.tables();
        let span = mapped.note.head.eh_frame;
        let rows = span.within(mapped.bytes.len()).and_then(|range| mapped.bytes.get(range));
        let rows = rows.filter(|rows| rows.len() > 4).map(|bytes| Section {
            address: self.base().addr().wrapping_add(span.start.get() as usize),
            bytes,
        });
        let dwarf: Vec<_> = sections.iter().map(|(name, bytes)| (*name, &**bytes)).collect();
        tell(&Code {
            functions: &functions,
            ranges: if text.is_empty() { &[] } else { std::slice::from_ref(&text) },
            rows: rows.as_slice(),
            dwarf: &dwarf,
        })
    }

    /// Reads the sections for debuggers.
    fn debug_sections(&self, rest: Option<Rest<'_>>) -> Vec<DebugSection> {
        let tables = self.mapped.tables();
        let read = |range: Range<u64>| {
            let mapped = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            match tables.bytes.get(mapped) {
                Some(bytes) => Some(bytes.to_vec()),
                None => rest?.read(range),
            }
        };
        debug_sections(tables.bytes, self.base() as u64, &read)
    }
}

impl Rest<'_> {
    /// Reads a range of the file that is not mapped.
    fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        if range.start > range.end || range.end > self.file_len {
            return None;
        }
        self.unmapped.read(range, self.mapped_len)
    }
}
