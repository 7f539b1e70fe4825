//! Stores on real servers, which `cargo xtask servers` starts. A test whose server is missing says
//! so and is skipped.

use std::io::Write as _;
use std::time::{Duration, Instant};

use kiln_cache::{Lookup, Store};
use kiln_remote::{Endpoint, Policy, RemoteOptions, RemoteStore, Signer, server_info};

use crate::common::key;
use crate::proxy::{Cut, Proxy};
use crate::scenario::{build_cold, build_warm, writer};

/// Returns the address of a server, unless it is missing.
fn server(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        // Not by `println!`, of which the test harness shows nothing.
        let skipped =
            format!("SKIPPED: no server in {variable}: run `cargo xtask servers -- cargo test ..`\n");
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
    }
    url
}

fn open(endpoint: &Endpoint, policy: Policy) -> RemoteStore {
    RemoteStore::open(endpoint, RemoteOptions { policy, ..RemoteOptions::default() }).unwrap()
}

/// Asserts what every server must do: two machines, signatures, and a connection that ends
/// anywhere.
fn shares(endpoint: impl Fn(&str) -> Endpoint, address: &str) {
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

    // The connection is cut after more and more bytes, in both directions.
    for bytes in [0, 1, 20, 100, 300, 1000, 3000, 9000, 30_000, 100_000, 300_000] {
        for cut in [Cut::After(bytes), Cut::StallAfter(bytes)] {
            let proxy = Proxy::start(address, cut);
            let start = Instant::now();
            let cold = open(&endpoint(&proxy.address()), writer());
            let numbers = 100..106;
            build_warm(&cold, 0..6);
            for n in numbers {
                cold.put(&key(n), &crate::common::entry(n, 0, 5000)).unwrap();
            }
            drop(cold);
            let time = start.elapsed();
            assert!(time < Duration::from_millis(2000), "{cut:?}: {time:?}");
        }
    }
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
}

#[test]
fn bazel() {
    let Some(url) = server("KILN_TEST_BAZEL") else { return };
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
