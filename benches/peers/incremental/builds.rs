//! The kinds of builds that are timed, each with a check that it reused what it should.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln::artifact::Artifact;
use kiln::cache::{DiskStore, Store, WriteBehind};
use kiln::image::{ImageOptions, write_image};
use kiln::ir::Module;
use kiln::{Compiled, Compiler, Lazy, LazyKey, Stats};
use rayon::ThreadPool;

use crate::measure::{Contender, median, timed};
use crate::setup::Failure;
use crate::workload::Workload;

/// The number of builds in a turn if a build is quick. The time of the turn is their median.
pub(super) const TIMES: usize = 5;
/// The longest time that writing everything in the background may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const PARTS: &[&str] = &["compile or find", "image"];

/// The times and the results of a build.
pub(super) struct TimedBuild {
    pub(super) times: [Duration; 2],
    pub(super) image: Vec<u8>,
    pub(super) stats: Stats,
    /// The artifacts, kept only so that they are dropped after the times were taken.
    pub(super) _artifacts: Vec<Artifact>,
}

pub(super) type SharedStore = Arc<dyn Store + Send + Sync>;

/// The program that is built, and the threads that build it.
pub(super) struct ProgramBuilder<'a> {
    pub(super) workload: &'a Workload,
    pub(super) pool: Arc<ThreadPool>,
}

impl ProgramBuilder<'_> {
    pub(super) fn compiler(&self, store: Option<SharedStore>) -> Compiler {
        let compiler = Compiler::new(self.workload.target.clone()).pool(self.pool.clone());
        match store {
            Some(store) => compiler.store(store),
            None => compiler,
        }
    }

    pub(super) fn build(
        &self,
        store: Option<SharedStore>,
        compile: impl FnOnce(&Compiler) -> Result<Compiled, Failure>,
    ) -> Result<TimedBuild, Failure> {
        let compiler = self.compiler(store);
        let (compile, compiled) = timed(|| compile(&compiler));
        let Compiled { artifacts, stats, samples: _ } = compiled?;
        let (link, image) = timed(|| {
            let write = || write_image(&artifacts, &self.workload.globals, &ImageOptions::default());
            self.pool.install(write)
        });
        let image = image.map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string))?;
        if stats.failed_writes + stats.corrupt_entries + stats.wrong_entries > 0 {
            return Err(format!("the store is in trouble: {stats:?}").into());
        }
        Ok(TimedBuild { times: [compile, link], image, stats, _artifacts: artifacts })
    }

    pub(super) fn modules(
        &self,
        store: Option<SharedStore>,
        modules: &[Module],
    ) -> Result<TimedBuild, Failure> {
        self.build(store, |compiler| Ok(compiler.compile(modules)?))
    }

    /// Builds with an empty folder, to which entries are written in the background.
    pub(super) fn fresh(&self, modules: &[Module]) -> Result<TimedBuild, Failure> {
        let folder = tempfile::tempdir()?;
        let store = write_behind(folder.path());
        let build = self.modules(Some(store.clone()), modules)?;
        written(&store)?;
        Ok(build)
    }

    /// Builds with the client's keys. If `build` is false, a module that is not in the store is an
    /// error; a module may still be built to verify its entry.
    pub(super) fn lazy(
        &self,
        store: SharedStore,
        keys: &[[u8; 32]],
        build: bool,
    ) -> Result<TimedBuild, Failure> {
        let lazy = self.workload.modules.iter().zip(keys).map(|(module, key)| {
            let copy = move || Ok::<_, Infallible>(module.clone());
            Lazy::new(module.name.clone(), LazyKey::new("bench", *key), copy)
        });
        let lazy = lazy.collect();
        self.build(Some(store), |compiler| {
            let compiled = compiler.compile_lazy(lazy).map_err(|failures| failures[0].to_string())?;
            if !build && compiled.stats.lazy_modules + compiled.samples.len() < keys.len() {
                return Err("a module was built, and should be in the store".into());
            }
            Ok(compiled)
        })
    }

    /// Checks that a build reused everything.
    pub(super) fn unchanged(&self, build: TimedBuild) -> Result<TimedBuild, Failure> {
        let Stats { compiled_functions, reused_modules, .. } = build.stats;
        if (compiled_functions, reused_modules) != (0, self.workload.modules.len()) {
            return Err(format!("not everything was reused: {:?}", build.stats).into());
        }
        Ok(build)
    }

    /// Builds with a store that has every second module and no other.
    pub(super) fn half(&self, store: SharedStore) -> Result<TimedBuild, Failure> {
        let modules = &self.workload.modules;
        let half: Vec<Module> = modules.iter().step_by(2).cloned().collect();
        self.compiler(Some(store.clone())).compile(&half)?;
        let build = self.modules(Some(store), modules)?;
        if build.stats.reused_modules != half.len() {
            return Err(format!("not half of it was reused: {:?}", build.stats).into());
        }
        Ok(build)
    }

    /// Builds, and checks that one function was compiled.
    pub(super) fn edited(&self, store: SharedStore, modules: &[Module]) -> Result<TimedBuild, Failure> {
        let build = self.modules(Some(store), modules)?;
        let Stats { compiled_functions, reused_modules, .. } = build.stats;
        if (compiled_functions, reused_modules) != (1, modules.len() - 1) {
            return Err(format!("not everything else was reused: {:?}", build.stats).into());
        }
        Ok(build)
    }
}

/// Returns the median time of every part of several builds.
pub(super) fn parts(
    builds: impl Iterator<Item = Result<TimedBuild, Failure>>,
) -> Result<Vec<Duration>, Failure> {
    let times = builds.map(|build| Ok(build?.times)).collect::<Result<Vec<_>, Failure>>()?;
    Ok((0..PARTS.len()).map(|part| median(times.iter().map(|times| times[part]).collect())).collect())
}

/// Makes a contender that builds `times` times in a turn.
pub(super) fn repeated<'a>(
    name: &str,
    times: usize,
    mut build: impl FnMut() -> Result<TimedBuild, Failure> + 'a,
) -> Contender<'a> {
    Contender::in_parts(name, PARTS, move || parts((0..times).map(|_| build())))
}

/// Returns a store that writes to a folder in the background, like the store of the command
/// `build`.
pub(super) fn write_behind(folder: &Path) -> Arc<WriteBehind<DiskStore>> {
    Arc::new(WriteBehind::new(DiskStore::new(folder)))
}

/// Waits until all entries are in the folder.
pub(super) fn written(store: &WriteBehind<DiskStore>) -> Result<(), Failure> {
    if store.flush(PATIENCE) { Ok(()) } else { Err("entries were not written".into()) }
}
