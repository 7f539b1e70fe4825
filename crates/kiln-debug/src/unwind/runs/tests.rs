//! Runs against a model of libgcc 12, asked after each single step of a change.

use std::collections::BTreeMap;

use super::super::tail::TAIL;
use super::*;

/// The space of one unit of code in these tests, and the number of places for units.
const UNIT: usize = 16;
const PLACES: usize = 1600;

/// A table, as libgcc 12 knows it.
struct Object {
    table: *const *const u8,
    /// The first address of its code.
    start: usize,
    /// The addresses of its sections.
    sections: Vec<usize>,
}

/// The two lists of libgcc 12, and what must be found in them.
#[derive(Default)]
struct Model {
    /// The newest first.
    unseen: Vec<Object>,
    /// By decreasing addresses; of equal ones, the oldest first.
    seen: Vec<Object>,
    /// The code that must be found at any time.
    live: BTreeMap<usize, usize>,
    random: u64,
    registered: usize,
    sorts_at_once: bool,
}

impl Model {
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }

    /// Looks a pc up as `_Unwind_Find_FDE` does. The address of a section is that of its code.
    fn find(&mut self, pc: usize) -> Option<usize> {
        let search = |object: &Object| {
            object.sections.iter().copied().find(|start| (*start..*start + UNIT).contains(&pc))
        };
        if let Some(object) = self.seen.iter().find(|object| pc >= object.start)
            && let Some(found) = search(object)
        {
            return Some(found);
        }
        while !self.unseen.is_empty() {
            let object = self.unseen.remove(0);
            let found = search(&object);
            let position = self.seen.iter().position(|known| known.start < object.start);
            self.seen.insert(position.unwrap_or(self.seen.len()), object);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Looks some addresses up, as other threads do meanwhile.
    fn check(&mut self) {
        for _ in 0..4 {
            let skip = self.random(self.live.len().max(1));
            let Some(place) = self.live.keys().nth(skip).copied() else { return };
            assert_eq!(self.find(place + UNIT - 1), Some(place), "a pc was not found");
        }
    }

    fn check_all(&mut self) {
        let places: Vec<_> = self.live.keys().copied().collect();
        for place in places {
            assert_eq!(self.find(place), Some(place), "a pc was not found");
        }
    }
}

impl Tables for Model {
    unsafe fn add(&mut self, table: &[*const u8]) {
        let (null, sections) = table.split_last().unwrap();
        assert!(null.is_null());
        let sections: Vec<usize> = sections.iter().map(|section| section.addr()).collect();
        assert!(sections.is_sorted() && sections.len() <= MAX);
        self.registered += sections.len();
        self.unseen.insert(0, Object { table: table.as_ptr(), start: sections[0], sections });
        if self.random(2) == 0 {
            self.check();
        }
    }

    fn sorts_at_once(&self) -> bool {
        self.sorts_at_once
    }

    fn look_up(&mut self, pc: usize) {
        assert_eq!(self.find(pc), Some(pc));
        assert!(self.unseen.iter().all(|object| object.start != pc), "not sorted");
        self.check();
    }

    unsafe fn remove(&mut self, table: &[*const u8]) {
        let lists = [&mut self.unseen, &mut self.seen];
        let list = lists.into_iter().find(|list| list.iter().any(|object| object.table == table.as_ptr()));
        let list = list.expect("only what was added is removed");
        list.retain(|object| object.table != table.as_ptr());
        self.check();
    }
}

fn section(place: usize) -> Section {
    Section { code: place..place + UNIT, address: std::ptr::without_provenance(place) }
}

const REGION: Range<usize> = UNIT..UNIT * (PLACES + 2);

fn add(runs: &mut Runs, model: &mut Model, place: usize) {
    // SAFETY: a model reads no memory.
    unsafe { runs.add(section(place), REGION, model) };
    model.live.insert(place, place);
}

fn remove(runs: &mut Runs, model: &mut Model, place: usize) {
    model.live.remove(&place);
    // SAFETY: as above.
    unsafe { runs.remove(place, model) };
}

/// Runs are not empty, do not overlap, and are the tables of the model.
fn consistent(runs: &Runs, model: &Model) {
    let mut end = 0;
    let mut sections = 0;
    for (start, run) in &runs.runs {
        assert!(*start == run.start() && end <= *start && run.end() > *start);
        end = run.end();
        sections += run.sections.len();
    }
    assert_eq!(sections + runs.tail.len(), model.live.len());
    assert_eq!(runs.len(), model.seen.len() + model.unseen.len());
}

#[test]
fn everything_is_found_at_any_time_in_any_order() {
    const STEPS: usize = 2000;
    // The step from which on tables are sorted when they are added.
    for (seed, prepared) in [(1, 0), (2, 0), (3, STEPS / 2), (4, STEPS), (5, STEPS), (6, STEPS)] {
        let mut model =
            Model { random: seed * 0x9e37_79b9, sorts_at_once: prepared == 0, ..Model::default() };
        let mut runs = Runs::new();
        for step in 0..STEPS {
            if step == prepared && !model.sorts_at_once {
                model.sorts_at_once = true;
                runs.sort(&mut model);
                assert!(model.unseen.is_empty());
            }
            let place = UNIT * (1 + model.random(PLACES));
            // Mostly additions at first, mostly removals at the end.
            if model.live.contains_key(&place) {
                if model.random(STEPS) < step {
                    remove(&mut runs, &mut model, place);
                }
            } else if model.random(STEPS) > step / 2 {
                add(&mut runs, &mut model, place);
            }
            consistent(&runs, &model);
        }
        model.check_all();
        for place in model.live.clone().into_keys() {
            remove(&mut runs, &mut model, place);
        }
        consistent(&runs, &model);
        assert_eq!(runs.len(), 0);
    }
}

#[test]
fn additions_in_order_give_few_tables_and_few_registrations() {
    for descending in [false, true] {
        let mut model = Model { random: 1, ..Model::default() };
        let mut runs = Runs::new();
        for number in 1..=PLACES {
            let place = if descending { PLACES + 1 - number } else { number };
            add(&mut runs, &mut model, UNIT * place);
            assert!(runs.len() <= number / MAX + TAIL + WAYS.iter().sum::<usize>());
        }
        let most = if descending { 5 } else { 4 };
        assert!(model.registered <= most * PLACES, "{}", model.registered);
    }
}

#[test]
fn a_place_is_used_again_without_its_neighbours() {
    let mut model = Model { random: 1, ..Model::default() };
    let mut runs = Runs::new();
    (1..=PLACES).for_each(|number| add(&mut runs, &mut model, UNIT * number));
    // In the middle of a large run, and near the end of one.
    for (place, most) in [(UNIT * 450, 1), (UNIT * 600, 1), (UNIT * 1599, 4 * SMALL)] {
        remove(&mut runs, &mut model, place);
        model.registered = 0;
        for _ in 0..100 {
            add(&mut runs, &mut model, place);
            remove(&mut runs, &mut model, place);
        }
        assert!(model.registered <= 100 * most, "{}", model.registered);
    }
    consistent(&runs, &model);
}

#[test]
fn removals_everywhere_leave_no_table_for_each_section() {
    let mut model = Model { random: 1, ..Model::default() };
    let mut runs = Runs::new();
    (1..=PLACES).for_each(|number| add(&mut runs, &mut model, UNIT * number));
    (1..=PLACES / 2).for_each(|number| remove(&mut runs, &mut model, UNIT * 2 * number));
    assert!(runs.len() <= 2 * PLACES / SMALL, "{}", runs.len());
    (1..=PLACES / 2).for_each(|number| add(&mut runs, &mut model, UNIT * 2 * number));
    assert!(runs.len() <= PLACES / 8, "{}", runs.len());
    consistent(&runs, &model);
}

#[test]
fn regions_of_others_are_not_joined() {
    let mut model = Model { random: 1, ..Model::default() };
    let mut runs = Runs::new();
    for number in 1..=10 {
        let place = UNIT * number;
        // SAFETY: a model reads no memory.
        unsafe { runs.add(section(place), place..place + UNIT, &mut model) };
        model.live.insert(place, place);
    }
    assert_eq!(runs.len(), 10);
}

#[test]
fn a_table_never_begins_with_a_word_of_zeros() {
    let section = |address| Section { code: 0..1, address: std::ptr::without_provenance(address) };
    if cfg!(target_endian = "little") {
        let table = table(&[section(3 << 32), section((3 << 32) + 16)]);
        assert_ne!(first_word(table[0]), 0);
        assert_eq!(table.len(), 4);
    }
    assert_eq!(table(&[section((3 << 32) + 16)]).len(), 2);
}
