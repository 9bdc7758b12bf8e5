//! A web server and a proxy on loopback, which do what real ones do on bad days.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query, or what a proxy is asked for.
    pub(super) target: String,
    /// By lower-case name.
    pub(super) headers: BTreeMap<String, String>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte that is asked for.
    pub(super) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether the head says nothing of the length.
    pub(super) endless: bool,
    /// Bytes after which the connection is cut.
    pub(super) cut: Option<usize>,
    /// Whether, in place of being cut, it falls silent there.
    pub(super) silent: bool,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), endless: false, cut: None, silent: false }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(super) fn silent(mut self, after: usize) -> Self {
        (self.cut, self.silent) = (Some(after), true);
        self
    }

    /// A file as a good server sends it: ranges, as far as `If-Range` names the version.
    pub(super) fn file(request: &Request, bytes: &[u8], version: &str) -> Self {
        let current = request.header("if-range").is_none_or(|given| given == version);
        let reply = match request.from().filter(|_| current) {
            Some(from) if from >= bytes.len() => {
                return Self::new(416, "").with("content-range", &format!("bytes */{}", bytes.len()));
            }
            Some(from) => Self::new(206, &bytes[from..])
                .with("content-range", &format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
            None => Self::new(200, bytes),
        };
        reply.with("etag", version).with("content-type", "application/octet-stream")
    }
}

type Handler = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// A server; ends with the process.
pub(super) struct Web {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Web {
    /// Answers each request by `handler`, which is told how many came for the same path before.
    pub(super) fn start(handler: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, handler): (_, Arc<Handler>) = (Arc::clone(&requests), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                std::thread::spawn(move || answer(stream, &seen, &*handler));
            }
        });
        Self { address, requests }
    }

    /// The address of a directory of it.
    pub(super) fn url(&self) -> String {
        format!("http://{}/shards", self.address)
    }

    /// What was asked so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// What was asked so far for a file.
    pub(super) fn asked(&self, name: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.target.ends_with(name)).collect()
    }
}

fn read_head(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Request { method, target, headers })
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, handler: &Handler) {
    let Some(request) = read_head(&stream) else { return };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|other| other.target == request.target).count();
        seen.push(request.clone());
        before
    };
    let reply = handler(&request, before);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    if !reply.endless {
        let _ = write!(head, "content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&reply.body[..end]).is_err() {
        return;
    }
    if reply.silent {
        // Until the other side goes away.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let _ = stream.read(&mut [0]);
    }
}

/// A proxy that connects wherever it is asked to, and tells where that was.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    asked: mpsc::Receiver<Request>,
}

impl Proxy {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tell = tell.clone();
                std::thread::spawn(move || tunnel(stream, &tell));
            }
        });
        Self { address, asked }
    }

    /// Where it was asked to connect to.
    pub(super) fn asked(&self) -> Vec<Request> {
        self.asked.try_iter().collect()
    }
}

fn tunnel(mut here: TcpStream, tell: &mpsc::Sender<Request>) {
    let Some(request) = read_head(&here) else { return };
    tell.send(request.clone()).unwrap();
    assert_eq!(request.method, "CONNECT", "{request:?}");
    let mut there = TcpStream::connect(&request.target).unwrap();
    here.write_all(b"HTTP/1.1 200 X\r\n\r\n").unwrap();
    let (mut from, mut to) = (here.try_clone().unwrap(), there.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut there, &mut here);
    let _ = here.shutdown(std::net::Shutdown::Both);
}
