//! Signing an image that is in memory as a file, and reading its signatures.

use std::fmt;

use kiln_keys::{PublicKey, Signer};
use zerocopy::IntoBytes;

use super::trust::{ImageSignature, Trust};
use crate::error::LoadError;
use crate::note::{PREFIX_LEN, SignerRecord};
use crate::read::{View, content_hash, verify_bytes};

/// The reason why an image is not signed.
#[derive(Debug)]
#[non_exhaustive]
pub enum SignError {
    /// The bytes are not an image, or an altered one.
    Image(LoadError),
    /// The note has no room for one more signature.
    NoRoom {
        /// The number of signatures for which it was made.
        room: usize,
    },
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(_) => f.write_str("cannot sign what is not whole"),
            Self::NoRoom { room: 0 } => f.write_str("the image was built without room for signatures"),
            Self::NoRoom { room } => write!(f, "the image has room for {room} signatures, and as many"),
        }
    }
}

impl std::error::Error for SignError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Image(error) => Some(error),
            Self::NoRoom { .. } => None,
        }
    }
}

/// Signs an image in its note, where [`ImageOptions::signers`](crate::ImageOptions) made room. A
/// signature of the same key is replaced. What is loaded is compared with its checksums first.
///
/// # Errors
///
/// [`SignError::NoRoom`], [`SignError::Image`]; then nothing is changed.
pub fn sign_image(image: &mut [u8], signer: &Signer) -> Result<(), SignError> {
    let signature = sign_image_detached(image, signer).map_err(SignError::Image)?;
    let view = View::of_file(image).map_err(SignError::Image)?;
    let signers = view.note.signers();
    let own =
        |record: &&SignerRecord| record.algorithm.get() != 0 && record.key == *signer.public().as_bytes();
    let number = (signers.iter().position(|record| own(&record)))
        .or_else(|| signers.iter().position(|record| ImageSignature::of_record(record).is_none()));
    let number = number.ok_or(SignError::NoRoom { room: signers.len() })?;
    // The note was found in the file.
    let room = (view.note_offset + PREFIX_LEN as u64 + view.note.head.signers.start.get()) as usize;
    let at = room + number * size_of::<SignerRecord>();
    image[at..at + size_of::<SignerRecord>()].copy_from_slice(signature.record().as_bytes());
    Ok(())
}

/// Returns a signature of an image for a file beside it. What is loaded is compared with its
/// checksums first.
///
/// # Errors
///
/// [`LoadError`] if the bytes are not an image, or were altered since it was written.
pub fn sign_image_detached(image: &[u8], signer: &Signer) -> Result<ImageSignature, LoadError> {
    verify_bytes(image)?;
    Ok(ImageSignature::new(signer, &content_hash(image)?))
}

/// Returns the signatures in the note of an image, which are read and not verified.
///
/// # Errors
///
/// Those of [`ImageInfo::parse`](crate::ImageInfo::parse).
pub fn image_signatures(image: &[u8]) -> Result<Vec<ImageSignature>, LoadError> {
    Ok(View::of_file(image)?.note.signers().iter().filter_map(ImageSignature::of_record).collect())
}

/// Verifies the signatures of an image that is in memory as a file, for any architecture, and
/// returns the accepted keys that signed it.
///
/// # Errors
///
/// [`LoadError::Untrusted`] says which signatures are there; others as for
/// [`ImageInfo::parse`](crate::ImageInfo::parse).
pub fn verify_signed_bytes(image: &[u8], trust: &Trust) -> Result<Vec<PublicKey>, LoadError> {
    let view = View::of_file(image)?;
    let content = content_hash(image)?;
    trust.check(view.note.signers(), Vec::new(), || content).map_err(LoadError::Untrusted)
}
