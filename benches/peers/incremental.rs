//! Comparison F: building again, when nothing or little has changed.
//!
//! A build is compilation and the image in memory. Every kind of build takes turns with one that has no cache, of the same program.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cranelift_codegen::ir::immediates::Imm64;
use cranelift_codegen::ir::{self, InstructionData, Opcode, types};
use kiln::artifact::Artifact;
use kiln::cache::{DiskStore, MemoryStore, Store, WriteBehind};
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Body, Code, Linkage, Module, SymbolKind};
use kiln::{Compiled, Compiler, Lazy, Stats};
use rayon::ThreadPool;

use crate::measure::{Contender, interleave, median, timed};
use crate::report::{Section, Target};
use crate::workload::Workload;
use crate::{Failure, Setup, image};

/// Builds in a turn of what is quick; the median counts.
const TIMES: usize = 5;
/// How long the background may take to write everything.
const PATIENCE: Duration = Duration::from_secs(60);
const PARTS: &[&str] = &["compile or find", "image"];

/// Times of one build, and what came of it.
struct Build {
    times: [Duration; 2],
    image: Vec<u8>,
    stats: Stats,
    /// Dropped with the rest, when the clock was read.
    _artifacts: Vec<Artifact>,
}

type SharedStore = Arc<dyn Store + Send + Sync>;

/// What all builds of a program have in common.
struct Builder<'a> {
    workload: &'a Workload,
    pool: Arc<ThreadPool>,
}

impl Builder<'_> {
    fn compiler(&self, store: Option<SharedStore>) -> Compiler {
        let compiler = Compiler::new(self.workload.target.clone()).pool(self.pool.clone());
        match store {
            Some(store) => compiler.store(store),
            None => compiler,
        }
    }

    fn build(
        &self,
        store: Option<SharedStore>,
        compile: impl FnOnce(&Compiler) -> Result<Compiled, Failure>,
    ) -> Result<Build, Failure> {
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
        Ok(Build { times: [compile, link], image, stats, _artifacts: artifacts })
    }

    fn modules(&self, store: Option<SharedStore>, modules: &[Module]) -> Result<Build, Failure> {
        self.build(store, |compiler| Ok(compiler.compile(modules)?))
    }

    /// Nothing is in the folder yet, and what is written to it is not waited for.
    fn fresh(&self, modules: &[Module]) -> Result<Build, Failure> {
        let folder = tempfile::tempdir()?;
        let store = behind(folder.path());
        let build = self.modules(Some(store.clone()), modules)?;
        written(&store)?;
        Ok(build)
    }

    /// By keys that the client has. `build` says whether modules are there to be built.
    fn lazy(&self, store: SharedStore, keys: &[[u8; 32]], build: bool) -> Result<Build, Failure> {
        let lazy = self.workload.modules.iter().zip(keys).map(|(module, key)| {
            Lazy::new(module.name.clone(), *key, move || {
                if build { Ok(module.clone()) } else { Err("it was built, and should be in the store") }
            })
        });
        let lazy = lazy.collect();
        self.build(Some(store), |compiler| {
            compiler.compile_lazy(lazy).map_err(|failures| failures[0].to_string().into())
        })
    }

    /// Refuses a build that reused less than everything.
    fn unchanged(&self, build: Build) -> Result<Build, Failure> {
        let Stats { compiled_functions, reused_modules, .. } = build.stats;
        if (compiled_functions, reused_modules) != (0, self.workload.modules.len()) {
            return Err(format!("not everything was reused: {:?}", build.stats).into());
        }
        Ok(build)
    }

    /// A build of which every second module is in the store, and no other.
    fn half(&self, store: SharedStore) -> Result<Build, Failure> {
        let modules = &self.workload.modules;
        let half: Vec<Module> = modules.iter().step_by(2).cloned().collect();
        self.compiler(Some(store.clone())).compile(&half)?;
        let build = self.modules(Some(store), modules)?;
        if build.stats.reused_modules != half.len() {
            return Err(format!("not half of it was reused: {:?}", build.stats).into());
        }
        Ok(build)
    }

    /// Refuses a build that compiled more than one function.
    fn edited(&self, store: SharedStore, modules: &[Module]) -> Result<Build, Failure> {
        let build = self.modules(Some(store), modules)?;
        let Stats { compiled_functions, reused_modules, .. } = build.stats;
        if (compiled_functions, reused_modules) != (1, modules.len() - 1) {
            return Err(format!("not everything else was reused: {:?}", build.stats).into());
        }
        Ok(build)
    }
}

/// A constant that is changed, to another number each time.
struct Edit {
    module: usize,
    function: usize,
    ir: ir::Function,
    inst: ir::Inst,
    number: i64,
}

impl Edit {
    /// One in the middle of the program, in a function of middle size, that makes a difference to machine code.
    fn find(workload: &Workload, artifacts: &[Artifact]) -> Result<Self, Failure> {
        let compiler = Compiler::new(workload.target.clone());
        let middle = workload.modules.len() / 2;
        for module in (middle..workload.modules.len()).chain(0..middle) {
            let functions = workload.modules[module].functions.iter().enumerate();
            let mut candidates: Vec<Self> = functions
                .filter_map(|(function, defined)| {
                    let ir = defined.ir()?;
                    let inst = constant(&ir)?;
                    Some(Self { module, function, ir, inst, number: 0x5_0000 })
                })
                .collect();
            candidates.sort_by_key(|edit| edit.ir.dfg.num_insts());
            let start = candidates.len() / 2;
            candidates.rotate_left(start);
            for mut edit in candidates {
                let mut modules = [workload.modules[module].clone()];
                edit.change(&mut modules[0])?;
                if compiler.compile(&modules)?.artifacts[0] != artifacts[module] {
                    return Ok(edit);
                }
            }
        }
        Err("no function has a constant that can be changed".into())
    }

    fn change(&mut self, module: &mut Module) -> Result<(), Failure> {
        self.number += 1;
        let imm = Imm64::new(self.number);
        self.ir.dfg.insts[self.inst] = InstructionData::UnaryImm { opcode: Opcode::Iconst, imm };
        module.functions[self.function].code = Code::Ir(Body::new(&self.ir)?);
        Ok(())
    }
}

/// The last one of at least 32 bits that something uses as a number.
fn constant(function: &ir::Function) -> Option<ir::Inst> {
    let insts = function.layout.blocks().flat_map(|block| function.layout.block_insts(block));
    let constants = insts.filter(|&inst| {
        let is_constant = function.dfg.insts[inst].opcode() == Opcode::Iconst;
        is_constant
            && matches!(function.dfg.value_type(function.dfg.first_result(inst)), types::I32 | types::I64)
    });
    constants.last()
}

/// The program so many times, every time under other names.
fn repeat(modules: &[Module], times: usize) -> Vec<Module> {
    let seen_by_others = |symbol: &&kiln::ir::Symbol| {
        symbol.kind != SymbolKind::Global && !matches!(symbol.linkage, Linkage::Import | Linkage::Local)
    };
    let defined = modules.iter().flat_map(|module| &module.symbols).filter(seen_by_others);
    let defined: std::collections::HashSet<&str> = defined.map(|symbol| &*symbol.name).collect();
    let copy = |number: usize| {
        let defined = &defined;
        modules.iter().cloned().map(move |mut module| {
            module.name = format!("{}, copy {number}", module.name).into();
            for symbol in &mut module.symbols {
                let named = symbol.kind != SymbolKind::Global && symbol.linkage != Linkage::Local;
                if named && defined.contains(&*symbol.name) {
                    symbol.name = format!("{}_copy_{number}", symbol.name).into();
                }
            }
            module
        })
    };
    modules.iter().cloned().chain((1..times).flat_map(copy)).collect()
}

/// The median of every part of some builds.
fn parts(builds: impl Iterator<Item = Result<Build, Failure>>) -> Result<Vec<Duration>, Failure> {
    let times = builds.map(|build| Ok(build?.times)).collect::<Result<Vec<_>, Failure>>()?;
    Ok((0..PARTS.len()).map(|part| median(times.iter().map(|times| times[part]).collect())).collect())
}

/// A contender that builds `times` times in a turn.
fn repeated<'a>(
    name: &str,
    times: usize,
    mut build: impl FnMut() -> Result<Build, Failure> + 'a,
) -> Contender<'a> {
    Contender::in_parts(name, PARTS, move || parts((0..times).map(|_| build())))
}

/// A folder that is written behind the build, as the command `build` does it.
fn behind(folder: &Path) -> Arc<WriteBehind<DiskStore>> {
    Arc::new(WriteBehind::new(DiskStore::new(folder)))
}

/// Waits until what was put is in the folder.
fn written(store: &WriteBehind<DiskStore>) -> Result<(), Failure> {
    if store.flush(PATIENCE) { Ok(()) } else { Err("entries were not written".into()) }
}

/// Measures; `artifacts` is what Kiln made of the workload.
pub(crate) fn compare(
    workload: &Workload,
    setup: &Setup,
    artifacts: &[Artifact],
) -> Result<Section, Failure> {
    let mut section =
        Section::new(&workload.name, "F. building again, from IR in memory to an image in memory");
    let modules = &workload.modules;
    let keys: Vec<[u8; 32]> = modules.iter().map(|module| *module.fingerprint().as_bytes()).collect();
    let builder = Builder { workload, pool: setup.pool.clone() };
    let mut edit = Edit::find(workload, artifacts)?;
    section.check(same_images(workload, setup, &keys, &mut edit, artifacts)?);

    let folder = tempfile::tempdir()?;
    let (memory, disk) = (Arc::new(MemoryStore::new()), behind(&folder.path().join("unchanged")));
    builder.lazy(memory.clone(), &keys, true)?;
    builder.lazy(disk.clone(), &keys, true)?;
    let edits = behind(&folder.path().join("edited"));
    builder.modules(Some(edits.clone()), modules)?;
    written(&disk)?;
    written(&edits)?;

    let cold = "all is new, no cache";
    let fresh = "all is new, into a folder behind the build";
    let warm = ["nothing is new, from a folder", "nothing is new, from memory"];
    let lazy = ["nothing is new, client's keys, from a folder", "nothing is new, client's keys, from memory"];
    let edited = "1 function is new, from a folder";
    let mut program = modules.clone();
    let contenders = vec![
        repeated(cold, 1, || builder.modules(None, modules)),
        repeated(fresh, 1, || builder.fresh(modules)),
        repeated(warm[0], TIMES, || builder.unchanged(builder.modules(Some(disk.clone()), modules)?)),
        repeated(warm[1], TIMES, || builder.unchanged(builder.modules(Some(memory.clone()), modules)?)),
        repeated(lazy[0], TIMES, || builder.unchanged(builder.lazy(disk.clone(), &keys, false)?)),
        repeated(lazy[1], TIMES, || builder.unchanged(builder.lazy(memory.clone(), &keys, false)?)),
        repeated(edited, TIMES, || {
            edit.change(&mut program[edit.module])?;
            builder.edited(edits.clone(), &program)
        }),
    ];
    section.add(interleave(setup.rounds, contenders)?);
    section.named_ratio("cache on / no cache", fresh, cold, Target::AtMost(1.03));
    section.named_ratio("all / nothing, from a folder", cold, warm[0], Target::AtLeast(25.0));
    section.named_ratio("all / nothing, from memory", cold, warm[1], Target::None);
    section.named_ratio("all / nothing, client's keys, from a folder", cold, lazy[0], Target::AtLeast(100.0));
    section.named_ratio("all / nothing, client's keys, from memory", cold, lazy[1], Target::None);
    let mut shares = vec![section.named_ratio("1 function / all", edited, cold, Target::AtMost(0.04))];
    for times in [2, 4, 8] {
        shares.push(larger(&mut section, times, &builder, setup, folder.path(), &mut edit)?);
    }
    section.value("the same, 8 times the program / once", shares[3] / shares[0], Target::AtMost(1.0));

    let bytes: u64 = DiskStore::new(folder.path().join("unchanged")).entries().map(|entry| entry.bytes).sum();
    let code: u64 = artifacts.iter().map(image::code_size).sum();
    section.value("bytes of all entries / bytes of code", bytes as f64 / code as f64, Target::AtMost(2.0));
    section.note(format!("{} KB of entries in a folder, {} KB of code", bytes / 1024, code / 1024));
    section.note(format!(
        "the function that changes has {} instructions, in a module of {} functions; it changes anew for every build",
        edit.ir.dfg.num_insts(),
        modules[edit.module].functions.len(),
    ));
    section.note("what is reused is built 5 times a turn, and the median counts; client's keys are known before; files are in the page cache");
    section.check("every build compiled all, nothing or one function, and reused all else");
    Ok(section)
}

/// Adds the same for a larger program; the share of a build in which one function is new.
fn larger(
    section: &mut Section,
    times: usize,
    builder: &Builder<'_>,
    setup: &Setup,
    folder: &Path,
    edit: &mut Edit,
) -> Result<f64, Failure> {
    let modules = repeat(&builder.workload.modules, times);
    let mut program = modules.clone();
    let store = behind(&folder.join(format!("edited-{times}")));
    builder.modules(Some(store.clone()), &modules)?;
    written(&store)?;
    let cold = format!("{times} times the program, all is new");
    let edited = format!("{times} times the program, 1 function is new");
    let contenders = vec![
        repeated(&cold, 1, || builder.modules(None, &modules)),
        repeated(&edited, TIMES, || {
            edit.change(&mut program[edit.module])?;
            builder.edited(store.clone(), &program)
        }),
    ];
    // Large programs take long, and noise is a smaller part of it.
    section.add(interleave((setup.rounds / times as u32).max(2), contenders)?);
    Ok(section.named_ratio(
        format!("1 function / all, {times} times the program"),
        &edited,
        &cold,
        Target::None,
    ))
}

/// Every kind of build must give the image that a build without a cache gives, whatever the number of threads.
fn same_images(
    workload: &Workload,
    setup: &Setup,
    keys: &[[u8; 32]],
    edit: &mut Edit,
    artifacts: &[Artifact],
) -> Result<String, Failure> {
    let modules = &workload.modules;
    let mut program = modules.clone();
    edit.change(&mut program[edit.module])?;
    let expected = image::link(workload, artifacts, setup)?;
    let builder = Builder { workload, pool: setup.pool.clone() };
    let expected_edited = builder.modules(None, &program)?.image;
    if expected == expected_edited {
        return Err("the edit makes no difference".into());
    }
    for threads in [setup.threads, 1] {
        let builder = Builder { workload, pool: Arc::new(crate::pool(threads)?) };
        let folder = tempfile::tempdir()?;
        let stores: [(_, SharedStore); 2] =
            [("memory", Arc::new(MemoryStore::new())), ("folder", Arc::new(DiskStore::new(folder.path())))];
        let check = |name: &str, build: Build, expected: &[u8]| -> Result<(), Failure> {
            if build.image == expected {
                return Ok(());
            }
            Err(format!("another image: {name}, {threads} threads").into())
        };
        check("no cache", builder.modules(None, modules)?, &expected)?;
        check("written behind the build", builder.fresh(modules)?, &expected)?;
        for (name, store) in stores {
            check(name, builder.lazy(store.clone(), keys, true)?, &expected)?;
            check(name, builder.unchanged(builder.modules(Some(store.clone()), modules)?)?, &expected)?;
            let lazy = builder.unchanged(builder.lazy(store.clone(), keys, false)?)?;
            if lazy.stats.lazy_modules != modules.len() {
                return Err(format!("not every module was left alone: {:?}", lazy.stats).into());
            }
            check(name, lazy, &expected)?;
            check(name, builder.edited(store, &program)?, &expected_edited)?;
        }
        let halves: [(_, SharedStore); 2] = [
            ("half in memory", Arc::new(MemoryStore::new())),
            ("half in a folder", Arc::new(DiskStore::new(folder.path().join("half")))),
        ];
        for (name, store) in halves {
            check(name, builder.half(store)?, &expected)?;
        }
    }
    let threads = setup.threads;
    Ok(format!("every kind of build gives the same image, byte for byte, with {threads} threads and with 1"))
}
