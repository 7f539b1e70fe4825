//! Files that do not belong to the store, although they have the names of its files: those that
//! cannot be read are refused at once, and none is moved, removed or altered.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_cache::{DiskStore, EntryError, Key, Lineage, Lookup, Store};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::common::{entry, key, quick_folder};

/// Makes something that is no regular file, or is too long.
type Make = fn(&Path);

const ODD: [(&str, Make); 9] = [
    ("a pipe", |path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap()),
    ("a folder", |path| fs::create_dir(path).unwrap()),
    ("a link to itself", |path| symlink(path, path).unwrap()),
    ("a link to a device", |path| symlink("/dev/zero", path).unwrap()),
    ("a link to a sound entry", |path| {
        let sound = path.with_extension("sound");
        fs::write(&sound, entry(1, 0, 100).to_bytes()).unwrap();
        symlink(sound, path).unwrap();
    }),
    ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ("a long file of zeros", |path| File::create(path).unwrap().set_len(3 << 30).unwrap()),
    ("a long file that begins as an entry", |path| {
        fs::write(path, entry(1, 0, 100).to_bytes()).unwrap();
        File::options().append(true).open(path).unwrap().set_len(3 << 30).unwrap();
    }),
    ("a long file whose header agrees with its length", |path| {
        const LEN: u64 = 3 << 30;
        let mut bytes = entry(1, 0, 100).to_bytes();
        let artifact = u64::from_le_bytes(*bytes[56..].first_chunk().unwrap());
        let artifact = artifact + LEN - bytes.len() as u64;
        bytes[56..64].copy_from_slice(&artifact.to_le_bytes());
        let sum = blake3::hash(&bytes[..96]);
        bytes[96..104].copy_from_slice(&sum.as_bytes()[..8]);
        fs::write(path, bytes).unwrap();
        File::options().append(true).open(path).unwrap().set_len(LEN).unwrap();
    }),
];

fn latest_path(store: &DiskStore, lineage: &Lineage) -> PathBuf {
    let name = lineage.to_string();
    store.folder().join(&name[..2]).join(format!("latest-{}", &name[2..]))
}

fn plant(path: &Path, make: Make) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    make(path);
}

#[test]
fn what_is_no_file_of_the_store_is_refused_before_it_is_read() {
    let lineage = Lineage::new("program", "m", "t");
    for (what, make) in ODD {
        let start = Instant::now();
        let folder = quick_folder();
        let store = DiskStore::new(folder.path().join("c"));
        plant(&store.path(&key(1)), make);
        plant(&latest_path(&store, &lineage), make);
        plant(&store.folder().join("quarantine").join(key(2).to_string()), make);
        plant(&store.folder().join("incoming").join(".kiln-new-1-0"), make);
        match store.get(&key(1)) {
            Lookup::Corrupt(EntryError::Unreadable(error)) => {
                assert_eq!(error.to_string(), "not a regular file", "{what}");
            }
            Lookup::Corrupt(EntryError::Foreign | EntryError::Length { .. }) => {
                assert!(what.starts_with("a long file"), "{what}");
            }
            Lookup::Corrupt(EntryError::TooLong(len)) => assert_eq!(len, 3 << 30, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(store.latest(&lineage), None, "{what}");
        let stat = store.stat().unwrap();
        let is_entry = what.starts_with("a long file") && what != "a long file of zeros";
        assert_eq!((stat.entries, stat.last_builds), (u64::from(is_entry), 0), "{what}");
        assert_eq!(store.entries().count(), usize::from(is_entry), "{what}");
        let report = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!((report.broken.len(), report.unreadable.len()), (usize::from(is_entry), 0), "{what}");
        store.gc(0).unwrap();
        if !is_entry {
            assert!(store.quarantine(&key(1), "a test").is_err(), "{what}");
            assert!(matches!(store.get(&key(1)), Lookup::Miss), "{what}: not used again");
            assert!(store.path(&key(1)).symlink_metadata().is_ok(), "{what}: still there");
        }
        // Storing heals, except in the place of a folder, which no file replaces.
        let healed = store.put(&key(1), &entry(1, 0, 100)).is_ok();
        assert_eq!(healed, what != "a folder", "{what}");
        assert!(!healed || matches!(store.get(&key(1)), Lookup::Hit(..)), "{what}");
        let healed = store.set_latest(&lineage, &key(1)).is_ok();
        assert_eq!(healed, what != "a folder", "{what}");
        assert!(!healed || store.latest(&lineage) == Some(key(1)), "{what}");
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: {:?}", start.elapsed());
    }
}

#[test]
fn a_folder_that_is_none_is_an_error_and_not_waited_for() {
    for (what, make) in ODD.into_iter().filter(|(what, _)| !what.ends_with("folder")) {
        let folder = quick_folder();
        let path = folder.path().join("c");
        make(&path);
        let store = DiskStore::new(&path);
        assert!(!matches!(store.get(&key(1)), Lookup::Hit(..)), "{what}");
        assert!(store.put(&key(1), &entry(1, 0, 100)).is_err(), "{what}");
        assert!(store.stat().is_err() && store.gc(0).is_err(), "{what}");
        assert!(store.verify(&mut |_, _| ()).is_err(), "{what}");
    }
}

/// Every file below a folder, and its content.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(content(&path)),
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

/// Version control and other caches name files by hashes as well.
#[test]
fn files_with_the_names_of_entries_are_counted_and_left_alone() {
    let folder = quick_folder();
    for n in 0..300 {
        let name = key(n).to_string();
        for (at, text) in [&b"x\x01object"[..], b"", b"KilnEn_ not an entry", b"KilnSub\0 another kind"]
            .into_iter()
            .enumerate()
        {
            let name = format!("{}{at}", &name[..63]);
            let shard = folder.path().join(&name[..2]);
            fs::create_dir_all(&shard).unwrap();
            fs::write(shard.join(&name[2..]), text).unwrap();
            fs::write(shard.join(format!("latest-{}", &name[2..32])), b"KilnEnt\0 another kind").unwrap();
        }
    }
    let before = content(folder.path());
    let store = DiskStore::new(folder.path());
    let stat = store.stat().unwrap();
    assert_eq!((stat.entries, stat.last_builds, stat.foreign), (0, 0, before.len() as u64));
    let report = store.verify(&mut |_, _| ()).unwrap();
    assert_eq!((report.checked, report.broken.len(), report.unreadable.len()), (0, 0, 0));
    assert_eq!(report.foreign, before.len() as u64);
    let report = store.gc(0).unwrap();
    assert_eq!((report.removed, report.kept, report.foreign), (0, 0, before.len() as u64));
    assert!(content(folder.path()) == before);

    // A build in such a folder removes its own entries to stay within its limit, and nothing else.
    let small = DiskStore::new(folder.path()).limit(20 * 4096);
    for n in 1000..1200 {
        small.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    let stat = store.stat().unwrap();
    assert!(stat.entries < 200, "its own entries are removed: {stat:?}");
    assert_eq!(stat.foreign, before.len() as u64);
    store.gc(0).unwrap();
    let left: Vec<_> = content(folder.path());
    assert!(left == before);
}

#[test]
fn an_entry_that_lost_its_end_is_still_one() {
    let folder = quick_folder();
    let store = DiskStore::new(folder.path());
    let cut = |n: u32, len: usize| {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
        File::options().write(true).open(store.path(&key(n))).unwrap().set_len(len as u64).unwrap();
    };
    (1..8).for_each(|len| cut(u32::try_from(len).unwrap(), len));
    let report = store.verify(&mut |_, _| ()).unwrap();
    assert_eq!((report.broken.len(), report.foreign), (7, 0));
    let moved: Vec<Key> = report.broken.iter().map(|(key, _)| *key).collect();
    assert!(moved.iter().all(|key| !store.path(key).exists()));
}
