//! Opens an image only if accepted keys signed what it loads.
//!
//! Bytes are hashed where they are mapped, and no page of code is executable before that. So what
//! was signed is what runs, as long as nobody changes the pages: nobody can if they are a copy.

use std::fs::File;
use std::path::Path;

use kiln_keys::PublicKey;

use super::image::{Image, check_host, file_name, private_copy, sealed_copy};
use super::mapped::{Code, Mapped, Wanted};
use super::origin::Origin;
use crate::error::LoadError;
use crate::read::{Headers, Opened, open_image, segments};
use crate::sign::{ImageSignature, Trust, signatures_beside};

impl Image {
    /// Copies the image in the file at `path` into memory that nobody can change, as
    /// [`Image::open_private`] does, and opens the copy if `trust` accepts it. Before that, none of
    /// it is executable, and nothing of it is used but headers and tables, which are checked.
    ///
    /// Signatures are in the note of the image, or in the file with the same name and `.sig`.
    ///
    /// No change of the file has an effect on the image. What a signature promises and what not is
    /// in `docs/images.md`. Takes the time to copy and to hash what is loaded: comparison V of
    /// `benches/peers`.
    ///
    /// # Errors
    ///
    /// [`LoadError::At`], with the path and the reason: [`LoadError::Untrusted`] says why the
    /// signatures do not suffice; others as for [`Image::open_private`].
    pub fn open_verified(path: impl AsRef<Path>, trust: &Trust) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let open = || {
            let (copy, len, headers) = private_copy(path)?;
            Self::map_verified(copy, len, &headers, trust, signatures_beside(path)?)
        };
        open().map(|image| image.named(&file_name(path))).map_err(|error| error.at(path))
    }

    /// Maps the image in the file at `path` itself, if `trust` accepts it, as
    /// [`Image::open`] does: its memory is shared between processes.
    ///
    /// **Whoever may write to the file can exchange the code after it was verified**, while the
    /// image lives: so this is for files that only those can write to whose code is run anyway,
    /// such as those of the system. It finds what happened to a file before.
    ///
    /// # Errors
    ///
    /// As for [`Image::open_verified`].
    pub fn open_verified_shared(path: impl AsRef<Path>, trust: &Trust) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let open = || {
            let Opened { file, metadata, headers } = open_image(path)?;
            let origin = Some(Origin::new(path, &metadata));
            let mut image =
                Self::map_verified(file, metadata.len(), &headers, trust, signatures_beside(path)?)?;
            image.origin = origin;
            Ok(image.named(&file_name(path)))
        };
        open().map_err(|error: LoadError| error.at(path))
    }

    /// Copies an image that is in memory, and opens the copy if `trust` accepts it.
    ///
    /// # Errors
    ///
    /// As for [`Image::open_verified`], without the path.
    pub fn from_bytes_verified(bytes: &[u8], trust: &Trust) -> Result<Self, LoadError> {
        let headers = Headers::of_bytes(bytes)?;
        let len = bytes.len() as u64;
        // Before anything is copied.
        segments(&headers, len)?;
        let copy = sealed_copy(bytes, len)?;
        Self::map_verified(copy, len, &headers, trust, Vec::new())
    }

    /// Returns the accepted keys whose signatures were verified, each once; none if the image was
    /// opened without.
    pub fn signed_by(&self) -> &[PublicKey] {
        &self.signers
    }

    fn map_verified(
        file: File,
        len: u64,
        headers: &Headers,
        trust: &Trust,
        beside: Vec<ImageSignature>,
    ) -> Result<Self, LoadError> {
        let mut signers = Vec::new();
        let mapped =
            Mapped::new(&file, headers, segments(headers, len)?, Wanted::Base, Code::IfChecked, |view| {
                let content = || view.content_hash(headers);
                let found = trust.check(view.note.signers(), beside, content);
                signers = found.map_err(LoadError::Untrusted)?;
                check_host(view)
            })?;
        let mut image = Self::of(mapped, file);
        image.signers = signers;
        Ok(image)
    }
}
