//! The file of a mapped image, found again when a debugger wants what is not mapped.
//!
//! It is not kept open, since a program may load more images than it may have open files.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The file that was mapped.
#[derive(Debug)]
pub(super) struct Origin {
    path: Box<Path>,
    /// Device and number. No other file has them while this one is mapped.
    id: (u64, u64),
}

impl Origin {
    /// Notes the file that was opened at `path`.
    pub(super) fn new(path: &Path, metadata: &Metadata) -> Self {
        Self { path: path.into(), id: (metadata.dev(), metadata.ino()) }
    }

    /// Opens the file again, if it is still there.
    pub(super) fn open(&self) -> Option<File> {
        let is_same = |metadata: Metadata| (metadata.dev(), metadata.ino()) == self.id;
        // Another file is not opened: it may be a pipe.
        if !is_same(std::fs::metadata(&self.path).ok()?) {
            return None;
        }
        let file = File::open(&self.path).ok()?;
        is_same(file.metadata().ok()?).then_some(file)
    }
}
