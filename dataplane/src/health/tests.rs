//! Against real servers on the loopback, which fail in each way. What is waited for is a verdict.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use control::{Dns, DnsRecord, Fitness, Http, Payload, Probe, Rcode, Rhythm, StatusSet, Talk, Tls};
use crossbeam::channel::{Receiver, unbounded};
use nix::sys::socket::{setsockopt, sockopt};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};

use super::{Check, Engine, Gate, Outcome, Spec, Way};
use crate::templates::{Key, Templates};
use crate::time::Clock;
use crate::update::ServerId;

/// Whoever waits longer waits in vain.
const IN_VAIN: Duration = Duration::from_secs(60);

/// Often, and patient.
const RHYTHM: Rhythm = Rhythm {
    interval_ms: 50,
    timeout_ms: 30_000,
    rise: 1,
    fall: 1,
    retries: 0,
    retry_ms: 10,
    jitter: 10,
};

struct Lab {
    engine: Engine,
    changes: Receiver<Arc<Check>>,
}

impl Lab {
    fn new() -> Self {
        let (sender, changes) = unbounded();
        let engine = Engine::start(None, sender, || {}).unwrap();
        Self { engine, changes }
    }

    fn watch(&mut self, specs: impl IntoIterator<Item = Spec>) {
        self.engine.watch(specs.into_iter().collect());
    }

    /// The next verdict, and the words of the probe that gave it.
    fn next(&self) -> (Fitness, String) {
        let check = self.changes.recv_timeout(IN_VAIN).expect("a verdict");
        let status = check.status();
        (
            status.fitness,
            status.last.unwrap().outcome.text().to_owned(),
        )
    }
}

/// The first verdict about a target.
fn verdict(target: SocketAddr, probe: Probe) -> (Fitness, String) {
    verdict_within(target, probe, RHYTHM.timeout_ms)
}

fn verdict_within(target: SocketAddr, probe: Probe, timeout_ms: u32) -> (Fitness, String) {
    let mut lab = Lab::new();
    let rhythm = Rhythm {
        timeout_ms,
        ..RHYTHM
    };
    lab.watch([Spec {
        target,
        way: None,
        probe,
        rhythm,
    }]);
    lab.next()
}

#[track_caller]
fn is_up(target: SocketAddr, probe: Probe) {
    assert_eq!(verdict(target, probe), (Fitness::Up, "ok".to_owned()));
}

#[track_caller]
fn is_down(target: SocketAddr, probe: Probe, words: &str) {
    let (fitness, said) = verdict(target, probe);
    assert_eq!(fitness, Fitness::Down);
    assert!(said.contains(words), "{said:?} instead of {words:?}");
}

#[track_caller]
fn is_too_late(target: SocketAddr, probe: Probe) {
    let (fitness, said) = verdict_within(target, probe, 100);
    assert_eq!(
        (fitness, said.as_str()),
        (Fitness::Down, "no answer within 100 ms")
    );
}

fn talk(send: &str, expect: &str) -> Talk {
    let payload = |text: &str| Payload::try_from(text.to_owned()).unwrap();
    Talk {
        send: payload(send),
        expect: payload(expect),
    }
}

/// Serves each connection so, for as long as the test runs.
fn tcp(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    address
}

/// Answers each datagram so.
fn udp(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut piece = [0; 2048];
        while let Ok((n, from)) = socket.recv_from(&mut piece) {
            if let Some(answer) = answer(&piece[..n]) {
                socket.send_to(&answer, from).unwrap();
            }
        }
    });
    address
}

/// Nobody listens there.
fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Holds connections and says nothing.
fn silent() -> SocketAddr {
    tcp(std::mem::forget)
}

fn reset(stream: &TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(stream, sockopt::Linger, &linger).unwrap();
}

#[test]
fn tcp_servers() {
    is_up(silent(), Probe::Tcp(Talk::default()));
    is_down(closed(), Probe::Tcp(Talk::default()), "connection refused");
    is_up(
        tcp(|mut stream| drop(stream.write_all(b"220 ready\r\n"))),
        Probe::Tcp(talk("", "220 ")),
    );
    is_down(
        tcp(|mut stream| drop(stream.write_all(b"421 busy\r\n"))),
        Probe::Tcp(talk("", "220 ")),
        "answered \"421 busy\\r\\n\"",
    );
    is_down(tcp(drop), Probe::Tcp(talk("", "220 ")), "answered nothing");
    is_down(
        tcp(|stream| reset(&stream)),
        Probe::Tcp(talk("", "220 ")),
        "connection reset",
    );
    is_too_late(silent(), Probe::Tcp(talk("hello", "220 ")));
}

/// A probe by the director, which takes it when `takes`; what it comes to.
fn by_director(takes: bool, side: Option<&str>) -> (Fitness, String) {
    let templates = Arc::new(Templates::new(64, [1, 2]).unwrap());
    let gate = Gate {
        templates: Arc::clone(&templates),
        clock: Clock::start(),
    };
    let clock = gate.clock;
    let server = tcp(move |mut stream| {
        let (from, to) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
        let key = Key::probe(6, from.port(), to);
        if takes && let Some(laid) = templates.take(&key, clock.now().0) {
            assert_eq!(templates.tie(&laid).server, ServerId(7));
            templates.release(laid);
        }
        request(&mut stream);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    });
    let way = Way {
        server: ServerId(7),
        side: side.map(str::to_owned),
    };
    let mut said = Vec::new();
    for probe in [
        Probe::Tcp(talk("GET / HTTP/1.0\r\n\r\n", "200")),
        Probe::Http(http()),
    ] {
        let (sender, changes) = unbounded();
        let mut engine = Engine::start(Some(gate.clone()), sender, || {}).unwrap();
        let spec = Spec {
            target: server,
            way: Some(way.clone()),
            probe,
            rhythm: RHYTHM,
        };
        engine.watch(HashSet::from([spec.clone()]));
        let check = Arc::clone(engine.check(&spec).unwrap());
        let status = loop {
            let _ = changes.recv_timeout(Duration::from_millis(1));
            let status = check.status();
            if status.last.is_some() {
                break status;
            }
        };
        let words = status.last.unwrap().outcome.text().to_owned();
        said.push((status.fitness, words));
    }
    assert_eq!(said[0], said[1]);
    said.remove(0)
}

#[test]
fn probes_by_the_director() {
    assert_eq!(
        by_director(true, Some("lo")),
        (Fitness::Up, "ok".to_owned())
    );
    // No verdict on the server's account.
    let unknown = |words: &str| (Fitness::Unknown, words.to_owned());
    let other = unknown("something else answered than what the director had from lo");
    assert_eq!(by_director(false, Some("lo")), other);
    let none = unknown("no port has the kernel beside it");
    assert_eq!(by_director(true, None), none);
    let gone = unknown("nowhere: no such device");
    assert_eq!(by_director(true, Some("nowhere")), gone);
}

#[test]
fn a_tcp_server_is_told_something() {
    let echo = tcp(|mut stream| {
        let mut piece = [0; 4];
        stream.read_exact(&mut piece).unwrap();
        stream.write_all(&piece).unwrap();
    });
    is_up(echo, Probe::Tcp(talk("0x50494e47", "PING")));
}

#[test]
fn udp_servers() {
    let echo = || udp(|datagram| Some(datagram.to_vec()));
    is_up(echo(), Probe::Udp(talk("PING", "PING")));
    is_down(
        echo(),
        Probe::Udp(talk("PING", "PONG")),
        "answered \"PING\"",
    );
    is_down(closed(), Probe::Udp(talk("PING", "")), "port unreachable");
    let mute = || udp(|_| None);
    is_too_late(mute(), Probe::Udp(talk("PING", "PONG")));
    // Nothing is expected: as long as nobody says that there is none.
    let (fitness, _) = verdict_within(mute(), Probe::Udp(talk("PING", "")), 50);
    assert_eq!(fitness, Fitness::Up);
}

/// Answers each request with this, and what the request was.
fn web(head: &'static str) -> SocketAddr {
    tcp(move |mut stream| {
        let request = request(&mut stream);
        let _ = write!(
            stream,
            "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{request}"
        );
    })
}

fn request(stream: &mut TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines();
    let mut request = String::new();
    while let Some(Ok(line)) = lines.next()
        && !line.is_empty()
    {
        request.push_str(&line);
        request.push('\n');
    }
    request
}

fn http() -> Http {
    Http::default()
}

fn with_body(body: &str) -> Probe {
    Probe::Http(Http {
        body: body.to_owned(),
        ..http()
    })
}

#[test]
fn web_servers() {
    is_up(web("200 OK"), Probe::Http(http()));
    is_up(
        web("302 Found\r\nLocation: http://nowhere.invalid/"),
        Probe::Http(http()),
    );
    is_down(web("500 Oops"), Probe::Http(http()), "status 500");
    is_down(
        web("200 OK"),
        with_body("welcome"),
        "status 200, without \"welcome\" in the body",
    );
    is_down(closed(), Probe::Http(http()), "connection refused");
    is_down(
        tcp(|mut stream| drop(stream.write_all(b"220 smtp\r\n"))),
        Probe::Http(http()),
        "HTTP",
    );
    is_too_late(silent(), Probe::Http(http()));
    let only = Http {
        status: StatusSet::try_from("204,300-301".to_owned()).unwrap(),
        ..http()
    };
    is_down(web("200 OK"), Probe::Http(only.clone()), "status 200");
    is_up(web("204 None"), Probe::Http(only));
}

#[test]
fn a_request_is_as_it_was_configured() {
    let asked = Http {
        method: "OPTIONS".to_owned(),
        path: "/a/../b?c=d".to_owned(),
        host: Some("shop.example".to_owned()),
        body: "OPTIONS /a/../b?c=d HTTP/1.1\nHost: shop.example\n".to_owned(),
        ..http()
    };
    is_up(web("200 OK"), Probe::Http(asked));
    let target = web("200 OK");
    is_up(target, with_body(&format!("Host: {target}\n")));
    let head = Http {
        method: "HEAD".to_owned(),
        ..http()
    };
    is_up(web("200 OK"), Probe::Http(head));
}

#[test]
fn a_web_server_that_stops_half_way() {
    let half = |ends: fn(&TcpStream)| {
        tcp(move |mut stream| {
            request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nwelcome");
            ends(&stream);
        })
    };
    is_down(half(reset), with_body("welcome"), "");
    is_down(half(|_| {}), with_body("welcome"), "");
    let stuck = tcp(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nwel");
        std::mem::forget(stream);
    });
    is_too_late(stuck, with_body("welcome"));
}

#[test]
fn of_a_long_body_the_beginning_is_looked_at() {
    let long = || {
        tcp(|mut stream| {
            request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nwelcome");
            while stream.write_all(&[b'.'; 4096]).is_ok() {}
        })
    };
    is_up(long(), with_body("welcome"));
    is_down(long(), with_body("sorry"), "without \"sorry\"");
}

/// `openssl s_server`, which answers every request.
struct Secure {
    server: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Secure {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let openssl = |words: &str| {
            let mut command = Command::new("openssl");
            command.args(words.split(' ')).current_dir(dir.path());
            command.stderr(Stdio::null()).stdin(Stdio::null());
            command
        };
        let made = openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert \
             -subj /CN=web.example -addext subjectAltName=DNS:web.example",
        );
        assert!({ made }.status().unwrap().success());
        let mut server = openssl("s_server -accept 127.0.0.1:0 -cert cert -key key -www");
        let mut server = server.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("ACCEPT ")?.parse().ok());
        std::thread::spawn(move || lines.count());
        Self {
            server,
            address: address.unwrap(),
            dir,
        }
    }

    fn certificate(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn secure_web_servers() {
    let secure = Secure::new();
    let to = secure.address;
    let https = |sni: Option<&str>, verify, ca_file| {
        Probe::Http(Http {
            tls: Some(Tls {
                sni: sni.map(str::to_owned),
                verify,
                ca_file,
            }),
            ..http()
        })
    };
    let ca = secure.certificate().join("cert").display().to_string();
    is_up(to, https(None, false, None));
    is_up(to, https(Some("web.example"), true, Some(ca.clone())));
    is_down(to, https(Some("web.example"), true, None), "certificate");
    is_down(
        to,
        https(Some("other.example"), true, Some(ca.clone())),
        "other.example",
    );
    is_down(to, https(None, true, Some(ca)), "127.0.0.1");
    is_down(web("200 OK"), https(None, false, None), "SSL");
    is_down(closed(), https(None, false, None), "connection refused");
    is_too_late(silent(), https(None, false, None));
}

fn dns(rcode: Rcode, answer: Option<&str>) -> Probe {
    Probe::Dns(Dns {
        name: "health.example".to_owned(),
        record: DnsRecord::A,
        rcode,
        answer: answer.map(str::to_owned),
    })
}

/// Knows one name.
fn name_server(rcode: RCODE) -> SocketAddr {
    udp(move |question| {
        let question = Packet::parse(question).ok()?;
        let mut answer = Packet::new_reply(question.id());
        answer.set_flags(PacketFlag::RESPONSE);
        *answer.rcode_mut() = rcode;
        let name = question.questions.first()?.qname.clone();
        answer.questions = question.questions;
        if rcode == RCODE::NoError && name == Name::new_unchecked("health.example") {
            let address = RData::A(A {
                address: 0x0a00_0001,
            });
            answer
                .answers
                .push(ResourceRecord::new(name, CLASS::IN, 60, address));
        }
        answer.build_bytes_vec().ok()
    })
}

#[test]
fn name_servers() {
    is_up(name_server(RCODE::NoError), dns(Rcode::NoError, None));
    is_up(
        name_server(RCODE::NoError),
        dns(Rcode::NoError, Some("10.0.0.1")),
    );
    is_down(
        name_server(RCODE::NoError),
        dns(Rcode::NoError, Some("10.0.0.2")),
        "answered 10.0.0.1",
    );
    is_down(
        name_server(RCODE::NameError),
        dns(Rcode::NoError, None),
        "answered NXDOMAIN",
    );
    is_up(name_server(RCODE::NameError), dns(Rcode::NxDomain, None));
    is_down(
        name_server(RCODE::NameError),
        dns(Rcode::NxDomain, Some("10.0.0.1")),
        "no record",
    );
    is_down(
        udp(|_| Some(b"?".to_vec())),
        dns(Rcode::NoError, None),
        "no DNS",
    );
    is_down(
        udp(|question| {
            let mut answer = question.to_vec();
            answer[0] ^= 1;
            answer[2] |= 0x80;
            Some(answer)
        }),
        dns(Rcode::NoError, None),
        "another question",
    );
    is_down(closed(), dns(Rcode::NoError, None), "port unreachable");
    is_too_late(udp(|_| None), dns(Rcode::NoError, None));
}

#[test]
fn echo_is_answered() {
    if !nix::unistd::geteuid().is_root() {
        return; // raw sockets are root's
    }
    is_up("127.0.0.1:0".parse().unwrap(), Probe::Icmp);
    is_up("[::1]:0".parse().unwrap(), Probe::Icmp);
}

fn command(words: &[&str]) -> Probe {
    Probe::Command(words.iter().map(|&word| word.to_owned()).collect())
}

#[test]
fn commands() {
    let to = "192.0.2.1:80".parse().unwrap();
    is_up(to, command(&["true"]));
    is_down(to, command(&["sh", "-c", "exit 3"]), "exited with 3");
    is_down(
        to,
        command(&["sh", "-c", "kill -9 $$"]),
        "ended by signal 9",
    );
    let knows = "[ $CHECK_ADDRESS:$CHECK_PORT = 192.0.2.1:80 ]";
    is_up(to, command(&["sh", "-c", knows]));
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let script = format!("sleep 1000 > {} & wait", fifo.display());
    let to = "192.0.2.1:80".parse().unwrap();
    let mut lab = Lab::new();
    let rhythm = Rhythm {
        interval_ms: 3_600_000,
        timeout_ms: 300,
        ..RHYTHM
    };
    // The first one at once, and no second one.
    let probe = command(&["sh", "-c", &script]);
    let spec = |interval_ms| Spec {
        target: to,
        way: None,
        probe: probe.clone(),
        rhythm: Rhythm {
            interval_ms,
            ..rhythm
        },
    };
    lab.watch([spec(50)]);
    // Whoever holds the other end lets go of it when it dies.
    let mut end = std::fs::File::open(&fifo).unwrap();
    let (fitness, words) = lab.next();
    assert_eq!(
        (fitness, words.as_str()),
        (Fitness::Down, "still ran after 300 ms")
    );
    lab.watch([]);
    assert_eq!(end.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_cannot_be_run_says_nothing_of_a_server() {
    let mut lab = Lab::new();
    let spec = Spec {
        target: "192.0.2.1:80".parse().unwrap(),
        way: None,
        probe: command(&["/nowhere"]),
        rhythm: RHYTHM,
    };
    lab.watch([spec.clone()]);
    let check = Arc::clone(lab.engine.check(&spec).unwrap());
    let outcome = until(|| check.status().last).outcome;
    let words = "cannot run /nowhere: no such file or directory";
    assert_eq!(outcome, Outcome::Unsent(words.to_owned()));
    assert_eq!(check.fitness(), Fitness::Unknown);
}

/// What there is some time.
fn until<T>(look: impl Fn() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_server_that_dies_and_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let mut lab = Lab::new();
    lab.watch([Spec {
        target,
        way: None,
        probe: Probe::Tcp(Talk::default()),
        rhythm: Rhythm {
            rise: 3,
            fall: 2,
            ..RHYTHM
        },
    }]);
    assert_eq!(lab.next().0, Fitness::Up);
    drop(listener);
    assert_eq!(lab.next(), (Fitness::Down, "connection refused".to_owned()));
    let _listener = until(|| TcpListener::bind(target).ok());
    assert_eq!(lab.next(), (Fitness::Up, "ok".to_owned()));
}

#[test]
fn what_does_not_change_stays_as_it_is() {
    let spec = |target| Spec {
        target,
        way: None,
        probe: Probe::Tcp(Talk::default()),
        rhythm: RHYTHM,
    };
    let (a, b, c) = (spec(silent()), spec(silent()), spec(closed()));
    let mut lab = Lab::new();
    lab.watch([a.clone(), b.clone()]);
    assert_eq!((lab.next().0, lab.next().0), (Fitness::Up, Fitness::Up));
    let kept = Arc::clone(lab.engine.check(&a).unwrap());
    let gone = Arc::downgrade(lab.engine.check(&b).unwrap());
    lab.watch([a.clone(), c]);
    // Of the two only the new one has a verdict to give.
    assert_eq!(lab.next().0, Fitness::Down);
    assert!(Arc::ptr_eq(&kept, lab.engine.check(&a).unwrap()));
    assert_eq!(kept.fitness(), Fitness::Up);
    until(|| gone.upgrade().is_none().then_some(()));
}

#[test]
fn a_thousand_servers() {
    let target = silent();
    let spec = |n: u32| Spec {
        target,
        way: None,
        probe: Probe::Tcp(Talk::default()),
        rhythm: Rhythm {
            interval_ms: 1000 + n,
            ..RHYTHM
        },
    };
    let mut lab = Lab::new();
    lab.watch((0..1000).map(spec));
    let verdicts: HashSet<_> = (0..1000).map(|_| lab.next().0).collect();
    assert_eq!(verdicts, HashSet::from([Fitness::Up]));
}
