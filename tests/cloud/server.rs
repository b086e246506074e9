//! A web server in the test: strict where servers are, and broken where a test breaks it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a client asks.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    #[allow(dead_code, reason = "shown in failures")]
    pub body: Vec<u8>,
    /// How many came before.
    pub number: usize,
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// The length that is stated, where it is not the body's.
    pub stated_len: Option<usize>,
    pub delay: Duration,
}

type Handle = dyn Fn(&Request) -> Response + Send + Sync;

struct Shared {
    handle: Box<Handle>,
    log: Mutex<Vec<Request>>,
    sent_bytes: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    is_over: AtomicBool,
}

/// Answers on a port of this host until it is dropped.
pub struct Server {
    port: u16,
    shared: Arc<Shared>,
}

impl Server {
    pub fn start(handle: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            handle: Box::new(handle),
            log: Mutex::default(),
            sent_bytes: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let of_threads = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if of_threads.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = of_threads.clone();
                thread::spawn(move || serve(&stream.unwrap(), &shared));
            }
        });
        Server { port, shared }
    }

    /// `http://127.0.0.1:PORT` and `rest`.
    pub fn at(&self, rest: &str) -> String {
        format!("http://127.0.0.1:{}{rest}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Request> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Bytes of all bodies so far.
    pub fn sent_bytes(&self) -> usize {
        self.shared.sent_bytes.load(Ordering::SeqCst)
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        self.shared.log.lock().unwrap().clear();
        self.shared.sent_bytes.store(0, Ordering::SeqCst);
        self.shared.most_under_way.store(0, Ordering::SeqCst);
    }

    /// The most requests that were being answered at once.
    pub fn most_under_way(&self) -> usize {
        self.shared.most_under_way.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Answers requests of one connection until it ends.
fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    stream.set_nodelay(true).unwrap();
    while let Some(mut request) = read_request(&mut reader) {
        {
            let mut log = shared.log.lock().unwrap();
            request.number = log.len();
            log.push(request.clone());
        }
        let now = shared.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_under_way.fetch_max(now, Ordering::SeqCst);
        let response = (shared.handle)(&request);
        thread::sleep(response.delay);
        shared.under_way.fetch_sub(1, Ordering::SeqCst);
        if !answer(stream, &request, &response, shared) {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = headers
        .get("content-length")
        .map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
        number: 0,
    })
}

/// Whether the connection goes on.
fn answer(mut stream: &TcpStream, request: &Request, response: &Response, shared: &Shared) -> bool {
    if response.status == 0 {
        // As if the server were gone.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        return false;
    }
    let len = response.stated_len.unwrap_or(response.body.len());
    let mut head = format!(
        "HTTP/1.1 {} X\r\ncontent-length: {len}\r\n",
        response.status
    );
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let body = match request.method.as_str() {
        "HEAD" => &[],
        _ => &response.body[..response.cut_after.unwrap_or(response.body.len())],
    };
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
    shared.sent_bytes.fetch_add(body.len(), Ordering::SeqCst);
    let goes_on = sent.is_ok() && response.cut_after.is_none() && len == response.body.len();
    if !goes_on {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    goes_on
}

impl Request {
    /// The first and last byte of the range that is asked for.
    pub fn range(&self) -> Option<(usize, usize)> {
        let text = self
            .headers
            .get("x-ms-range")
            .or(self.headers.get("range"))?;
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().unwrap_or(usize::MAX)))
    }
}

impl Response {
    pub fn status(status: u16) -> Response {
        Response {
            status,
            ..Response::default()
        }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn without(mut self, name: &str) -> Response {
        self.headers.retain(|(other, _)| *other != name);
        self
    }
}

/// The signature that a [`File`] asks for.
pub const SIGNATURE: &str = "SeCrEt%2Bsignature";

/// A file behind a presigned address, as object stores serve them: for `GET` alone.
pub struct File {
    pub bytes: Vec<u8>,
    pub etag: String,
}

impl File {
    pub fn new(bytes: Vec<u8>) -> File {
        File {
            bytes,
            etag: "\"v1\"".to_owned(),
        }
    }

    pub fn answer(&self, request: &Request) -> Response {
        if request.method != "GET" || !request.query.contains(SIGNATURE) {
            return Response::status(403);
        }
        let is_same = |etag: &String| *etag == self.etag;
        if !request.headers.get("if-match").is_none_or(is_same) {
            return Response::status(412);
        }
        let whole = Response::status(200)
            .with("etag", &self.etag)
            .with("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT");
        let len = self.bytes.len();
        let Some((first, last)) = request.range() else {
            return Response {
                body: self.bytes.clone(),
                ..whole
            };
        };
        if first >= len {
            let none = format!("bytes */{len}");
            return Response::status(416).with("content-range", none);
        }
        let last = last.min(len - 1);
        Response {
            status: 206,
            body: self.bytes[first..=last].to_vec(),
            ..whole.with("content-range", format!("bytes {first}-{last}/{len}"))
        }
    }
}
