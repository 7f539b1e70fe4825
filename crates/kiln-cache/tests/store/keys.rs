//! Keys and recipes: nothing that code depends on is left out, and differences are named.

use kiln_cache::{Entry, Field, FunctionParts, Key, KeyParts, Lineage, Recipe};
use proptest::prelude::*;

use crate::common::{entry, key, recipe};

const BASE: KeyParts<'_> = KeyParts {
    fingerprint: &[0; 32],
    names: b"n",
    target: "t",
    settings: "a=1 b=2 c",
    producer: "p",
    revision: 1,
    abi: b"a",
};

#[test]
fn every_part_changes_the_key_and_is_named() {
    let cases = [
        (KeyParts { fingerprint: &[1; 32], ..BASE }, Field::Fingerprint),
        (KeyParts { names: b"", ..BASE }, Field::Names),
        (KeyParts { target: "u", ..BASE }, Field::Target),
        (KeyParts { settings: "a=1 b=3 c", ..BASE }, Field::Setting("b".into())),
        (KeyParts { settings: "a=1 b=2", ..BASE }, Field::Setting("c".into())),
        (KeyParts { settings: "a=1 b=2 c d=", ..BASE }, Field::Setting("d".into())),
        (KeyParts { settings: "a=1 c b=2", ..BASE }, Field::Settings),
        (KeyParts { settings: "a=1 b=2  c", ..BASE }, Field::Settings),
        (KeyParts { producer: "q", ..BASE }, Field::Producer),
        (KeyParts { revision: 2, ..BASE }, Field::Revision),
        (KeyParts { abi: b"", ..BASE }, Field::Abi),
    ];
    assert_eq!(BASE.key(), BASE.key());
    assert_eq!(BASE.recipe().differences(&BASE.recipe()), []);
    let mut keys = std::collections::HashSet::from([BASE.key()]);
    for (parts, field) in cases {
        assert!(keys.insert(parts.key()), "{parts:?}");
        for (old, new) in [(BASE, parts), (parts, BASE)] {
            let differences = old.recipe().differences(&new.recipe());
            assert_eq!(differences.iter().map(|found| &found.field).collect::<Vec<_>>(), [&field]);
        }
    }
    // Bytes cannot move from one part to the next.
    assert_ne!(
        KeyParts { target: "ab", settings: "c", ..BASE }.key(),
        KeyParts { target: "a", settings: "bc", ..BASE }.key()
    );
}

#[test]
fn differences_are_readable() {
    let new = KeyParts { settings: "a=2 c d=4", revision: 2, ..BASE };
    let text: Vec<String> =
        BASE.recipe().differences(&new.recipe()).iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "revision of the backend: was 1, is 2",
            "setting a: was 1, is 2",
            "setting b: was 2, is absent",
            "setting d: was absent, is 4"
        ]
    );
    let spaced = KeyParts { settings: "a=1 b=2  c", ..BASE };
    assert_eq!(
        BASE.recipe().differences(&spaced.recipe())[0].to_string(),
        "text of the settings: was a=1 b=2 c, is a=1 b=2  c"
    );
}

#[test]
fn every_part_changes_the_key_of_a_function() {
    let base = FunctionParts {
        body: b"b",
        references: b"r",
        target: "t",
        settings: "s",
        producer: "p",
        revision: 1,
        abi: b"a",
    };
    let others = [
        FunctionParts { body: b"", ..base },
        FunctionParts { references: b"", ..base },
        FunctionParts { target: "", ..base },
        FunctionParts { settings: "", ..base },
        FunctionParts { producer: "", ..base },
        FunctionParts { revision: 2, ..base },
        FunctionParts { abi: b"", ..base },
        FunctionParts { body: b"", references: b"rb", ..base },
    ];
    assert_eq!(base.key(), base.key());
    let mut keys = std::collections::HashSet::from([base.key()]);
    assert!(others.iter().all(|other| keys.insert(other.key())));
}

#[test]
fn a_key_has_one_name() {
    let text = key(1).to_string();
    assert_eq!(text.parse(), Ok(key(1)));
    let wrong = [text.to_uppercase(), text[..62].into(), format!("{text}00"), format!("+{}", &text[1..])];
    assert!(wrong.iter().all(|text| text.parse::<Key>().is_err()));
}

#[test]
fn a_sample_of_keys_is_the_fraction_that_was_asked_for() {
    let count = |one_in| (0..10_000).filter(|&n| key(n).sampled(one_in)).count();
    assert_eq!((count(0), count(1)), (0, 10_000));
    assert!((4_700..5_300).contains(&count(2)), "{}", count(2));
    assert!((5..50).contains(&count(512)), "{}", count(512));
}

#[test]
fn lineages_differ_by_name_and_target() {
    assert_eq!(Lineage::new("program", "a", "b"), Lineage::new("program", "a", "b"));
    assert_ne!(Lineage::new("program", "a", "b"), Lineage::new("program", "ab", ""));
    assert_ne!(Lineage::new("program", "a", "b"), Lineage::new("program", "b", "a"));
}

/// Every way to divide a text among the parts of a lineage gives another one, and so does every
/// kind of lineage.
#[test]
fn parts_of_lineages_do_not_run_together() {
    let text = "a\0b\0c\0d";
    let environment = recipe(1).environment();
    let ends = || (0..=text.len()).flat_map(|end| (0..=end).map(move |middle| (middle, end)));
    let mut seen = std::collections::HashSet::new();
    let mut count = 0;
    let mut new = |lineage: Lineage| {
        count += 1;
        assert!(seen.insert(lineage), "lineage number {count}");
    };
    for (middle, end) in ends() {
        let (program, module, rest) = (&text[..middle], &text[middle..end], &text[end..]);
        new(Lineage::new(program, module, rest));
        new(Lineage::of_source(program, module, rest, b"", &environment));
        if !rest.is_empty() {
            new(Lineage::of_source(program, module, "", rest.as_bytes(), &environment));
        }
        if end == text.len() {
            new(Lineage::in_environment(program, module, &environment));
        }
    }
    assert_ne!(
        Lineage::of_source("p", "m", "1", b"s", &environment),
        Lineage::of_source("p", "m", "1", b"s", &recipe(1).key())
    );
}

#[test]
fn modules_in_one_environment_share_a_lineage() {
    let base = KeyParts {
        fingerprint: &[1; 32],
        names: b"n",
        target: "t",
        settings: "a=1",
        producer: "p",
        revision: 1,
        abi: b"a",
    };
    let named = |parts: KeyParts<'_>, name| Lineage::in_environment("p", name, &parts.recipe().environment());
    let lineage = |parts| named(parts, "m");
    assert!(
        base.recipe().same_environment(&KeyParts { fingerprint: &[2; 32], names: b"o", ..base }.recipe())
    );
    assert_eq!(lineage(base), lineage(KeyParts { fingerprint: &[2; 32], names: b"o", ..base }));
    let others = [
        KeyParts { target: "u", ..base },
        KeyParts { settings: "a=2", ..base },
        KeyParts { producer: "q", ..base },
        KeyParts { revision: 2, ..base },
        KeyParts { abi: b"b", ..base },
    ];
    let mut seen =
        std::collections::HashSet::from([lineage(base), named(base, "n"), Lineage::new("program", "m", "t")]);
    assert!(others.iter().all(|other| seen.insert(lineage(*other))) && seen.len() == 8);
    assert!(!others.iter().any(|other| other.recipe().same_environment(&base.recipe())));
}

#[test]
fn every_truncation_and_extension_of_a_recipe_is_refused() {
    let bytes = recipe(1).to_bytes();
    assert_eq!(Recipe::from_bytes(&bytes).unwrap(), recipe(1));
    for len in 0..bytes.len() {
        assert!(Recipe::from_bytes(&bytes[..len]).is_err(), "cut to {len}");
    }
    assert!(Recipe::from_bytes(&[&bytes[..], b"\0"].concat()).is_err());
}

proptest! {
    #[test]
    fn recipes_round_trip_and_differ_exactly_if_they_are_not_equal(
        a in ("[ab =]{0,6}", "[tu]{0,2}", 0..2_u32), b in ("[ab =]{0,6}", "[tu]{0,2}", 0..2_u32)
    ) {
        let make = |(settings, target, revision): &(String, String, u32)| {
            KeyParts { settings, target, revision: *revision, ..BASE }.recipe()
        };
        let (a, b) = (make(&a), make(&b));
        prop_assert_eq!(&Recipe::from_bytes(&a.to_bytes()).unwrap(), &a);
        prop_assert_eq!(a.differences(&b).is_empty(), a == b);
        prop_assert_eq!(a.key() == b.key(), a == b);
    }

    #[test]
    fn altered_recipes_do_no_harm(at in 0..300_usize, bits in 1..=255_u8) {
        let mut bytes = recipe(1).to_bytes();
        let at = at % bytes.len();
        bytes[at] ^= bits;
        // It is another recipe or none.
        prop_assert!(Recipe::from_bytes(&bytes).ok().is_none_or(|found| found != recipe(1) && found.to_bytes() == bytes));
    }

    #[test]
    fn any_bytes_are_no_entry(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Entry::from_bytes(&key(1), bytes).is_err());
    }
}

#[test]
fn bytes_of_an_entry_round_trip_and_cost_little() {
    let entry = entry(1, 0, 1000);
    let bytes = entry.to_bytes();
    assert_eq!(bytes.len() as u64, entry.file_len());
    assert_eq!(Entry::from_bytes(&key(1), bytes.clone()).unwrap(), entry);
    // A header of 104 bytes, the recipe, 16 bytes for a function, and at most 15 zeros.
    let more = bytes.len() - entry.artifact.as_bytes().len();
    let expected = 104 + entry.recipe.to_bytes().len() + 16;
    assert!((expected..expected + 16).contains(&more), "{more}");
    assert!(Entry::from_bytes(&key(2), bytes).is_err());
}
