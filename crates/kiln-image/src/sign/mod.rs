//! Digital signatures of images: who says that what an image loads is what they made.
//!
//! A signature is Ed25519 (RFC 8032) over a text that says what it is, and the [`ContentHash`] of
//! the image. It is in the note, where [`ImageOptions::signers`](crate::ImageOptions) made room, or
//! in a file beside the image. [`Trust`] says whose signatures are wanted. Keys and their files are
//! those of `kiln-keys`, which sign entries of caches, too.
//!
//! What a signature promises and what not is in `docs/images.md`.

mod detached;
mod error;
mod image;
mod trust;

pub use detached::{ParseSignatureError, signatures_beside};
pub use error::{SignatureFault, UntrustedError};
pub use image::{SignError, image_signatures, sign_image, sign_image_detached, verify_signed_bytes};
pub use trust::{Algorithm, ImageSignature, Trust};
