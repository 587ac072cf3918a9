//! The built programs against each other: a daemon on devices that carry nothing, and what people
//! type at it. Needs root and `cargo build -p dataplane -p ctl`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use system_tests::built;
use tempfile::TempDir;

/// How often a daemon that starts is asked, 50 ms apart.
const ATTEMPTS_MAX: u32 = 400;
const NOBODY: u32 = 65534;

/// Programs are copied, and what one test is writing another must not inherit and keep busy.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A folder with a configuration, a socket and the command line under its names.
struct Place {
    folder: TempDir,
    prefix: String,
}

/// A running daemon; killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(format!("/var/run/dpdk/{}", self.prefix));
    }
}

/// What a program left behind.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(built("directorctl"), folder.path().join("directorctl")).unwrap();
        for name in ["ipvsadm", "ipvsadm-save", "ipvsadm-restore"] {
            symlink("directorctl", folder.path().join(name)).unwrap();
        }
        let prefix = format!("control-test-{}", std::process::id());
        let place = Self { folder, prefix };
        place.configure("director.toml", &place.prefix, "");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, file: &str, prefix: &str, more: &str) {
        let port = |n| {
            format!(
                "[[port]]\nname = \"p{n}\"\ndevice = \"net_null{n},no-rx=1\"\naddresses = [\"10.{n}.0.254/24\"]\n"
            )
        };
        let text = format!(
            "[director]\nsocket = {:?}\nworkers = [0]\nmax_connections = 1024\n{more}\
             [eal]\nhuge_pages = false\nmemory_mb = 128\nfile_prefix = {prefix:?}\nmbufs = 8192\n{}{}",
            self.path("director.sock"),
            port(0),
            port(1)
        );
        fs::write(self.path(file), text).unwrap();
    }

    fn daemon(&self, file: &str) -> Command {
        let mut command = Command::new(built("directord"));
        command.arg("--config").arg(self.path(file));
        command
    }

    /// A daemon that answers.
    fn start(&self) -> Daemon {
        self.start_by("director.toml")
    }

    fn start_by(&self, file: &str) -> Daemon {
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = self.daemon(file);
        let mut daemon = Daemon(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let mut attempts = 0;
        while self.ask("directorctl status").code != Some(0) {
            let log = || fs::read_to_string(self.path("log")).unwrap();
            assert!(daemon.0.try_wait().unwrap().is_none(), "ended: {}", log());
            attempts += 1;
            assert!(attempts < ATTEMPTS_MAX, "does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    fn command(&self, line: &str) -> Command {
        let mut words = line.split_ascii_whitespace();
        let mut command = Command::new(self.path(words.next().unwrap()));
        command
            .args(words)
            .env("DIRECTOR_SOCKET", self.path("director.sock"));
        command
    }

    fn ask(&self, line: &str) -> Said {
        self.command(line).output().unwrap().into()
    }

    fn feed(&self, line: &str, input: &str) -> Said {
        fs::write(self.path("input"), input).unwrap();
        let input = fs::File::open(self.path("input")).unwrap();
        self.command(line).stdin(input).output().unwrap().into()
    }

    /// The standard output of a line that must succeed.
    fn done(&self, line: &str) -> String {
        let said = self.ask(line);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{line}");
        said.out
    }

    /// A line that must fail with `code` and end with these words on stderr.
    fn fails(&self, line: &str, code: i32, words: &str) {
        let said = self.ask(line);
        assert_eq!(said.code, Some(code), "{line}: {}", said.err);
        assert!(said.err.trim_end().ends_with(words), "{line}: {}", said.err);
    }
}

/// Members of one group may change things, of another look, and others nothing.
#[test]
fn each_group_has_its_rights() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let groups = "socket_group = \"daemon\"\nsocket_read_group = \"games\"\n";
    place.configure("groups.toml", &place.prefix, groups);
    let _daemon = place.start_by("groups.toml");
    let (admins, readers) = (1, 60);
    let of = |gid: u32, line: &str| -> Said {
        let mut command = place.command(line);
        command.uid(NOBODY).gid(gid).output().unwrap().into()
    };
    let add = "directorctl service add tcp 10.0.0.1:80";
    let said = of(admins, add);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let said = of(readers, "ipvsadm -Ln");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert!(said.out.contains("TCP  10.0.0.1:80 wlc"), "{}", said.out);
    let only = "only root, the daemon's user and";
    for (gid, line) in [
        (readers, "directorctl service delete tcp 10.0.0.1:80"),
        (readers, "directorctl connection kill --all"),
        (NOBODY, "directorctl status"),
    ] {
        let said = of(gid, line);
        assert_eq!(said.code, Some(1), "{line}");
        assert!(said.err.contains(only), "{line}: {}", said.err);
    }
    assert_eq!(
        of(readers, "ipvsadm -C").err,
        "Permission denied (you must be root)\n"
    );
    crowd(&place, readers);
}

/// A reader opens more connections than he may, half a request on each: others are served.
fn crowd(place: &Place, gid: u32) {
    let script = "import socket, sys\n\
        def send(s, text):\n    \
            try: s.sendall(len(text).to_bytes(4, 'big') + text)\n    \
            except BrokenPipeError: pass\n\
        def answer(s): return s.recv(int.from_bytes(s.recv(4), 'big'))\n\
        open = []\n\
        for _ in range(400):\n    \
            s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n    \
            send(s, b'{\"version\":%d,\"program\":\"x\"}' % int(sys.argv[2])); answer(s)\n    \
            send(s, b'\"timeouts\"')\n    \
            if b'tcp_fin' in answer(s): open.append(s)\n\
        for s in open: s.sendall(b'\\0\\0')\n\
        print(len(open), flush=True)\n\
        sys.stdin.read()\n";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(place.path("director.sock"))
        .arg(control::VERSION.to_string())
        .uid(NOBODY)
        .gid(gid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut served = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut served)
        .unwrap();
    assert_eq!(served.trim(), "256", "of one user");
    place.done("directorctl service delete tcp 10.0.0.1:80");
    let out = place.done("ipvsadm -Ln");
    assert!(!out.contains("10.0.0.1:80"), "{out}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn people_and_a_daemon() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    place.fails(
        "ipvsadm -Ln",
        2,
        "(is directord running? DIRECTOR_SOCKET names another path)",
    );
    let daemon = place.start();
    modern(&place);
    ipvsadm(&place);
    methods(&place);
    restores(&place);
    strangers(&place);
    second_daemon(&place);
    after_a_kill(&place, daemon);
}

fn modern(place: &Place) {
    assert!(place.done("directorctl version").contains("\ndirectord "));
    let status: Value = serde_json::from_str(&place.done("directorctl status --json")).unwrap();
    assert_eq!(status["balanced"], true);
    assert_eq!(status["ports"].as_array().unwrap().len(), 2);
    place.done("directorctl service add tcp 10.0.0.1:80 -s rr");
    place.done("directorctl server add tcp 10.0.0.1:80 10.1.0.2:80 -w 3");
    assert!(
        place
            .done("directorctl server list tcp 10.0.0.1:80")
            .ends_with("tcp 10.0.0.1:80   rr\n  10.1.0.2:80     nat       3       0         0\n")
    );
    for line in [
        "stats",
        "connection list",
        "neighbour list",
        "local-address list",
        "timeouts",
        "settings",
        "zero",
    ] {
        place.done(&format!("directorctl {line}"));
        let json = place.done(&format!("directorctl {line} --json"));
        serde_json::from_str::<Value>(&json).unwrap();
    }
    let again = "directorctl service add tcp 10.0.0.1:80";
    place.fails(
        again,
        1,
        "directorctl: service tcp 10.0.0.1:80 exists already",
    );
    let said = place.ask(&format!("{again} --json"));
    let refused: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (said.code, &refused["refused"]["errno"]),
        (Some(1), &"EEXIST".into())
    );
    place.fails(
        "directorctl service add udp 10.0.0.1:80 -s nope",
        1,
        "no scheduler \"nope\", known are rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos, conhash",
    );
}

fn ipvsadm(place: &Place) {
    assert_eq!(
        place.done("ipvsadm -Ln"),
        "IP Virtual Server version 1.2.1 (size=4096)\n\
         Prot LocalAddress:Port Scheduler Flags\n\
         \x20 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
         TCP  10.0.0.1:80 rr\n\
         \x20 -> 10.1.0.2:80                  Masq    3      0          0         \n"
    );
    place.fails("ipvsadm -D -t 10.9.9.9:80", 255, "No such service");
    place.fails(
        "ipvsadm --start-daemon master",
        2,
        "not supported by this director yet",
    );
    // The default method is direct routing, and leaves the port alone whatever is typed.
    place.done("ipvsadm -a -t 10.0.0.1:80 -r 10.1.0.3:81 -x 5 -y 3");
    let limits = "  -> 10.1.0.3:80                  5          3          0          0         \n";
    assert!(place.done("ipvsadm -Ln --thresholds").ends_with(limits));
    let listed = "  -> 10.1.0.3:80                  Route   1      0          0         \n";
    assert!(place.done("ipvsadm -Ln").ends_with(listed));
    let saved = "-a -t 10.0.0.1:80 -r 10.1.0.3:80 -g -w 1\n";
    assert!(place.done("ipvsadm -Sn").ends_with(saved));
    place.fails(
        "directorctl server add tcp 10.0.0.1:80 10.1.0.4:81 --method direct",
        1,
        "server 10.1.0.4:81 has another port than its service, 80 is right for direct routing",
    );
    place.fails("ipvsadm --bogus", 255, "for more information.");
}

/// Tunnels and FULLNAT with their extras, by both languages; the restore takes them along.
fn methods(place: &Place) {
    for line in [
        "service add tcp 10.0.0.9:80 -s rr --client-address proxy-v1",
        "service edit tcp 10.0.0.9:80 --mss 1380",
        "local-address add tcp 10.0.0.9:80 10.1.0.200",
        "server add tcp 10.0.0.9:80 10.1.0.2:8080 --method fullnat",
        "server add tcp 10.0.0.9:80 10.1.0.3:80 --method tunnel --tunnel gue --tunnel-port 6080",
        "server edit tcp 10.0.0.9:80 10.1.0.3:80 --tunnel-checksum full",
        "server edit tcp 10.0.0.9:80 10.1.0.3:80 -w 4",
        "settings --pmtu-disc false",
    ] {
        place.done(&format!("directorctl {line}"));
    }
    assert_eq!(
        place.done("directorctl server list tcp 10.0.0.9:80"),
        "SERVICE / SERVER  HOW                                    WEIGHT  ACTIVE  INACTIVE\n\
         tcp 10.0.0.9:80   rr, client address proxy-v1, mss 1380\n\
         \x20 10.1.0.200      local address\n\
         \x20 10.1.0.2:8080   fullnat                                     1       0         0\n\
         \x20 10.1.0.3:80     tunnel gue:6080 csum                        4       0         0\n"
    );
    assert!(place.done("directorctl settings").contains(
        "\npmtu-disc                        false  true     tunnels copy DF, and tell a packet's sender when it is too long\n"
    ));
    place.fails(
        "directorctl local-address add tcp 10.0.0.9:80 10.0.0.1",
        1,
        "10.0.0.1 is a service's address, a local address needs another one",
    );
    for line in [
        "ipvsadm -A -u [2001:db8::9]:53 -s wrr",
        "ipvsadm -a -u [2001:db8::9]:53 -r [2001:db8:1::2]:5353 -m",
        "ipvsadm -a -u [2001:db8::9]:53 -r 10.1.0.2 -i",
        "ipvsadm -A --sctp-service 10.0.0.9:9 -s rr",
        "directorctl server add sctp 10.0.0.9:9 10.1.0.2:9 --method direct",
    ] {
        place.done(line);
    }
    assert!(place.done("ipvsadm -Ln").ends_with(
        "SCTP 10.0.0.9:9 rr\n\
         \x20 -> 10.1.0.2:9                   Route   1      0          0         \n\
         UDP  [2001:db8::9]:53 wrr\n\
         \x20 -> 10.1.0.2:53                  Tunnel  1      0          0         \n\
         \x20 -> [2001:db8:1::2]:5353         Masq    1      0          0         \n"
    ));
    place.done("ipvsadm -D -u [2001:db8::9]:53");
    place.done("ipvsadm -D --sctp-service 10.0.0.9:9");
    let saved = "\
        -A -t 10.0.0.9:80 -s rr --options client_address=proxy-v1,mss=1380\n\
        --add-laddr -t 10.0.0.9:80 -z 10.1.0.200\n\
        -a -t 10.0.0.9:80 -r 10.1.0.2:8080 --fullnat -w 1\n\
        -a -t 10.0.0.9:80 -r 10.1.0.3:80 -i -w 4 --tun-type gue --tun-port 6080 --tun-csum\n";
    assert!(place.done("ipvsadm -Sn").ends_with(saved));
}

fn restores(place: &Place) {
    let saved = place.done("ipvsadm-save -n");
    place.done("ipvsadm -C");
    assert_eq!(place.done("ipvsadm -Sn"), "");
    assert_eq!(place.feed("ipvsadm-restore", &saved).code, Some(0));
    assert_eq!(place.done("ipvsadm -Sn"), saved);
    let said = place.feed(
        "ipvsadm -R",
        "-A -u 10.0.0.1:53 -s rr\n# again:\n-A -u 10.0.0.1:53 -s rr\n",
    );
    assert_eq!(said.code, Some(255));
    assert_eq!(
        said.err,
        "Service already exists\nipvsadm: in line 3; nothing was changed\n"
    );
    assert_eq!(place.done("ipvsadm -Sn"), saved);
}

fn strangers(place: &Place) {
    for line in ["ipvsadm -Ln", "directorctl status"] {
        let mut command = place.command(line);
        let said: Said = command.uid(NOBODY).gid(NOBODY).output().unwrap().into();
        assert_ne!(said.code, Some(0), "{line}");
        let words = "Permission denied (be root or of the socket's group)";
        assert!(said.err.trim_end().ends_with(words), "{line}: {}", said.err);
    }
}

fn second_daemon(place: &Place) {
    let prefix = format!("{}-2", place.prefix);
    place.configure("second.toml", &prefix, "");
    let said: Said = place.daemon("second.toml").output().unwrap().into();
    let _ = fs::remove_dir_all(Path::new("/var/run/dpdk").join(prefix));
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("another directord answers at"),
        "{}",
        said.err
    );
    place.done("directorctl status");
}

/// A killed daemon's socket does not stop the next, and that one ends when asked.
fn after_a_kill(place: &Place, daemon: Daemon) {
    drop(daemon);
    assert!(place.path("director.sock").exists());
    place.fails(
        "directorctl status",
        1,
        "Connection refused (is directord running? --socket names another path)",
    );
    let mut daemon = place.start();
    let pid = daemon.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
    assert!(!place.path("director.sock").exists());
}
