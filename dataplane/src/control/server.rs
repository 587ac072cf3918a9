//! The Unix socket: many clients, none of which can hold up or harm another.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use control::{Errno, Hello, MESSAGE_MAX, Reply, Request, VERSION};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist};
use serde::Serialize;

use super::PROGRAM;
use super::model::refuse;

/// The most clients served at a time.
pub const CLIENTS_MAX: usize = 64;
/// How often [`Backend::tick`] is called at least.
pub const TICK: Duration = Duration::from_millis(500);
/// How long a request (and a client's hello) may take to arrive.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take no byte of its reply.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest hello.
const HELLO_MAX: usize = 4096;
/// Bytes read at once.
const READ_MAX: usize = 64 << 10;
/// Reads and requests of one client before the others have their turn.
const TURN_MAX: usize = 16;

const LISTENER: Token = Token(CLIENTS_MAX);
const WAKER: Token = Token(CLIENTS_MAX + 1);

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    pub pid: i32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} gid {} pid {}", self.uid, self.gid, self.pid)
    }
}

impl Peer {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid(),
        })
    }

    /// Root, the daemon's own user and members of its group may.
    fn may_change(&self) -> bool {
        let group = getegid();
        self.uid == 0
            || self.uid == geteuid().as_raw()
            || self.gid == group.as_raw()
            || self.is_member(group)
    }

    fn is_member(&self, group: Gid) -> bool {
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else {
            return false;
        };
        let Ok(name) = std::ffi::CString::new(user.name) else {
            return false;
        };
        getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
    }
}

/// What stands behind the socket.
pub trait Backend {
    /// `peer` may do what `request` asks.
    fn handle(&mut self, request: Request, peer: &Peer) -> Reply;
    /// Called after every wake-up, at least every [`TICK`]; `now` counts from the server's start.
    fn tick(&mut self, now: Duration);
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another directord answers at {}; stop it or choose another socket", .0.display())]
    Taken(PathBuf),
    #[error("{} exists and is not a socket; remove it or choose another", .0.display())]
    NotASocket(PathBuf),
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// The socket and its clients.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    waker: Arc<Waker>,
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our socket file.
    file: (u64, u64),
    clients: [Option<Client>; CLIENTS_MAX],
    started: Instant,
}

impl Server {
    /// Opens the socket at `path` with mode 0660, creating its directory and replacing a socket
    /// that nobody answers.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what| {
            move |source| BindError::Io {
                what,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(parent) = path.parent() {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(failed("creating the directory of"))?;
        }
        clear(path)?;
        let mut listener = UnixListener::bind(path).map_err(failed("binding"))?;
        fs::set_permissions(path, Permissions::from_mode(0o660))
            .map_err(failed("setting the mode of"))?;
        let file = identity(path).map_err(failed("looking at"))?;
        let poll = Poll::new().map_err(failed("polling"))?;
        let registry = poll.registry();
        registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(failed("polling"))?;
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(failed("polling"))?);
        let (clients, started) = ([const { None }; CLIENTS_MAX], clock());
        Ok(Self {
            poll,
            waker,
            listener,
            path: path.to_owned(),
            file,
            clients,
            started,
        })
    }

    /// Wakes [`Server::run`] at once, from any thread.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Serves until `stop`.
    pub fn run(&mut self, backend: &mut impl Backend, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(CLIENTS_MAX + 2);
        let mut pending = false;
        while !stop.load(Relaxed) {
            let timeout = if pending { Duration::ZERO } else { TICK };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if let Some(Some(client)) = self.clients.get_mut(event.token().0) {
                    client.ready = true;
                }
            }
            let now = clock().duration_since(self.started);
            // Also without an event: an accept that failed for want of descriptors is tried anew.
            self.accept(now);
            pending = self.serve(backend, now);
            backend.tick(clock().duration_since(self.started));
        }
        Ok(())
    }

    fn accept(&mut self, now: Duration) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.welcome(stream, now) {
                        tracing::warn!(%error, "cannot serve a client");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut stream: UnixStream, now: Duration) -> io::Result<()> {
        let Some(slot) = self.clients.iter().position(Option::is_none) else {
            let full = refuse(
                Errno::Eagain,
                format!("{CLIENTS_MAX} clients are served already, try again later"),
            );
            control::send(&mut stream, &hello())?;
            return control::send(&mut stream, &Reply::Refused(full));
        };
        let peer = Peer::of(&stream)?;
        self.poll.registry().register(
            &mut stream,
            Token(slot),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.clients[slot] = Some(Client::new(stream, peer, now));
        Ok(())
    }

    /// Gives every client that is ready its turn. Whether some have more to do.
    fn serve(&mut self, backend: &mut impl Backend, now: Duration) -> bool {
        let mut pending = false;
        for slot in &mut self.clients {
            let Some(client) = slot else { continue };
            let next = if client.ready {
                client.turn(backend, now)
            } else {
                Next::Wait
            };
            client.ready = matches!(next, Next::More);
            pending |= client.ready;
            if matches!(next, Next::Close)
                || client.deadline.is_some_and(|deadline| now >= deadline)
            {
                *slot = None;
            }
        }
        pending
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody else's by now, perhaps.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Removes the socket that a daemon left at `path` when it died.
fn clear(path: &Path) -> Result<(), BindError> {
    let failed = |what| {
        move |source| BindError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at")(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // A full queue of clients: somebody is there, if slow.
        Ok(_) => Err(BindError::Taken(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(BindError::Taken(path.to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("removing the stale socket"))
        }
        Err(error) => Err(failed("looking at")(error)),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the control server is where the control side's time comes from"
)]
fn clock() -> Instant {
    Instant::now()
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        program: PROGRAM.to_owned(),
    }
}

#[derive(Debug)]
enum Next {
    /// For the socket.
    Wait,
    /// For its next turn.
    More,
    Close,
}

/// One client: reads a request, writes its reply, and only then reads on.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    peer: Peer,
    greeted: bool,
    /// The request that is arriving, and what came with it.
    input: Vec<u8>,
    /// The reply that is leaving, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// Once the output is sent, this is over.
    closing: bool,
    ready: bool,
    /// Until then it must have moved.
    deadline: Option<Duration>,
}

impl Client {
    fn new(stream: UnixStream, peer: Peer, now: Duration) -> Self {
        let (input, output, deadline) = (Vec::new(), Vec::new(), Some(now + REQUEST_TIMEOUT));
        Self {
            stream,
            peer,
            greeted: false,
            input,
            output,
            sent: 0,
            closing: false,
            ready: true,
            deadline,
        }
    }

    fn turn(&mut self, backend: &mut impl Backend, now: Duration) -> Next {
        for _ in 0..TURN_MAX {
            match self.flush(now) {
                Ok(true) if self.closing => return Next::Close,
                Ok(true) => {}
                Ok(false) => return Next::Wait,
                Err(_) => return Next::Close,
            }
            match self.frame() {
                Ok(Some(len)) => self.answer(len, backend, now),
                Ok(None) => match self.fill() {
                    Ok(0) => return Next::Close,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if !self.input.is_empty() {
                            self.deadline.get_or_insert(now + REQUEST_TIMEOUT);
                        }
                        return Next::Wait;
                    }
                    Err(_) => return Next::Close,
                },
                Err(len) => {
                    let max = self.message_max();
                    self.fail(
                        format!("a message of {len} bytes is too long, at most {max} is right"),
                        now,
                    );
                }
            }
        }
        Next::More
    }

    /// Whether everything is sent.
    fn flush(&mut self, now: Duration) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    self.deadline = Some(now + REPLY_TIMEOUT);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !self.output.is_empty() {
            self.output = Vec::new();
            self.sent = 0;
            self.deadline = None;
        }
        Ok(true)
    }

    /// Length of the whole message at the start of the input with its prefix, or the length of one
    /// that is too long.
    fn frame(&self) -> Result<Option<usize>, usize> {
        let Some((len, body)) = self.input.split_first_chunk() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*len) as usize;
        if len > self.message_max() {
            return Err(len);
        }
        Ok((body.len() >= len).then_some(len + 4))
    }

    fn message_max(&self) -> usize {
        if self.greeted { MESSAGE_MAX } else { HELLO_MAX }
    }

    /// How many bytes came.
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; READ_MAX];
        loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(n) => {
                    self.input.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers the message in the first `len` bytes of the input.
    fn answer(&mut self, len: usize, backend: &mut impl Backend, now: Duration) {
        let rest = self.input.split_off(len);
        let message = std::mem::replace(&mut self.input, rest);
        let mut message = message.as_slice();
        self.deadline = None;
        if !self.greeted {
            match control::receive::<Hello>(&mut message) {
                // Its own hello tells a client of another version what is here.
                Ok(theirs) => {
                    self.greeted = true;
                    self.closing = theirs.version != VERSION;
                    self.reply(&hello(), now);
                }
                Err(error) => self.fail(format!("not a hello: {error}"), now),
            }
            return;
        }
        match control::receive::<Request>(&mut message) {
            Ok(Request::Change(_)) if !self.peer.may_change() => {
                tracing::warn!(target: "audit", peer = %self.peer, "refused a change: neither root nor of our group");
                let detail =
                    "only root, the daemon's user and members of its group may change anything";
                self.reply(&Reply::Refused(refuse(Errno::Eperm, detail)), now);
            }
            Ok(request) => {
                let reply = backend.handle(request, &self.peer);
                self.reply(&reply, now);
            }
            Err(error) => self.fail(format!("not a request: {error}"), now),
        }
    }

    /// Says what was wrong with a message, and no more.
    fn fail(&mut self, detail: String, now: Duration) {
        self.closing = true;
        self.reply(&Reply::Refused(refuse(Errno::Eproto, detail)), now);
    }

    fn reply(&mut self, message: &impl Serialize, now: Duration) {
        self.deadline = Some(now + REPLY_TIMEOUT);
        if control::send(&mut self.output, message).is_ok() {
            return;
        }
        let detail = format!("the answer is longer than {MESSAGE_MAX} bytes, ask for one service");
        if control::send(
            &mut self.output,
            &Reply::Refused(refuse(Errno::Enomem, detail)),
        )
        .is_err()
        {
            self.closing = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream as Stream;
    use std::thread::{self, JoinHandle};

    use control::{Neighbour, Refusal, receive, send};
    use tempfile::TempDir;

    use super::*;

    /// Answers `Timeouts` with its count of requests, `Neighbours` with a big list, `Status` with
    /// one that is too long.
    struct Counting(u32);

    impl Backend for Counting {
        fn handle(&mut self, request: Request, _: &Peer) -> Reply {
            self.0 += 1;
            let neighbours = |n| {
                let address = "10.0.0.1".parse().unwrap();
                let one = Neighbour {
                    port: "x".repeat(1000),
                    address,
                    mac: None,
                    state: "failed".into(),
                };
                Reply::Neighbours(vec![one; n])
            };
            match request {
                Request::Timeouts => Reply::Timeouts {
                    tcp: self.0,
                    tcp_fin: 0,
                    udp: 0,
                },
                Request::Neighbours => neighbours(5000),
                Request::Status => neighbours(40_000),
                _ => Reply::Done,
            }
        }

        fn tick(&mut self, _: Duration) {}
    }

    struct Running {
        dir: TempDir,
        stop: Arc<AtomicBool>,
        waker: Arc<Waker>,
        thread: Option<JoinHandle<()>>,
    }

    impl Running {
        fn start() -> Self {
            let dir = TempDir::new().unwrap();
            let mut server = Server::bind(&dir.path().join("run/director.sock")).unwrap();
            let (stop, waker) = (Arc::new(AtomicBool::new(false)), server.waker());
            let stopping = Arc::clone(&stop);
            let thread = thread::spawn(move || server.run(&mut Counting(0), &stopping).unwrap());
            Self {
                dir,
                stop,
                waker,
                thread: Some(thread),
            }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("run/director.sock")
        }

        fn connect(&self) -> Stream {
            let stream = Stream::connect(self.path()).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream
        }

        fn client(&self) -> Stream {
            let mut stream = self.connect();
            send(&mut stream, &hello()).unwrap();
            assert_eq!(receive::<Hello>(&mut stream).unwrap(), hello());
            stream
        }

        /// Still serves others.
        fn assert_alive(&self) {
            let mut stream = self.client();
            assert!(matches!(
                ask(&mut stream, &Request::Timeouts),
                Reply::Timeouts { .. }
            ));
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.stop.store(true, Relaxed);
            self.waker.wake().unwrap();
            let ended = self.thread.take().unwrap().join();
            assert!(thread::panicking() || ended.is_ok());
        }
    }

    fn ask(stream: &mut Stream, request: &Request) -> Reply {
        send(stream, request).unwrap();
        receive(stream).unwrap()
    }

    fn refused(stream: &mut Stream) -> Refusal {
        match receive(stream).unwrap() {
            Reply::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn assert_closed(stream: &mut Stream) {
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }

    #[test]
    fn each_request_gets_one_reply_in_order_even_pipelined() {
        let running = Running::start();
        let mut stream = running.client();
        for _ in 0..100 {
            send(&mut stream, &Request::Timeouts).unwrap();
        }
        for n in 1..=100 {
            assert_eq!(
                receive::<Reply>(&mut stream).unwrap(),
                Reply::Timeouts {
                    tcp: n,
                    tcp_fin: 0,
                    udp: 0
                }
            );
        }
    }

    #[test]
    fn the_socket_is_for_the_group_only_and_goes_with_the_server() {
        let running = Running::start();
        let path = running.path();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let dir = path.parent().unwrap();
        assert_eq!(
            fs::metadata(dir).unwrap().permissions().mode() & 0o777,
            0o755
        );
        let other = TempDir::new().unwrap();
        let path = other.path().join("s");
        drop(Server::bind(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn another_version_is_told_ours_and_left() {
        let running = Running::start();
        let mut stream = running.connect();
        send(
            &mut stream,
            &Hello {
                version: VERSION + 1,
                program: "new".into(),
            },
        )
        .unwrap();
        assert_eq!(receive::<Hello>(&mut stream).unwrap().version, VERSION);
        assert_closed(&mut stream);
        running.assert_alive();
    }

    #[test]
    fn garbage_is_named_and_ends_the_connection() {
        let running = Running::start();
        for (greet, bytes, detail) in [
            (
                false,
                &b"\0\0\0\x03abc"[..],
                "not a hello: expected value at line 1 column 1",
            ),
            (
                false,
                b"GET / HTTP/1.1\r\n\r\n",
                "a message of 1195725856 bytes is too long, at most 4096 is right",
            ),
            (
                true,
                b"\0\0\0\x03abc",
                "not a request: expected value at line 1 column 1",
            ),
            (
                true,
                b"\xff\xff\xff\xff",
                "a message of 4294967295 bytes is too long, at most 33554432 is right",
            ),
            (
                true,
                b"\0\0\0\0",
                "not a request: EOF while parsing a value at line 1 column 0",
            ),
        ] {
            let mut stream = if greet {
                running.client()
            } else {
                running.connect()
            };
            stream.write_all(bytes).unwrap();
            let refusal = refused(&mut stream);
            assert_eq!(
                (refusal.errno, refusal.detail.as_str()),
                (Errno::Eproto, detail)
            );
            assert_closed(&mut stream);
        }
        running.assert_alive();
    }

    #[test]
    fn deep_nesting_is_refused() {
        let running = Running::start();
        let mut stream = running.client();
        let deep = vec![b'['; 1 << 20];
        stream.write_all(&(1u32 << 20).to_be_bytes()).unwrap();
        stream.write_all(&deep).unwrap();
        assert_eq!(refused(&mut stream).errno, Errno::Eproto);
        running.assert_alive();
    }

    #[test]
    fn a_request_may_come_in_pieces_and_half_of_one_holds_nobody_up() {
        let running = Running::start();
        let mut half = running.client();
        let mut bytes = Vec::new();
        send(&mut bytes, &Request::Timeouts).unwrap();
        half.write_all(&bytes[..5]).unwrap();
        running.assert_alive();
        for byte in &bytes[5..] {
            half.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(
            receive(&mut half).unwrap(),
            Reply::Timeouts { .. }
        ));
        half.write_all(&bytes[..5]).unwrap();
        half.shutdown(Shutdown::Write).unwrap();
        assert_closed(&mut half);
    }

    #[test]
    fn half_a_request_times_out() {
        let (mut client, mut theirs) = greeted(Peer {
            uid: 0,
            gid: 0,
            pid: 1,
        });
        assert_eq!(
            client.deadline, None,
            "a client between requests may wait for ever"
        );
        theirs.write_all(b"\0\0").unwrap();
        client.turn(&mut Counting(0), Duration::from_secs(3));
        theirs.write_all(b"\0").unwrap();
        client.turn(&mut Counting(0), Duration::from_secs(9));
        let deadline = Duration::from_secs(3) + REQUEST_TIMEOUT;
        assert_eq!(client.deadline, Some(deadline), "trickling gains no time");
    }

    #[test]
    fn who_does_not_greet_in_time_is_left() {
        let dir = TempDir::new().unwrap();
        let mut server = Server::bind(&dir.path().join("s")).unwrap();
        let mut silent = Stream::connect(dir.path().join("s")).unwrap();
        server.accept(Duration::ZERO);
        server.serve(&mut Counting(0), REQUEST_TIMEOUT - Duration::from_millis(1));
        assert!(server.clients[0].is_some());
        server.serve(&mut Counting(0), REQUEST_TIMEOUT);
        assert!(server.clients[0].is_none());
        assert_closed(&mut silent);
    }

    /// A greeted client with `peer`'s credentials, and the other end.
    fn greeted(peer: Peer) -> (Client, Stream) {
        let (ours, mut theirs) = Stream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut client = Client::new(UnixStream::from_std(ours), peer, Duration::ZERO);
        send(&mut theirs, &hello()).unwrap();
        client.turn(&mut Counting(0), Duration::ZERO);
        assert_eq!(receive::<Hello>(&mut theirs).unwrap(), hello());
        (client, theirs)
    }

    #[test]
    fn strangers_may_look_but_not_change() {
        let (daemon, group) = (geteuid().as_raw(), getegid().as_raw());
        let stranger = 4_000_000_000;
        for (uid, gid, allowed) in [
            (0, stranger, true),
            (daemon, stranger, true),
            (stranger, group, true),
            (stranger, stranger, false),
        ] {
            let (mut client, mut theirs) = greeted(Peer { uid, gid, pid: 1 });
            send(&mut theirs, &Request::Change(Vec::new())).unwrap();
            send(&mut theirs, &Request::Timeouts).unwrap();
            client.turn(&mut Counting(0), Duration::ZERO);
            match receive(&mut theirs).unwrap() {
                Reply::Done => assert!(allowed, "{uid} {gid}"),
                Reply::Refused(refusal) => {
                    assert!(!allowed && refusal.errno == Errno::Eperm, "{uid} {gid}")
                }
                other => panic!("{other:?}"),
            }
            assert!(matches!(
                receive(&mut theirs).unwrap(),
                Reply::Timeouts { .. }
            ));
        }
    }

    #[test]
    fn of_a_hundred_clients_64_are_served_and_the_rest_told_so() {
        let running = Running::start();
        let mut served: Vec<Stream> = (0..CLIENTS_MAX).map(|_| running.client()).collect();
        for _ in CLIENTS_MAX..100 {
            let mut stream = running.connect();
            receive::<Hello>(&mut stream).unwrap();
            assert_eq!(refused(&mut stream).errno, Errno::Eagain);
            assert_closed(&mut stream);
        }
        for stream in &mut served {
            assert!(matches!(
                ask(stream, &Request::Timeouts),
                Reply::Timeouts { .. }
            ));
        }
        served.truncate(10);
        thread::sleep(Duration::from_millis(200));
        running.assert_alive();
    }

    #[test]
    fn a_big_reply_reaches_a_slow_reader_whole() {
        let running = Running::start();
        let mut slow = running.client();
        send(&mut slow, &Request::Neighbours).unwrap();
        thread::sleep(Duration::from_millis(100));
        running.assert_alive();
        let mut len = [0; 4];
        slow.read_exact(&mut len).unwrap();
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        for (n, chunk) in body.chunks_mut(100_000).enumerate() {
            slow.read_exact(chunk).unwrap();
            if n % 10 == 0 {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let whole = [&len[..], &body].concat();
        let Reply::Neighbours(list) = receive(&mut whole.as_slice()).unwrap() else {
            panic!()
        };
        assert_eq!(list.len(), 5000);
        assert!(matches!(
            ask(&mut slow, &Request::Timeouts),
            Reply::Timeouts { .. }
        ));
    }

    #[test]
    fn a_reply_that_is_too_long_becomes_a_refusal() {
        let running = Running::start();
        let mut stream = running.client();
        send(&mut stream, &Request::Status).unwrap();
        assert_eq!(refused(&mut stream).errno, Errno::Enomem);
        assert!(matches!(
            ask(&mut stream, &Request::Timeouts),
            Reply::Timeouts { .. }
        ));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let running = Running::start();
        let error = Server::bind(&running.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("another directord answers at "),
            "{error}"
        );
        running.assert_alive();

        let dir = TempDir::new().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Server::bind(&path).unwrap();

        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Server::bind(&path).unwrap_err(),
            BindError::NotASocket(_)
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
