//! Two links at once, in every order that matters: a link is stopped between its claim and its
//! commit, which is where another thread may come in between.

mod epochs;
mod faults;
mod large;
mod symbols;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kiln_artifact::record::{
    FunctionRecord, Linkage, NONE, NamedData, Reloc, SectionKind, Summary, SymbolKind, SymbolRecord,
};
use kiln_artifact::{Artifact, Contents, RelocKind};
use kiln_globals::SlotKey;

use super::*;
use crate::memory::MemoryOptions;

/// A module that defines some names, or imports them without using them, and has pointers to
/// others. Functions are empty, and data
/// objects are in section `s` if their names begin with `s_`.
fn artifact(defined: &[(&str, Linkage, SymbolKind)], pointers: &[&str]) -> Artifact {
    let mut contents = Contents::default();
    let one = 1u32.into();
    contents.summary = Summary {
        triple: contents.string(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH)),
        text_align: 16u32.into(),
        read_only_align: one,
        writable_align: 16u32.into(),
        zeroed_align: one,
        ..Summary::default()
    };
    let signature = contents.string("() system_v");
    contents.signatures.push(signature);
    let imports = pointers.iter().map(|&name| (name, Linkage::Import, SymbolKind::Data));
    for (number, (name, linkage, kind)) in defined.iter().copied().chain(imports).enumerate() {
        let section = match (linkage, kind) {
            (Linkage::Import, _) => SectionKind::Undefined,
            (_, SymbolKind::Function) => SectionKind::Text,
            _ => SectionKind::Writable,
        };
        let mut offset = 0;
        match section {
            SectionKind::Undefined if !pointers.contains(&name) => {}
            SectionKind::Undefined => {
                let reloc = Reloc {
                    offset: (contents.writable.len() as u64).into(),
                    addend: 0.into(),
                    symbol: (number as u32).into(),
                    kind: RelocKind::Abs64 as u8,
                    flags: 0,
                    reserved: [0; 2],
                };
                contents.writable_relocs.push(reloc);
                contents.writable.extend([0; 8]);
            }
            SectionKind::Text => {
                offset = contents.text.len();
                contents.text.extend([0; 16]);
                contents.functions.push(FunctionRecord {
                    symbol: (number as u32).into(),
                    start: (offset as u32).into(),
                    len: 16.into(),
                    align: 16.into(),
                    ..FunctionRecord::default()
                });
            }
            _ => {
                offset = contents.writable.len();
                contents.writable.extend([0; 8]);
            }
        }
        let size = if section == SectionKind::Undefined { 0 } else { 8 };
        let text = contents.string(name);
        let typed = kind == SymbolKind::Function;
        contents.symbols.push(SymbolRecord {
            name: text,
            offset: (offset as u64).into(),
            size: size.into(),
            signature: if typed { 0 } else { NONE }.into(),
            kind: kind as u8,
            linkage: linkage as u8,
            section: section as u8,
            libcall: 0,
        });
    }
    if let [(name, _, SymbolKind::Data)] = defined
        && name.starts_with("s_")
    {
        let name = contents.string("s");
        contents.named_data.push(NamedData {
            name,
            start: 0.into(),
            len: 8.into(),
            align: 8.into(),
            section: SectionKind::Writable as u8,
            reserved: [0; 3],
        });
        // What is before the first run is in no section.
        assert!(pointers.is_empty());
    }
    contents.finish()
}

fn data(name: &str, linkage: Linkage, pointers: &[&str]) -> Artifact {
    artifact(&[(name, linkage, SymbolKind::Data)], pointers)
}

fn replaceable(name: &str) -> Artifact {
    artifact(&[(name, Linkage::Replaceable, SymbolKind::Function)], &[])
}

fn jit() -> Jit {
    let memory = Memory::reserve(MemoryOptions::with_size(1 << 20)).unwrap();
    Jit::new(JitOptions { memory: Some(memory), ..JitOptions::default() }).unwrap()
}

/// Knows no address.
fn nothing(_: &SlotKey) -> Option<usize> {
    None
}

fn link(jit: &Jit, artifact: &Artifact) -> Result<Unit, JitError> {
    jit.link(std::slice::from_ref(artifact), &nothing)
}

/// Starts a link, runs `meanwhile` between its claim and its commit, and finishes it. `finished`
/// is set just before the commit.
fn stopped<R>(
    jit: &Jit,
    mode: Mode,
    artifact: &Artifact,
    meanwhile: impl FnOnce() -> R,
) -> (Result<Unit, JitError>, R) {
    let batch = Batch::new(std::slice::from_ref(artifact), &[]);
    let claim = jit.claim(&batch, mode, &nothing).unwrap();
    let mut pending = Pending::new(&jit.state, batch, claim);
    let result = meanwhile();
    (pending.prepare().map(|()| pending.publish()), result)
}

/// Starts a link, and lets another thread do `other`, which must wait until the link has ended.
fn waits<R: Send>(jit: &Jit, mode: Mode, artifact: &Artifact, other: impl FnOnce() -> R + Send) -> (Unit, R) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (unit, thread) = stopped(jit, mode, artifact, || {
            let ended = &ended;
            let thread = scope.spawn(move || {
                let result = other();
                (ended.load(Ordering::SeqCst), result)
            });
            std::thread::sleep(Duration::from_millis(20));
            assert!(!thread.is_finished());
            ended.store(true, Ordering::SeqCst);
            thread
        });
        let (after, result) = thread.join().unwrap();
        assert!(after, "it did not wait");
        (unit.unwrap(), result)
    })
}

/// Bytes in use and retired.
fn in_use(jit: &Jit) -> [usize; 2] {
    let usage = jit.memory().usage();
    let regions = [usage.code, usage.read_only, usage.data];
    [regions.iter().map(|region| region.used).sum(), regions.iter().map(|region| region.retired).sum()]
}

#[test]
fn what_a_link_in_progress_uses_is_not_removed() {
    let jit = jit();
    let one = link(&jit, &data("one", Linkage::Export, &[])).unwrap();
    let user = data("user", Linkage::Export, &["one"]);
    let (two, removed) = waits(&jit, Mode::Add, &user, || jit.remove(std::slice::from_ref(&one)));
    assert_eq!(removed.unwrap_err().to_string(), "still in use: module 1 uses `one`");
    jit.remove(&[two]).unwrap();
    // With its users, a unit is removed once the link has ended.
    let (_, removed) = waits(&jit, Mode::Add, &user, || jit.remove_with_users(std::slice::from_ref(&one)));
    assert_eq!((removed, jit.units().len(), in_use(&jit)), (2, 0, [0, 0]));
}

#[test]
fn a_link_in_progress_that_overrides_a_weak_definition_is_a_user_of_it() {
    let jit = jit();
    let weak = data("one", Linkage::Preemptible, &[]);
    let first = link(&jit, &weak).unwrap();
    let (second, removed) = waits(&jit, Mode::Add, &weak, || jit.remove(std::slice::from_ref(&first)));
    removed.unwrap_err();
    jit.remove(&[second, first]).unwrap();
    assert_eq!(in_use(&jit), [0, 0]);
}

#[test]
fn a_definition_that_is_being_replaced_is_not_removed_before_callers_have_the_new_one() {
    let jit = jit();
    let first = link(&jit, &replaceable("f")).unwrap();
    let user = link(&jit, &data("user", Linkage::Export, &["f"])).unwrap();
    let (second, removed) =
        waits(&jit, Mode::Replace, &replaceable("f"), || jit.remove(std::slice::from_ref(&first)));
    removed.unwrap();
    assert_eq!(jit.units(), [user.clone(), second.clone()]);
    let error = jit.remove(std::slice::from_ref(&second)).unwrap_err().to_string();
    assert_eq!(error, "still in use: module 1 uses `f`");
    jit.remove(&[second, user]).unwrap();
    assert_eq!(in_use(&jit), [0, 0]);
}

#[test]
fn a_definition_without_users_is_removed_while_it_is_replaced() {
    let jit = jit();
    let first = link(&jit, &replaceable("f")).unwrap();
    let (second, ()) = stopped(&jit, Mode::Replace, &replaceable("f"), || {
        jit.remove(std::slice::from_ref(&first)).unwrap();
        assert!(jit.address("f").is_none());
    });
    assert_eq!(jit.units(), [second.unwrap()]);
    assert!(jit.address("f").is_some());
}

#[test]
fn of_two_replacements_at_once_the_later_one_stays() {
    let jit = jit();
    link(&jit, &replaceable("f")).unwrap();
    // The link that began last ends first.
    let (overtaken, last) = stopped(&jit, Mode::Replace, &replaceable("f"), || {
        jit.replace(&[replaceable("f")], &nothing).unwrap()
    });
    assert_eq!(jit.units(), std::slice::from_ref(&last));
    assert_eq!(jit.unit_of("f"), Some(last.clone()));
    assert!(!jit.units().contains(&overtaken.unwrap()));
    jit.remove(&[last]).unwrap();
    assert_eq!(in_use(&jit), [0, 0]);
}

#[test]
fn a_section_does_not_grow_while_a_link_may_use_its_bounds() {
    let jit = jit();
    // The batch uses the bounds of its own section.
    let [holder, user] = [data("s_1", Linkage::Export, &[]), data("user", Linkage::Export, &["__stop_s"])];
    let batch = [holder, user];
    let batch = Batch::new(&batch, &[]);
    let claim = jit.claim(&batch, Mode::Add, &nothing).unwrap();
    let mut pending = Pending::new(&jit.state, batch, claim);
    let more = data("s_2", Linkage::Export, &[]);
    let error = std::thread::scope(|scope| {
        let other = scope.spawn(|| link(&jit, &more).unwrap_err());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!other.is_finished());
        pending.prepare().unwrap();
        pending.publish();
        other.join().unwrap()
    });
    assert!(matches!(error, JitError::SectionGrows { .. }), "{error}");
}

#[test]
fn a_link_that_fails_after_it_has_read_an_address_leaves_no_copy() {
    let jit = jit();
    let key = SlotKey::Symbol("host".into());
    let resolver = |_: &SlotKey| Some(16_usize);
    let batch = [data("copy", Linkage::Export, &["host"])];
    let batch = Batch::new(&batch, &[]);
    let claim = jit.claim(&batch, Mode::Add, &resolver).unwrap();
    assert_eq!(jit.rebind(&key, 24), Ok(true));
    let mut pending = Pending::new(&jit.state, batch, claim);
    let plan = pending.plan().unwrap();
    pending.emit(&plan).unwrap();
    jit.rebind(&key, 32).unwrap_err();
    drop(pending);
    assert_eq!(jit.rebind(&key, 32), Ok(false));
}

#[test]
fn an_import_that_nothing_refers_to_needs_no_address() {
    let jit = jit();
    let unused =
        [("nobody", Linkage::Import, SymbolKind::Function), ("one", Linkage::Export, SymbolKind::Data)];
    link(&jit, &artifact(&unused, &[])).unwrap();
    // So nothing prevents a definition.
    link(&jit, &data("nobody", Linkage::Export, &[])).unwrap();
}

#[test]
fn a_binding_that_changes_during_a_link_is_asked_for_again() {
    let jit = Arc::new(jit());
    let value = AtomicUsize::new(16);
    let asked = AtomicUsize::new(0);
    let resolver = |key: &SlotKey| {
        let found = value.load(Ordering::SeqCst);
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            // Another thread changes the binding after it was read.
            value.store(24, Ordering::SeqCst);
            assert_eq!(jit.rebind(key, 24), Ok(false));
        }
        Some(found)
    };
    let unit = jit.link(&[data("pointer", Linkage::Export, &["host"])], &resolver).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let pointer = jit.address("pointer").unwrap();
    assert_eq!(unit.symbols().next().unwrap().address, pointer);
    // SAFETY: the object is 8 bytes, and the pointer is right after it.
    assert_eq!(unsafe { pointer.cast::<u64>().add(1).read() }, 24);
}

#[test]
fn a_definition_that_is_being_linked_is_an_error_only_if_the_link_succeeds() {
    let jit = jit();
    let one = data("one", Linkage::Export, &[]);
    let (_, second) = waits(&jit, Mode::Add, &one, || link(&jit, &one));
    assert!(matches!(second, Err(JitError::Redefinition { .. })));
}
