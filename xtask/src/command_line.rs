//! Parses the command line with clap, and adds things that clap lacks: negative numbers that
//! contain letters, suggestions for options in which letters are swapped, and help that names the
//! program as it was started.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::ExitCode;

use clap::builder::{Resettable, StyledStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};

use crate::nearest::nearest;
use crate::output::{name, unwritten};

/// The words that start this program: `cargo xtask`, or `kiln` if it is installed.
pub(crate) fn program() -> &'static str {
    // `cargo run` says which package it runs. Installed, and called by some other build script, it
    // is not the one of this folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    if package.is_some_and(|folder| folder == env!("CARGO_MANIFEST_DIR")) { "cargo xtask" } else { "kiln" }
}

/// The command line of the installed program, for what is made of it.
pub(crate) fn installed<T: Parser>() -> Command {
    named(T::command(), "kiln").bin_name("kiln")
}

/// Lets all help name the program `program`. In the sources it is `cargo xtask`.
fn named(command: Command, program: &str) -> Command {
    if program != "kiln" {
        return command;
    }
    let name = |text: Option<&StyledStr>| {
        let words = ["cargo xtask-remote", "cargo xtask", "target/release/kiln"];
        let named = |text: String| words.iter().fold(text, |text, words| text.replace(words, program));
        Resettable::from(text.map(|text| StyledStr::from(named(text.to_string()))))
    };
    let (about, long_about) = (name(command.get_about()), name(command.get_long_about()));
    let after_help = name(command.get_after_help());
    let command = command.about(about).long_about(long_about).after_help(after_help);
    let command = command.mut_args(|arg| {
        let (help, long_help) = (name(arg.get_help()), name(arg.get_long_help()));
        arg.help(help).long_help(long_help)
    });
    command.mut_subcommands(|subcommand| named(subcommand, program))
}

/// Parses the command line. On an error or a request for help, prints the message and returns the
/// exit code.
pub(crate) fn parse<T: Parser>(args: impl Iterator<Item = OsString>) -> Result<T, ExitCode> {
    let mut args: Vec<_> = args.collect();
    if args.get(1).is_some_and(|command| command == "call") {
        args.iter_mut().for_each(keep_number);
    }
    let mut command = named(T::command(), program()).bin_name(program());
    let parsed = command.try_get_matches_from_mut(&args);
    let mut error = match parsed.and_then(|matches| T::from_arg_matches(&matches)) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::UnknownArgument {
        let subcommand = args.get(1).and_then(|name| command.find_subcommand(name).cloned());
        suggest(&mut error, subcommand.unwrap_or(command));
    }
    let text = error.render().to_string();
    if error.use_stderr() && text.lines().any(|line| name(line) != line) {
        // An argument has characters that cannot be seen. Clap would print them unchanged.
        eprintln!("{}", text.trim_end());
    } else if let Err(error) = error.print().and_then(|()| std::io::stdout().flush()) {
        unwritten(&error);
    }
    Err(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
}

/// Suggests the option that is most similar to an unknown one. Clap compares letters at similar
/// positions, so it finds no option for `--vai`.
fn suggest(error: &mut clap::Error, command: Command) {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return };
    let Some(unknown) = unknown.strip_prefix("--") else { return };
    let options: Vec<&str> = command.get_arguments().filter_map(|option| option.get_long()).collect();
    let near = nearest(unknown, options.into_iter());
    if let (Some(near), None) = (near.first(), error.get(ContextKind::SuggestedArg)) {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{near}")));
        error.remove(ContextKind::Suggested);
    }
}

/// Puts a space before a number like `-inf`, `-0x10` or `-1e-3`, which clap would otherwise take
/// for one-letter options. The parser of numbers ignores the space.
fn keep_number(argument: &mut OsString) {
    let is_number = |text: &str| {
        let Some(text) = text.strip_prefix('-') else { return false };
        let text = text.to_ascii_lowercase();
        text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            || ["inf", "nan", "snan"].iter().any(|word| text.starts_with(word))
    };
    if argument.to_str().is_some_and(is_number) {
        let number = std::mem::replace(argument, OsString::from(" "));
        argument.push::<&OsStr>(&number);
    }
}
