//! The HTTP endpoint: `GET /metrics`, one answer a connection. Few threads, short deadlines, and
//! nothing else: whoever is slow or talks nonsense only makes other scrapes wait a little.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use control::MetricsCursor;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Scraper;

/// Clients served at a time; further ones wait in the listener's queue.
const THREADS: usize = 4;
/// The longest request: line and headers.
const REQUEST_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;
/// How long a request may take to arrive ...
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// ... a client may take no byte of its answer ...
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// ... and the whole answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long, and how often, the rest of what nobody wants is read.
const LINGER: Duration = Duration::from_millis(200);
const LINGER_READS: usize = 4;
/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(500);

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Listens at `address` and serves scrapes from threads of its own until `stop`. Returns where it
/// listens.
pub fn serve(
    address: SocketAddr,
    servers: bool,
    scraper: &Scraper,
    stop: &Arc<AtomicBool>,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = Arc::new(listener);
    for n in 0..THREADS {
        let (listener, scraper, stop) = (Arc::clone(&listener), scraper.clone(), Arc::clone(stop));
        std::thread::Builder::new()
            .name(format!("metrics{n}"))
            .spawn(move || {
                while !stop.load(Relaxed) {
                    if let Some(stream) = accept(&listener) {
                        // A client that goes away is no news.
                        let _ = answer(stream, servers, &scraper);
                    }
                }
            })?;
    }
    Ok(address)
}

/// The next client, if one comes soon.
fn accept(listener: &TcpListener) -> Option<TcpStream> {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    match poll(&mut ready, timeout) {
        Ok(1..) => {}
        Ok(_) => return None,
        Err(_) => {
            std::thread::sleep(LOOK);
            return None;
        }
    }
    match listener.accept() {
        Ok((stream, _)) => Some(stream),
        // Another thread was first.
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => {
            // Out of descriptors, perhaps: not again at once.
            std::thread::sleep(LOOK);
            None
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of clients; no decision of the director depends on them"
)]
fn clock() -> Instant {
    Instant::now()
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// In chunks if the client knows them.
    Metrics {
        chunked: bool,
    },
    /// The same without the text.
    Head,
    Nothing(&'static str, &'static str),
}

fn answer(mut stream: TcpStream, servers: bool, scraper: &Scraper) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    match request(&mut stream)? {
        Wanted::Metrics { chunked } => send_metrics(&mut stream, chunked, servers, scraper),
        Wanted::Head => head(&mut stream, "200 OK", TEXT),
        Wanted::Nothing(status, why) => {
            refuse(&mut stream, status, why)?;
            linger(&mut stream)
        }
    }
}

/// What was not read when a connection closes makes the kernel reset it, and the answer is lost.
fn linger(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    let mut rest = [0; REQUEST_MAX];
    for _ in 0..LINGER_READS {
        if stream.read(&mut rest)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads until the headers' end.
fn request(stream: &mut TcpStream) -> io::Result<Wanted> {
    let deadline = clock() + REQUEST_TIMEOUT;
    let (mut bytes, mut len) = ([0; REQUEST_MAX], 0);
    while len < bytes.len() {
        let left = deadline.saturating_duration_since(clock());
        if left.is_zero() {
            return Ok(Wanted::Nothing(
                "408 Request Timeout",
                "the request took too long",
            ));
        }
        stream.set_read_timeout(Some(left))?;
        len += match stream.read(&mut bytes[len..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(error) => return Err(error),
        };
        if let Some(wanted) = understood(&bytes[..len]) {
            return Ok(wanted);
        }
    }
    Ok(Wanted::Nothing(
        "431 Request Header Fields Too Large",
        "the request is too long",
    ))
}

/// `None` while there is more to come.
fn understood(bytes: &[u8]) -> Option<Wanted> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(_) => return Some(Wanted::Nothing("400 Bad Request", "this is not HTTP")),
    }
    let path = request.path.unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    Some(match (request.method, path) {
        (Some("GET"), "/metrics") => Wanted::Metrics {
            chunked: request.version == Some(1),
        },
        (Some("HEAD"), "/metrics") => Wanted::Head,
        (_, "/metrics") => Wanted::Nothing("405 Method Not Allowed", "GET /metrics is right"),
        _ => Wanted::Nothing("404 Not Found", "GET /metrics is right"),
    })
}

/// The length is not known before. In chunks, so that a text which was cut short is not taken for whole.
fn send_metrics(
    stream: &mut TcpStream,
    chunked: bool,
    servers: bool,
    scraper: &Scraper,
) -> io::Result<()> {
    let deadline = clock() + ANSWER_TIMEOUT;
    let Some(scrape) = scraper.scrape() else {
        let why = "the director's main thread is busy, try again later";
        return refuse(stream, "503 Service Unavailable", why);
    };
    let coding = if chunked {
        "Transfer-Encoding: chunked\r\n"
    } else {
        ""
    };
    head_with(stream, "200 OK", TEXT, coding)?;
    let mut cursor = Some(MetricsCursor::default());
    while let Some(from) = cursor {
        let (text, next) = scrape.part(from, servers);
        if chunked {
            write!(stream, "{:x}\r\n", text.len())?;
        }
        write_until(stream, text.as_bytes(), deadline)?;
        if chunked {
            stream.write_all(b"\r\n")?;
        }
        cursor = next;
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n")?;
    }
    stream.flush()
}

/// Writes all of `bytes`, to a client that takes them in time.
fn write_until(stream: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        if clock() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn head(stream: &mut TcpStream, status: &str, kind: &str) -> io::Result<()> {
    head_with(stream, status, kind, "")
}

/// `more` are whole lines.
fn head_with(stream: &mut TcpStream, status: &str, kind: &str, more: &str) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())
}

fn refuse(stream: &mut TcpStream, status: &str, why: &str) -> io::Result<()> {
    head(stream, status, PLAIN)?;
    stream.write_all(format!("{why}\n").as_bytes())
}
