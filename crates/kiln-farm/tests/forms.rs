//! Shards and results are read only as they were written; cuts depend on keys.

use std::time::Duration;

use kiln_cache::{Entry, Key, Recipe};
use kiln_farm::{
    Item, Refused, WorkerError, WorkerErrorKind, cut, read_results, read_shard, write_results, write_shard,
};

use crate::common::{entry, key, recipe};

#[path = "../../kiln-cache/tests/store/common.rs"]
#[expect(dead_code, reason = "the tests of stores use the rest")]
mod common;

fn shard(recipes: &[Recipe], modules: &[Vec<u8>]) -> Vec<u8> {
    let items = recipes.iter().zip(modules).map(|(recipe, module)| Item { recipe, module });
    write_shard(&items.collect::<Vec<_>>())
}

#[test]
fn a_shard_is_read_as_it_was_written() {
    let recipes: Vec<Recipe> = (0..5).map(recipe).collect();
    let modules: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 100 * usize::from(n)]).collect();
    let bytes = shard(&recipes, &modules);
    let items = read_shard(&bytes).unwrap();
    assert_eq!(items.len(), 5);
    for (n, item) in items.iter().enumerate() {
        assert_eq!((item.key, item.module), (recipes[n].key(), &*modules[n]));
        assert!(item.environment.same_environment(&recipes[n]));
    }
    assert!(shard(&recipes, &modules) == bytes);
    // The environment, which all have in common, is there once.
    assert!(bytes.len() < 5 * 44 + 1000 + 2 * recipes[0].to_bytes().len());
    assert!(read_shard(&shard(&[], &[])).unwrap().is_empty());
}

#[test]
fn every_shard_that_is_cut_off_or_altered_is_an_error_or_another_shard() {
    let recipes: Vec<Recipe> = (0..3).map(recipe).collect();
    let modules = vec![vec![1; 9]; 3];
    let bytes = shard(&recipes, &modules);
    for len in 0..bytes.len() {
        let error = read_shard(&bytes[..len]).unwrap_err();
        assert!(error.offset <= len && !error.to_string().is_empty(), "{error}");
    }
    let longer = [&*bytes, b"x"].concat();
    assert_eq!(read_shard(&longer).unwrap_err().what, "bytes after the end");
    for place in 0..bytes.len() {
        for bit in [1, 0x80, 0xff] {
            let mut altered = bytes.clone();
            altered[place] ^= bit;
            // A number that is too large takes no memory.
            if let Ok(items) = read_shard(&altered) {
                assert!(items.len() == 3, "byte {place}");
            }
        }
    }
}

fn results() -> (Vec<Key>, Vec<Result<Entry, WorkerError>>) {
    let error = |kind, message: &str| Err(WorkerError { kind, message: message.into() });
    let results = vec![
        Ok(entry(0, 0, 300)),
        error(WorkerErrorKind::Unreadable, "offset 3: wrong"),
        Ok(entry(2, 0, 50)),
        error(WorkerErrorKind::NotCompiled, "function `f`: \u{fc}ber 2 GiB"),
    ];
    ((0..4).map(key).collect(), results)
}

#[test]
fn results_are_read_as_they_were_written() {
    let (keys, results) = results();
    let bytes = write_results(&results);
    let read = read_results(&bytes, &keys).unwrap();
    for (read, written) in read.iter().zip(&results) {
        match (read, written) {
            (Ok(read), Ok(written)) => assert!(read.artifact == written.artifact),
            (Err(Refused::Worker(read)), Err(written)) => assert_eq!(read, written),
            other => panic!("{other:?}"),
        }
    }
    // An entry is that of its key, or refused.
    let swapped = [keys[2], keys[1], keys[0], keys[3]];
    let read = read_results(&bytes, &swapped).unwrap();
    assert!(matches!((&read[0], &read[2]), (Err(Refused::Entry(_)), Err(Refused::Entry(_)))));
    assert!(read_results(&bytes, &keys[..3]).is_err());
}

#[test]
fn results_that_are_cut_off_or_altered_give_no_other_entry() {
    let (keys, results) = results();
    let bytes = write_results(&results);
    for len in 0..bytes.len() {
        assert!(read_results(&bytes[..len], &keys).is_err(), "{len}");
    }
    for place in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[place] ^= 0x41;
        let Ok(read) = read_results(&altered, &keys) else { continue };
        for (read, written) in read.iter().zip(&results) {
            if let Ok(read) = read {
                assert!(written.as_ref().is_ok_and(|written| written.artifact == read.artifact), "{place}");
            }
        }
    }
    let long = WorkerError { kind: WorkerErrorKind::Invalid, message: "\u{fc}".repeat(5000).into() };
    let read = read_results(&write_results(&[Err(long)]), &keys[..1]).unwrap();
    assert!(read[0].as_ref().unwrap_err().to_string().len() <= 4096 * 3);
}

#[test]
fn shards_take_one_to_two_times_the_target() {
    let ms = Duration::from_millis;
    let modules: Vec<(Duration, Key)> =
        (0..500_u32).map(|n| (ms(u64::from(n * 7919 % 400)), Key::from_bytes([n as u8; 32]))).collect();
    let modules: Vec<_> =
        modules.into_iter().enumerate().map(|(n, (time, _))| (time, key(n as u32))).collect();
    let target = ms(1000);
    let shards = cut(&modules, target);
    let time = |shard: &std::ops::Range<usize>| modules[shard.clone()].iter().map(|m| m.0).sum::<Duration>();
    let mut next = 0;
    for (number, shard) in shards.iter().enumerate() {
        assert_eq!(shard.start, next);
        next = shard.end;
        let is_last = number + 1 == shards.len();
        assert!(is_last || time(shard) >= target, "{shard:?}: {:?}", time(shard));
        assert!(time(shard) <= 2 * target, "{shard:?}: {:?}", time(shard));
    }
    assert_eq!(next, 500);
    // A module that is not there any more changes few shards.
    let mut fewer = modules.clone();
    fewer.remove(17);
    let keys = |modules: &[(Duration, Key)], shards: &[std::ops::Range<usize>]| -> Vec<Vec<Key>> {
        shards.iter().map(|shard| modules[shard.clone()].iter().map(|m| m.1).collect()).collect()
    };
    let (before, after) = (keys(&modules, &shards), keys(&fewer, &cut(&fewer, target)));
    let changed = after.iter().filter(|shard| !before.contains(shard)).count();
    assert!(changed * 10 < after.len(), "{changed} of {}", after.len());
    // Long modules are shards of their own, and no modules are none.
    assert_eq!(cut(&[(ms(9000), key(1)), (ms(9000), key(2))], target), [0..1, 1..2]);
    assert!(cut(&[], target).is_empty());
}
