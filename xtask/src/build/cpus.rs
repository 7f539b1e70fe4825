//! The option of a build for several levels of the processor.

use kiln::artifact::Artifact;
use kiln::image::link::{Lean, LeanOptions, Level, LevelTable, LinkError, join_levels};
use kiln::ir::Target;

use super::lean;
use crate::output::{Failure, count};

/// The levels that code is made for.
#[derive(clap::Args)]
pub(super) struct CpusArgs {
    /// Compile every function for each of these levels of the processor (x86-64, x86-64-v2,
    /// x86-64-v3, x86-64-v4), and keep the bodies that differ. Kiln's loader calls those of the
    /// highest level that the machine has, `dlopen` those of the lowest
    #[arg(
        long,
        value_name = "LEVEL,..",
        value_delimiter = ',',
        conflicts_with_all = ["gc", "roots", "root", "fold", "order", "why_kept"]
    )]
    cpus: Vec<Box<str>>,
}

/// The targets of a build, the lowest level first.
pub(super) struct Cpus {
    /// The names of the levels; none if none were given.
    levels: Vec<Box<str>>,
    pub(super) targets: Vec<Target>,
}

impl CpusArgs {
    /// Returns the targets to compile for: one if no levels were given.
    pub(super) fn targets(&self, target: &Target, is_object: bool) -> Result<Cpus, Failure> {
        let mut levels = self.cpus.clone();
        if levels.is_empty() {
            return Ok(Cpus { levels, targets: vec![target.clone()] });
        }
        if is_object {
            return Err(Failure::new("--cpus is for images, not for --emit object"));
        }
        let known = target.cpu_levels();
        levels.sort_by_key(|level| known.iter().position(|known| **known == **level));
        levels.dedup();
        let targets = levels.iter().map(|level| target.clone().cpu_level(level).map_err(Failure::of));
        let targets = targets.collect::<Result<_, _>>()?;
        Ok(Cpus { levels, targets })
    }
}

impl Cpus {
    /// Makes one program of those for each target, and makes it leaner if `options` say so.
    pub(super) fn join(
        &self,
        mut programs: Vec<Vec<Artifact>>,
        options: Option<&LeanOptions>,
    ) -> Result<(Lean, Option<LevelTable>), Vec<LinkError>> {
        if self.levels.is_empty() {
            return Ok((lean::apply(programs.pop().unwrap_or_default(), options)?, None));
        }
        let levels = self.levels.iter().zip(&programs);
        let levels: Vec<_> = levels.map(|(name, artifacts)| Level { name, artifacts }).collect();
        let joined = join_levels(&levels)?;
        let mut lean = Lean::unchanged(joined.artifacts);
        lean.modules = joined.modules;
        Ok((lean, Some(joined.table)))
    }

    /// Says how many functions differ.
    pub(super) fn summary(&self, table: Option<&LevelTable>) -> Option<String> {
        let functions = count(table?.functions(), "function");
        Some(format!("{functions} with bodies of their own for some of {}", self.levels.join(", ")))
    }
}
