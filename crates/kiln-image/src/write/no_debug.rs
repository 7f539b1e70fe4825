//! Stands for `debug` without the feature `dwarf`: images have no debug information.

use super::layout::FileLayout;
use super::options::ImageOptions;
use super::symbols::FullSymbols;
use crate::link::{LinkError, Plan};

/// The debug information of an image: none.
#[derive(Default)]
pub(super) struct Debug;

impl Debug {
    pub(super) fn names(_: &ImageOptions) -> &'static [&'static str] {
        &[]
    }

    pub(super) fn link_len(_: &ImageOptions) -> usize {
        0
    }

    pub(super) fn new(_: &Plan<'_>, _: u64, _: &ImageOptions) -> Result<Self, LinkError> {
        Ok(Self)
    }

    pub(super) fn lens(&self, _: &ImageOptions) -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn contents(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }

    pub(super) fn finish(
        self,
        _: &Plan<'_>,
        _: &FileLayout<'_>,
        _: &FullSymbols,
        _: &ImageOptions,
        _: &[u8],
        _: &mut [u8],
    ) -> Result<Option<Vec<u8>>, LinkError> {
        Ok(None)
    }
}
