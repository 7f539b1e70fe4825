//! A store of objects over HTTP: what it does, and what it survives.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use kiln_cache::Store;
use kiln_remote::{Endpoint, EndpointError, Policy, RemoteOptions, RemoteStore, server_info};

use crate::common::{entry, key};
use crate::http::HttpServer;
use crate::proxy::{Cut, Proxy};
use crate::scenario::{Stopwatch, build_cold, build_warm, open, open_impatient, size, writer};

/// A build may take this much longer because of a server, and a busy machine a little more.
const LONGER: Duration = Duration::from_millis(2000);

#[test]
fn what_one_machine_stores_another_finds() {
    let server = HttpServer::start();
    let (first, log) = open(&server.endpoint(&[]), writer());
    assert!(build_cold(&first, 0..12), "{:?}", log.0.lock().unwrap());
    // A record of a key, one of a source, and a content for each.
    assert_eq!(server.inside.lock().unwrap().objects.len(), 36);
    let (second, log) = open(&server.endpoint(&[]), Policy::default());
    assert_eq!((build_warm(&second, 0..12).0, second.traffic().faults), (12, 0));
    assert_eq!(*log.0.lock().unwrap(), [""; 0]);
}

#[test]
fn an_address_of_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return crate::servers::skipped("this machine has no IPv6");
    }
    let server = HttpServer::start_at("[::1]:0");
    let (first, log) = open(&server.endpoint(&[]), writer());
    assert!(server.address.contains("[::1]") && build_cold(&first, 0..4), "{:?}", log.0);
    assert_eq!(build_warm(&open(&server.endpoint(&[]), Policy::default()).0, 0..4).0, 4);
}

/// Wrong credentials, a clock that differs from the server's, a full store, another region, a
/// server that is broken.
#[test]
fn a_server_that_refuses_costs_little_and_is_reported() {
    let refusals = [
        ("GET HEAD PUT", 403, "InvalidAccessKeyId"),
        ("GET HEAD PUT", 403, "RequestTimeTooSkewed"),
        ("PUT", 507, "InsufficientStorage"),
        ("PUT", 403, "QuotaExceeded"),
        ("GET HEAD PUT", 301, "PermanentRedirect"),
        ("GET HEAD PUT", 503, "SlowDown"),
        ("GET HEAD PUT", 500, "InternalError"),
    ];
    for (methods, status, code) in refusals {
        let server = HttpServer::start();
        let (first, _) = open(&server.endpoint(&[]), writer());
        assert!(build_cold(&first, 0..6));
        server.inside.lock().unwrap().refuse = Some((methods, status, code));
        let start = Stopwatch::start();
        let (second, log) = open_impatient(&server.endpoint(&[]), writer());
        let (found, _) = build_warm(&second, 0..6);
        for n in 20..26 {
            second.put(&key(n), &entry(n, 0, size(n))).unwrap();
        }
        drop(second);
        let time = start.elapsed();
        assert!(time < LONGER, "{code}: {time:?}");
        assert_eq!(found, if methods == "PUT" { 6 } else { 0 }, "{code}");
        assert!(
            log.has("Unavailable") && log.has(&status.to_string()),
            "{code}: {:?}",
            log.0.lock().unwrap()
        );
        assert!(!log.has("secret-of-tests"));
    }
}

#[test]
fn a_slow_line_costs_little() {
    let server = HttpServer::start();
    let (first, _) = open(&server.endpoint(&[]), writer());
    assert!(build_cold(&first, 0..6));
    let proxy = Proxy::start(&server.address, Cut::Drip);
    let start = Stopwatch::start();
    let slow = server.endpoint(&[("AWS_ENDPOINT_URL", &format!("http://{}", proxy.address()))]);
    let (second, log) = open_impatient(&slow, writer());
    build_warm(&second, 0..6);
    second.put(&key(7), &entry(7, 0, size(7))).unwrap();
    drop(second);
    let time = start.elapsed();
    assert!(time < LONGER && log.has("Unavailable"), "{time:?} {:?}", log.0.lock().unwrap());
}

#[test]
fn proxies_are_those_of_the_usual_variables() {
    let server = HttpServer::start();
    let proxy = Proxy::start(&server.address, Cut::Never);
    let (url, host) = (format!("http://{}", proxy.address()), "http://store.example");
    // A name that only a proxy resolves.
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let endpoint = server.endpoint(&[("AWS_ENDPOINT_URL", host), (variable, &url)]);
        let before = proxy.pieces();
        let (store, log) = open(&endpoint, writer());
        assert!(build_cold(&store, 0..2) && store.traffic().sent == 2, "{:?}", log.0.lock().unwrap());
        assert!(proxy.pieces() > before, "{variable}");
        assert!(server.inside.lock().unwrap().log.iter().any(|line| line.contains("http://store.example/")));
    }
    // None for hosts that are excepted.
    let before = proxy.pieces();
    let endpoint = server.endpoint(&[("HTTP_PROXY", &url), ("NO_PROXY", "127.0.0.1")]);
    assert_eq!(build_warm(&open(&endpoint, Policy::default()).0, 0..2).0, 2);
    assert_eq!(proxy.pieces(), before);
    // A proxy that is wrong or absent costs little; its password is not told.
    let endpoint = server.endpoint(&[("HTTP_PROXY", "http://me:pass-word@127.0.0.1:9")]);
    let error = server_info(&endpoint).unwrap_err().to_string();
    assert!(!error.contains("pass-word"), "{error}");
    let wrong = server.endpoint(&[("HTTP_PROXY", "http://me:pass-word@[")]);
    let error = RemoteStore::open(&wrong, RemoteOptions::default()).unwrap_err();
    assert_eq!(error, EndpointError::Wrong("HTTP_PROXY is not the address of a proxy".into()));
}

#[test]
fn a_server_that_sends_more_than_was_asked_for_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&sent);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, own) = (client.unwrap(), Arc::clone(&own));
            std::thread::spawn(move || {
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(b"$1000000000\r\n");
                for _ in 0..1000 {
                    if client.write_all(&[0; 1_000_000]).is_err() {
                        return;
                    }
                    own.fetch_add(1_000_000, Relaxed);
                }
            });
        }
    });
    let start = Stopwatch::start();
    let (store, log) = open_impatient(&Endpoint::parse(&url).unwrap(), writer());
    build_warm(&store, 0..6);
    drop(store);
    assert!(start.elapsed() < LONGER && log.has("Unavailable"), "{:?}", log.0);
    // What was on its way when the connection ended.
    assert!(sent.load(Relaxed) < 50_000_000, "{}", sent.load(Relaxed));
}
