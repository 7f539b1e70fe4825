//! `flatten`: links an image and the images that it is a layer on into one, without compiling.

use std::path::{Path, PathBuf};

use kiln::artifact::Artifact;
use kiln::globals::GlobalTable;
use kiln::image::{
    BaseInfo, EmbeddedArtifacts, EmbeddedModule, ImageInfo, ImageOptions, read_image, save, write_image,
};
use serde_json::json;

use crate::build::ImageArgs;
use crate::input;
use crate::no_image::no_image;
use crate::output::{Failure, Format, Outcome, bytes, count, print_json};

/// Link an image again, with all images that it is a layer on, into one image that needs none of
/// them. Nothing is compiled: the images have their compiled modules in them, if they were built
/// with `build --embed-artifacts`.
///
/// Of several definitions of a `replaceable` function, that of the last layer is in force. The
/// output is what one build of all files makes, byte for byte, if the files were in this order.
/// Images may be for any architecture.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask build lib --embed-artifacts -o lib.so
  cargo xtask build app --base lib.so --embed-artifacts -o app.so
  cargo xtask flatten app.so -o whole.so
  cargo xtask flatten app.so --base elsewhere/lib.so --soname libapp.so.1 -o libapp.so.1")]
pub(crate) struct FlattenArgs {
    /// The image
    image: PathBuf,
    /// A file of an image that it is a layer on; one that is not given is looked for in the folder
    /// of the image. Can be given several times
    #[arg(long, value_name = "IMAGE")]
    base: Vec<PathBuf>,
    /// Take other images of the same names, too, if the modules fit together
    #[arg(long)]
    allow_other_bases: bool,
    /// The image to write
    #[arg(short, long, value_name = "IMAGE")]
    output: PathBuf,
    /// Put the compiled modules into the output as well
    #[arg(long)]
    embed_artifacts: bool,
    /// Leave out the symbols that only debuggers and profilers need
    #[arg(long)]
    strip: bool,
    #[command(flatten)]
    options: ImageArgs,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn main(args: &FlattenArgs) -> Outcome {
    let options = args.options.options()?;
    let image = read(&args.image)?;
    let info = info(&args.image, &image)?;
    let mut images = Vec::with_capacity(info.bases.len() + 1);
    for base in &info.bases {
        images.push(artifacts_of(&find(args, base)?, base, args)?);
    }
    images.push(artifacts(&args.image, &image)?);
    let count_of_images = images.len();
    let EmbeddedArtifacts { globals: keys, modules, .. } = EmbeddedArtifacts::join(images);
    let mut globals = GlobalTable::new();
    keys.iter().for_each(|key| {
        globals.intern(key);
    });
    let module_numbers = modules.iter().map(|module| module.number).collect();
    let is_named = modules.iter().any(|module| !module.name.is_empty());
    let named = |module: &EmbeddedModule| module.name.clone();
    let module_names = if is_named { modules.iter().map(named).collect() } else { Vec::new() };
    let artifacts: Vec<Artifact> = modules.into_iter().map(|module| module.artifact).collect();
    let (strip, embed_artifacts) = (args.strip, args.embed_artifacts);
    let options = ImageOptions { strip, embed_artifacts, module_names, module_numbers, ..options };
    let written = write_image(&artifacts, &globals, &options).map_err(|errors| {
        let name = |module: usize| options.module_names.get(module).map_or("", |name| name);
        Failure::new(kiln::globals::list_errors(errors.iter().map(|error| error.with_names(name))))
    })?;
    save(&args.output, &written)
        .map_err(|error| Failure::while_doing(format!("cannot write {}", args.output.display()), error))?;
    match args.format {
        Format::Text => println!(
            "{}: {} of {}, {}",
            args.output.display(),
            count(artifacts.len(), "module"),
            count(count_of_images, "image"),
            bytes(written.len() as u64)
        ),
        Format::Json => print_json(&json!({
            "modules": artifacts.len(), "images": count_of_images, "size": written.len(),
        })),
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_image(path).map_err(|error| no_image(&input::InputFile::at(path.into(), path.into()), error))
}

fn info(path: &Path, image: &[u8]) -> Result<ImageInfo, Failure> {
    ImageInfo::parse(image).map_err(|error| no_image(&input::InputFile::at(path.into(), path.into()), error))
}

/// Returns the file of a base: one of `--base`, or one in the folder of the image.
fn find(args: &FlattenArgs, base: &BaseInfo) -> Result<PathBuf, Failure> {
    let given = args.base.iter().find(|path| path.file_name() == Some(base.name.as_ref().as_ref()));
    if let Some(given) = given {
        return Ok(given.clone());
    }
    let is_plain = Path::new(&*base.name).file_name() == Some(base.name.as_ref().as_ref());
    let beside = args.image.with_file_name(&*base.name);
    if is_plain && beside.exists() {
        return Ok(beside);
    }
    let (image, name) = (args.image.display(), crate::output::name(&base.name));
    Err(Failure::new(format!(
        "{image} is a layer on `{name}` with id {}, which is missing: name its file with --base",
        base.id
    )))
}

/// Returns the artifacts of the image at `path`, which must be `base` unless others are allowed.
fn artifacts_of(path: &Path, base: &BaseInfo, args: &FlattenArgs) -> Result<EmbeddedArtifacts, Failure> {
    let image = read(path)?;
    let found = info(path, &image)?.id;
    if base.id != found && !args.allow_other_bases {
        return Err(Failure::new(format!(
            "{} is a layer on `{}` with id {}, but {} has {found} (see --allow-other-bases)",
            args.image.display(),
            crate::output::name(&base.name),
            base.id,
            path.display()
        )));
    }
    artifacts(path, &image)
}

fn artifacts(path: &Path, image: &[u8]) -> Result<EmbeddedArtifacts, Failure> {
    EmbeddedArtifacts::of_image(image)
        .map_err(|error| Failure::while_doing(format!("image {}", path.display()), error))
}
