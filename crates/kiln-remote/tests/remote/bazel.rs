//! A store on a cache of Bazel's remote APIs: what it does, and what it survives.

use std::time::Duration;

use kiln_cache::{Lookup, Store};
use kiln_remote::{Endpoint, Policy, RemoteOptions, RemoteStore, Signer, server_info};
use tonic::Code;

use crate::common::{entry, key};
use crate::proxy::{Cut, Proxy};
use crate::scenario::{Stopwatch, build_cold, build_warm, open, open_impatient, size, source, writer};
use crate::server::{Fault, Identity, TestServer};

/// A build may take this much longer because of a server, and a busy machine a little more.
const LONGER: Duration = Duration::from_millis(2000);

#[test]
fn what_one_machine_stores_another_finds() {
    let server = TestServer::start();
    let (first, log) = open(&server.endpoint(), writer());
    assert_eq!(build_warm(&first, 0..12).0, 0);
    assert!(build_cold(&first, 0..12));
    assert_eq!(*log.0.lock().unwrap(), [""; 0]);
    let sent = first.traffic();
    assert_eq!((sent.sent, sent.unsent, sent.faults), (12, 0, 0));
    server.fail(0..0, Fault::Hang);
    let (second, log) = open(&server.endpoint(), Policy::default());
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
fn a_whole_build_takes_two_round_trips_and_one_for_each_megabyte() {
    let server = TestServer::start();
    server.inside.lock().unwrap().batch = 4 << 20;
    let (first, _) = open(&server.endpoint(), writer());
    assert!(build_cold(&first, 10..190));
    // Answers that take long, so that calls are together if the client makes them together.
    server.fail(0..0, Fault::Hang);
    server.inside.lock().unwrap().delay = Duration::from_millis(150);
    let (second, _) = open(&server.endpoint(), Policy::default());
    let (found, time) = build_warm(&second, 10..190);
    assert_eq!(found, 180);
    let megabytes = second.traffic().received_bytes.div_ceil(1 << 20) as usize;
    let inside = server.inside.lock().unwrap();
    assert!(megabytes >= 3 && inside.round_trips <= 2 + megabytes, "{} in {time:?}", inside.round_trips);
    // Contents are not asked for one by one.
    let reads = inside.log.iter().filter(|call| **call == "read blobs").count();
    assert!(reads <= 2 * megabytes + 2, "{reads}");
}

#[test]
fn a_server_that_fails_at_any_call_costs_little_and_makes_nothing_wrong() {
    let calls = {
        let server = TestServer::start();
        let (first, _) = open(&server.endpoint(), writer());
        build_cold(&first, 0..6);
        let (second, _) = open(&server.endpoint(), writer());
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
        Fault::Die,
    ];
    let mut found_all = 0;
    for fault in faults {
        for n in 0..calls {
            // One call fails, or all from this one on.
            for end in [n + 1, usize::MAX] {
                let server = TestServer::start();
                server.fail(n..end, fault);
                let start = Stopwatch::start();
                let (first, log) = open_impatient(&server.endpoint(), writer());
                let is_done = build_cold(&first, 0..6);
                let cold = start.elapsed();
                let (second, other) = open_impatient(&server.endpoint(), writer());
                let (found, warm) = build_warm(&second, 0..6);
                let traffic = (first.traffic(), second.traffic());
                drop((first, second));
                let time = start.elapsed();
                assert!(
                    is_done && time < LONGER,
                    "{fault:?} from call {n} to {end}: {time:?}, of which sending {cold:?} and asking {warm:?}; \
                     {traffic:?}; {:?} {:?}; {:?}",
                    log.0.lock().unwrap(),
                    other.0.lock().unwrap(),
                    server.inside.lock().unwrap().log
                );
                found_all += usize::from(found == 6);
                if found < 6 && matches!(fault, Fault::Error(_) | Fault::Die) {
                    let said = log.has("Unavailable") || other.has("Unavailable") || log.has("WriteFailed");
                    assert!(said, "{fault:?} from call {n} to {end}: {found} found");
                }
                // A machine that comes later is not harmed.
                server.fail(0..0, Fault::Hang);
                let (third, _) = open_impatient(&server.endpoint(), writer());
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
        let (first, _) = open(&server.endpoint(), writer());
        build_cold(&first, 0..6);
        drop(first);
        server.fail(n..usize::MAX, Fault::Hang);
        let start = Stopwatch::start();
        let (second, log) = open_impatient(&server.endpoint(), writer());
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
    let later = TestServer::start();
    later.inside.lock().unwrap().oldest = 3;
    let dripping = TestServer::start();
    let drip = Proxy::start(&dripping.address.to_string(), Cut::Drip);
    let urls = [
        format!("grpc://{}", silent.local_addr().unwrap()),
        format!("grpc://{closed}"),
        "grpc://[::1]:9".into(),
        "grpc://no.such.host.invalid:80".into(),
        slow.url(),
        other.url(),
        locked.url(),
        later.url(),
        format!("grpc://{}/main", drip.address()),
    ];
    for url in urls {
        let start = Stopwatch::start();
        let (store, log) = open_impatient(&Endpoint::parse(&url).unwrap(), writer());
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
        let (store, _) = open(&server.endpoint(), Policy { signer, write: true, accepted: None });
        assert!(build_cold(&store, numbers));
    }
    let (store, log) = open(&server.endpoint(), Policy { accepted: accepted(), ..Policy::default() });
    assert_eq!(build_warm(&store, 0..6).0, 2);
    assert!(log.has("not signed") && log.has("signed by a key that is not accepted"));
    assert!(
        matches!(store.get(&key(2)), Lookup::Corrupt(reason) if reason.to_string().contains("not signed"))
    );
    let (store, _) = open(&server.endpoint(), Policy::default());
    assert_eq!(build_warm(&store, 0..6).0, 6);
    // A server that exchanges records, signed or not, is found out: each has its name in it.
    server.fail(0..usize::MAX, Fault::Swap);
    let (store, log) = open(&server.endpoint(), Policy { accepted: accepted(), ..Policy::default() });
    build_warm(&store, 0..2);
    assert!(log.has("record of another name") && store.latest(&source(0)).is_none());
}

/// A process that is killed leaves a server as it is after any of its calls.
#[test]
fn a_client_that_ends_at_any_call_harms_nobody() {
    let calls = {
        let server = TestServer::start();
        let (store, _) = open(&server.endpoint(), writer());
        build_cold(&store, 0..6);
        server.inside.lock().unwrap().calls
    };
    for n in 0..calls {
        let server = TestServer::start();
        // The server does what the call says, or does not, and the client never knows.
        server.fail(n..usize::MAX, Fault::Hang);
        let options =
            RemoteOptions { policy: writer(), drop_wait: Duration::ZERO, ..RemoteOptions::default() };
        let store = RemoteStore::open(&Endpoint::parse(&server.url()).unwrap(), options).unwrap();
        for n in 0..6 {
            store.put(&key(n), &entry(n, 0, size(n))).unwrap();
            store.set_latest(&source(n), &key(n)).unwrap();
        }
        while server.inside.lock().unwrap().calls <= n {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(store);
        server.fail(0..0, Fault::Hang);
        let (other, log) = open(&server.endpoint(), writer());
        let (found, _) = build_warm(&other, 0..6);
        assert_eq!(*log.0.lock().unwrap(), [""; 0], "{n}");
        assert!(build_cold(&other, 0..6));
        let (third, _) = open(&server.endpoint(), Policy::default());
        assert_eq!(build_warm(&third, 0..6).0, 6, "{n}: {found} found before");
    }
}

#[test]
fn poisoned_records_are_misses_and_are_replaced() {
    let server = TestServer::start();
    let (store, _) = open(&server.endpoint(), writer());
    assert!(build_cold(&store, 0..4));
    // Whole records, with right checksums, that lead to the content of another entry. The record of
    // a key that leads to another key is a unit test's.
    {
        let mut inside = server.inside.lock().unwrap();
        let contents: Vec<Vec<u8>> =
            inside.actions.values().map(|action| action.stdout_raw[73..113].to_vec()).collect();
        for (n, action) in inside.actions.values_mut().enumerate() {
            let record = &mut action.stdout_raw;
            record[73..113].copy_from_slice(&contents[(n + 1) % contents.len()]);
            let sum = ring::digest::digest(&ring::digest::SHA256, &record[..113]);
            record[113..121].copy_from_slice(&sum.as_ref()[..8]);
        }
    }
    let (store, log) = open(&server.endpoint(), writer());
    for n in 0..4 {
        match store.get(&key(n)) {
            // The neighbour was the record of the same entry's source.
            Lookup::Hit(found, _) => assert!(crate::common::is_right(n, &found)),
            Lookup::Corrupt(reason) => assert!(reason.to_string().contains("another"), "{reason}"),
            // A server that lies again and again, or is late, is given up, and that is said.
            Lookup::Miss => assert!(log.has("Unavailable"), "{n}"),
        }
    }
    assert!(build_cold(&store, 0..4));
    let (store, log) = open(&server.endpoint(), Policy::default());
    assert_eq!(build_warm(&store, 0..4).0, 4);
    assert_eq!(*log.0.lock().unwrap(), [""; 0]);
}

#[test]
fn an_address_of_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return crate::servers::skipped("this machine has no IPv6");
    }
    let server = TestServer::start_at("[::1]:0", None);
    let (first, _) = open(&server.endpoint(), writer());
    assert!(server.url().contains("[::1]") && build_cold(&first, 0..4));
    assert_eq!(build_warm(&open(&server.endpoint(), Policy::default()).0, 0..4).0, 4);
}

/// Makes a certificate for `localhost`, and the one that signs it, with `openssl`.
pub(crate) fn certificates(folder: &std::path::Path) -> Option<(Identity, String)> {
    let openssl = |args: &str| {
        let done = std::process::Command::new("openssl").args(args.split(' ')).current_dir(folder).output();
        done.ok().filter(|done| done.status.success())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost").unwrap();
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=tests"))?;
    openssl(&format!("req {key} -keyout own.key -out own.csr -subj /CN=localhost"))?;
    openssl(
        "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out own.pem",
    )?;
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let identity = Identity { certificate: read("own.pem"), key: read("own.key") };
    Some((identity, folder.join("ca.pem").display().to_string()))
}

#[test]
fn tls_needs_a_certificate_that_is_trusted_and_for_this_host() {
    let folder = tempfile::tempdir().unwrap();
    let Some((identity, authority)) = certificates(folder.path()) else {
        assert!(std::env::var_os("CI").is_none(), "openssl is missing");
        return crate::servers::skipped("openssl is missing");
    };
    let server = TestServer::start_at("127.0.0.1:0", Some(&identity));
    let open = |scheme: &str, host: &str, authority: Option<String>| {
        let url = format!("{scheme}://{host}:{}/main", server.address.port());
        let variables = move |name: &str| (name == "KILN_REMOTE_CA_FILE").then(|| authority.clone())?;
        let endpoint = Endpoint::with_variables(&url, variables).unwrap();
        open_impatient(&endpoint, writer())
    };
    let (store, log) = open("grpcs", "localhost", Some(authority.clone()));
    assert!(build_cold(&store, 0..4) && store.traffic().sent == 4, "{:?}", log.0.lock().unwrap());
    let wrong = [
        // Nobody that the system trusts signed it.
        ("grpcs", "localhost", None),
        // It is not for this name.
        ("grpcs", "127.0.0.1", Some(authority.clone())),
        // No TLS, where the server wants it.
        ("grpc", "localhost", Some(authority.clone())),
    ];
    for (scheme, host, authority) in wrong {
        let start = Stopwatch::start();
        let (store, log) = open(scheme, host, authority);
        assert_eq!(build_warm(&store, 0..4).0, 0);
        store.put(&key(9), &entry(9, 0, 100)).unwrap();
        drop(store);
        assert!(start.elapsed() < LONGER && log.has("Unavailable"), "{scheme} {host}");
    }
    // TLS, where the server has none.
    let plain = TestServer::start();
    let url = format!("grpcs://localhost:{}/main", plain.address.port());
    let (store, log) = open_impatient(&Endpoint::parse(&url).unwrap(), writer());
    assert_eq!(build_warm(&store, 0..4).0, 0);
    assert!(log.has("Unavailable"));
}
