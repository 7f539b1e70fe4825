//! A store of objects over HTTP in this process, which answers as it is told: enough of S3 for a
//! client that reads and writes whole objects.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use kiln_remote::Endpoint;

/// The content of the server, and how it answers.
#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) objects: HashMap<String, Vec<u8>>,
    /// The first lines of requests.
    pub(crate) log: Vec<String>,
    /// The status and the code of S3 with which requests of a method fail.
    pub(crate) refuse: Option<(&'static str, u16, &'static str)>,
}

/// A server, which lives as long as the process.
pub(crate) struct HttpServer {
    pub(crate) inside: Arc<Mutex<Inside>>,
    pub(crate) address: String,
}

impl HttpServer {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub(crate) fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inside = Arc::new(Mutex::new(Inside::default()));
        let own = Arc::clone(&inside);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let own = Arc::clone(&own);
                std::thread::spawn(move || serve(&client.unwrap(), &own));
            }
        });
        Self { inside, address }
    }

    /// Returns the address of the store, with further variables.
    pub(crate) fn endpoint(&self, more: &[(&'static str, &str)]) -> Endpoint {
        let own = [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "user".into()),
            ("AWS_SECRET_ACCESS_KEY", "secret-of-tests".into()),
        ];
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let variables: HashMap<&str, String> = own.into_iter().chain(more).collect();
        Endpoint::with_variables("s3://kiln/cache", move |name| variables.get(name).cloned()).unwrap()
    }
}

/// Answers the requests of a connection.
fn serve(stream: &TcpStream, inside: &Mutex<Inside>) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if !matches!(reader.read_line(&mut first), Ok(1..)) {
            return;
        }
        let mut len = 0;
        loop {
            let mut line = String::new();
            if !matches!(reader.read_line(&mut line), Ok(3..)) {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; len];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, content) = answer(&first, body, &mut inside.lock().unwrap());
        let head =
            format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nETag: \"0\"\r\n\r\n", content.len());
        let content = if first.starts_with("HEAD") { Vec::new() } else { content };
        if writer.write_all(&[head.into_bytes(), content].concat()).is_err() {
            return;
        }
    }
}

/// Returns the status and the content of the answer to a request.
fn answer(first: &str, body: Vec<u8>, inside: &mut Inside) -> (u16, Vec<u8>) {
    inside.log.push(first.trim_end().into());
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let error = |code| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>").into_bytes();
    if let Some((_, status, code)) = inside.refuse.filter(|(of, ..)| of.contains(method)) {
        return (status, error(code));
    }
    // A client that uses a proxy names the host too.
    let path = target.find("/kiln/").map_or(target, |start| &target[start..]);
    let path = path.split('?').next().unwrap().to_owned();
    match method {
        "PUT" => {
            inside.objects.insert(path, body);
            (200, Vec::new())
        }
        _ => {
            inside.objects.get(&path).map_or_else(|| (404, error("NoSuchKey")), |found| (200, found.clone()))
        }
    }
}
