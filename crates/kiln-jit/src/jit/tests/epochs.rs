//! Guards on one thread, and on another. `tests/protocol.rs` runs all orders of several threads.

use crate::epoch::Epochs;

#[test]
fn without_guards_all_is_free_at_once() {
    let epochs = Epochs::default();
    let retired = epochs.now();
    assert!(!epochs.is_past(retired));
    epochs.advance();
    assert!(epochs.is_past(retired));
}

#[test]
fn a_guard_from_before_keeps_and_a_later_one_does_not() {
    let epochs = Epochs::default();
    for _ in 0..5 {
        let before = epochs.enter();
        let retired = epochs.now();
        let after = epochs.enter();
        epochs.advance();
        epochs.advance();
        assert!(!epochs.is_past(retired));
        drop(before);
        epochs.advance();
        // The later guard may be in the same phase; a safepoint ends that.
        let mut after = after;
        after.refresh();
        epochs.advance();
        assert!(epochs.is_past(retired));
    }
}

#[test]
fn a_guard_can_be_dropped_on_another_thread() {
    let epochs = Epochs::default();
    let guard = epochs.enter();
    let retired = epochs.now();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(guard));
    });
    epochs.advance();
    assert!(epochs.is_past(retired));
}
