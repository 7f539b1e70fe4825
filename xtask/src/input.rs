//! Files and folders named on the command line, as modules.

mod file_module;
mod files;
mod options;
mod read;

pub(crate) use self::file_module::{FileModule, Parsed, ReadError, modules_of};
pub(crate) use self::files::{BINARY, TEXT, files};
pub(crate) use self::options::{Level, target, threads};
pub(crate) use self::read::{all, lazy, modules, one, outline};
