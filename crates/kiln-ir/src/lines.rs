//! The line table of a module: the file, line and column that a client's source locations stand
//! for.
//!
//! Cranelift keeps a number, `SourceLoc`, with every instruction, and does not know what it means.
//! The table says it. It is a part of the module and not of its functions, whose locations are
//! relative to a base: a function that only moves in its file is the same function, and its code is
//! used again.
//!
//! Entries are kept as differences, four bytes for most of them. A module with thousands of
//! functions has an entry for nearly every instruction.

use cranelift_codegen::ir::SourceLoc;
use indexmap::IndexSet;

use crate::body::wire::{ByteReader, ByteWriter, DecodeResult, unzigzag};

/// A file that source locations are in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceFile {
    /// The path, as it was given to the compiler. A relative path starts at `directory`.
    pub name: Box<str>,
    /// The folder that `name` is relative to; empty if it is not known.
    pub directory: Box<str>,
    /// The language, as a `DW_LANG` code of DWARF; 0 if it has none. That of the first file is the
    /// language of the module.
    pub language: u16,
}

impl SourceFile {
    /// Makes a file whose folder and language are not known.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), directory: "".into(), language: 0 }
    }

    /// Sets the folder that the name is relative to.
    #[must_use]
    pub fn directory(self, directory: impl Into<Box<str>>) -> Self {
        Self { directory: directory.into(), ..self }
    }

    /// Sets the language, a `DW_LANG` code of DWARF.
    #[must_use]
    pub fn language(self, language: u16) -> Self {
        Self { language, ..self }
    }
}

/// The number of a file in a [`LineTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u32);

impl FileId {
    /// Returns the file with this number, counted from 0.
    pub fn from_u32(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number, counted from 0.
    pub fn as_u32(self) -> u32 {
        self.0
    }
}

/// The place in a file that source locations from `location` on stand for, up to the location of
/// the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineEntry {
    /// The first location that this entry is for.
    pub location: SourceLoc,
    /// The file.
    pub file: FileId,
    /// The line, counted from 1; 0 if there is none.
    pub line: u32,
    /// The column in bytes, counted from 1; 0 if there is none.
    pub column: u32,
}

/// The error that something cannot be added to a [`LineTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The name of a file is empty, or its name or folder has a zero byte.
    #[error("the name of a source file is empty or has a zero byte")]
    Name,
    /// There is no file with this number.
    #[error("there is no source file {0}")]
    File(u32),
    /// The location is not after the one before it, or is the location that means none.
    #[error("source location {0} is out of order")]
    Order(SourceLoc),
}

/// Files, and what source locations stand for. Entries are in order of their locations.
///
/// ```
/// use cranelift_codegen::ir::SourceLoc;
/// use kiln_ir::{LineTable, SourceFile};
///
/// let mut lines = LineTable::default();
/// let file = lines.file(SourceFile::new("area.lang").directory("/src"))?;
/// let sum = lines.location(file, 3, 5)?;
/// let ret = lines.location(file, 4, 1)?;
/// assert_eq!((sum, ret), (SourceLoc::new(0), SourceLoc::new(1)));
/// assert_eq!(lines.find(ret).map(|entry| (entry.line, entry.column)), Some((4, 1)));
/// # Ok::<(), kiln_ir::LineError>(())
/// ```
#[derive(Clone, Default)]
pub struct LineTable {
    files: IndexSet<SourceFile>,
    /// The entries, each as differences from the one before it.
    bytes: Vec<u8>,
    len: usize,
    last: Option<LineEntry>,
}

impl PartialEq for LineTable {
    fn eq(&self, other: &Self) -> bool {
        let Self { files, bytes, len: _, last: _ } = self;
        files.iter().eq(&other.files) && *bytes == other.bytes
    }
}

impl Eq for LineTable {}

impl std::fmt::Debug for LineTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries: Vec<_> = self.iter().collect();
        f.debug_struct("LineTable").field("files", &self.files).field("entries", &entries).finish()
    }
}

impl LineTable {
    /// Adds a file, unless the table has the same file, and returns its number.
    ///
    /// # Errors
    ///
    /// [`LineError::Name`].
    pub fn file(&mut self, file: SourceFile) -> Result<FileId, LineError> {
        if file.name.is_empty() || file.name.contains('\0') || file.directory.contains('\0') {
            return Err(LineError::Name);
        }
        Ok(FileId(self.files.insert_full(file).0 as u32))
    }

    /// Adds an entry for the next free location, and returns that location. Equal places that
    /// follow each other get one location.
    ///
    /// Locations that a function gets one after the other stay the same distance apart when code
    /// before the function changes. So the function can be used again.
    ///
    /// # Errors
    ///
    /// [`LineError::File`], and [`LineError::Order`] if no location is left.
    pub fn location(&mut self, file: FileId, line: u32, column: u32) -> Result<SourceLoc, LineError> {
        let location = match self.last {
            Some(last) if (last.file, last.line, last.column) == (file, line, column) => {
                return Ok(last.location);
            }
            last => SourceLoc::new(last.map_or(0, |last| last.location.bits() + 1)),
        };
        self.push(LineEntry { location, file, line, column })?;
        Ok(location)
    }

    /// Adds an entry for a location of the client's own, which must be greater than that of the
    /// last entry.
    ///
    /// # Errors
    ///
    /// [`LineError::File`] and [`LineError::Order`].
    pub fn push(&mut self, entry: LineEntry) -> Result<(), LineError> {
        let LineEntry { location, file, line, column } = entry;
        if file.0 as usize >= self.files.len() {
            return Err(LineError::File(file.0));
        }
        let after = self.last.is_none_or(|last| location.bits() > last.location.bits());
        if location.is_default() || !after {
            return Err(LineError::Order(location));
        }
        let (from, before) = self.last.map_or((0, 0), |last| (last.location.bits(), last.line));
        let mut out = ByteWriter(std::mem::take(&mut self.bytes));
        out.uint(u64::from(location.bits() - from));
        out.uint(u64::from(file.0));
        out.int(i64::from(line) - i64::from(before));
        out.uint(u64::from(column));
        self.bytes = out.0;
        self.len += 1;
        self.last = Some(entry);
        Ok(())
    }

    /// Returns the files in the order of their numbers.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &SourceFile> {
        self.files.iter()
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries. There may be files.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the entries in order of their locations.
    pub fn iter(&self) -> LineEntries<'_> {
        LineEntries { reader: ByteReader::new(&self.bytes), location: 0, line: 0, left: self.len }
    }

    /// Returns a table with `entries` of this table, and with the files that they are in.
    pub(crate) fn part(&self, entries: &[LineEntry]) -> Self {
        let mut part = Self::default();
        for entry in entries {
            let file = self.files.get_index(entry.file.0 as usize).cloned().map(|file| part.file(file));
            if let Some(Ok(file)) = file {
                // They are in order in this table, so they are in the part.
                let _ = part.push(LineEntry { file, ..*entry });
            }
        }
        part
    }

    /// Returns the entry that says what `location` stands for: the last one that is not after it.
    /// Time is linear in the number of entries.
    pub fn find(&self, location: SourceLoc) -> Option<LineEntry> {
        if location.is_default() {
            return None;
        }
        self.iter().take_while(|entry| entry.location.bits() <= location.bits()).last()
    }
}

/// The entries of a [`LineTable`], in order of their locations.
#[derive(Clone)]
pub struct LineEntries<'a> {
    reader: ByteReader<'a>,
    location: u32,
    line: u32,
    left: usize,
}

impl std::fmt::Debug for LineEntries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineEntries").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Iterator for LineEntries<'_> {
    type Item = LineEntry;

    fn next(&mut self) -> Option<LineEntry> {
        self.left = self.left.checked_sub(1)?;
        // The bytes are those that `push` wrote.
        let entry = differences(&mut self.reader, self.location, self.line).ok()?;
        (self.location, self.line) = (entry.location.bits(), entry.line);
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for LineEntries<'_> {}

/// Reads an entry that follows one for `location` and `line`.
fn differences(reader: &mut ByteReader<'_>, location: u32, line: u32) -> DecodeResult<LineEntry> {
    let number = |reader: &ByteReader<'_>, number: Option<u32>| {
        number.ok_or_else(|| reader.error("an integer of more than 32 bits"))
    };
    let step = reader.u32()?;
    let location = number(reader, location.checked_add(step))?;
    let file = FileId(reader.u32()?);
    let line = i64::from(line).checked_add(unzigzag(reader.uint()?));
    let line = number(reader, line.and_then(|line| u32::try_from(line).ok()))?;
    Ok(LineEntry { location: SourceLoc::new(location), file, line, column: reader.u32()? })
}

impl ByteWriter {
    /// Writes a line table: its files, and if there are any, its entries.
    pub(crate) fn lines(&mut self, lines: &LineTable) {
        let LineTable { files, bytes, len, last: _ } = lines;
        self.count(files.len());
        for SourceFile { name, directory, language } in files {
            self.str(name);
            self.str(directory);
            self.uint(u64::from(*language));
        }
        if !files.is_empty() {
            self.count(*len);
            self.raw(bytes);
        }
    }
}

impl ByteReader<'_> {
    /// Reads a line table. Equal tables have equal bytes.
    pub(crate) fn lines(&mut self) -> DecodeResult<LineTable> {
        let mut lines = LineTable::default();
        for number in 0..self.count()? {
            let (name, directory) = (self.str()?.into(), self.str()?.into());
            let language = u16::try_from(self.uint()?).map_err(|_| self.error("not a language"))?;
            let added = lines.file(SourceFile { name, directory, language });
            if added != Ok(FileId(number as u32)) {
                return Err(self.error("a source file without a name, or one that is there already"));
            }
        }
        if lines.files.is_empty() {
            return Ok(lines);
        }
        for _ in 0..self.count()? {
            let (location, line) = lines.last.map_or((0, 0), |last| (last.location.bits(), last.line));
            let entry = differences(self, location, line)?;
            lines.push(entry).map_err(|_| self.error("not a line of a source file"))?;
        }
        Ok(lines)
    }
}
