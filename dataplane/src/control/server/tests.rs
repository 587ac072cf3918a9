//! Clients that behave, and clients that do not.

use std::io::{Read, Write};
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
                state: control::NeighbourState::Failed,
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
            Request::Status => neighbours(control::MESSAGE_MAX / 1000),
            _ => Reply::Done,
        }
    }

    fn tick(&mut self, _: Duration) {}
}

/// The daemon's own group alone.
fn own() -> Access {
    Access::by_name(None, None).unwrap()
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
        let mut server = Server::bind(&dir.path().join("run/director.sock"), own()).unwrap();
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
    drop(Server::bind(&path, own()).unwrap());
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
            "a message of 4294967295 bytes is too long, at most 67108864 is right",
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
    let (mut client, mut theirs) = greeted(Rights::Everything);
    assert_eq!(
        client.deadline, None,
        "a client between requests may wait for ever"
    );
    theirs.write_all(b"\0\0").unwrap();
    turn(&mut client, Duration::from_secs(3));
    theirs.write_all(b"\0").unwrap();
    turn(&mut client, Duration::from_secs(9));
    let deadline = Duration::from_secs(3) + REQUEST_TIMEOUT;
    assert_eq!(client.deadline, Some(deadline), "trickling gains no time");
}

#[test]
fn who_does_not_greet_in_time_is_left() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::bind(&dir.path().join("s"), own()).unwrap();
    let mut silent = Stream::connect(dir.path().join("s")).unwrap();
    server.accept(Duration::ZERO);
    server.serve(&mut Counting(0), REQUEST_TIMEOUT - Duration::from_millis(1));
    assert!(server.clients[0].is_some());
    server.serve(&mut Counting(0), REQUEST_TIMEOUT);
    assert!(server.clients[0].is_none());
    assert_closed(&mut silent);
}

/// A greeted client that may do so much, and the other end.
fn greeted(rights: Rights) -> (Client, Stream) {
    let (ours, mut theirs) = Stream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let peer = peer(0, rights);
    let mut client = Client::new(UnixStream::from_std(ours), peer, Duration::ZERO);
    send(&mut theirs, &hello()).unwrap();
    turn(&mut client, Duration::ZERO);
    assert_eq!(receive::<Hello>(&mut theirs).unwrap(), hello());
    (client, theirs)
}

fn peer(uid: u32, rights: Rights) -> Peer {
    let (gid, pid) = (0, 1);
    Peer {
        uid,
        gid,
        pid,
        rights,
        client: 1,
    }
}

fn turn(client: &mut Client, now: Duration) {
    client.turn(
        &mut Counting(0),
        now,
        &mut Shares::default(),
        &mut Complaints::default(),
    );
}

#[test]
fn who_may_only_look_changes_nothing_and_sends_little() {
    for (rights, allowed) in [(Rights::Everything, true), (Rights::Look, false)] {
        let (mut client, mut theirs) = greeted(rights);
        send(&mut theirs, &Request::Change(Vec::new())).unwrap();
        send(&mut theirs, &Request::Timeouts).unwrap();
        turn(&mut client, Duration::ZERO);
        match receive(&mut theirs).unwrap() {
            Reply::Done => assert!(allowed),
            Reply::Refused(refusal) => assert!(!allowed && refusal.errno == Errno::Eperm),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            receive(&mut theirs).unwrap(),
            Reply::Timeouts { .. }
        ));
        theirs.write_all(&(2u32 << 20).to_be_bytes()).unwrap();
        turn(&mut client, Duration::ZERO);
        if !allowed {
            assert_eq!(
                refused(&mut theirs).detail,
                "a message of 2097152 bytes is too long, at most 1048576 is right"
            );
        }
    }
}

/// A server with `n` clients of a user.
fn crowded(server: &mut Server, uid: u32, rights: Rights, n: usize) -> Vec<Stream> {
    let welcome = |_| {
        let (ours, theirs) = Stream::pair().unwrap();
        let slot = server.slot(&peer(uid, rights)).unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = UnixStream::from_std(ours);
        server.clients[slot] = Some(Client::new(ours, peer(uid, rights), Duration::ZERO));
        theirs
    };
    (0..n).map(welcome).collect()
}

#[test]
fn no_user_takes_every_place() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::bind(&dir.path().join("s"), own()).unwrap();
    let errno = |slot: Result<usize, Refusal>| slot.unwrap_err().errno;
    let mut open = crowded(&mut server, 1, Rights::Look, CLIENTS_PER_USER);
    assert_eq!(
        errno(server.slot(&peer(1, Rights::Look))),
        Errno::Eagain,
        "one user has enough"
    );
    for uid in 2..4 {
        open.extend(crowded(&mut server, uid, Rights::Look, CLIENTS_PER_USER));
    }
    let left = CLIENTS_PER_USER - CLIENTS_KEPT;
    open.extend(crowded(&mut server, 4, Rights::Look, left));
    assert_eq!(
        errno(server.slot(&peer(5, Rights::Look))),
        Errno::Eagain,
        "the last are kept"
    );
    open.extend(crowded(&mut server, 0, Rights::Everything, CLIENTS_KEPT));
    assert_eq!(
        errno(server.slot(&peer(0, Rights::Everything))),
        Errno::Eagain,
        "full"
    );
    let stranger = server.slot(&peer(6, Rights::Nothing));
    assert_eq!(errno(stranger), Errno::Eperm);
    assert_eq!(open.len(), CLIENTS_MAX);
}

/// Takes its time over each request.
struct Slow;

impl Backend for Slow {
    fn handle(&mut self, _: Request, _: &Peer) -> Reply {
        thread::sleep(share::ROUND_TIME);
        Reply::Done
    }

    fn tick(&mut self, _: Duration) {}
}

/// Whoever asks much waits for himself: all others have their turn after one request of his.
#[test]
fn a_user_who_asks_much_waits_for_himself() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::bind(&dir.path().join("s"), own()).unwrap();
    let mut greedy = crowded(&mut server, 1, Rights::Look, 20);
    let mut modest = crowded(&mut server, 2, Rights::Look, 1);
    for stream in greedy.iter_mut().chain(&mut modest) {
        send(stream, &hello()).unwrap();
        for _ in 0..3 {
            send(stream, &Request::Timeouts).unwrap();
        }
    }
    let mut rounds = 1;
    while server.serve(&mut Slow, Duration::ZERO) {
        rounds += 1;
        if rounds == 5 {
            let waits = server.clients[20].as_ref().map(|client| client.ready);
            assert_eq!(waits, Some(false), "the modest one has all its answers");
        }
    }
    // One request a round for each user: 3 of the modest one, 60 of the greedy one.
    assert!((60..=64).contains(&rounds), "{rounds}");
    let served = |stream: &mut Stream| {
        stream.set_nonblocking(false).unwrap();
        assert_eq!(receive::<Hello>(stream).unwrap(), hello());
        (0..3).all(|_| receive::<Reply>(stream).unwrap() == Reply::Done)
    };
    assert!(greedy.iter_mut().chain(&mut modest).all(served));
}

#[test]
fn what_waits_of_one_user_is_bounded() {
    let (mut client, mut theirs) = greeted(Rights::Look);
    let mut shares = Shares::default();
    shares.add_waiting(0, share::WAITING_MAX_LOOKING + 1);
    send(&mut theirs, &Request::Timeouts).unwrap();
    let now = Duration::ZERO;
    let mut complaints = Complaints::default();
    client.turn(&mut Counting(0), now, &mut shares, &mut complaints);
    assert_eq!(refused(&mut theirs).errno, Errno::Eagain);
}

#[test]
fn the_log_is_not_filled_by_complaints() {
    let (mut complaints, mut lines) = (Complaints::default(), 0);
    for ms in 0..3000 {
        complaints.add(Duration::from_millis(ms), || lines += 1);
    }
    assert_eq!(lines, 30);
}

/// Half requests, garbage, floods, and a thousand of them at once: others are served meanwhile.
#[test]
fn a_thousand_hostile_clients_hold_nobody_up() {
    let running = Running::start();
    let mut half = Vec::new();
    send(&mut half, &Request::Timeouts).unwrap();
    let mut open = Vec::new();
    for n in 0..900 {
        let mut stream = running.connect();
        match n % 3 {
            0 => {} // never says hello
            1 => {
                send(&mut stream, &hello()).unwrap();
                stream.write_all(&half[..half.len() / 2]).unwrap();
            }
            _ => {
                // Asks again and again and takes no answer.
                send(&mut stream, &hello()).unwrap();
                stream.set_nonblocking(true).unwrap();
                while stream.write(&half).is_ok_and(|n| n == half.len()) {}
            }
        }
        open.push(stream);
        if n % 100 == 0 {
            running.assert_alive();
        }
    }
    for _ in 0..100 {
        let mut stream = running.connect();
        let _ = stream.write_all(&[0xff; 100]);
        receive::<Reply>(&mut stream).unwrap();
    }
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
    let error = Server::bind(&running.path(), own()).unwrap_err();
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
    Server::bind(&path, own()).unwrap();

    let path = dir.path().join("file");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(
        Server::bind(&path, own()).unwrap_err(),
        BindError::NotASocket(_)
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
