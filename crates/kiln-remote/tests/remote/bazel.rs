//! A store on a cache of Bazel's remote APIs: what it does, and what it survives.

use std::time::{Duration, Instant};

use kiln_cache::{Lookup, Store};
use kiln_remote::{Endpoint, Policy, Signer, server_info};
use tonic::Code;

use crate::common::{entry, key};
use crate::scenario::{build_cold, build_warm, open, size, source, writer};
use crate::server::{Fault, TestServer};

/// A build may take this much longer because of a server, and a busy machine a little more.
const LONGER: Duration = Duration::from_millis(2000);

#[test]
fn what_one_machine_stores_another_finds() {
    let server = TestServer::start();
    let (first, log) = open(&server.url(), writer());
    assert_eq!(build_warm(&first, 0..12).0, 0);
    assert!(build_cold(&first, 0..12));
    assert_eq!(*log.0.lock().unwrap(), [""; 0]);
    let sent = first.traffic();
    assert_eq!((sent.sent, sent.unsent, sent.faults), (12, 0, 0));
    server.fail(0..0, Fault::Hang);
    let (second, log) = open(&server.url(), Policy::default());
    assert_eq!(build_warm(&second, 0..12).0, 12);
    assert_eq!(*log.0.lock().unwrap(), [""; 0]);
    let received = second.traffic();
    assert_eq!((received.received, received.received_bytes), (12, sent.sent_bytes));
    let calls = server.inside.lock().unwrap().log.clone();
    // Each record once, the contents of all together, and the long one by itself.
    let count = |name| calls.iter().filter(|call| **call == name).count();
    assert_eq!((count("get action"), count("read stream"), count("capabilities")), (12, 1, 1));
    assert!(count("read blobs") <= 4, "{calls:?}");
    // It does not write.
    second.put(&key(20), &entry(20, 0, 10)).unwrap();
    assert!(second.flush(Duration::from_secs(5)));
    assert_eq!(count("update blobs"), 0);
    // Lineages of edited modules stay on their machine.
    let edited = kiln_cache::Lineage::new("program", "module", "target");
    first.set_latest(&edited, &key(1)).unwrap();
    assert_eq!(first.latest(&edited), None);
    // A wrong entry is not used again in this process, until there is a new one.
    first.quarantine(&key(1), "wrong").unwrap();
    assert!(matches!(first.get(&key(1)), Lookup::Miss));
    first.put(&key(1), &entry(1, 0, size(1))).unwrap();
    assert!(first.flush(Duration::from_secs(5)) && matches!(first.get(&key(1)), Lookup::Hit(..)));
}

#[test]
fn a_whole_build_takes_two_round_trips() {
    let server = TestServer::start();
    let (first, _) = open(&server.url(), writer());
    assert!(build_cold(&first, 10..70));
    server.inside.lock().unwrap().delay = Duration::from_millis(100);
    let (second, _) = open(&server.url(), Policy::default());
    let (found, time) = build_warm(&second, 10..70);
    assert_eq!(found, 60);
    // 60 entries of 0.7 MB in all, where a batch is 0.14 MB: the batches are fetched together, four
    // at a time. With a call for each entry it would take 6 s.
    assert!(time < Duration::from_millis(900), "{time:?}");
}

#[test]
fn a_server_that_fails_at_any_call_costs_little_and_makes_nothing_wrong() {
    let calls = {
        let server = TestServer::start();
        let (first, _) = open(&server.url(), writer());
        build_cold(&first, 0..6);
        let (second, _) = open(&server.url(), writer());
        build_warm(&second, 0..6);
        server.inside.lock().unwrap().calls
    };
    assert!(calls > 15, "{calls}");
    let faults = [
        Fault::Error(Code::Unavailable),
        Fault::Error(Code::PermissionDenied),
        Fault::Error(Code::ResourceExhausted),
        Fault::Alter,
        Fault::Truncate,
        Fault::Swap,
    ];
    let mut found_all = 0;
    for fault in faults {
        for n in 0..calls {
            // One call fails, or all from this one on.
            for end in [n + 1, usize::MAX] {
                let server = TestServer::start();
                server.fail(n..end, fault);
                let start = Instant::now();
                let (first, log) = open(&server.url(), writer());
                let is_done = build_cold(&first, 0..6);
                assert!(
                    is_done,
                    "{fault:?} from call {n}: {:?} {:?}",
                    first.traffic(),
                    log.0.lock().unwrap()
                );
                let (second, other) = open(&server.url(), writer());
                let (found, _) = build_warm(&second, 0..6);
                drop((first, second));
                let time = start.elapsed();
                assert!(time < LONGER, "{fault:?} from call {n}: {time:?}");
                found_all += usize::from(found == 6);
                if found < 6 && matches!(fault, Fault::Error(_)) {
                    let said = log.has("Unavailable") || other.has("Unavailable") || log.has("WriteFailed");
                    assert!(said, "{fault:?} from call {n} to {end}: {found} found");
                }
                // A machine that comes later is not harmed.
                server.fail(0..0, Fault::Hang);
                let (third, _) = open(&server.url(), writer());
                build_warm(&third, 0..6);
            }
        }
    }
    // Most single faults are survived without any loss.
    assert!(found_all > calls, "{found_all}");
}

#[test]
fn a_server_that_does_not_answer_costs_little_at_any_call() {
    for n in 0..20 {
        let server = TestServer::start();
        let (first, _) = open(&server.url(), writer());
        build_cold(&first, 0..6);
        drop(first);
        server.fail(n..usize::MAX, Fault::Hang);
        let start = Instant::now();
        let (second, log) = open(&server.url(), writer());
        let (found, _) = build_warm(&second, 0..8);
        second.put(&key(7), &entry(7, 0, size(7))).unwrap();
        drop(second);
        let time = start.elapsed();
        assert!(time < LONGER, "from call {n}: {time:?}");
        assert!(found == 6 || log.has("Unavailable"), "from call {n}: {found}");
    }
}

#[test]
fn no_server_slow_servers_and_wrong_ones_cost_little() {
    // Nobody listens, and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let slow = TestServer::start();
    slow.inside.lock().unwrap().delay = Duration::from_millis(300);
    let other = TestServer::start();
    other.inside.lock().unwrap().function = 2;
    let locked = TestServer::start();
    locked.inside.lock().unwrap().token = Some("secret".into());
    let urls = [
        format!("grpc://{}", silent.local_addr().unwrap()),
        format!("grpc://{closed}"),
        "grpc://[::1]:9".into(),
        "grpc://no.such.host.invalid:80".into(),
        slow.url(),
        other.url(),
        locked.url(),
    ];
    for url in urls {
        let start = Instant::now();
        let (store, log) = open(&url, writer());
        let (found, _) = build_warm(&store, 0..40);
        for n in 0..40 {
            store.put(&key(n), &entry(n, 0, size(n))).unwrap();
        }
        drop(store);
        let time = start.elapsed();
        assert!(found == 0 && time < LONGER, "{url}: {time:?}");
        assert!(log.has("Unavailable"), "{url}: {:?}", log.0.lock().unwrap());
        assert!(!log.has("secret"));
    }
}

#[test]
fn a_token_is_sent_and_not_told() {
    let server = TestServer::start();
    server.inside.lock().unwrap().token = Some("0123456789".into());
    let with = |token: &'static str| {
        let variables = move |name: &str| (name == "KILN_REMOTE_TOKEN").then(|| token.to_owned());
        Endpoint::with_variables(&server.url(), variables).unwrap()
    };
    let info = server_info(&with("0123456789")).unwrap();
    assert!(info.properties.contains(&("batch", (200_000 - 65_536).to_string())), "{info:?}");
    let error = server_info(&with("wrong-token")).unwrap_err();
    assert!(error.to_string().contains("a token is missing") && !error.to_string().contains("wrong-token"));
    assert!(!format!("{:?}", with("0123456789")).contains("0123"));
}

#[test]
fn only_signed_entries_are_accepted() {
    let server = TestServer::start();
    let (own, other) = (Signer::generate().unwrap(), Signer::generate().unwrap());
    let accepted = || Some(vec![own.0.public()]);
    let signer = |secret: &str| Some(Signer::parse(secret).unwrap());
    // One machine signs, one does not, one has a key that nobody accepts.
    let policies = [signer(&own.1), None, signer(&other.1)];
    for (signer, numbers) in policies.into_iter().zip([0..2, 2..4, 4..6]) {
        let (store, _) = open(&server.url(), Policy { signer, write: true, accepted: None });
        assert!(build_cold(&store, numbers));
    }
    let (store, log) = open(&server.url(), Policy { accepted: accepted(), ..Policy::default() });
    assert_eq!(build_warm(&store, 0..6).0, 2);
    assert!(log.has("not signed") && log.has("signed by a key that is not accepted"));
    assert!(
        matches!(store.get(&key(2)), Lookup::Corrupt(reason) if reason.to_string().contains("not signed"))
    );
    let (store, _) = open(&server.url(), Policy::default());
    assert_eq!(build_warm(&store, 0..6).0, 6);
    // A server that exchanges records, signed or not, is found out: each has its name in it.
    server.fail(0..usize::MAX, Fault::Swap);
    let (store, log) = open(&server.url(), Policy { accepted: accepted(), ..Policy::default() });
    build_warm(&store, 0..2);
    assert!(log.has("record of another name") && store.latest(&source(0)).is_none());
}
