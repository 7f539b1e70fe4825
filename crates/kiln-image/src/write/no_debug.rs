//! Stands for `debug` without the feature `dwarf`: images have no debug information.

use super::layout::FileLayout;
use super::options::ImageOptions;
use super::section::Extra;
use super::symbols::FullSymbols;
use crate::link::{LinkError, Plan};

/// The debug information of an image: none.
#[derive(Default)]
pub(super) struct Debug;

impl Debug {
    pub(super) fn extra(options: &ImageOptions) -> Extra {
        Extra {
            has_symbols: !options.strip,
            has_build_id: false,
            debug: &[],
            has_link: false,
            for_image: true,
        }
    }

    pub(super) fn build_id_len(_: &ImageOptions) -> usize {
        0
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

    pub(super) fn sections(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }

    pub(super) fn finish(
        self,
        _: &Plan<'_>,
        _: &FileLayout<'_>,
        _: &FullSymbols,
        _: &ImageOptions,
        _: &mut [u8],
    ) -> Result<Option<Vec<u8>>, LinkError> {
        Ok(None)
    }
}
