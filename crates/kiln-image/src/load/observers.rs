//! Tells the unwinder, debuggers and profilers about a loaded image.
//!
//! Debuggers and profilers see the file of an image only in the list of mappings: gdb looks for
//! shared objects in the list of the dynamic loader, and an image may have no file. So they are
//! told as they are told about code in memory. What is told is read from the image: names from the
//! code tables, also if the image was stripped; lines and variables from sections of the file that
//! are not mapped. If nobody is there, nothing is read.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;

use kiln_debug::gdb::{self, Debugger};
use kiln_debug::perf::{self, Kind as Profiler};
use kiln_debug::{Code, Function, Section};

use super::bind::{Loaded, Unwind};
use super::mapped::Mapped;
use super::origin::Origin;
use crate::code::{self, name_of_stub};
use crate::error::LoadError;
use crate::read::{DebugSection, debug_sections};

/// Who is told about an image when it is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observers {
    pub(super) unwind: Unwind,
    pub(super) debugger: Debugger,
    pub(super) profiler: Option<Profiler>,
}

impl Default for Observers {
    fn default() -> Self {
        Self { unwind: Unwind::Checked, debugger: Debugger::Present, profiler: None }
    }
}

impl Loaded {
    /// Tells debuggers and profilers who want to know about the image in `file`.
    ///
    /// perf reads no map for code that is mapped from a file, so such code becomes a copy, if the
    /// system allows it.
    pub(super) fn tell(&mut self, observers: Observers, file: &File) -> Result<(), LoadError> {
        let watched = observers.debugger.is_watched();
        if !watched && observers.profiler.is_none() {
            return Ok(());
        }
        if observers.profiler == Some(Profiler::Map) {
            let page = rustix::param::page_size() as u64;
            let Mapped { memory, segments, .. } = &mut self.mapped;
            for segment in segments.iter().filter(|segment| segment.is_executable()) {
                let start = segment.start / page * page;
                let pages = start as usize..segment.end().next_multiple_of(page) as usize;
                memory.copy_code(pages).map_err(LoadError::io("set the permissions of"))?;
            }
        }
        let sections = if watched { self.debug_sections(Some(file)) } else { Vec::new() };
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
        Ok(())
    }

    /// Tells debuggers about the image's code, if they do not know it and one is there: one that
    /// attached after the image was bound. Returns whether they know it now.
    ///
    /// Lines and variables are read from the image's file again, and are left out if it was removed
    /// or replaced, or if the image was not made by [`Image::open`](crate::Image::open).
    pub fn tell_debugger(&self) -> bool {
        let mut debugger = self.debugger.lock().unwrap_or_else(PoisonError::into_inner);
        if debugger.is_none() && gdb::is_watching() {
            let file = self.origin.as_ref().and_then(Origin::open);
            *debugger = Some(self.describe(&self.debug_sections(file.as_ref()), gdb::Registration::new));
        }
        debugger.is_some()
    }

    /// Describes the code.
    fn describe<R>(&self, sections: &[DebugSection], tell: impl FnOnce(&Code<'_>) -> R) -> R {
        let text = self.code();
        let text = text.start.addr()..text.end.addr();
        let tables = self.code_tables();
        let stubs: Vec<_> = tables.iter().flat_map(|tables| tables.stubs()).collect();
        let stub_names: Vec<_> = stubs.iter().map(name_of_stub).collect();
        let described = |function: &code::Function<'_>, name| {
            let start = text.start.checked_add(function.start() as usize)?;
            let end = start.checked_add(function.len() as usize).filter(|&end| end <= text.end)?;
            Some(Function { name, address: start, size: end - start })
        };
        let functions = tables.iter().flat_map(|tables| tables.functions()).filter_map(|function| {
            described(&function, if function.name().is_empty() { "<anonymous>" } else { function.name() })
        });
        let stubs = stubs.iter().zip(&stub_names).filter_map(|(stub, name)| described(stub, name));
        let functions: Vec<_> = functions.chain(stubs).collect();
        let rows = self.mapped.unwind_rows();
        let rows = Some(rows).filter(|rows| rows.len() > 4);
        let rows = rows.map(|bytes| Section { address: bytes.as_ptr().addr(), bytes });
        let dwarf: Vec<_> = sections.iter().map(|(name, bytes)| (*name, &**bytes)).collect();
        tell(&Code {
            functions: &functions,
            ranges: if text.is_empty() { &[] } else { std::slice::from_ref(&text) },
            rows: rows.as_slice(),
            dwarf: &dwarf,
        })
    }

    /// Reads the sections for debuggers from the image's file.
    fn debug_sections(&self, file: Option<&File>) -> Vec<DebugSection> {
        let Some(file) = file else { return Vec::new() };
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        let read = |range: Range<u64>| {
            let count = range.end.checked_sub(range.start).filter(|_| range.end <= len)?;
            let count = usize::try_from(count).ok()?;
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(count).ok()?;
            bytes.resize(count, 0);
            file.read_exact_at(&mut bytes, range.start).ok()?;
            Some(bytes)
        };
        let bias = (self.mapped.memory.base() as u64).wrapping_sub(self.mapped.made_for());
        debug_sections(bias, &read)
    }
}
