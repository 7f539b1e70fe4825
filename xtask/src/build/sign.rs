//! The options of `build` for signatures.

use std::path::PathBuf;

use kiln::image::ImageOptions;
use kiln::image::keys::Signer;

use crate::output::Failure;
use crate::sign::signer;

/// Signatures in the image.
#[derive(clap::Args)]
pub(super) struct SignedArgs {
    /// Sign the image with the secret key in this file, which `keygen` wrote; can be given several
    /// times
    #[arg(long, value_name = "FILE")]
    sign: Vec<PathBuf>,
    /// Leave room in the image for this many more signatures, for `sign --embed`
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=32))]
    signers: u8,
}

impl SignedArgs {
    /// Reads the keys.
    pub(super) fn signers(&self, is_object: bool) -> Result<Vec<Signer>, Failure> {
        if is_object && (!self.sign.is_empty() || self.signers > 0) {
            return Err(Failure::new("--sign and --signers are for images, not for --emit object"));
        }
        if self.sign.len() > 32 {
            return Err(Failure::new("--sign is given more than 32 times"));
        }
        self.sign.iter().map(|file| signer(file)).collect()
    }

    /// Returns the options of an image with room for the signatures.
    pub(super) fn room(&self, options: ImageOptions) -> ImageOptions {
        ImageOptions { signers: self.sign.len() as u8 + self.signers, ..options }
    }
}
