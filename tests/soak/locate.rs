//! Threads that look addresses up while others publish and remove code there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{constant, in_use, rounds, session, turn};

/// Addresses at which code was published lately.
const LATELY: usize = 64;

#[test]
fn what_is_found_by_an_address_is_what_is_there() {
    let _turn = turn();
    let session = session();
    let stays = session.add(&[constant("export", "stays", 1)]).unwrap();
    let stays = stays.functions().next().unwrap().address as usize;
    let (before, count) = (in_use(&session), rounds(2000));
    let lately: [AtomicUsize; LATELY] = std::array::from_fn(|_| AtomicUsize::new(stays));
    let (done, found, gone) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let publish = |thread: usize| {
            for round in 0..count {
                // Names of many lengths, so that tables of units differ in size.
                let name = format!("n{}_{thread}_{round}", "x".repeat(round % 50));
                let unit = session.add(&[constant("export", &name, round as i64)]).unwrap();
                let address = unit.functions().next().unwrap().address;
                lately[(7 * round + thread) % LATELY].store(address as usize, Ordering::Relaxed);
                let place = session.locate(address).unwrap_or_else(|| panic!("no `{name}`"));
                assert_eq!((place.location().name(), place.location().offset()), (&*name, 0));
                assert_eq!(place.location().module_name(), Some("module"));
                drop(place);
                session.remove(&[unit]).unwrap();
                let place = session.locate(address);
                assert_ne!(place.as_ref().map(|place| place.location().name()), Some(&*name));
            }
        };
        let publishers = [scope.spawn(move || publish(0)), scope.spawn(move || publish(1))];
        for start in 0..2 {
            let (lately, done, found, gone, session) = (&lately, &done, &found, &gone, &session);
            scope.spawn(move || {
                for at in (start..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    let address = lately[at % LATELY].load(Ordering::Relaxed);
                    let Some(place) = session.locate((address + at % 3) as *const u8) else {
                        gone.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let name = place.location().name();
                    assert!(name.starts_with('n') || name == "stays", "`{name}`");
                    assert!(name == "stays" || place.location().module_name() == Some("module"));
                    found.fetch_add(1, Ordering::Relaxed);
                    let place = session.locate(stays as *const u8).map(|place| place.location().start());
                    assert_eq!(place, Some(stays as u64), "what stays is always found");
                }
            });
        }
        let ended: Vec<_> = publishers.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|end| end.expect("a thread that publishes"));
    });
    let (found, gone) = (found.into_inner(), gone.into_inner());
    assert!(found > 100 && gone > 0, "found {found}, gone {gone}");
    session.jit().collect();
    assert_eq!(in_use(&session), before, "nothing is kept");
}
