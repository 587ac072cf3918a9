//! HTTP and HTTPS, by libcurl, whose sockets and timer the engine polls.

use std::collections::HashMap;
use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use control::Http;
use crossbeam::channel::{Receiver, unbounded};
use curl::easy::{Easy2, Handler, HttpVersion, List, WriteError};
use curl::multi::{Easy2Handle, Events, Multi};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;

use super::Outcome;

/// No timer is wanted.
const NEVER: u64 = u64::MAX;

/// What a request goes by.
#[derive(Debug)]
enum By {
    Any,
    This(Option<Socket>),
}

/// The beginning of a body.
#[derive(Debug)]
struct Body {
    by: By,
    bytes: Vec<u8>,
    /// There is more, which nobody wants.
    full: bool,
}

impl Handler for Body {
    fn open_socket(&mut self, family: c_int, kind: c_int, protocol: c_int) -> Option<RawFd> {
        let socket = match &mut self.by {
            By::Any => Socket::new(family.into(), kind.into(), Some(protocol.into())).ok(),
            By::This(socket) => socket.take(),
        };
        socket.map(IntoRawFd::into_raw_fd)
    }

    fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        let room = Http::BODY_MAX - self.bytes.len();
        self.bytes.extend_from_slice(&data[..data.len().min(room)]);
        self.full = data.len() > room;
        Ok(if self.full { 0 } else { data.len() })
    }
}

pub(super) struct Web {
    // Dropped before `multi`: one that leaves it calls back into what that owns.
    running: HashMap<usize, Easy2Handle<Body>>,
    multi: Multi,
    /// What libcurl wants to know of its sockets; `None`: nothing more.
    wishes: Receiver<(RawFd, Option<Interest>)>,
    polled: HashMap<RawFd, Interest>,
    /// Milliseconds that libcurl wants to be called after.
    timer: Arc<AtomicU64>,
    /// A socket's token is its number more.
    base: usize,
}

impl Web {
    pub(super) fn new(base: usize) -> Result<Self, curl::MultiError> {
        let mut multi = Multi::new();
        let (wish, wishes) = unbounded();
        multi.socket_function(move |socket, events, _| {
            let interest = match (events.input(), events.output()) {
                _ if events.remove() => None,
                _ if events.input_and_output() => Some(Interest::READABLE | Interest::WRITABLE),
                (_, true) => Some(Interest::WRITABLE),
                (true, _) => Some(Interest::READABLE),
                (false, false) => None,
            };
            // Nobody is left to hear it when it is all over.
            let _ = wish.send((socket, interest));
        })?;
        let timer = Arc::new(AtomicU64::new(NEVER));
        let set = Arc::clone(&timer);
        multi.timer_function(move |after| {
            let ms = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(NEVER);
            set.store(after.map_or(NEVER, ms), Relaxed);
            true
        })?;
        Ok(Self {
            running: HashMap::new(),
            multi,
            wishes,
            polled: HashMap::new(),
            timer,
            base,
        })
    }

    pub(super) fn start(
        &mut self,
        check: usize,
        http: &Http,
        to: SocketAddr,
        by: Option<Socket>,
    ) -> Result<(), Outcome> {
        let unsent = |error: &dyn std::error::Error| Outcome::Unsent(error.to_string());
        let easy = request(http, to, by).map_err(|error| unsent(&error))?;
        let mut handle = self.multi.add2(easy).map_err(|error| unsent(&error))?;
        handle.set_token(check).map_err(|error| unsent(&error))?;
        self.running.insert(check, handle);
        Ok(())
    }

    pub(super) fn stop(&mut self, check: usize) {
        if let Some(handle) = self.running.remove(&check) {
            // It is closed either way.
            let _ = self.multi.remove2(handle);
        }
    }

    /// When libcurl wants to be called, in milliseconds from when it said so. It is asked again after
    /// every call.
    pub(super) fn take_timer(&self) -> Option<u64> {
        let ms = self.timer.swap(NEVER, Relaxed);
        (ms != NEVER).then_some(ms)
    }

    pub(super) fn timer_came(&self) {
        // What it says of requests comes by itself; nothing else fails.
        let _ = self.multi.timeout();
    }

    pub(super) fn socket_is_ready(
        &mut self,
        registry: &Registry,
        token: Token,
        event: &mio::event::Event,
    ) {
        let Ok(socket) = RawFd::try_from(token.0 - self.base) else {
            return;
        };
        let mut events = Events::new();
        events.input(event.is_readable());
        events.output(event.is_writable());
        events.error(event.is_error());
        let _ = self.multi.action(socket, &events);
        // libcurl need not have read everything: what is there still is to be an event again.
        if let Some(interest) = self.polled.get(&socket) {
            let _ = registry.reregister(&mut SourceFd(&socket), token, *interest);
        }
    }

    /// Polls the sockets that libcurl wants polled.
    pub(super) fn poll_sockets(&mut self, registry: &Registry) {
        for (socket, interest) in self.wishes.try_iter() {
            let token = Token(self.base + usize::try_from(socket).unwrap_or_default());
            let mut source = SourceFd(&socket);
            let known = match interest {
                Some(interest) => self.polled.insert(socket, interest),
                None => self.polled.remove(&socket),
            };
            // A socket of the same number may have been closed and opened in between.
            let _ = match (known, interest) {
                (None, None) => Ok(()),
                (Some(_), None) => registry.deregister(&mut source),
                (Some(_), Some(interest)) => registry
                    .reregister(&mut source, token, interest)
                    .or_else(|_| registry.register(&mut source, token, interest)),
                (None, Some(interest)) => registry
                    .register(&mut source, token, interest)
                    .or_else(|_| registry.reregister(&mut source, token, interest)),
            };
        }
    }

    /// Requests that have ended; `asked` knows what was asked.
    pub(super) fn ended<'a>(
        &mut self,
        asked: impl Fn(usize) -> Option<&'a Http>,
    ) -> Vec<(usize, Outcome)> {
        let Self { multi, running, .. } = self;
        let mut ended = Vec::new();
        multi.messages(|message| {
            let check = message.token().ok();
            let handle = check.and_then(|check| Some((check, running.get(&check)?)));
            if let Some((check, handle)) = handle
                && let Some(result) = message.result_for2(handle)
            {
                ended.push((check, result));
            }
        });
        let judged = ended.into_iter().filter_map(|(check, result)| {
            let mut handle = running.remove(&check)?;
            let outcome = judge(asked(check)?, &mut handle, result);
            let _ = multi.remove2(handle);
            Some((check, outcome))
        });
        judged.collect()
    }
}

fn request(http: &Http, to: SocketAddr, by: Option<Socket>) -> Result<Easy2<Body>, curl::Error> {
    let mut easy = Easy2::new(Body {
        by: by.map_or(By::Any, |socket| By::This(Some(socket))),
        bytes: Vec::new(),
        full: false,
    });
    let sni = http.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    let authority = match sni.or(http.host.as_deref()) {
        Some(name) => {
            // Whatever the request names, it goes there.
            let mut list = List::new();
            list.append(&format!("::{to}"))?;
            easy.connect_to(list)?;
            name.to_owned()
        }
        None => to.to_string(),
    };
    easy.url(&format!("{scheme}://{authority}{}", http.path))?;
    let mut headers = List::new();
    if let (Some(host), Some(_)) = (&http.host, sni) {
        headers.append(&format!("Host: {host}"))?;
    }
    headers.append("Accept: */*")?;
    easy.http_headers(headers)?;
    match http.method.as_str() {
        "GET" => {}
        "HEAD" => easy.nobody(true)?,
        method => easy.custom_request(method)?,
    }
    easy.useragent(concat!("directord/", env!("CARGO_PKG_VERSION")))?;
    easy.path_as_is(true)?;
    easy.proxy("")?;
    easy.http_version(HttpVersion::V11)?;
    easy.http_09_allowed(false)?;
    easy.fresh_connect(true)?;
    easy.forbid_reuse(true)?;
    if let Some(tls) = &http.tls {
        easy.ssl_verify_peer(tls.verify)?;
        easy.ssl_verify_host(tls.verify)?;
        if let Some(file) = &tls.ca_file {
            easy.cainfo(file)?;
        }
    }
    Ok(easy)
}

fn judge(http: &Http, handle: &mut Easy2Handle<Body>, result: Result<(), curl::Error>) -> Outcome {
    if let Err(error) = result
        && !handle.get_ref().full
    {
        return failed(handle, &error);
    }
    let status = handle.response_code().unwrap_or_default();
    if !u16::try_from(status).is_ok_and(|status| http.status.contains(status)) {
        return Outcome::Failed(format!("status {status}"));
    }
    let wanted = http.body.as_bytes();
    let mut parts = handle.get_ref().bytes.windows(wanted.len().max(1));
    if wanted.is_empty() || parts.any(|part| part == wanted) {
        Outcome::Passed
    } else {
        Outcome::Failed(format!(
            "status {status}, without {:?} in the body",
            http.body
        ))
    }
}

fn failed(handle: &mut Easy2Handle<Body>, error: &curl::Error) -> Outcome {
    // While it connects the socket's own words say most.
    let socket = handle.os_errno().ok().filter(|number| *number != 0);
    if let Some(number) = socket
        && error.is_couldnt_connect()
    {
        return io::Error::from_raw_os_error(number).into();
    }
    let words = error.extra_description().unwrap_or(error.description());
    Outcome::Failed(words.trim().to_owned())
}
