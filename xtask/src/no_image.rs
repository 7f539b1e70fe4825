//! The failure of a command that was given a file that is not an image.

use kiln::image::LoadError;

use crate::input::{self, InputFile};
use crate::output::Failure;

/// Returns the failure for a file that is not an image. It says what the file is, if that is known.
pub(crate) fn no_image(input: &InputFile, error: LoadError) -> Failure {
    // The path of a copy would tell the user nothing.
    let error = match error {
        LoadError::At { source, .. } => *source,
        error => error,
    };
    let failure = Failure::while_doing(format!("image {}", input.name.display()), error);
    match input::start_of(&input.path).ok().and_then(|start| input::kind_of_no_image(&start)) {
        Some(kind) if !kind.may_be_image() => failure.and(&kind.sentence()),
        _ => failure,
    }
}
