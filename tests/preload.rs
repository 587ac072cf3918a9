//! Programs with `libdirector_ipvs.so` in front of the C library. Debian's ipvsadm 1.31 does all that the
//! recordings of it on a real kernel say, and sockets are what they are with a kernel. Needs root, for
//! the names that the recordings use, and `cargo build -p director-ipvs`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use control::{Hello, VERSION, receive, send};
use dataplane::control::model::Model;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use system_tests::built;
use system_tests::recorded::{self, Outcome, Recording, shell_words};
use tempfile::TempDir;

const IPVSADM: &str = "/sbin/ipvsadm";
/// Raise it when a reason of [`exception`] falls: fewer compared means that something was lost.
const RECORDINGS_MIN: usize = 574;

const HOSTS: &str = "\
10.0.0.1 vip.example
192.168.1.11 rs1.example
fc00::1 vip6.example
";
const SERVICES: &str = "\
domain 53/tcp
domain 53/udp
http 80/tcp
https 443/tcp
https 443/udp
sip 5060/tcp
sip 5060/udp
mdns 5353/udp
http-alt 8080/tcp
";

/// Why a recording cannot be as it was.
fn exception(recording: &Recording) -> Option<&'static str> {
    let starts = |command: &str| command.starts_with("ipvsadm --start-daemon");
    let by_grammar = recording.step.rc == 2;
    if !by_grammar && starts(&recording.step.cmd) || recording.setup.iter().any(|c| starts(c)) {
        return Some("the director does not synchronise connections yet");
    }
    if recording.step.cmd.starts_with("cat /proc") {
        return Some("no program reads this file");
    }
    None
}

/// Answers on a socket for a director that has only its model.
struct Server {
    folder: TempDir,
    model: Arc<Mutex<Model>>,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Arc::new(Mutex::new(recorded::model()));
        let server = Self { folder, model };
        let listener = UnixListener::bind(server.socket()).unwrap();
        let model = Arc::clone(&server.model);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that leaves is no failure of ours.
                let _ = serve(&mut stream.unwrap(), &model);
            }
        });
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn forget(&self) {
        *self.model.lock().unwrap() = recorded::model();
    }

    fn run(&self, command: &str, stdin: &str) -> Outcome {
        let words = shell_words(command);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env("LD_PRELOAD", built("libdirector_ipvs.so"))
            .env("DIRECTOR_SOCKET", self.socket())
            .env("LC_ALL", "C")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that ends without reading all of it is right, too.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let said = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome {
            stdout: text(said.stdout),
            stderr: text(said.stderr),
            rc: said.status.code().unwrap().try_into().unwrap(),
        }
    }
}

fn serve(stream: &mut UnixStream, model: &Mutex<Model>) -> std::io::Result<()> {
    let _: Hello = receive(stream)?;
    let hello = Hello {
        version: VERSION,
        program: "a model".into(),
    };
    send(stream, &hello)?;
    loop {
        let request = receive(stream)?;
        let reply = recorded::answered(&mut model.lock().unwrap(), &request);
        send(stream, &reply)?;
    }
}

/// This thread, and what it starts, sees the names of the machine that made the recordings.
fn take_recorded_names(folder: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("root can have mounts of his own");
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    for (name, text) in [
        ("hosts", HOSTS),
        ("services", SERVICES),
        ("nsswitch.conf", "hosts: files\nservices: files\n"),
    ] {
        let (ours, theirs) = (folder.join(name), Path::new("/etc").join(name));
        fs::write(&ours, text).unwrap();
        mount(Some(&ours), &theirs, none, MsFlags::MS_BIND, none).unwrap();
    }
}

/// Said, and skipped, where it is not installed; `scripts/test` installs it first.
fn is_installed() -> bool {
    let there = Path::new(IPVSADM).exists();
    if !there {
        println!("skipped: {IPVSADM} is missing, scripts/install-deps installs it");
    }
    there
}

fn check(server: &Server, recording: &Recording) -> Vec<String> {
    server.forget();
    for command in &recording.setup {
        server.run(command, "");
    }
    let outcome = server.run(&recording.step.cmd, &recording.stdin);
    let first = recording.difference(&recording.step, &outcome);
    let later = (recording.after.iter())
        .filter_map(|step| recording.difference(step, &server.run(&step.cmd, "")));
    first.into_iter().chain(later).collect()
}

#[test]
fn debians_ipvsadm_as_recorded() {
    if !is_installed() {
        return;
    }
    let server = Server::start();
    take_recorded_names(server.folder.path());
    let (mut compared, mut wrong) = (0, Vec::new());
    for recording in recorded::recordings() {
        match exception(&recording) {
            Some(reason) => println!("{}: {reason}", recording.step.cmd),
            None => {
                compared += 1;
                wrong.extend(check(&server, &recording));
            }
        }
    }
    println!("{compared} recordings compared");
    recorded::assert_equal(compared, &wrong, RECORDINGS_MIN);
}

#[test]
fn sockets_are_as_with_a_kernel() {
    let server = Server::start();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/netlink-program");
    let outcome = server.run(program, "");
    assert_eq!(outcome, Outcome::default(), "{}", outcome.stderr);
}
