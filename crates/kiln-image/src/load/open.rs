//! Opening an image together with the images that it is a layer on.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_globals::Resolve;

use super::bind::Loaded;
use super::image::Image;
use crate::base::{Base, ImageId};
use crate::error::LoadError;
use crate::note::MAX_BASES;

/// The way in which an image and its bases are found and opened: see [`Loaded::open`].
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Files that are bases, in any order. A base that is not among them, by its name, is looked
    /// for in the folder of the layer.
    pub bases: Vec<PathBuf>,
    /// Images that are loaded already, which are taken for bases first: so several layers share
    /// them.
    pub loaded: Vec<Arc<Loaded>>,
    /// See [`Image::allow_other_bases`].
    pub allow_other_bases: bool,
    /// Whether files are opened with [`Image::open_private`], so that no change of them matters.
    pub private: bool,
    /// The keys that must have signed every image: files are opened with [`Image::open_verified`].
    #[cfg(feature = "sign")]
    pub trust: Option<crate::sign::Trust>,
}

impl Loaded {
    /// Opens the image at `path`, finds and loads the images that it is a layer on, and theirs, and
    /// binds all with `resolver`.
    ///
    /// # Errors
    ///
    /// As for [`Image::open_with_bases`] and [`Image::bind_on`].
    pub fn open(
        path: impl AsRef<Path>,
        options: &OpenOptions,
        resolver: &dyn Resolve,
    ) -> Result<Arc<Self>, LoadError> {
        let mut loaded = options.loaded.clone();
        let mut images = Image::open_with_bases(path, options)?;
        let last = images.pop().ok_or(LoadError::NotAFile)?;
        for image in images {
            loaded.push(Arc::new(image.bind_on(&loaded, resolver)?));
        }
        last.bind_on(&loaded, resolver).map(Arc::new)
    }
}

impl Image {
    /// Opens the image at `path`, and the images that it is a layer on, and theirs, without binding
    /// any. Returns them in the order in which they must be bound, the image at `path` last,
    /// without those that are [loaded](OpenOptions::loaded) already.
    ///
    /// # Errors
    ///
    /// As for [`Image::open`]; [`LoadError::MissingBase`] and [`LoadError::OtherBase`];
    /// [`LoadError::BaseCycle`] and [`LoadError::BaseDepth`] if layers are on each other without
    /// end.
    pub fn open_with_bases(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Vec<Self>, LoadError> {
        let mut opener = Opener { options, images: Vec::new(), open: Vec::new() };
        opener.open(path.as_ref(), None)?;
        Ok(opener.images)
    }
}

/// The images that are opened.
struct Opener<'o> {
    options: &'o OpenOptions,
    images: Vec<Image>,
    /// The devices and numbers of the files that are being opened, of which each needs the next.
    open: Vec<(u64, u64)>,
}

impl Opener<'_> {
    /// Opens a file after its bases. If it is a base, `wanted` has its name and id.
    fn open(&mut self, path: &Path, wanted: Option<(&str, ImageId)>) -> Result<(), LoadError> {
        let file_id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let file =
            std::fs::metadata(path).map(file_id).map_err(|error| LoadError::io("open")(error).at(path))?;
        if self.open.contains(&file) {
            return Err(LoadError::BaseCycle.at(path));
        }
        if self.open.len() > MAX_BASES {
            return Err(LoadError::BaseDepth { limit: MAX_BASES }.at(path));
        }
        let image = self.open_file(path)?.allow_other_bases(self.options.allow_other_bases);
        if let Some((name, expected)) = wanted
            && image.id() != expected
            && !self.options.allow_other_bases
        {
            let found = image.id();
            return Err(LoadError::OtherBase { base: name.into(), expected, found }.at(path));
        }
        self.open.push(file);
        for (name, id) in image.bases() {
            if let Some(base) = self.find(path, name, id)? {
                self.open(&base, Some((name, id)))?;
            }
        }
        self.open.pop();
        self.images.push(image);
        Ok(())
    }

    /// Opens a file as the options say.
    fn open_file(&self, path: &Path) -> Result<Image, LoadError> {
        #[cfg(feature = "sign")]
        if let Some(trust) = &self.options.trust {
            return Image::open_verified(path, trust);
        }
        if self.options.private { Image::open_private(path) } else { Image::open(path) }
    }

    /// Returns the file of a base of the image at `path`, unless it is open already.
    fn find(&self, path: &Path, name: &str, id: ImageId) -> Result<Option<PathBuf>, LoadError> {
        let others = self.options.allow_other_bases;
        let is_it = |image: &dyn Base| image.id() == id || (others && image.name() == name);
        let mut loaded = self.options.loaded.iter().flat_map(|image| image.bases().iter().chain([image]));
        if loaded.any(|image| is_it(&**image)) || self.images.iter().any(|image| is_it(image)) {
            return Ok(None);
        }
        let is_plain = !name.is_empty() && Path::new(name).file_name() == Some(name.as_ref());
        if !is_plain || name.contains('\0') {
            return Err(LoadError::malformed("a base whose name is that of no file", 0).at(path));
        }
        let given = self.options.bases.iter().find(|base| base.file_name() == Some(name.as_ref()));
        let found = given.cloned().unwrap_or_else(|| path.with_file_name(name));
        if given.is_none() && !found.exists() {
            return Err(LoadError::MissingBase { base: name.into(), id }.at(path));
        }
        Ok(Some(found))
    }
}
