//! The options of `build` that are about layers: images that are linked on other images.

use std::path::PathBuf;

use kiln::image::{Base, Image, OpenOptions};

use crate::output::Failure;

/// Options of layers and their bases.
#[derive(clap::Args)]
pub(crate) struct LayerArgs {
    /// Link on this image: what it exports is not a part of the output, but found in it, with the
    /// same types, when the output is loaded; `replaceable` functions of it can be defined again.
    /// Images that it is linked on itself are found in its folder. Can be given several times
    #[arg(long, value_name = "IMAGE")]
    base: Vec<PathBuf>,
    /// Put the compiled modules into the image, compressed, so that `flatten` links it again with
    /// other images
    #[arg(long)]
    embed_artifacts: bool,
}

impl LayerArgs {
    /// Whether any of the options was given.
    pub(super) fn is_given(&self) -> bool {
        !self.base.is_empty() || self.embed_artifacts
    }

    /// Whether artifacts are put into the image.
    pub(super) fn embeds(&self) -> bool {
        self.embed_artifacts
    }

    /// Opens the images, and those that they are linked on, each once and after its own.
    pub(super) fn bases(&self) -> Result<Vec<Image>, Failure> {
        let options = OpenOptions { bases: self.base.clone(), ..OpenOptions::default() };
        let mut bases: Vec<Image> = Vec::new();
        for path in &self.base {
            let opened = Image::open_with_bases(path, &options).map_err(Failure::of)?;
            for image in opened {
                if !bases.iter().any(|known| known.id() == image.id()) {
                    bases.push(image);
                }
            }
        }
        Ok(bases)
    }
}

/// Returns the images as what modules are linked on.
pub(super) fn as_bases(images: &[Image]) -> Vec<&dyn Base> {
    images.iter().map(|image| image as &dyn Base).collect()
}
