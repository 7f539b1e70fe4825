//! The events of a build's cache, described in lines for people.

use kiln::cache::Event;

use crate::output::chain;

/// Returns the line that describes an event.
pub(crate) fn describe(event: &Event<'_>) -> String {
    let short = |key: &kiln::cache::Key| key.to_string()[..12].to_owned();
    let of = |module: &str, key| format!("{module} ({})", short(key));
    match event {
        Event::Hit { key, module, place, bytes, time } => {
            let (bytes, time) = (crate::output::bytes(*bytes), crate::output::time(*time));
            format!("{}: hit: from {place}, {bytes} in {time}", of(module, key))
        }
        Event::Miss { key, module, reason } => format!("{}: miss: {reason}", of(module, key)),
        Event::Farmed { key, module, bytes, time, cached } => {
            let (bytes, time) = (crate::output::bytes(*bytes), crate::output::time(*time));
            let how = if *cached { "from the farm, which had it" } else { "compiled by the farm" };
            format!("{}: {how}: {bytes} in {time}", of(module, key))
        }
        Event::NotFarmed { key, module, reason } => {
            format!("{}: not compiled by the farm: {reason}", of(module, key))
        }
        Event::Corrupt { key, module, reason } => {
            let name = module.map_or_else(|| short(key), |module| of(module, key));
            format!("{name}: cannot be used: {}", chain(*reason))
        }
        Event::Healed { key } => format!("{}: stored again", short(key)),
        Event::Evicted { key, bytes } => format!("{}: removed to make room, {bytes} bytes", short(key)),
        Event::LeftoverRemoved => "a leftover of a killed process removed".into(),
        Event::WriteFailed { key, error } => format!("{}: cannot be stored: {}", short(key), chain(*error)),
        Event::WriteDropped { key } => format!("{}: not stored, because the disk is too slow", short(key)),
        Event::Quarantined { key, reason } => format!("{}: moved aside: {reason}", short(key)),
        Event::Verified { key, module } => {
            format!("{}: compiled again, with the same result", of(module, key))
        }
        Event::VerifyFailed { key, module } => {
            format!("{}: WRONG CODE: compiling makes a different artifact", of(module, key))
        }
        Event::Untrusted { lineage, reason } => format!("source {lineage}: not trusted: {reason}"),
        Event::Unavailable { reason } => format!("server given up: {reason}"),
        Event::WrongLazyKey { key, module } => {
            format!("{}: WRONG KEY: it is that of another module", of(module, key))
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_name_the_module() {
        let key = "0123456789abcdef".repeat(4).parse().unwrap();
        let told = |event: &Event<'_>| describe(event);
        let (key, module) = (&key, "a.clif");
        let (place, bytes, time) = (kiln::cache::Place::Disk, 2000, std::time::Duration::from_millis(5));
        assert_eq!(
            told(&Event::Hit { key, module, place, bytes, time }),
            "a.clif (0123456789ab): hit: from disk, 2000 B in 5.0 ms"
        );
        let reason = &kiln::cache::MissReason::New;
        assert_eq!(
            told(&Event::Miss { key, module, reason }),
            "a.clif (0123456789ab): miss: never stored before"
        );
        let reason = &kiln::cache::EntryError::Foreign;
        let of = |module| told(&Event::Corrupt { key, module, reason });
        assert_eq!(of(Some(module)), "a.clif (0123456789ab): cannot be used: not an entry");
        assert_eq!(of(None), "0123456789ab: cannot be used: not an entry");
    }
}
