//! `keygen` and `sign`: keys, and signatures of images.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln::image::keys::{PublicKey, Signer};
use kiln::image::{ImageSignature, Trust, read_image, save, sign_image, sign_image_detached};

use crate::input;
use crate::no_image::no_image;
use crate::output::{Failure, Outcome};

/// Make a key that signs images and entries of caches: write the secret key to a file, and print
/// the public one.
///
/// Only the owner can read the file. A line of a file of accepted keys is what this prints, with a
/// comment if you like.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask keygen release.key > release.pub
  cargo xtask build src --sign release.key -o program.so
  cargo xtask call program.so main --verify release.pub")]
pub(crate) struct KeygenArgs {
    /// The new file of the secret key
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Sign everything that an image loads, and write the signature to a file beside it.
///
/// The file has the name of the image and `.sig`; signatures of other keys in it stay. `strip` and
/// `objcopy` keep what is signed, `patchelf` does not.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask sign program.so --key release.key
  cargo xtask sign program.so --key release.key --embed
  cargo xtask inspect program.so --verify release.pub")]
pub(crate) struct SignArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The file of the secret key, which `keygen` wrote; can be given several times
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Write the signature into the image, which must have room: `build --signers`
    #[arg(long)]
    embed: bool,
}

/// Whose signatures an image must have.
#[derive(clap::Args)]
pub(crate) struct TrustArgs {
    /// Refuse the image unless a key in this file signed it: a line for each, as `keygen` prints
    /// them. Signatures are in the image, or beside it in IMAGE.sig
    #[arg(long, value_name = "FILE")]
    verify: Vec<PathBuf>,
    /// Ignore the keys in this file
    #[arg(long, requires = "verify", value_name = "FILE")]
    revoked: Vec<PathBuf>,
    /// Ask for the signatures of this many different keys
    #[arg(long, requires = "verify", value_name = "N", default_value_t = 1)]
    at_least: u8,
}

impl TrustArgs {
    /// Returns whom to trust, if anything was said.
    pub(crate) fn trust(&self) -> Result<Option<Trust>, Failure> {
        let keys =
            |files: &[PathBuf]| files.iter().map(|file| public_keys(file)).collect::<Result<Vec<_>, _>>();
        if self.verify.is_empty() {
            return Ok(None);
        }
        let trust = Trust::new(keys(&self.verify)?.concat());
        Ok(Some(trust.revoked(keys(&self.revoked)?.concat()).at_least(self.at_least.into())))
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file);
    text.map_err(|error| Failure::while_doing(format!("cannot read {}", file.display()), error))
}

fn public_keys(file: &Path) -> Result<Vec<PublicKey>, Failure> {
    let keys = PublicKey::parse_list(&read(file)?);
    keys.map_err(|error| Failure::while_doing(format!("keys in {}", file.display()), error))
}

/// Reads the file of a secret key.
pub(crate) fn signer(file: &Path) -> Result<Signer, Failure> {
    let signer = Signer::parse(&read(file)?);
    signer.map_err(|error| Failure::while_doing(format!("key in {}", file.display()), error))
}

/// Makes a key.
pub(crate) fn keygen(args: &KeygenArgs) -> Outcome {
    new_key(&args.file)
}

/// Makes a key. The file of the secret one can be read by its owner only.
pub(crate) fn new_key(file: &Path) -> Outcome {
    let cannot = |error| Failure::while_doing(format!("cannot write {}", file.display()), error);
    let (signer, secret) = Signer::generate().map_err(cannot)?;
    let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    created.and_then(|mut file| file.write_all(secret.as_bytes())).map_err(cannot)?;
    println!("{}", signer.public());
    Ok(())
}

/// Signs an image.
pub(crate) fn main(args: &SignArgs) -> Outcome {
    let signers = args.key.iter().map(|file| signer(file)).collect::<Result<Vec<_>, _>>()?;
    let input = input::image(&args.image)?;
    let mut bytes = read_image(&input.path).map_err(|error| no_image(&input, error))?;
    let cannot = |error| Failure::while_doing(format!("cannot sign {}", args.image.display()), error);
    if args.embed {
        for signer in &signers {
            sign_image(&mut bytes, signer).map_err(cannot)?;
        }
        return write(&args.image, &bytes);
    }
    let mut name = OsString::from(&args.image);
    name.push(".sig");
    let path = PathBuf::from(name);
    let mut all = match path.exists() {
        true => ImageSignature::parse_list(&read(&path)?)
            .map_err(|error| Failure::while_doing(path.display().to_string(), error))?,
        false => Vec::new(),
    };
    for signer in &signers {
        let signature = sign_image_detached(&bytes, signer).map_err(|error| no_image(&input, error))?;
        all.retain(|other| other.key != signature.key);
        all.push(signature);
    }
    let text: String = all.iter().map(|signature| format!("{signature}\n")).collect();
    write(&path, text.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Outcome {
    save(path, bytes).map_err(|error| Failure::while_doing(format!("cannot write {}", path.display()), error))
}
