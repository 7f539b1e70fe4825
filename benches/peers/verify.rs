//! Comparison V: opening an image only if an accepted key signed it, with hashing its bytes.

use std::fs::File;
use std::path::Path;

use kiln::image::keys::Signer;
use kiln::image::{Image, Trust, save, sign_image_detached};
use rustix::fs::{Advice, fadvise};

use crate::measure::{Contender, interleave, spread};
use crate::open::functions::save_functions;
use crate::open::map_file;
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// Functions of the images, and their names.
const IMAGES: [(usize, &str); 2] = [(25_000, "10 MB of code"), (250_000, "100 MB of code")];

/// Measures verified opening of generated images.
pub(crate) fn compare(setup: &Setup, folder: &Path) -> Result<Vec<Comparison>, Failure> {
    IMAGES.into_iter().map(|(count, name)| compare_one(setup, folder, count, name)).collect()
}

/// Removes the pages of a file from the page cache, so that the next reader waits for the disk.
fn forget(path: &Path) -> Result<(), Failure> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

fn compare_one(setup: &Setup, folder: &Path, count: usize, name: &str) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(name, "V. opening a signed image");
    let path = folder.join(format!("signed-{count}.kiln"));
    save_functions(count, &path)?;
    let signer = Signer::from_seed(&[7; 32]);
    let bytes = std::fs::read(&path)?;
    let signature = sign_image_detached(&bytes, &signer)?;
    save(folder.join(format!("signed-{count}.kiln.sig")), format!("{signature}\n").as_bytes())?;
    let trust = Trust::new([signer.public()]);
    let bind = |image: Image| Ok(image.bind_array(&[])?);
    let (copied, shared) = ("kiln: open_verified, bind, drop", "kiln: open_verified_shared, bind, drop");
    let (cold, cold_peer) =
        ("not in the page cache: open_verified_shared", "not in the page cache: read, hash");
    let private = "kiln: open_private, bind, drop: the copy alone";
    let (plain, checked) = ("kiln: open, bind, drop", "kiln: open, verify checksums, drop");
    let (hash, standard) = ("hash of the file in memory: BLAKE3, 1 thread", "the same: SHA-512 (ring)");
    let (touch, steps) =
        ("map the file, read each of its words", "map, read each word, then hash with all threads");
    let words = |bytes: &[u8]| {
        let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        std::hint::black_box(words.fold(0, u64::wrapping_add))
    };
    comparison.add(interleave(
        setup.rounds,
        vec![
            Contender::new(copied, || bind(Image::open_verified(&path, &trust)?)),
            Contender::new(shared, || bind(Image::open_verified_shared(&path, &trust)?)),
            Contender::new(private, || bind(Image::open_private(&path)?)),
            Contender::new(plain, || bind(Image::open(&path)?)),
            Contender::new(checked, || {
                let image = Image::open(&path)?;
                image.verify()?;
                Ok(image)
            }),
            Contender::new(touch, || Ok(words(map_file(&path)?.bytes()))),
            Contender::new(steps, || {
                let mapping = map_file(&path)?;
                words(mapping.bytes());
                Ok(blake3::Hasher::new().update_rayon(mapping.bytes()).finalize())
            }),
            Contender::new(hash, || Ok(blake3::hash(&bytes))),
            Contender::new(standard, || Ok(ring::digest::digest(&ring::digest::SHA512, &bytes))),
        ],
    )?);
    comparison.ratio(copied, standard, Goal::AtMost(1.0));
    comparison.ratio(shared, steps, Goal::AtMost(1.0));
    comparison.ratio(shared, checked, Goal::None);
    // The copy is bound by how fast the kernel gives out pages, with or without a hash.
    comparison.ratio(copied, private, Goal::None);
    comparison.speed(shared, bytes.len(), Goal::AtLeast(1.0));
    for name in [copied, private, hash, standard, touch] {
        comparison.speed(name, bytes.len(), Goal::None);
    }
    // Each turn forgets the pages first, which is not timed.
    let times = |mut open: Box<dyn FnMut() -> Result<(), Failure> + '_>| -> Result<Vec<f64>, Failure> {
        (0..setup.rounds)
            .map(|_| {
                forget(&path)?;
                let start = std::time::Instant::now();
                open()?;
                Ok(start.elapsed().as_secs_f64())
            })
            .collect()
    };
    let ours = times(Box::new(|| bind(Image::open_verified_shared(&path, &trust)?).map(drop)))?;
    let theirs = times(Box::new(|| {
        let bytes = std::fs::read(&path)?;
        std::hint::black_box(blake3::Hasher::new().update_rayon(&bytes).finalize());
        Ok(())
    }))?;
    comparison.values(format!("{cold}, s"), &ours, Goal::None);
    comparison.values(format!("{cold_peer}, s"), &theirs, Goal::None);
    comparison.value(
        format!("{cold} / {cold_peer}"),
        spread(&ours).median / spread(&theirs).median,
        Goal::AtMost(1.1),
    );
    comparison
        .check(format!("{} bytes; the signature is accepted, and one of other bytes refused", bytes.len()));
    let mut altered = bytes;
    let middle = altered.len() / 4;
    altered[middle] ^= 1;
    if Image::from_bytes_verified(&altered, &trust.clone().with([signature])).is_ok() {
        return Err("an altered image was accepted".into());
    }
    Ok(comparison)
}
