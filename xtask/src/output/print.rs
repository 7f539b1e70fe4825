//! Prints to the terminal. Everything that this program prints goes through here.
//!
//! This module replaces [`println!`] and [`eprintln!`] in this crate. They print for people, so
//! characters that cannot be seen are shown as escapes, in every name. If standard output cannot be
//! written, that is an error and not a panic.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _, stderr, stdout};

use super::escape::visible;

/// Prints a line for people to standard output.
macro_rules! println {
    ($($part:tt)*) => { $crate::output::print_line(format_args!($($part)*)) };
}

/// Prints a line for people to standard error.
macro_rules! eprintln {
    ($($part:tt)*) => { $crate::output::print_error_line(format_args!($($part)*)) };
}

pub(crate) fn print_line(line: Arguments<'_>) {
    print_bytes(format!("{}\n", visible(&line.to_string())).as_bytes());
}

pub(crate) fn print_error_line(line: Arguments<'_>) {
    // If this fails, there is no way left to report it.
    let _ = stderr().write_all(format!("{}\n", visible(&line.to_string())).as_bytes());
}

/// Writes bytes to standard output as they are. If they cannot be written, the process ends,
/// without a message if the reader, such as `head`, has closed the pipe.
pub(crate) fn print_bytes(bytes: &[u8]) {
    let mut out = stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        unwritten(&error);
    }
}

/// Ends the process, because standard output cannot be written.
pub(crate) fn unwritten(error: &std::io::Error) -> ! {
    if error.kind() != ErrorKind::BrokenPipe {
        eprintln!("error: cannot write to standard output: {error}");
    }
    std::process::exit(1);
}
