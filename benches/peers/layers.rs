//! Comparison Y: linking a layer of a hundredth of a program on the rest, with linking the whole.

use std::path::Path;
use std::sync::Arc;

use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::globals::GlobalTable;
use kiln::image::{Base, Image, ImageInfo, ImageOptions, Loaded, save, write_image, write_layer};
use kiln::jit::{Jit, JitOptions};

use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

/// The modules of a program, and those of them that are the base and the layer.
struct Parts<'a> {
    whole: &'a [Artifact],
    base: &'a [Artifact],
    layer: &'a [Artifact],
}

impl<'a> Parts<'a> {
    /// Cuts the last modules off, so that they have about a hundredth of the code.
    fn of(artifacts: &'a [Artifact]) -> Self {
        let size = |artifacts: &[Artifact]| artifacts.iter().map(|a| a.text().len()).sum::<usize>();
        let whole = size(artifacts);
        let mut cut = artifacts.len();
        while cut > 1 && size(&artifacts[cut - 1..]) * 100 <= whole {
            cut -= 1;
        }
        let (base, layer) = artifacts.split_at(cut.min(artifacts.len() - 1));
        Self { whole: artifacts, base, layer }
    }
}

fn globals(artifacts: &[Artifact]) -> GlobalTable {
    let mut globals = GlobalTable::new();
    artifacts.iter().flat_map(Artifact::globals).for_each(|key| {
        globals.intern(key);
    });
    globals
}

fn first(errors: Vec<kiln::image::link::LinkError>) -> Failure {
    errors.first().map_or_else(String::new, ToString::to_string).into()
}

/// The functions of the program: so many that a hundredth is some modules.
const FUNCTIONS: u32 = 20_000;

/// Measures linking into an image, and into memory.
pub(crate) fn compare(setup: &Setup, folder: &Path) -> Result<Comparison, Failure> {
    let workload = Workload::generated(FUNCTIONS)?;
    let compiler = Compiler::new(workload.target.clone()).pool(setup.pool.clone());
    let artifacts = &compiler.compile(&workload.modules)?.artifacts;
    let mut comparison = Comparison::new(&workload.name, "Y. a layer of a hundredth of the program");
    let Parts { whole, base, layer } = Parts::of(artifacts);
    let (options, path) = (ImageOptions::default(), folder.join("base.so"));
    save(&path, &write_image(base, &globals(base), &options).map_err(first)?)?;
    let image = Image::open(&path)?;
    let write_whole = || setup.pool.install(|| write_image(whole, &globals(whole), &options));
    let write_base = || {
        let bases: [&dyn Base; 1] = [&image];
        setup.pool.install(|| write_layer(layer, &globals(layer), &bases, &options))
    };
    let linked = write_base().map_err(first)?.image;
    let info = ImageInfo::parse(&linked)?;
    let imports = info.slots.iter().filter(|slot| slot.base.is_some()).count();
    let resolve = |_: &_| Some(0x1000);
    let bound = || -> Result<Arc<Loaded>, Failure> { Ok(Arc::new(Image::open(&path)?.bind(&resolve)?)) };
    let loaded = bound()?;
    // What is measured is the link, of which nothing is kept.
    let in_memory = |bases: &[Arc<Loaded>], artifacts: &[Artifact]| -> Result<(), Failure> {
        let jit = Jit::new(JitOptions { bases: bases.to_vec(), ..JitOptions::default() })?;
        jit.link(artifacts, &resolve)?;
        Ok(())
    };
    let contenders = vec![
        Contender::new("image of the whole", || write_whole().map_err(first)),
        Contender::new("image of the layer", || write_base().map_err(first)),
        Contender::new("whole in memory", || in_memory(&[], whole)),
        Contender::new("layer in memory", || in_memory(std::slice::from_ref(&loaded), layer)),
        Contender::new("open and bind the base", bound),
        Contender::new("open and bind the layer", || {
            let layer = Image::from_bytes(&linked)?;
            Ok(layer.bind_on(std::slice::from_ref(&loaded), &resolve)?)
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    let ratio = |comparison: &mut Comparison, part: &str, whole: &str, goal| {
        comparison.named_ratio(format!("{part} / {whole}"), part, whole, goal);
    };
    ratio(&mut comparison, "image of the layer", "image of the whole", Goal::AtMost(0.02));
    ratio(&mut comparison, "layer in memory", "whole in memory", Goal::AtMost(0.02));
    let size = |artifacts: &[Artifact]| artifacts.iter().map(|a| a.text().len()).sum::<usize>();
    comparison.note(format!(
        "the layer has {} of {} modules, {} of {} bytes of code, and {imports} imports",
        layer.len(),
        whole.len(),
        size(layer),
        size(whole)
    ));
    comparison.check(format!("the layer exports {} names and is bound on its base", info.exports.len()));
    Ok(comparison)
}
