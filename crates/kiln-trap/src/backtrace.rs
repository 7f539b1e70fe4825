//! Backtraces that name compiled frames among those of the host.

use std::fmt;
use std::ops::ControlFlow;

use crate::code::SourceInfo;
use crate::registry;
use crate::walk::{self, Step};

/// The frames of a stack, innermost first. Displaying it prints one frame a line, with its source
/// on the next line.
#[derive(Clone, Debug, Default)]
pub struct Backtrace {
    frames: Vec<BacktraceFrame>,
    /// How many frames are missing, and behind how many.
    missing: (usize, usize),
}

/// A frame of a [`Backtrace`].
#[derive(Clone, Debug)]
pub struct BacktraceFrame {
    pc: usize,
    code: Option<CodeFrame>,
}

/// The function and the source of a frame of compiled code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeFrame {
    /// The function's name; empty if it has none.
    pub function: String,
    /// The name of its module; empty if it has none.
    pub module: String,
    /// Bytes from the function's start.
    pub offset: usize,
    /// The source, if it is known.
    pub source: Option<Source>,
}

/// The place in a source text that code was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The compiler's own number for the location (Cranelift's `SourceLoc`).
    pub location: u32,
    /// The file; empty if only the number is known.
    pub file: String,
    /// The line, from 1; 0 if it is not known.
    pub line: u32,
    /// The column, from 1; 0 if it is not known.
    pub column: u32,
}

impl CodeFrame {
    /// Returns the function and source of the instruction at `pc`, if it is in registered code.
    pub fn at(pc: usize) -> Option<Self> {
        registry::at(pc, |code| {
            let mut frame = None;
            code.function_at(pc, &mut |function| {
                let (name, module) = (function.name.to_owned(), function.module.to_owned());
                let offset = pc.wrapping_sub(function.start);
                frame = Some(Self { function: name, module, offset, source: None });
            });
            let mut frame = frame?;
            code.source_at(pc, &mut |source| {
                let SourceInfo { location, file, line, column } = source;
                frame.source = Some(Source { location, file: file.to_owned(), line, column });
            });
            Some(frame)
        })
        .flatten()
    }
}

impl fmt::Display for CodeFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, module, offset, source } = self;
        let function = if function.is_empty() { "a function without a name" } else { function };
        write!(f, "{function}+{offset:#x}")?;
        if !module.is_empty() {
            write!(f, " ({module})")?;
        }
        match source {
            Some(source) => write!(f, " at {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.is_empty(), self.line) {
            (true, 0) => write!(f, "@{:x}", self.location),
            (true, line) => write!(f, "line {line}"),
            (false, 0) => write!(f, "{}", self.file),
            (false, line) if self.column == 0 => write!(f, "{}:{line}", self.file),
            (false, line) => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

impl Backtrace {
    /// Takes the frames of this thread, from the caller outwards.
    ///
    /// Compiled frames have their names at once. The host's are named when the backtrace is
    /// printed, if the crate has the feature `symbols`.
    #[inline(never)]
    pub fn capture() -> Self {
        let here = 0u8;
        let below = (&raw const here).addr();
        let mut frames = Vec::new();
        walk::stack(&mut |step| {
            match step {
                Step::Host(frame) if frame.sp() <= below => {}
                Step::Host(frame) => frames.push(Self::frame_inside(frame.pc().0, frame.inside())),
                Step::Code { return_pc, .. } => frames.push(Self::frame(return_pc, true)),
                Step::Thunk { .. } => {}
            }
            ControlFlow::Continue(())
        });
        // The unwinder shows the end of the stack as a frame.
        frames.retain(|frame| frame.pc != 0);
        Self::new(frames, (0, 0))
    }

    /// Returns the frames.
    pub fn frames(&self) -> &[BacktraceFrame] {
        &self.frames
    }

    /// Returns how many frames were not kept, of a stack that was very deep.
    pub fn missing(&self) -> usize {
        self.missing.1
    }

    pub(crate) fn new(frames: Vec<BacktraceFrame>, missing: (usize, usize)) -> Self {
        Self { frames, missing }
    }

    pub(crate) fn code(frame: CodeFrame) -> BacktraceFrame {
        BacktraceFrame { pc: 0, code: Some(frame) }
    }

    pub(crate) fn frame(pc: usize, is_return: bool) -> BacktraceFrame {
        Self::frame_inside(pc, pc.wrapping_sub(usize::from(is_return)))
    }

    fn frame_inside(pc: usize, inside: usize) -> BacktraceFrame {
        BacktraceFrame { pc, code: CodeFrame::at(inside) }
    }
}

impl BacktraceFrame {
    /// Returns the address of the instruction, or where the frame continues after its call.
    pub fn pc(&self) -> usize {
        self.pc
    }

    /// Returns the function and source, if it is a frame of compiled code.
    pub fn code(&self) -> Option<&CodeFrame> {
        self.code.as_ref()
    }
}

impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, frame) in self.frames.iter().enumerate() {
            if number == self.missing.0 && self.missing.1 > 0 {
                writeln!(f, "      ... {} frames ...", self.missing.1)?;
            }
            match &frame.code {
                Some(code) => writeln!(f, "{number:4}: {code}")?,
                None => host(f, number, frame.pc)?,
            }
        }
        Ok(())
    }
}

#[cfg(feature = "symbols")]
fn host(f: &mut fmt::Formatter<'_>, number: usize, pc: usize) -> fmt::Result {
    let mut lines = Vec::new();
    // A return address may be the start of the next function.
    backtrace::resolve((pc - 1) as *mut std::ffi::c_void, |symbol| {
        let name = symbol.name().map_or_else(|| format!("{pc:#x}"), |name| format!("{name:#}"));
        let file = symbol.filename().map(|file| file.display().to_string());
        lines.push((name, file.map(|file| format!("{file}:{}", symbol.lineno().unwrap_or(0)))));
    });
    if lines.is_empty() {
        return writeln!(f, "{number:4}: {pc:#x}");
    }
    for (index, (name, place)) in lines.into_iter().enumerate() {
        match index {
            0 => writeln!(f, "{number:4}: {name}")?,
            _ => writeln!(f, "      {name}")?,
        }
        if let Some(place) = place {
            writeln!(f, "             at {place}")?;
        }
    }
    Ok(())
}

#[cfg(not(feature = "symbols"))]
fn host(f: &mut fmt::Formatter<'_>, number: usize, pc: usize) -> fmt::Result {
    writeln!(f, "{number:4}: {pc:#x}")
}
