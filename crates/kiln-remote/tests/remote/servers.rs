//! Stores on real servers, which `cargo xtask servers` starts. A test whose server is missing says
//! so and is skipped.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use kiln_cache::{Claims, DiskStore, LayeredStore, Lookup, Store, WriteBehind};
use kiln_remote::{Endpoint, Policy, Signer, server_info};

use crate::common::key;
use crate::proxy::{Cut, Proxy};
use crate::scenario::{Stopwatch, build_cold, build_warm, open, open_impatient, size, source, writer};

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

/// Returns the address of a store on a server of a kind.
fn endpoint(kind: &str, address: &str) -> Endpoint {
    let (url, server) = match kind {
        "s3" => ("s3://kiln/cache".to_owned(), Some(format!("http://{address}"))),
        _ => (format!("{kind}://{address}"), None),
    };
    let variables = move |name: &str| match name {
        "AWS_ENDPOINT_URL" => server.clone(),
        "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("testing-secret".into()),
        _ => None,
    };
    Endpoint::with_variables(&url, variables).unwrap()
}

/// Asserts what every server must do: two machines, signatures, and connections that end, stall or
/// alter bytes anywhere.
///
/// Each part uses numbers of its own: a server keeps what earlier parts sent.
fn shares(kind: &str, address: &str) {
    let own = endpoint(kind, address);
    assert!(!server_info(&own).unwrap().properties.is_empty());
    let (first, log) = open(&own, writer());
    assert!(build_cold(&first, 0..12), "{:?} {:?}", first.traffic(), log.0);
    assert_eq!((first.traffic().sent, first.traffic().faults), (12, 0), "{:?}", log.0);
    let (second, log) = open(&own, Policy::default());
    let (found, time) = build_warm(&second, 0..12);
    assert_eq!((found, second.traffic().faults), (12, 0), "in {time:?}: {:?}", log.0);
    let public = Signer::generate().unwrap().0.public();
    let (strict, _) = open(&own, Policy { accepted: Some(vec![public]), ..Policy::default() });
    assert_eq!(build_warm(&strict, 0..12).0, 0);
    assert!(matches!(strict.get(&key(1)), Lookup::Corrupt(_)));
    connections_fail(&|proxy| endpoint(kind, proxy), address);
    clients_are_killed(kind, address);
    many_build_at_once(kind, address);
    a_long_line_is_used_well(kind, address);
    // What was cut off did no harm.
    let (third, log) = open(&own, Policy::default());
    assert_eq!(build_warm(&third, 0..12).0, 12, "{:?}", log.0);
    for n in 100..106 {
        assert!(!matches!(third.get(&key(n)), Lookup::Corrupt(_)));
    }
    // What was altered on its way to a server is sent again.
    let (healing, log) = open(&own, writer());
    build_warm(&healing, 300..306);
    assert!(build_cold(&healing, 300..306), "{:?}", log.0);
    let (later, log) = open(&own, Policy::default());
    assert_eq!(build_warm(&later, 300..306).0, 6, "{:?}", log.0);
}

/// Builds through proxies that fail after every piece that passes, and in the middle of pieces.
/// They stand before a server at `address`; `through` returns the store that is behind one.
fn connections_fail(through: &(dyn Fn(&str) -> Endpoint + Sync), address: &str) {
    let build = |cut: Cut| {
        let proxy = Proxy::start(address, cut);
        let start = Stopwatch::start();
        let (store, log) = open_impatient(&through(&proxy.address()), writer());
        build_warm(&store, 0..6);
        // A server that does not check what it is sent keeps what was altered.
        let first = if matches!(cut, Cut::Alter(_)) { 300 } else { 100 };
        for n in first..first + 6 {
            store.put(&key(n), &crate::common::entry(n, 0, size(n))).unwrap();
        }
        drop(store);
        let time = start.elapsed();
        assert!(time < Duration::from_millis(2000), "{cut:?}: {time:?} {:?}", log.0);
        (proxy.pieces(), proxy.bytes())
    };
    let (pieces, bytes) = build(Cut::Never);
    assert!((10..2000).contains(&pieces), "{pieces}");
    let places = [0, 1, 20, 100, 300, 1000, 3000, 9000, 30_000, 100_000, 300_000];
    let mut cuts: Vec<Cut> =
        places.into_iter().flat_map(|n| [Cut::AfterBytes(n), Cut::StallAfterBytes(n)]).collect();
    cuts.extend((0..pieces).flat_map(|n| [Cut::AfterPieces(n), Cut::StallAfterPieces(n)]));
    cuts.extend((0..64).map(|n| Cut::Alter(n * bytes / 64)));
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
}

/// Eight builds miss the same entries at the same time. Those of one machine, which share a folder,
/// compile each once. Those of eight machines all compile, and do each other no harm.
fn many_build_at_once(kind: &str, address: &str) {
    let long = Duration::from_secs(60);
    let run = |numbers: std::ops::Range<u32>, share: bool| {
        let folders = [(); 8].map(|()| crate::common::quick_folder());
        let barrier = std::sync::Barrier::new(8);
        let compiled = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for folder in &folders {
                let folder = if share { folders[0].path() } else { folder.path() };
                let (numbers, barrier, compiled) = (numbers.clone(), &barrier, &compiled);
                scope.spawn(move || {
                    let (remote, log) = open(&endpoint(kind, address), writer());
                    let disk = WriteBehind::new(Claims::of(DiskStore::new(folder), long));
                    let store = LayeredStore::new(disk, remote);
                    barrier.wait();
                    for n in numbers {
                        let found = match store.get(&key(n)) {
                            hit @ Lookup::Hit(..) => hit,
                            _ => store.claim(&key(n)),
                        };
                        if let Lookup::Hit(found, _) = found {
                            assert!(crate::common::is_right(n, &found));
                            continue;
                        }
                        compiled.fetch_add(1, Relaxed);
                        std::thread::sleep(Duration::from_millis(20));
                        store.put(&key(n), &crate::common::entry(n, 0, size(n))).unwrap();
                        store.set_latest(&source(n), &key(n)).unwrap();
                        // A claim ends when its entry is written, and a thread that has one asks
                        // for no other.
                        assert!(store.flush(long), "{:?}", log.0);
                    }
                    assert_eq!(*log.0.lock().unwrap(), [""; 0]);
                });
            }
        });
        let (later, log) = open(&endpoint(kind, address), Policy::default());
        assert_eq!(build_warm(&later, numbers).0, 6, "{:?}", log.0);
        compiled.into_inner()
    };
    assert_eq!(run(500..506, true), 6);
    assert!((6..=48).contains(&run(600..606, false)));
}

/// A whole build's lookup takes two round trips, and its contents one for each megabyte.
fn a_long_line_is_used_well(kind: &str, address: &str) {
    let (first, log) = open(&endpoint(kind, address), writer());
    assert!(build_cold(&first, 800..840), "{:?}", log.0);
    let build = |late: Duration| {
        let proxy = Proxy::start(address, Cut::Late(late));
        let (second, log) = open(&endpoint(kind, &proxy.address()), Policy::default());
        let (found, time) = build_warm(&second, 800..840);
        assert_eq!((found, second.traffic().faults), (40, 0), "{:?}", log.0);
        (time, second.traffic().received_bytes.div_ceil(1 << 20) as u32)
    };
    let (short, _) = build(Duration::ZERO);
    let (long, megabytes) = build(Duration::from_millis(150));
    // One more to make the connection, and one for what the machine needs.
    let limit = Duration::from_millis(300) * (2 + megabytes + 2);
    println!("{kind}: {megabytes} MB in {:.1} round trips", (long - short).as_secs_f64() / 0.3);
    assert!(megabytes >= 3 && long < short + limit, "{short:?} {long:?} for {megabytes} MB");
}

/// The variable with the kind and the address of a server, in a process that is to be killed.
const KILLED: &str = "KILN_TEST_KILLED";

/// Kills processes that send entries, after every piece that passes.
fn clients_are_killed(kind: &str, address: &str) {
    let run = |cut: Cut| {
        let proxy = Proxy::start(address, cut);
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "servers::a_process_that_is_killed"]).stdout(std::process::Stdio::null());
        let mut child = command.env(KILLED, format!("{kind} {}", proxy.address())).spawn().unwrap();
        let limit = match cut {
            Cut::StallAfterPieces(limit) => limit,
            _ => usize::MAX,
        };
        let ended = loop {
            let ended = child.try_wait().unwrap();
            if ended.is_some() || proxy.pieces() > limit {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(ended.is_none_or(|status| status.success()), "{cut:?}: {ended:?}");
        // No process can do anything about this signal.
        child.kill().unwrap();
        child.wait().unwrap();
        proxy.pieces()
    };
    let pieces = run(Cut::Never);
    assert!((5..1000).contains(&pieces), "{pieces}");
    // At most so many processes, evenly distributed.
    let step = pieces.div_ceil(40);
    for n in (0..pieces).step_by(step) {
        run(Cut::StallAfterPieces(n));
        let (other, log) = open(&endpoint(kind, address), Policy::default());
        build_warm(&other, 400..406);
        assert_eq!((other.traffic().refused, other.traffic().faults), (0, 0), "{n}: {:?}", log.0);
    }
    let (other, log) = open(&endpoint(kind, address), writer());
    assert!(build_cold(&other, 400..406), "{:?}", log.0);
    assert_eq!(build_warm(&open(&endpoint(kind, address), Policy::default()).0, 400..406).0, 6);
}

/// The process that [`clients_are_killed`] starts. As a test, it does nothing.
#[test]
fn a_process_that_is_killed() {
    let Ok(server) = std::env::var(KILLED) else { return };
    let (kind, address) = server.split_once(' ').unwrap();
    build_cold(&open(&endpoint(kind, address), writer()).0, 400..406);
}

#[test]
fn redis() {
    let Some(url) = server("KILN_TEST_REDIS") else { return };
    let address = url.strip_prefix("redis://").unwrap();
    shares("redis", address);
    let wrong = format!("redis://user:wrong-password@{address}");
    let error = server_info(&Endpoint::parse(&wrong).unwrap()).unwrap_err().to_string();
    assert!(!error.contains("wrong-password"), "{error}");
    // A full store is read, and takes nothing.
    let endpoint = Endpoint::parse(&url).unwrap();
    let limit = |bytes: &str| command(address, &["CONFIG", "SET", "maxmemory", bytes]);
    limit("1");
    let (full, log) = open(&endpoint, writer());
    let found = build_warm(&full, 0..12).0;
    full.put(&key(200), &crate::common::entry(200, 0, 5000)).unwrap();
    full.flush(Duration::from_secs(20));
    let sent = full.traffic().sent;
    limit("0");
    assert_eq!((found, sent), (12, 0));
    assert!(log.has("maxmemory"), "{:?}", log.0);
    // The server listens at this address too, if this machine has it.
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skipped("this machine has no IPv6");
    }
    let port = address.rsplit_once(':').unwrap().1;
    let (own, log) = open(&Endpoint::parse(&format!("redis://[::1]:{port}")).unwrap(), writer());
    assert_eq!((build_warm(&own, 0..12).0, own.traffic().faults), (12, 0), "{:?}", log.0);
    assert!(build_cold(&own, 700..706), "{:?}", log.0);
}

/// The variable with an address with TLS, in a process that trusts its certificate.
const TRUSTED: &str = "KILN_TEST_TRUSTED";

#[test]
fn redis_with_tls() {
    if server("KILN_TEST_REDIS").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some((_, authority)) = crate::bazel::certificates(folder.path()) else {
        assert!(std::env::var_os("CI").is_none(), "openssl is missing");
        return skipped("openssl is missing");
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut redis = std::process::Command::new("redis-server");
    redis.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--save", ""]);
    redis.args(["--tls-cert-file", "own.pem", "--tls-key-file", "own.key", "--tls-ca-cert-file", "ca.pem"]);
    redis.args(["--bind", "127.0.0.1", "-::1", "--requirepass", "pass-word"]).current_dir(folder.path());
    let mut redis = redis.stdout(std::process::Stdio::null()).spawn().unwrap();
    let start = Stopwatch::start();
    while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    let url = |host: &str| format!("rediss://:pass-word@{host}:{port}/1");
    let trusts = |url: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "servers::a_process_that_trusts", "--nocapture"]);
        let done = command.env(TRUSTED, url).env("SSL_CERT_FILE", &authority).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let trusted = trusts(&url("localhost"));
    let other_name = trusts(&url("127.0.0.1"));
    let stranger = server_info(&Endpoint::parse(&url("localhost")).unwrap()).unwrap_err().to_string();
    redis.kill().unwrap();
    redis.wait().unwrap();
    assert!(trusted.0, "{}", trusted.1);
    assert!(!other_name.0 && other_name.1.contains("certificate"), "{}", other_name.1);
    assert!(stranger.contains("certificate") && !stranger.contains("pass-word"), "{stranger}");
}

/// The process that [`redis_with_tls`] starts. As a test, it does nothing.
#[test]
fn a_process_that_trusts() {
    let Ok(url) = std::env::var(TRUSTED) else { return };
    let endpoint = Endpoint::parse(&url).unwrap();
    let (store, log) = open(&endpoint, writer());
    assert!(build_cold(&store, 0..6) && store.traffic().sent == 6, "{:?}", log.0);
    assert_eq!(build_warm(&open(&endpoint, Policy::default()).0, 0..6).0, 6);
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
    shares("grpc", url.strip_prefix("grpc://").unwrap());
}

#[test]
fn bazel_of_another_kind() {
    let Some(url) = server("KILN_TEST_BUILDGRID") else { return };
    shares("grpc", url.strip_prefix("grpc://").unwrap());
}

#[test]
fn s3() {
    let Some(url) = server("KILN_TEST_S3") else { return };
    let address = url.strip_prefix("http://").unwrap();
    // Moto makes a bucket for anyone who asks.
    let mut made = std::net::TcpStream::connect(address).unwrap();
    let request =
        format!("PUT /kiln HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    made.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut made, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    shares("s3", address);
    let with = |bucket: &str, proxy: Option<String>| {
        let server = url.clone();
        let variables = move |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some(server.clone()),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("testing-secret".into()),
            "HTTP_PROXY" => proxy.clone(),
            _ => None,
        };
        Endpoint::with_variables(&format!("s3://{bucket}/cache"), variables).unwrap()
    };
    let (store, log) = open(&with("no-such-bucket", None), writer());
    build_cold(&store, 0..2);
    assert!(store.traffic().sent == 0 && log.has("no-such-bucket"), "{:?}", log.0);
    // Through a proxy, which sees every request.
    let Some(proxy) = server("KILN_TEST_PROXY") else { return };
    let seen = Proxy::start(proxy.strip_prefix("http://").unwrap(), Cut::Never);
    let through = with("kiln", Some(format!("http://{}", seen.address())));
    let (store, log) = open(&through, writer());
    assert_eq!(build_warm(&store, 0..12).0, 12, "{:?}", log.0);
    // It ends a connection after each request, perhaps when the next one is on its way.
    assert!(build_cold(&store, 700..712) && !log.has("Unavailable"), "{:?}", log.0);
    // Each request and each answer is a piece or more: records, contents.
    assert!(seen.pieces() > 2 * (24 + 36), "{}", seen.pieces());
    assert_eq!(build_warm(&open(&with("kiln", None), Policy::default()).0, 700..712).0, 12);
    // A proxy that fails.
    connections_fail(&|address: &str| with("kiln", Some(format!("http://{address}"))), &seen.address());
}

#[test]
fn a_folder() {
    let folder = crate::common::quick_folder();
    let endpoint = Endpoint::parse(&format!("file://{}/sub", folder.path().display())).unwrap();
    let first = open(&endpoint, writer()).0;
    assert!(build_cold(&first, 0..12));
    assert_eq!(build_warm(&open(&endpoint, Policy::default()).0, 0..12).0, 12);
    // A file that is damaged is a miss.
    let files = walk(folder.path());
    assert_eq!(files.len(), 36);
    for path in files {
        let mut bytes = std::fs::read(&path).unwrap();
        let place = bytes.len() / 3;
        bytes[place] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(build_warm(&open(&endpoint, Policy::default()).0, 0..12).0, 0);
    // The next build that stores the entries heals them.
    let third = open(&endpoint, writer()).0;
    assert!(build_cold(&third, 0..12));
    assert_eq!(build_warm(&open(&endpoint, Policy::default()).0, 0..12).0, 12);
}

/// Returns all files in a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
