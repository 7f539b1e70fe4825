//! The file of a mapped image, found again when a debugger wants what is not mapped.
//!
//! It is not kept open, since a program may load more images than it may have open files.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::LoadError;

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

    /// Returns the path at which it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
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

/// Returns the error for code that cannot be mapped from `file`. If the file system of the file is
/// mounted so that nothing on it is executed, the error says where.
pub(super) fn not_executable(file: &File, source: io::Error) -> LoadError {
    if source.kind() != io::ErrorKind::PermissionDenied {
        return LoadError::io("map the code of")(source);
    }
    // The kernel knows by which of its mounts a file was opened.
    let link = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let id = read(&link).lines().find_map(|line| Some(line.strip_prefix("mnt_id:")?.trim().to_owned()));
    let mount = id.and_then(|id| noexec_mount(&read("/proc/self/mountinfo"), &id));
    LoadError::NotExecutable { mount, source }
}

/// Returns the folder of the mount with this number, if it is mounted `noexec`. `mounts` is the
/// list of mounts as the kernel shows it: `proc(5)`, `/proc/pid/mountinfo`.
fn noexec_mount(mounts: &str, id: &str) -> Option<Box<Path>> {
    let mount = mounts.lines().find(|line| line.split(' ').next() == Some(id))?;
    let mut fields = mount.split(' ').skip(4);
    let (folder, options) = (fields.next()?, fields.next()?);
    let is_noexec = options.split(',').any(|option| option == "noexec");
    // Spaces are written as numbers.
    is_noexec.then(|| PathBuf::from(folder.replace("\\040", " ")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_by_its_number() {
        let mounts = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                      31 22 0:5 / /media/my\\040stick rw,nosuid,noexec shared:3 - vfat /dev/sdb rw\n";
        assert_eq!(noexec_mount(mounts, "31"), Some(Path::new("/media/my stick").into()));
        assert_eq!(noexec_mount(mounts, "22"), None);
        assert_eq!(noexec_mount(mounts, "3"), None);
    }
}
