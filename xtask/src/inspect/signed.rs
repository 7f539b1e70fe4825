//! Who signed an image, or says so.

use kiln::image::keys::PublicKey;
use kiln::image::{
    ContentHash, ImageSignature, content_hash, image_signatures, signatures_beside, verify_signed_bytes,
};
use serde_json::{Value, json};

use crate::input::InputFile;
use crate::no_image::no_image;
use crate::output::{Failure, name};
use crate::sign::TrustArgs;

/// The signatures of an image.
pub(super) struct Signed {
    pub(super) content: ContentHash,
    /// All that are there.
    signatures: Vec<ImageSignature>,
    /// The accepted keys that signed, if anything was verified.
    verified: Option<Vec<PublicKey>>,
}

impl Signed {
    /// Reads the signatures, and verifies them if that is asked.
    pub(super) fn of(input: &InputFile, bytes: &[u8], trust: &TrustArgs) -> Result<Self, Failure> {
        let refused = |error| no_image(input, error);
        let beside = signatures_beside(&input.path).map_err(refused)?;
        let verified =
            trust.trust()?.map(|trust| verify_signed_bytes(bytes, &trust.with(beside.iter().cloned())));
        let mut signatures = image_signatures(bytes).map_err(refused)?;
        signatures.extend(beside);
        Ok(Self {
            content: content_hash(bytes).map_err(refused)?,
            signatures,
            verified: verified.transpose().map_err(refused)?,
        })
    }

    fn is_verified(&self, signature: &ImageSignature) -> bool {
        self.verified.as_ref().is_some_and(|keys| keys.contains(&signature.key))
    }

    /// Returns a line for each signature.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.signatures.iter().map(|signature| {
            let said = if self.is_verified(signature) { "verified" } else { "not verified" };
            format!("{}, {}, {said}", signature.key, name(&signature.algorithm.to_string()))
        })
    }

    pub(super) fn document(&self) -> Value {
        let one = |signature: &ImageSignature| {
            json!({
                "key": signature.key.to_string(),
                "algorithm": signature.algorithm.to_string(),
                "verified": self.is_verified(signature),
            })
        };
        self.signatures.iter().map(one).collect()
    }
}
