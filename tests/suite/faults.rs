//! Whatever happens to the folder of a cache, a build makes the same image as without a cache, and
//! the next build finds everything.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use kiln::artifact::Artifact;
use kiln::cache::{DiskStore, Entry, Key, Lineage, Lookup, Store, WriteBehind};
use kiln::globals::GlobalTable;
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Module, Target};
use kiln::{Compiled, Compiler, Lazy, LazyKey, Stats, Verify};

use crate::common::{SharedStore, files_below, module, shared};
use crate::reuse::{Log, MODULE};

const MODULES: usize = 3;

/// Modules with references, tables and names. No two are the same.
fn program() -> Vec<Module> {
    let one = |n: usize| {
        let names = ["first", "second", "third", "fourth"].iter();
        let text = names.fold(MODULE.replace("iconst.i64 10", &format!("iconst.i64 {n}")), |text, name| {
            text.replace(&format!("%{name}"), &format!("%{name}_{n}"))
        });
        module(&format!("{n}.clif"), &text)
    };
    (0..MODULES).map(one).collect()
}

fn image(artifacts: &[Artifact]) -> Vec<u8> {
    let mut globals = GlobalTable::new();
    artifacts.iter().flat_map(Artifact::globals).for_each(|key| {
        globals.intern(key);
    });
    write_image(artifacts, &globals, &ImageOptions::default()).unwrap()
}

/// The program, its image as built without a cache, and what was reported.
struct Place {
    modules: Vec<Module>,
    expected: Vec<u8>,
    log: Arc<Log>,
}

impl Place {
    fn new() -> Self {
        let modules = program();
        let expected = image(&Compiler::new(Target::host()).compile(&modules).unwrap().artifacts);
        Self { modules, expected, log: Arc::default() }
    }

    /// Builds with `store` and checks the image. `meanwhile` is called after every function that is
    /// compiled.
    fn build_while(
        &self,
        store: SharedStore,
        lazy: bool,
        meanwhile: impl Fn() + Send + Sync + 'static,
    ) -> Stats {
        let compiler = Compiler::new(Target::host()).store(store).events(self.log.clone());
        let compiler = compiler.progress(meanwhile).verify(Verify::Nothing);
        let Compiled { artifacts, stats, .. } = match lazy {
            false => compiler.compile(&self.modules).unwrap(),
            true => {
                let keyed = |module: &Module| {
                    let (name, key, module) =
                        (module.name.clone(), *module.fingerprint().as_bytes(), module.clone());
                    Lazy::new(name, LazyKey::new("test", key), || Ok::<_, Infallible>(module))
                };
                compiler.compile_lazy(self.modules.iter().map(keyed).collect()).unwrap()
            }
        };
        assert!(image(&artifacts) == self.expected, "another image: {stats:?}, {}", self.log.take());
        stats
    }

    fn build(&self, store: &SharedStore, lazy: bool) -> Stats {
        self.build_while(store.clone(), lazy, || ())
    }

    /// Builds twice: the first build reports `told`, the second finds everything.
    fn heals(&self, store: &SharedStore, lazy: bool, told: &str, what: &dyn std::fmt::Debug) {
        self.build(store, lazy);
        assert_eq!(self.log.take(), told, "{what:?}");
        self.build(store, lazy);
        assert_eq!(self.log.take(), format!("{MODULES} hit"), "{what:?}");
    }
}

/// Entries in `folder`. They are longer than the files of last builds.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_below(folder);
    files.retain(|path| path.metadata().unwrap().len() > 64);
    assert_eq!(files.len(), MODULES);
    files
}

#[test]
fn damaged_entries_are_compiled_again_and_heal() {
    let (place, folder) = (Place::new(), tempfile::tempdir().unwrap());
    let store = shared(DiskStore::new(folder.path()));
    place.build(&store, true);
    place.log.take();
    for (number, path) in entries(folder.path()).into_iter().enumerate() {
        let whole = std::fs::read(&path).unwrap();
        let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
        for len in [0, 1, 7, 63, 64, 111, 112, whole.len() / 2, whole.len() - 1] {
            damaged.push((format!("cut to {len}"), whole[..len].into()));
        }
        for at in (number..whole.len()).step_by(97) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            damaged.push((format!("byte {at} altered"), bytes));
        }
        let mut other = whole.clone();
        other[8] += 1;
        damaged.push(("another version".into(), other));
        damaged.push(("one byte more".into(), [&whole[..], &[0]].concat()));
        for (at, (what, bytes)) in damaged.into_iter().enumerate() {
            std::fs::write(&path, bytes).unwrap();
            place.heals(&store, at % 2 == 0, "1 corrupt, 1 healed, 2 hit", &(path.file_name(), what));
            assert!(
                std::fs::read(&path).unwrap() == whole,
                "the entry that was stored again is equal to the first"
            );
        }
    }
}

#[test]
fn damaged_pointers_cost_no_more_than_reuse() {
    let (place, folder) = (Place::new(), tempfile::tempdir().unwrap());
    let store = shared(DiskStore::new(folder.path()));
    place.build(&store, true);
    let pointers: Vec<PathBuf> =
        files_below(folder.path()).into_iter().filter(|path| path.metadata().unwrap().len() <= 64).collect();
    assert_eq!(pointers.len(), 3 * MODULES);
    for damage in [&b""[..], b"KilnSub\0", &[7; 64], &[7; 65]] {
        pointers.iter().for_each(|path| std::fs::write(path, damage).unwrap());
        assert_eq!(place.build(&store, true).reused_modules, MODULES);
        assert_eq!(place.build(&store, true).lazy_modules, MODULES, "they are written again");
    }
}

/// A folder that only others may write to.
struct ReadOnly(DiskStore);

fn refused() -> io::Result<()> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Store for ReadOnly {
    fn get(&self, key: &Key) -> Lookup {
        self.0.get(key)
    }

    fn put(&self, _: &Key, _: &Entry) -> io::Result<()> {
        refused()
    }

    fn quarantine(&self, _: &Key, _: &str) -> io::Result<()> {
        refused()
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        self.0.latest(lineage)
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        if self.0.latest(lineage) == Some(*key) { Ok(()) } else { refused() }
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_read() {
    let (place, folder) = (Place::new(), tempfile::tempdir().unwrap());
    let disk = DiskStore::new(folder.path());
    let (store, disk) = (shared(ReadOnly(disk.clone())), shared(disk));
    place.build(&disk, true);
    for lazy in [true, false] {
        let stats = place.build(&store, lazy);
        assert_eq!((stats.reused_modules, stats.failed_writes), (MODULES, 0));
    }
    // One entry is damaged and cannot be replaced: its module is compiled in every build.
    let path = &entries(folder.path())[0];
    std::fs::write(path, b"damaged").unwrap();
    place.log.take();
    for lazy in [true, false] {
        let stats = place.build(&store, lazy);
        assert_eq!((stats.reused_modules, stats.failed_writes), (MODULES - 1, 1));
        assert_eq!(place.log.take(), "1 corrupt, 2 hit, 1 writefailed");
    }
    place.heals(&disk, true, "1 corrupt, 1 healed, 2 hit", &"written again");
    // The folder cannot exist, because its path is that of a file.
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let stats = place.build(&shared(DiskStore::new(&file)), true);
    assert_eq!((stats.reused_modules, stats.failed_writes), (0, MODULES));
}

#[test]
fn a_folder_that_vanishes_is_made_again() {
    let place = Place::new();
    for (lazy, behind) in [(false, false), (true, false), (false, true), (true, true)] {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let files = DiskStore::new(&kept);
        let disk = shared(files.clone());
        place.build(&disk, lazy);
        // One module is new. While it is compiled, the folder is removed, with the entries that
        // were found.
        std::fs::remove_file(&entries(&kept)[0]).unwrap();
        let once = Arc::new(Once::new());
        let (done, gone) = (once.clone(), folder.path().join("gone"));
        let remove = move || done.call_once(|| std::fs::rename(&kept, &gone).unwrap());
        let store = if behind { shared(WriteBehind::new(files)) } else { disk.clone() };
        let stats = place.build_while(store, lazy, remove);
        assert!(once.is_completed() && stats.compiled_functions > 0);
        assert_eq!(stats.failed_writes, 0, "the folder is made again");
        // The removed entries are compiled, and then everything is found.
        place.build(&disk, lazy);
        place.log.take();
        assert_eq!(place.build(&disk, lazy).reused_modules, MODULES);
        assert_eq!(place.log.take(), format!("{MODULES} hit"));
    }
}
