//! The options of `build` that are about the image as a shared object, in the words of linkers.

use std::path::PathBuf;

use kiln::image::{ImageOptions, MAX_TEXT_ALIGN};

use crate::output::Failure;

/// Options of the shared object.
#[derive(clap::Args)]
pub(crate) struct ImageArgs {
    /// The name by which other shared objects refer to the image
    #[arg(long, value_name = "NAME")]
    soname: Option<Box<str>>,
    /// A library that `dlopen` loads with the image, such as libm.so.6; can be given several times
    #[arg(long, value_name = "LIB")]
    needed: Vec<Box<str>>,
    /// Export only the names in this file: one a line; `#` begins a comment
    #[arg(long, value_name = "FILE")]
    export_list: Option<PathBuf>,
    /// Align code to this number of bytes, a power of two; 2097152 for huge pages
    #[arg(long, value_name = "BYTES", value_parser = align)]
    text_align: Option<u64>,
    /// Pack the relocations of pointers in data. `dlopen` then needs glibc 2.36 or later, and older
    /// ones refuse the image
    #[arg(long)]
    pack_relative_relocs: bool,
}

fn align(text: &str) -> Result<u64, String> {
    let align = text.parse().ok().filter(|align: &u64| align.is_power_of_two() && *align <= MAX_TEXT_ALIGN);
    align.ok_or_else(|| format!("a power of two up to {MAX_TEXT_ALIGN} is expected"))
}

impl ImageArgs {
    /// Whether any of the options was given.
    pub(super) fn is_given(&self) -> bool {
        let Self { soname, needed, export_list, text_align, pack_relative_relocs } = self;
        let is_named = soname.is_some() || !needed.is_empty() || export_list.is_some();
        is_named || text_align.is_some() || *pack_relative_relocs
    }

    /// Returns the options of the image, and defaults for the others.
    pub(crate) fn options(&self) -> Result<ImageOptions, Failure> {
        let exports = match &self.export_list {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| {
                    Failure::while_doing(format!("cannot read {}", path.display()), error)
                })?;
                Some(names(&text))
            }
            None => None,
        };
        Ok(ImageOptions {
            soname: self.soname.clone(),
            needed: self.needed.clone(),
            exports,
            text_align: self.text_align.unwrap_or_default(),
            pack_relocations: self.pack_relative_relocs,
            ..ImageOptions::default()
        })
    }
}

/// Returns the names in a list of exports.
fn names(text: &str) -> Vec<Box<str>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|name| !name.is_empty()).map(Box::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_name_a_line() {
        assert_eq!(names("f\n  g # one\n# two\n\nh h\n"), ["f".into(), "g".into(), Box::<str>::from("h h")]);
    }
}
