//! Stores on real servers, which `cargo xtask servers` starts. A test whose server is missing says
//! so and is skipped.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use kiln_cache::{Lookup, Store};
use kiln_remote::{Endpoint, Policy, RemoteOptions, RemoteStore, Signer, server_info};

use crate::common::key;
use crate::proxy::{Cut, Proxy};
use crate::scenario::{Stopwatch, build_cold, build_warm, writer};

/// Says that a test is skipped. Not by `println!`, of which the test harness shows nothing.
pub(crate) fn skipped(reason: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes()).unwrap();
}

/// Returns the address of a server, unless it is missing.
pub(crate) fn server(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        skipped(&format!("no server in {variable}: run `cargo xtask servers -- cargo test ..`"));
    }
    url
}

fn open(endpoint: &Endpoint, policy: Policy) -> RemoteStore {
    RemoteStore::open(endpoint, RemoteOptions { policy, ..RemoteOptions::default() }).unwrap()
}

/// Asserts what every server must do: two machines, signatures, and a connection that ends
/// anywhere.
fn shares(endpoint: impl Fn(&str) -> Endpoint + Sync, address: &str) {
    let own = endpoint(address);
    assert!(!server_info(&own).unwrap().properties.is_empty());
    // Numbers that no other test of this server has: a server keeps what earlier ones sent.
    let first = open(&own, writer());
    assert!(build_cold(&first, 0..12), "{:?}", first.traffic());
    assert_eq!((first.traffic().sent, first.traffic().faults), (12, 0));
    let second = open(&own, Policy::default());
    let (found, time) = build_warm(&second, 0..12);
    assert_eq!((found, second.traffic().faults), (12, 0), "in {time:?}");
    let public = Signer::generate().unwrap().0.public();
    let strict = open(&own, Policy { accepted: Some(vec![public]), ..Policy::default() });
    assert_eq!(build_warm(&strict, 0..12).0, 0);
    assert!(matches!(strict.get(&key(1)), Lookup::Corrupt(_)));

    // The connection is cut, or stalls, after every piece that passes, and in the middle of pieces.
    let build = |cut: Cut| {
        let proxy = Proxy::start(address, cut);
        let start = Stopwatch::start();
        let cold = open(&endpoint(&proxy.address()), writer());
        build_warm(&cold, 0..6);
        for n in 100..106 {
            cold.put(&key(n), &crate::common::entry(n, 0, 5000)).unwrap();
        }
        drop(cold);
        let time = start.elapsed();
        assert!(time < Duration::from_millis(2000), "{cut:?}: {time:?}");
        proxy.pieces()
    };
    let pieces = build(Cut::Never);
    assert!((10..2000).contains(&pieces), "{pieces}");
    let bytes = [0, 1, 20, 100, 300, 1000, 3000, 9000, 30_000, 100_000, 300_000];
    let mut cuts: Vec<Cut> =
        bytes.into_iter().flat_map(|n| [Cut::AfterBytes(n), Cut::StallAfterBytes(n)]).collect();
    cuts.extend((0..pieces).flat_map(|n| [Cut::AfterPieces(n), Cut::StallAfterPieces(n)]));
    cuts.push(Cut::Drip);
    // Most of them only wait, so many do it at once.
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(cut) = cuts.get(next.fetch_add(1, Relaxed)) {
                    build(*cut);
                }
            });
        }
    });
    // What was cut off did no harm.
    let third = open(&own, Policy::default());
    assert_eq!(build_warm(&third, 0..12).0, 12);
    for n in 100..106 {
        assert!(!matches!(third.get(&key(n)), Lookup::Corrupt(_)));
    }
}

#[test]
fn redis() {
    let Some(url) = server("KILN_TEST_REDIS") else { return };
    let address = url.strip_prefix("redis://").unwrap();
    shares(|address| Endpoint::with_variables(&format!("redis://{address}"), |_| None).unwrap(), address);
    let wrong = format!("redis://user:wrong-password@{address}");
    let error = server_info(&Endpoint::parse(&wrong).unwrap()).unwrap_err().to_string();
    assert!(!error.contains("wrong-password"), "{error}");
    // A full store is read, and takes nothing.
    let endpoint = Endpoint::parse(&url).unwrap();
    let limit = |bytes: &str| command(address, &["CONFIG", "SET", "maxmemory", bytes]);
    limit("1");
    let full = open(&endpoint, writer());
    let found = build_warm(&full, 0..12).0;
    full.put(&key(200), &crate::common::entry(200, 0, 5000)).unwrap();
    full.flush(Duration::from_secs(5));
    let sent = full.traffic().sent;
    limit("0");
    assert_eq!((found, sent), (12, 0));
}

/// Sends a command to a server of Redis's protocol, which must take it.
fn command(address: &str, words: &[&str]) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    stream.write_all(format!("*4\r\n{words}").as_bytes()).unwrap();
    let mut answer = [0; 3];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    assert_eq!(&answer, b"+OK");
}

#[test]
fn bazel() {
    let Some(url) = server("KILN_TEST_BAZEL") else { return };
    let address = url.strip_prefix("grpc://").unwrap();
    shares(|address| Endpoint::with_variables(&format!("grpc://{address}"), |_| None).unwrap(), address);
}

#[test]
fn bazel_of_another_kind() {
    let Some(url) = server("KILN_TEST_BUILDGRID") else { return };
    let address = url.strip_prefix("grpc://").unwrap();
    shares(|address| Endpoint::with_variables(&format!("grpc://{address}"), |_| None).unwrap(), address);
}

#[test]
fn s3() {
    let Some(url) = server("KILN_TEST_S3") else { return };
    let address = url.strip_prefix("http://").unwrap();
    // Moto makes a bucket for anyone who asks.
    let mut made = std::net::TcpStream::connect(address).unwrap();
    let request =
        format!("PUT /kiln HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut made, request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut made, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let endpoint = |address: &str| {
        let server = format!("http://{address}");
        let variables = move |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some(server.clone()),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("testing-secret".into()),
            _ => None,
        };
        Endpoint::with_variables("s3://kiln/cache", variables).unwrap()
    };
    shares(endpoint, address);
    let none = Endpoint::with_variables("s3://no-such-bucket/x", {
        let url = url.clone();
        move |name| match name {
            "AWS_ENDPOINT_URL" => Some(url.clone()),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("testing-secret".into()),
            _ => None,
        }
    });
    let store = open(&none.unwrap(), writer());
    build_cold(&store, 0..2);
    assert_eq!(store.traffic().sent, 0);
}

#[test]
fn a_folder() {
    let folder = crate::common::quick_folder();
    let endpoint = Endpoint::parse(&format!("file://{}/sub", folder.path().display())).unwrap();
    let first = open(&endpoint, writer());
    assert!(build_cold(&first, 0..12));
    assert_eq!(build_warm(&open(&endpoint, Policy::default()), 0..12).0, 12);
    // A file that is damaged is a miss.
    let files = walk(folder.path());
    assert_eq!(files.len(), 36);
    for path in files {
        let mut bytes = std::fs::read(&path).unwrap();
        let place = bytes.len() / 3;
        bytes[place] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(build_warm(&open(&endpoint, Policy::default()), 0..12).0, 0);
    // The next build that stores the entries heals them.
    let third = open(&endpoint, writer());
    assert!(build_cold(&third, 0..12));
    assert_eq!(build_warm(&open(&endpoint, Policy::default()), 0..12).0, 12);
}

/// Returns all files in a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
