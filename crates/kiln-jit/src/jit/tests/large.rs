//! Units that keep a table of their definitions behave like all others.

use super::*;
use crate::batch::Batch;
use crate::large::MAX_LARGE;

/// A module with more definitions than a unit enters one by one: functions `NAME_0`, `NAME_1` and
/// so on, and a hidden, a preemptible and a replaceable one.
fn large(name: &str) -> Artifact {
    let names: Vec<String> = (0..300).map(|number| format!("{name}_{number}")).collect();
    let mut defined: Vec<(&str, Linkage, SymbolKind)> =
        names.iter().map(|name| (&**name, Linkage::Export, SymbolKind::Function)).collect();
    let special = ["hidden", "preemptible", "replaceable"].map(|kind| format!("{name}_{kind}"));
    let linkages = [Linkage::Hidden, Linkage::Preemptible, Linkage::Replaceable];
    defined
        .extend(special.iter().zip(linkages).map(|(name, linkage)| (&**name, linkage, SymbolKind::Function)));
    let module = artifact(&defined, &[]);
    assert!(Batch::new(std::slice::from_ref(&module), &[]).is_large());
    module
}

#[test]
fn definitions_are_found_used_and_removed() {
    let jit = jit();
    let unit = link(&jit, &large("a")).unwrap();
    for defined in unit.symbols() {
        let found = jit.address(defined.name);
        if defined.name.ends_with("hidden") {
            assert_eq!((found, jit.function(defined.name).is_some()), (None, false));
            continue;
        }
        if !defined.name.ends_with("replaceable") {
            assert_eq!(found, Some(defined.address), "{}", defined.name);
        }
        assert_eq!(jit.unit_of(defined.name), Some(unit.clone()));
        // What was looked up once is kept.
        assert_eq!([0, 1].map(|_| jit.function(defined.name).unwrap().name().to_owned()), [defined.name; 2]);
    }
    assert!(jit.defines("a_hidden") && !jit.defines("a_300"));
    let names =
        |jit: &Jit| jit.exports().into_iter().map(|export| export.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&jit).len(), 302);
    // One that another unit uses has an entry, and is still listed once.
    let user = link(&jit, &data("user", Linkage::Export, &["a_7", "a_hidden"])).unwrap();
    assert_eq!((names(&jit).len(), jit.address("a_7").is_some()), (303, true));
    assert_eq!(
        jit.remove(std::slice::from_ref(&unit)).unwrap_err().to_string(),
        "still in use: module 1 uses `a_7`\nmodule 1 uses `a_hidden`"
    );
    jit.remove(&[user]).unwrap();
    jit.remove(&[unit]).unwrap();
    assert_eq!((names(&jit), jit.address("a_7"), jit.defines("a_8")), (vec![], None, false));
    assert_eq!(in_use(&jit), [0, 0]);
}

#[test]
fn the_rules_between_definitions_hold() {
    let jit = jit();
    let unit = link(&jit, &large("a")).unwrap();
    let error = link(&jit, &data("a_7", Linkage::Export, &[])).unwrap_err();
    assert!(
        matches!(&error, JitError::Redefinition { name, earlier, .. } if &**name == "a_7" && earlier.number == 0),
        "{error}"
    );
    let error = link(&jit, &large("a")).unwrap_err();
    assert!(matches!(error, JitError::Redefinition { .. }), "{error}");
    // A weak definition uses the one that exists, and its unit then is a user.
    let weak = [("a_8", Linkage::Preemptible, SymbolKind::Function)];
    let weak = link(&jit, &artifact(&weak, &["a_8"])).unwrap();
    assert_eq!(jit.unit_of("a_8"), Some(unit.clone()));
    jit.remove(std::slice::from_ref(&unit)).unwrap_err();
    let second = jit.replace(&[replaceable("a_replaceable")], &nothing).unwrap();
    assert_eq!(jit.unit_of("a_replaceable"), Some(second.clone()));
    assert!(jit.contains(&unit), "only one of its functions was replaced");
    jit.remove(&[weak, second]).unwrap();
    assert_eq!(jit.unit_of("a_replaceable"), Some(unit.clone()));
    jit.remove(&[unit]).unwrap();
    assert_eq!(in_use(&jit), [0, 0]);
}

#[test]
fn a_link_in_progress_has_its_names_already() {
    let jit = jit();
    let user = data("user", Linkage::Export, &["a_7"]);
    // It waits for the definition, and then uses it.
    let (unit, user) = waits(&jit, Mode::Add, &large("a"), || link(&jit, &user));
    jit.remove(std::slice::from_ref(&unit)).unwrap_err();
    jit.remove(&[user.unwrap(), unit]).unwrap();
    // A link that fails takes its names back.
    let batch = [large("b")];
    let batch = Batch::new(&batch, &[]);
    let claim = jit.claim(&batch, Mode::Add, &nothing).unwrap();
    drop(Pending::new(&jit.state, batch, claim));
    assert!(!jit.defines("b_7"));
    link(&jit, &large("b")).unwrap();
}

#[test]
fn there_are_few_tables_and_no_name_is_lost() {
    let jit = jit();
    let names: Vec<String> = (0..MAX_LARGE + 3).map(|number| format!("m{number}")).collect();
    let units: Vec<Unit> = names.iter().map(|name| link(&jit, &large(name)).unwrap()).collect();
    let all_found = |units: &[Unit]| {
        for (unit, name) in units.iter().zip(&names) {
            assert_eq!(jit.unit_of(&format!("{name}_299")), Some(unit.clone()), "{name}");
            assert_eq!(jit.address(&format!("{name}_hidden")), None);
        }
        assert_eq!(jit.exports().len(), 302 * units.len());
    };
    all_found(&units);
    for left in (0..units.len()).rev() {
        jit.remove(&units[left..=left]).unwrap();
        all_found(&units[..left]);
    }
    assert_eq!(in_use(&jit), [0, 0]);
}

#[test]
fn a_lookup_finds_a_name_while_it_moves_to_the_map() {
    let jit = jit();
    let names: Vec<String> = (0..MAX_LARGE + 20).map(|number| format!("m{number}")).collect();
    let modules: Vec<Artifact> = names.iter().map(|name| large(name)).collect();
    let linked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while linked.load(Ordering::Acquire) < names.len() {
                    for name in &names[..linked.load(Ordering::Acquire)] {
                        let name = format!("{name}_299");
                        assert!(jit.address(&name).is_some(), "{name}");
                    }
                }
            });
        }
        for module in &modules {
            link(&jit, module).unwrap();
            linked.fetch_add(1, Ordering::Release);
        }
    });
}

#[test]
fn names_are_found_while_they_move_from_the_list_to_the_map() {
    let modules: Vec<Artifact> =
        (0..12).map(|number| data(&format!("few_{number}"), Linkage::Export, &[])).collect();
    for _ in 0..300 {
        let (jit, done) = (jit(), AtomicBool::new(false));
        link(&jit, &modules[0]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    assert!(jit.address("few_0").is_some(), "a name that was published");
                }
            });
            modules[1..].iter().for_each(|module| drop(link(&jit, module).unwrap()));
            done.store(true, Ordering::Release);
        });
        assert!((0..12).all(|number| jit.address(&format!("few_{number}")).is_some()));
    }
}
