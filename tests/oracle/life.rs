//! Sessions that live: random modules are added, replaced and removed, and addresses of the host
//! change. After each step the session is compared with a model, and with the image of what is
//! left.
//!
//! The model knows each unit's definitions and uses, and says what is exported, what every function
//! returns, which units are in the way of a removal, and which ones a replacement makes
//! superfluous. Whether modules are accepted is compared with an image of all of them, as in
//! `batches`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln::Session;
use kiln::SessionError;
use kiln::artifact::Artifact;
use kiln::artifact::record::Linkage;
use kiln::globals::{Bindings, GlobalAccess};
use kiln::image::Image;
use kiln::ir::Target;
use kiln::jit::{JitError, Unit};
use kiln_oracle::random::Random;

use crate::batches::{artifact, compare, image, is_too_late};
use crate::cases::run;

/// The names that modules define and call. The host has all of them.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// How often a step had each outcome, in the order of [`Outcome`].
static OUTCOMES: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Added,
    Replaced,
    Refused,
    TooLate,
    Removed,
    InUse,
    Rebound,
}

#[test]
fn a_session_that_lives_is_its_model_and_its_image() {
    let cases = run("a_session_that_lives_is_its_model_and_its_image", 100, |seed| {
        let mut world = World::new(seed)?;
        for step in 0..16 {
            world.step().and_then(|()| world.check()).map_err(|error| {
                let log = world.log.join("\n");
                format!("step {step}: {error}\n{log}")
            })?;
        }
        Ok(())
    });
    let outcomes = OUTCOMES.each_ref().map(|count| count.load(Ordering::Relaxed));
    println!("added, replaced, refused, too late, removed, in use, rebound: {outcomes:?}");
    assert!(cases < 100 || outcomes.iter().all(|&count| count > cases / 20), "{outcomes:?}");
}

/// A module: what it defines, what it calls, and whether it has data in section `s` or uses the
/// bounds of that section.
#[derive(Clone, Debug, Default)]
struct Part {
    number: u32,
    defines: Vec<(&'static str, Linkage)>,
    calls: Vec<&'static str>,
    /// Whether it exports `use{number}`, which returns the sum of all calls.
    uses: bool,
    section: bool,
    bounds: bool,
}

/// A unit of the model.
struct Known {
    unit: Unit,
    parts: Vec<Part>,
    /// The names of other units that it depends on.
    uses: BTreeSet<&'static str>,
    uses_bounds: bool,
}

struct World {
    random: Random,
    session: Session,
    bindings: Bindings,
    units: Vec<Known>,
    /// Units that are gone.
    gone: Vec<Unit>,
    /// Which function of the host each name stands for.
    hosts: [usize; NAMES.len()],
    modules: u32,
    log: Vec<String>,
}

extern "C" fn first() -> i64 {
    1_000_000
}

extern "C" fn second() -> i64 {
    2_000_000
}

const HOSTS: [extern "C" fn() -> i64; 2] = [first, second];

impl Part {
    fn random(random: &mut Random, number: u32) -> Self {
        let mut part = Self { number, uses: !random.once_in(3), ..Self::default() };
        for name in NAMES {
            match random.below(6) {
                0 | 1 => {
                    let linkages =
                        [Linkage::Export, Linkage::Hidden, Linkage::Preemptible, Linkage::Replaceable];
                    let linkage = if part.uses { *random.choose(&linkages) } else { Linkage::Replaceable };
                    part.defines.push((name, linkage));
                }
                2 | 3 if part.uses => part.calls.push(name),
                _ => {}
            }
        }
        part.section = part.uses && random.once_in(6);
        part.bounds = part.uses && random.once_in(8);
        part
    }

    /// The text of the module. It also takes the address of a function that
    /// nobody defines, which the compiler leaves out.
    fn text(&self) -> String {
        let Self { number, .. } = self;
        let mut text = String::new();
        for (name, linkage) in &self.defines {
            let linkage = match linkage {
                Linkage::Hidden => "hidden",
                Linkage::Preemptible => "preemptible",
                Linkage::Replaceable => "replaceable",
                _ => "",
            };
            text += &format!(
                "{linkage} function %{name}() -> i64 system_v {{ block0: v0 = iconst.i64 {number} return v0 }}\n"
            );
        }
        if self.section {
            text += &format!("local data %part{number} section = \"s\" {{ i64 {number} }}\n");
        }
        if !self.uses {
            return text;
        }
        text += &format!("function %use{number}() -> i64 system_v {{\n");
        for (index, name) in self.calls.iter().enumerate() {
            text += &format!("fn{index} = %{name}() -> i64 system_v\n");
        }
        if self.bounds {
            text += "gv1 = symbol %__start_s\ngv2 = symbol %__stop_s\n";
        }
        text += "fn99 = %nobody() -> i64 system_v\nblock0:\nv98 = func_addr.i64 fn99\nv100 = iconst.i64 0\n";
        for index in 0..self.calls.len() {
            text +=
                &format!("v{index} = call fn{index}()\nv{} = iadd v{}, v{index}\n", 101 + index, 100 + index);
        }
        let sum = 100 + self.calls.len();
        match self.bounds {
            true => {
                text += "v200 = symbol_value.i64 gv1\nv201 = symbol_value.i64 gv2\nv202 = isub v201, v200\n";
                text += &format!("v203 = iadd v202, v{sum}\nreturn v203\n}}\n");
            }
            false => text += &format!("return v{sum}\n}}\n"),
        }
        text
    }
}

impl World {
    fn new(seed: u64) -> Result<Self, String> {
        let session = Session::new(Target::host()).map_err(|error| error.to_string())?;
        let mut world = Self {
            random: Random::new(seed),
            session,
            bindings: Bindings::new(),
            units: Vec::new(),
            gone: Vec::new(),
            hosts: [0; NAMES.len()],
            modules: 1,
            log: Vec::new(),
        };
        for name in 0..NAMES.len() {
            world.bind(name, 0)?;
        }
        for (name, address) in [("__start_s", 64), ("__stop_s", 128)] {
            world.session.bind_symbol(name, address).map_err(|error| error.to_string())?;
            world.bindings.bind_symbol(name, address);
        }
        Ok(world)
    }

    fn bind(&mut self, name: usize, host: usize) -> Result<(), String> {
        let address = HOSTS[host] as *const () as usize;
        self.hosts[name] = host;
        self.bindings.bind_symbol(NAMES[name], address);
        self.session.bind_symbol(NAMES[name], address).map_err(|error| error.to_string())
    }

    fn step(&mut self) -> Result<(), String> {
        let outcome = match self.random.below(10) {
            0..=3 => self.link(false)?,
            4 | 5 => self.link(true)?,
            6..=8 => self.remove()?,
            _ => {
                let name = self.random.below(NAMES.len() as u32) as usize;
                self.log.push(format!("bind {}", NAMES[name]));
                self.bind(name, 1 - self.hosts[name])?;
                Outcome::Rebound
            }
        };
        OUTCOMES[outcome as usize].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the definition of `name` that is in force when some units are gone: the number of
    /// its unit, its module's number, and its linkage.
    fn current(&self, name: &str, without: &BTreeSet<usize>) -> Option<(usize, u32, Linkage)> {
        let units = self.units.iter().enumerate().filter(|(unit, _)| !without.contains(unit));
        let definitions: Vec<_> = units
            .flat_map(|(unit, known)| known.parts.iter().map(move |part| (unit, part)))
            .flat_map(|(unit, part)| {
                let own = part.defines.iter().filter(move |(defined, _)| *defined == name);
                own.map(move |&(_, linkage)| (unit, part.number, linkage))
            })
            .collect();
        let strong = |&&(_, _, linkage): &&_| matches!(linkage, Linkage::Export | Linkage::Hidden);
        let replaceable = |&&(_, _, linkage): &&_| linkage == Linkage::Replaceable;
        let found = definitions.iter().find(strong);
        let found = found.or_else(|| definitions.iter().rev().find(replaceable));
        found.or(definitions.first()).copied()
    }

    /// Adds modules, or replaces with them.
    fn link(&mut self, replace: bool) -> Result<Outcome, String> {
        let count = self.random.within(1, 2);
        let parts: Vec<Part> =
            (0..count).map(|part| Part::random(&mut self.random, self.modules + part)).collect();
        self.modules += count;
        let texts: Vec<String> = parts.iter().map(Part::text).collect();
        let verb = if replace { "replace" } else { "add" };
        // What is bound again must not be in code.
        let added = texts
            .iter()
            .map(|text| artifact(text, GlobalAccess::Slots, false))
            .collect::<Result<Vec<_>, _>>()?;
        let before = self.session.artifacts();
        let whole = [before.clone(), added.clone()].concat();
        let result = match replace {
            true => self.session.replace_artifacts(&added),
            false => self.session.add_artifacts(&added),
        };
        let said = result.as_ref().map_or_else(ToString::to_string, |_| "accepted".into());
        self.log.push(format!("{verb}: {said}\n{}", texts.join("---\n")));
        match (result, image(&whole)) {
            (Ok(unit), Ok(_)) => {
                self.linked(unit, parts);
                Ok(if replace { Outcome::Replaced } else { Outcome::Added })
            }
            (Ok(_), Err(error)) => Err(format!("accepted, but refused by an image: {error}")),
            (Err(_), Err(_)) => Ok(Outcome::Refused),
            (Err(error), Ok(_)) if self.is_right(&error, replace, &before) => Ok(Outcome::TooLate),
            (Err(error), Ok(_)) => Err(format!("accepted by an image, but refused: {error}")),
        }
    }

    /// Whether a session may refuse what an image accepts.
    fn is_right(&self, error: &SessionError, replace: bool, before: &[Artifact]) -> bool {
        match error {
            SessionError::Jit(JitError::NotReplaced { name, .. }) => {
                !replace && self.current(name, &BTreeSet::new()).is_some()
            }
            // A definition is used before an image would know it; see `batches`.
            error => is_too_late(error, before),
        }
    }

    /// Adds a unit to the model, and removes what it makes superfluous.
    fn linked(&mut self, unit: Unit, parts: Vec<Part>) {
        let nothing = BTreeSet::new();
        let has = |name: &str, wanted: &[Linkage]| {
            let mut all = parts.iter().flat_map(|part| &part.defines);
            all.any(|(defined, linkage)| *defined == name && wanted.contains(linkage))
        };
        let mut uses = BTreeSet::new();
        for part in &parts {
            let weak = part.defines.iter().filter(|(_, linkage)| *linkage == Linkage::Preemptible);
            let called = part.calls.iter().copied().filter(|&name| {
                // A module has one symbol of a name, its definition if it has one.
                !part.defines.iter().any(|&(defined, _)| defined == name)
            });
            uses.extend(weak.map(|&(name, _)| name).chain(called));
        }
        uses.retain(|name| {
            !has(name, &[Linkage::Export, Linkage::Hidden]) && self.current(name, &nothing).is_some()
        });
        let new_section = parts.iter().any(|part| part.section);
        let old_section = self.units.iter().flat_map(|known| &known.parts).any(|part| part.section);
        let uses_bounds = parts.iter().any(|part| part.bounds) && (new_section || old_section);
        self.units.push(Known { unit, parts, uses, uses_bounds });
        let last = self.units.len() - 1;
        let is_replaced = |unit: &usize| {
            let known = &self.units[*unit];
            let own = || known.parts.iter().flat_map(|part| &part.defines);
            let shares = own().any(|(name, _)| {
                let mut new = self.units[last].parts.iter().flat_map(|part| &part.defines);
                new.any(|(defined, _)| defined == name)
            });
            let replaced = |&(name, linkage): &(&str, Linkage)| {
                linkage == Linkage::Replaceable && self.current(name, &nothing).unwrap().0 != *unit
            };
            shares && known.parts.iter().all(|part| !part.uses) && own().all(replaced)
        };
        let replaced: BTreeSet<usize> = (0..last).filter(is_replaced).collect();
        self.forget(&replaced);
    }

    fn forget(&mut self, units: &BTreeSet<usize>) {
        for &unit in units.iter().rev() {
            self.gone.push(self.units.remove(unit).unit);
        }
    }

    /// Removes one or two units, perhaps with their users.
    fn remove(&mut self) -> Result<Outcome, String> {
        let with_users = self.random.once_in(3);
        let count = self.random.within(1, 2);
        let chosen: BTreeSet<usize> = match self.units.len() {
            0 => BTreeSet::new(),
            units => (0..count).map(|_| self.random.below(units as u32) as usize).collect(),
        };
        let mut handles: Vec<Unit> = chosen.iter().map(|&unit| self.units[unit].unit.clone()).collect();
        handles.extend(self.gone.last().cloned());
        self.log.push(format!("remove {chosen:?}, with users: {with_users}"));
        let mut removed = chosen.clone();
        loop {
            let users = self.users(&removed);
            if users.is_empty() {
                break;
            }
            if !with_users {
                let error = self.session.remove(&handles).err().ok_or("a unit in use was removed")?;
                let found: BTreeSet<usize> = error
                    .uses
                    .iter()
                    .flat_map(|used| {
                        let number = used.user.strip_prefix("use").and_then(|number| number.parse().ok());
                        let is_user =
                            move |known: &Known| known.parts.iter().any(|part| Some(part.number) == number);
                        self.units.iter().position(is_user)
                    })
                    .collect();
                // A use may be a weak definition, which no function uses.
                return match found.is_subset(&users) {
                    true => Ok(Outcome::InUse),
                    false => Err(format!("{error}, but the users are {users:?}")),
                };
            }
            removed.extend(users);
        }
        if with_users {
            let count = self.session.remove_with_users(&handles);
            if count != removed.len() {
                return Err(format!("{count} units were removed, not {removed:?}"));
            }
        } else {
            self.session.remove(&handles).map_err(|error| error.to_string())?;
        }
        self.forget(&removed);
        Ok(Outcome::Removed)
    }

    /// Returns the units that stay and use something of `removed`.
    fn users(&self, removed: &BTreeSet<usize>) -> BTreeSet<usize> {
        let nothing = BTreeSet::new();
        let broken = NAMES.into_iter().filter(|name| {
            let before = self.current(name, &nothing).filter(|(unit, ..)| removed.contains(unit));
            let after = self.current(name, removed);
            before.is_some_and(|(.., linkage)| after.is_none() || linkage != Linkage::Replaceable)
        });
        let broken: BTreeSet<&str> = broken.collect();
        let section = removed.iter().any(|&unit| self.units[unit].parts.iter().any(|part| part.section));
        let is_user = |known: &Known| {
            known.uses.iter().any(|name| broken.contains(name)) || (section && known.uses_bounds)
        };
        let staying = (0..self.units.len()).filter(|unit| !removed.contains(unit));
        staying.filter(|&unit| is_user(&self.units[unit])).collect()
    }

    /// Compares the session with the model, and with its image.
    fn check(&self) -> Result<(), String> {
        let units: Vec<Unit> = self.units.iter().map(|known| known.unit.clone()).collect();
        if self.session.jit().units() != units {
            return Err(format!("{} units, not {}", self.session.jit().units().len(), units.len()));
        }
        let nothing = BTreeSet::new();
        let value = |name: &str| match self.current(name, &nothing) {
            Some((_, number, _)) => i64::from(number),
            None => HOSTS[self.hosts[NAMES.iter().position(|known| *known == name).unwrap()]](),
        };
        let mut exports: Vec<(String, Option<i64>)> = Vec::new();
        for name in NAMES {
            if self.current(name, &nothing).is_some_and(|(.., linkage)| linkage != Linkage::Hidden) {
                exports.push((name.into(), Some(value(name))));
            }
        }
        let parts = self.units.iter().flat_map(|known| &known.parts).filter(|part| part.uses);
        for part in parts {
            let sum = part.calls.iter().map(|name| value(name)).sum();
            // What the bounds are is compared with the image.
            exports.push((format!("use{}", part.number), Some(sum).filter(|_| !part.bounds)));
        }
        exports.sort();
        let names: Vec<String> =
            self.session.exports().iter().map(|export| export.name.to_string()).collect();
        if names != exports.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            return Err(format!("exports {names:?}, not {exports:?}"));
        }
        for (name, expected) in &exports {
            let function = self.session.function(name).ok_or_else(|| format!("no `{name}`"))?;
            // SAFETY: the functions have this type, and call only functions of this type.
            let result = unsafe { function.typed::<extern "C" fn() -> i64>() }.map(|function| function());
            if expected.is_some() && result.as_ref().ok() != expected.as_ref() {
                return Err(format!("`{name}` returns {result:?}, not {expected:?}"));
            }
        }
        let image = self.session.image().map_err(|error| format!("no image: {error}"))?;
        let image = Image::from_bytes(&image).map_err(|error| error.to_string())?;
        compare(&self.session, image, &self.bindings, &names)
    }
}
