//! The map: a line for each function, with address, size and name.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use super::file;
use super::writer::{Failure, Writer, failure};
use crate::describe::Code;

pub(super) struct Map {
    file: File,
    /// Kept, so that a batch allocates nothing.
    lines: String,
    /// Whether the last batch was perhaps not written completely.
    broken: bool,
}

/// The most bytes of memory that are kept between batches.
const KEPT: usize = 64 << 10;

impl Writer for Map {
    fn open(process: u32) -> Result<Self, Failure> {
        let path = PathBuf::from(format!("/tmp/perf-{process}.map"));
        let file = file::append(&path, &mut OpenOptions::new()).map_err(failure("open"))?;
        Ok(Self { file, lines: String::new(), broken: false })
    }

    fn add(&mut self, code: &Code<'_>) -> Result<(), Failure> {
        let Self { file, lines, broken } = self;
        lines.clear();
        if *broken {
            // The end of the line of which only a part was written.
            lines.push('\n');
        }
        for function in code.functions {
            let _ = write!(lines, "{:x} {:x} ", function.address, function.size);
            lines
                .extend(function.name.chars().map(|c| if matches!(c, '\n' | '\r' | '\0') { '?' } else { c }));
            lines.push('\n');
        }
        let result = file.write_all(lines.as_bytes()).map_err(failure("write to"));
        *broken = result.is_err();
        lines.shrink_to(KEPT);
        result
    }
}
