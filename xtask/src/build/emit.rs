//! The output of a build: an image, or a relocatable object.

use std::path::{Path, PathBuf};

use kiln::artifact::Artifact;
use kiln::globals::GlobalTable;
use kiln::image::link::{Lean, LinkError};
use kiln::image::{
    DebugInfo, GlobalSymbols, Image, ImageFiles, ImageOptions, ObjectOptions, write_layer, write_object,
};

use super::image::ImageArgs;
use super::layer::{LayerArgs, as_bases};
use crate::output::{Failure, Outcome};

/// The form of the output.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Emit {
    /// An image, which is ready to be loaded
    Image,
    /// A relocatable object, for a linker
    Object,
}

/// The options for the form of the output.
#[derive(clap::Args)]
pub(super) struct EmitArgs {
    /// The form of the output
    #[arg(long, value_enum, default_value_t = Emit::Image, value_name = "FORM")]
    emit: Emit,
    /// In an object, the name of the array with the slots of the globals. Two objects of one
    /// program need two names [default: kiln_slots]
    #[arg(long, value_name = "NAME", conflicts_with = "named_globals")]
    slots_symbol: Option<Box<str>>,
    /// In an object, let each global be a symbol, which another object defines under the global's
    /// key; there are no slots
    #[arg(long)]
    named_globals: bool,
    /// Add debug information: gdb and lldb step through the lines of the `.clif` files, break at
    /// `file:line`, and show values as variables. A module with `lines` items keeps its own lines
    #[arg(short = 'g', long = "debug")]
    debug: bool,
    /// Write symbols and debug information to this file instead of the image. gdb finds it in the
    /// image's folder, or in `/usr/lib/debug/.build-id`
    #[arg(long, value_name = "FILE")]
    split_debug: Option<PathBuf>,
    /// Leave out the symbols that only debuggers and profilers need
    #[arg(long, visible_alias = "no-symtab")]
    strip: bool,
    #[command(flatten)]
    layer: LayerArgs,
    #[command(flatten)]
    image: ImageArgs,
}

/// The output of a build.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// The file with debug information, if that is to be a file.
    pub(super) debug: Option<Vec<u8>>,
    /// The number of slots that a client fills.
    pub(super) slots: usize,
}

impl EmitArgs {
    /// Refuses options that do not fit together.
    pub(super) fn check(&self, output: &Path) -> Outcome {
        let is_object = self.is_object();
        let refused = [
            (is_object && self.split_debug.is_some(), "--split-debug is for images, not for --emit object"),
            (
                is_object && self.image.is_given(),
                "--soname, --needed, --export-list, --text-align and --pack-relative-relocs are for images, not \
                 for --emit object",
            ),
            (
                is_object && self.layer.is_given(),
                "--base and --embed-artifacts are for images, not for --emit object",
            ),
            (!is_object && self.slots_symbol.is_some(), "--slots-symbol needs --emit object"),
            (!is_object && self.named_globals, "--named-globals needs --emit object"),
        ];
        if let Some((_, message)) = refused.into_iter().find(|(is_refused, _)| *is_refused) {
            return Err(Failure::new(message));
        }
        if self.split_debug.as_deref() == Some(output) {
            let path = output.display();
            return Err(Failure::new(format!("cannot write {path}: it is the image and the file beside it")));
        }
        Ok(())
    }

    /// Returns the options of an image that are about it as a shared object.
    pub(super) fn image_options(&self) -> Result<ImageOptions, Failure> {
        self.image.options()
    }

    /// Whether the output is a relocatable object.
    pub(super) fn is_object(&self) -> bool {
        self.emit == Emit::Object
    }

    /// Opens the images that the output is linked on.
    pub(super) fn bases(&self) -> Result<Vec<Image>, Failure> {
        self.layer.bases()
    }

    /// Whether there is to be debug information.
    pub(super) fn is_debugged(&self) -> bool {
        self.debug || self.split_debug.is_some()
    }

    /// Returns the file beside the image for symbols and debug information.
    pub(super) fn split_debug(&self) -> Option<&PathBuf> {
        self.split_debug.as_ref()
    }

    /// Writes the program in the form that the arguments ask for. `names` are those of the modules,
    /// `bases` the images that it is linked on, and `image` is what
    /// [`image_options`](Self::image_options) returned.
    pub(super) fn write(
        &self,
        lean: &Lean,
        names: &[Box<str>],
        bases: &[Image],
        image: ImageOptions,
    ) -> Result<Written, Vec<LinkError>> {
        let Lean { artifacts, modules, .. } = lean;
        let globals = globals(artifacts);
        match self.emit {
            Emit::Image => {
                // Without debug information, an image does not depend on where the files are.
                let parts = modules.iter().map(|module| names[*module as usize].clone());
                let module_names = if self.is_debugged() { parts.collect() } else { Vec::new() };
                let (debug, module_numbers) = (self.debug_info(), modules.clone());
                let (strip, embed_artifacts) = (self.strip, self.layer.embeds());
                let options =
                    ImageOptions { strip, embed_artifacts, debug, module_names, module_numbers, ..image };
                let files = write_layer(artifacts, &globals, &as_bases(bases), &options)?;
                let ImageFiles { image, debug, .. } = files;
                let slots = kiln::image::ImageInfo::parse(&image).map_or(0, |info| info.slots.len());
                Ok(Written { bytes: image, debug, slots })
            }
            Emit::Object => {
                let mut options =
                    ObjectOptions { strip: self.strip, debug: self.debug, ..ObjectOptions::default() };
                if let Some(name) = &self.slots_symbol {
                    options.globals = GlobalSymbols::Array(name.clone());
                }
                if self.named_globals {
                    options.globals = GlobalSymbols::Named;
                }
                let bytes = write_object(artifacts, &globals, &options)?;
                let slots = if self.named_globals { 0 } else { globals.len() };
                Ok(Written { bytes, debug: None, slots })
            }
        }
    }

    /// Returns the place of an image's debug information.
    fn debug_info(&self) -> DebugInfo {
        match &self.split_debug {
            Some(path) => {
                let name = path.file_name().unwrap_or_default();
                DebugInfo::Separate(name.to_string_lossy().into())
            }
            None if self.debug => DebugInfo::InImage,
            None => DebugInfo::None,
        }
    }
}

/// Returns the globals that the modules use, in the order of the modules. This order numbers their
/// slots before anything is laid out.
fn globals(artifacts: &[Artifact]) -> GlobalTable {
    let mut globals = GlobalTable::new();
    for key in artifacts.iter().flat_map(Artifact::globals) {
        globals.intern(key);
    }
    globals
}
