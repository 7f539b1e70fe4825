//! `completions` and `man`: files for shells and for `man`, made from the command line itself.

use std::path::PathBuf;

use crate::output::{Failure, Outcome, print_bytes};

/// Print a script with which a shell completes the command line of `kiln`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln completions bash > ~/.local/share/bash-completion/completions/kiln
  kiln completions zsh > ~/.zfunc/_kiln
  kiln completions fish > ~/.config/fish/completions/kiln.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Write a page for `man` about each command.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln man ~/.local/share/man/man1
  man kiln-build")]
pub(crate) struct ManArgs {
    /// The folder for the pages, which is made if it does not exist
    folder: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, command: &mut clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "kiln", &mut script);
    print_bytes(&script);
    Ok(())
}

pub(crate) fn man(args: &ManArgs, command: clap::Command) -> Outcome {
    let failed = |error| Failure::while_doing(format!("cannot write to {}", args.folder.display()), error);
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(command, &args.folder).map_err(failed)
}
