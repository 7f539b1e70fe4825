//! Comparison P: pages of code that a start needs, with functions in the order of the modules and
//! with functions in the order of a profile.

use std::path::{Path, PathBuf};

use kiln::artifact::Artifact;
use kiln::artifact::record::{Linkage, SymbolKind};
use kiln::image::link::{LeanOptions, lean};
use kiln::image::{Image, ImageOptions, save, write_image};

use crate::jit;
use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

/// One of so many functions is in the profile.
const SHARE: usize = 50;
/// The distance of two reads, in bytes: a page.
const PAGE: usize = 4096;

/// Measures the opening of an image and the first use of a few of its functions.
pub(crate) fn compare(
    workload: &Workload,
    setup: &Setup,
    artifacts: &[Artifact],
    folder: &Path,
) -> Result<Comparison, Failure> {
    let title = "P. opening the image and reading the code of one function in 50, file in the page cache";
    let mut comparison = Comparison::new(&workload.name, title);
    let hot = hot(artifacts);
    let order = hot.iter().map(|(name, _)| (*name).into()).collect();
    let error = |errors: Vec<kiln::image::link::LinkError>| errors[0].to_string();
    let ordered = lean(artifacts, &LeanOptions { order, ..LeanOptions::default() }).map_err(error)?;
    let images = [("as in the modules", artifacts), ("in the order of the profile", &ordered.artifacts)];
    let mut paths: Vec<(&str, PathBuf)> = Vec::new();
    for (number, (name, artifacts)) in images.into_iter().enumerate() {
        let path = folder.join(format!("order-{number}.kiln"));
        save(&path, &write_image(artifacts, &workload.globals, &ImageOptions::default()).map_err(error)?)?;
        paths.push((name, path));
    }
    let contenders = paths
        .iter()
        .map(|(name, path)| Contender::new(*name, || start(path, &hot).map(|(faults, _)| faults)));
    comparison.add(interleave(setup.rounds, contenders.collect())?);
    let [(plain, _), (profile, _)] = &paths[..] else { return Err("two images".into()) };
    comparison.ratio(plain, profile, Goal::AtLeast(1.0));
    let mut sums = Vec::new();
    for (name, path) in &paths {
        let mut faults = Vec::new();
        for _ in 0..setup.rounds {
            let (found, sum) = start(path, &hot)?;
            faults.push(found as f64);
            sums.push(sum);
        }
        comparison.values(format!("page faults, {name}"), &faults, Goal::None);
    }
    if sums.windows(2).any(|pair| pair[0].0 != pair[1].0) {
        return Err("the functions of the two images differ".into());
    }
    let pages = |number: usize| sums[number].1;
    let rounds = setup.rounds as usize;
    comparison.check(format!(
        "{} functions have the same lengths in both; they are on {} pages and on {}",
        hot.len(),
        pages(0),
        pages(rounds)
    ));
    comparison.note("the system maps pages around one that is read, so there are fewer faults than pages");
    Ok(comparison)
}

/// Returns the functions of the profile with their lengths, in an order that is not that of the
/// modules.
fn hot(artifacts: &[Artifact]) -> Vec<(&str, usize)> {
    let functions = artifacts.iter().flat_map(|artifact| {
        let exported = artifact.symbols().iter().filter(|symbol| {
            symbol.kind() == SymbolKind::Function
                && symbol.linkage() == Linkage::Export
                && symbol.size.get() > 0
        });
        exported.map(|symbol| (artifact.name(symbol), symbol.size.get() as usize))
    });
    let mut hot: Vec<_> = functions.step_by(SHARE).collect();
    // Every second one from the end, then the others.
    let half = hot.split_off(hot.len() / 2);
    hot.extend(half.into_iter().rev());
    hot
}

/// Opens the image and reads the code of the functions, as their first calls would. Returns the
/// page faults of that, and the bytes of code and the pages that they are on.
fn start(path: &Path, hot: &[(&str, usize)]) -> Result<(u64, (usize, usize)), Failure> {
    let before = faults()?;
    let loaded = Image::open(path)?.bind(&jit::resolve)?;
    let (mut bytes, mut pages) = (0, Vec::with_capacity(2 * hot.len()));
    for &(name, len) in hot {
        let address = loaded.address(name).ok_or_else(|| format!("{name} is missing"))?;
        let last = address as usize + len - 1;
        for page in address as usize / PAGE..=last / PAGE {
            let at = (address as usize).max(page * PAGE) as *const u8;
            // SAFETY: the byte is inside of the function, which the image has loaded.
            std::hint::black_box(unsafe { at.read_volatile() });
            pages.push(page);
        }
        bytes += len;
    }
    let after = faults()?;
    pages.sort_unstable();
    pages.dedup();
    Ok((after - before, (bytes, pages.len())))
}

/// Returns the page faults of this process that read nothing from a disk.
fn faults() -> Result<u64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    Ok(after_name.split_whitespace().nth(7).ok_or("no count of page faults")?.parse()?)
}
