//! The lines of a module: the places in files that the client's source locations stand for.

use kiln_artifact::record::NONE;

use super::cursor::Cursor;
use super::format::FileRecord;
use super::part::{Guess, Part};

/// A place in a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLine<'a> {
    /// The name of the file, relative to `directory`.
    pub file: &'a str,
    /// The folder; empty if it is not known.
    pub directory: &'a str,
    /// The line, counted from 1; 0 if the code belongs to none.
    pub line: u32,
    /// The column in bytes, counted from 1; 0 if it is not known.
    pub column: u32,
}

/// The lines of a module.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    files: &'a [FileRecord],
    texts: &'a [u8],
    lines: Part<'a>,
}

impl<'a> Lines<'a> {
    /// Reads the lines that follow the name of a module; `None` if it has none.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let files = cursor.len().filter(|&files| files > 0)?;
        let (lines, texts) = (cursor.len()?, cursor.len()?);
        let (files, texts) = (cursor.records(files)?, cursor.bytes(texts)?);
        Some(Self { files, texts, lines: Part::read(cursor, lines)? })
    }

    /// Returns the place that a source location stands for.
    pub(super) fn find(&self, location: u32) -> Option<SourceLine<'a>> {
        if location == NONE {
            return None;
        }
        let mut reader = self.lines.seek_back(0, Guess::none(), |last| last <= location, 1)?;
        let mut found = None;
        while let Some(entry) = reader.line().filter(|entry| entry.location <= location) {
            found = Some(entry);
        }
        let found = found?;
        let file = self.files.get(usize::try_from(found.file).ok()?)?;
        let text = |start: u32| {
            let text = Cursor(self.texts.get(usize::try_from(start).ok()?..)?).text()?;
            std::str::from_utf8(text).ok()
        };
        let (file, directory) = (text(file.name.get())?, text(file.directory.get())?);
        Some(SourceLine { file, directory, line: found.line, column: found.column })
    }

    /// Returns the bytes of the texts and of the stream, and those of the checkpoints.
    pub(super) fn lens(&self) -> (usize, usize) {
        let (stream, checkpoints) = self.lines.lens();
        (size_of_val(self.files) + self.texts.len() + stream, checkpoints)
    }
}
