//! Lists as text.

use kiln_cache::{Lineage, MemoryStore, Store};
use kiln_remote::{List, Listed, ParseListError};

use crate::common::{entry, key};

#[test]
fn a_list_has_one_text() {
    let store = Listed::new(MemoryStore::new());
    let lineage = Lineage::new("program", "module", "target");
    for n in [3, 1, 2] {
        store.put(&key(n), &entry(n, 0, 10)).unwrap();
    }
    store.get(&key(1));
    store.get(&key(9));
    store.set_latest(&lineage, &key(1)).unwrap();
    store.quarantine(&key(3), "wrong").unwrap();
    let list = store.list();
    assert_eq!(list.keys.iter().copied().collect::<Vec<_>>(), {
        let mut keys = [key(1), key(2)];
        keys.sort_unstable();
        keys
    });
    assert!(list.lineages.contains(&lineage) && list.lineages.len() == 1);
    let text = list.to_string();
    assert_eq!(text.parse(), Ok(list));
    for (wrong, line) in [
        (String::new(), 1),
        ("kiln-cache-list 2\n".into(), 1),
        (format!("{text}entry {}\n", "0".repeat(63)), 5),
        (format!("{text}last-build {}\n", "G".repeat(32)), 5),
        (format!("{text}\n"), 5),
        (text.replace("entry ", "entry  "), 2),
    ] {
        let error: ParseListError = wrong.parse::<List>().unwrap_err();
        assert_eq!(error.line, line, "{wrong}");
    }
}
