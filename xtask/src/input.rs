//! Reads the files and folders that the command line names, as modules.

mod file_module;
mod files;
mod kind;
mod options;
mod read;

pub(crate) use self::file_module::{FileModule, Parsed, ReadError, modules_of};
pub(crate) use self::files::{BINARY, InputFile, TEXT, debugged, files, image, in_order};
pub(crate) use self::kind::{kind_of_no_image, start_of};
pub(crate) use self::options::{Globals, InlineArgs, Level, Profiler, target, threads};
pub(crate) use self::read::{all, lazy, modules, one, outline};
