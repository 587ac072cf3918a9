//! The daemon as systemd sees it: what it says on the notification socket, its watchdog, its log, its
//! version. Needs root and `cargo build -p dataplane -p ctl`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use system_tests::built;
use tempfile::TempDir;

/// The longest that any message may take; a daemon starts in a second or two.
const PATIENCE: Duration = Duration::from_secs(30);
/// Four times the period in which the daemon looks at its workers.
const WATCHDOG: Duration = Duration::from_secs(4);

/// A daemon on a device that carries nothing, started as systemd starts it.
struct Unit {
    folder: TempDir,
    prefix: String,
    manager: UnixDatagram,
    daemon: Child,
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(format!("/var/run/dpdk/{}", self.prefix));
    }
}

impl Unit {
    /// `name` tells units of this process apart.
    fn start(name: &str, watchdog: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let prefix = format!("{name}-{}", std::process::id());
        let config = format!(
            "[director]\nsocket = {:?}\nworkers = [0]\nmax_connections = 1024\nlog_format = \"json\"\n\
             [eal]\nmemory_mb = 128\nfile_prefix = {prefix:?}\nmbufs = 8192\n\
             [[port]]\nname = \"p0\"\ndevice = \"net_null0,no-rx=1\"\naddresses = [\"10.0.0.254/24\"]\n\
             [[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.100:80\"\n",
            path("director.sock"),
        );
        fs::write(path("director.toml"), config).unwrap();
        let manager = UnixDatagram::bind(path("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(built("directord"));
        command.arg("--config").arg(path("director.toml"));
        command.env("NOTIFY_SOCKET", path("notify"));
        if watchdog {
            command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        }
        let log = File::create(path("log")).unwrap();
        let daemon = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self {
            folder,
            prefix,
            manager,
            daemon,
        }
    }

    /// The next message, `None` if there is none for `patience`.
    fn hear(&self, patience: Duration) -> Option<String> {
        self.manager.set_read_timeout(Some(patience)).unwrap();
        let mut message = [0; 4096];
        let length = self.manager.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    fn hears(&self, expected: &str) {
        let heard = self.hear(PATIENCE);
        assert_eq!(
            heard.as_deref().map(str::trim),
            Some(expected),
            "{:#?}",
            self.log()
        );
    }

    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap();
        let objects = text
            .lines()
            .map(|line| serde_json::from_str(line).expect(line));
        objects.collect()
    }

    fn logged(&self, level: &str, words: &str) -> bool {
        let log = self.log();
        log.iter().any(|line| {
            line["level"] == level && line["message"].as_str().unwrap_or_default().contains(words)
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.daemon.id().try_into().unwrap())
    }

    /// The first worker's thread.
    fn worker(&self) -> Pid {
        let threads = fs::read_dir(format!("/proc/{}/task", self.daemon.id())).unwrap();
        let worker = threads.flatten().find(|thread| {
            fs::read_to_string(thread.path().join("comm"))
                .unwrap()
                .trim()
                == "worker0"
        });
        Pid::from_raw(
            worker
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap(),
        )
    }

    /// Ends as systemd ends it.
    fn stop(&mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let mut last = String::new();
        while !last.contains("STOPPING=1") {
            last = self.hear(PATIENCE).expect("nothing is said when it stops");
        }
        assert!(self.daemon.wait().unwrap().success());
    }
}

#[test]
fn ready_status_and_the_end() {
    let mut unit = Unit::start("unit", false);
    unit.hears("READY=1\nSTATUS=forwarding, 1 service");
    let added = Command::new(built("directorctl"))
        .args(["service", "add", "udp", "10.0.0.100:53"])
        .env("DIRECTOR_SOCKET", unit.folder.path().join("director.sock"))
        .status();
    assert!(added.unwrap().success());
    unit.hears("STATUS=forwarding, 2 services");
    unit.stop();
    assert!(unit.logged("INFO", "ready"), "{:#?}", unit.log());
    assert!(unit.logged("INFO", "told to stop"), "{:#?}", unit.log());
    let audit = unit
        .log()
        .into_iter()
        .find(|line| line["target"] == "audit");
    assert!(audit.unwrap()["peer"].as_str().unwrap().contains("uid 0"));
}

/// Stops one thread of the daemon, as a fault in a driver would, and lets it go on.
#[test]
fn a_worker_that_stands_silences_the_watchdog() {
    let mut unit = Unit::start("watchdog", true);
    unit.hears("READY=1\nSTATUS=forwarding, 1 service");
    unit.hears("WATCHDOG=1");
    let worker = unit.worker();
    ptrace::seize(worker, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(worker).unwrap();
    waitpid(worker, Some(WaitPidFlag::__WALL)).unwrap();
    // One look may have found it moving yet.
    while unit.hear(WATCHDOG / 2).is_some() {}
    assert_eq!(unit.hear(WATCHDOG), None);
    assert!(unit.logged("ERROR", "no progress"), "{:#?}", unit.log());
    ptrace::detach(worker, None).unwrap();
    unit.hears("WATCHDOG=1");
    assert!(unit.logged("WARN", "goes on"), "{:#?}", unit.log());
    unit.stop();
}

#[test]
fn a_start_that_fails_says_so_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("director.toml");
    let config = format!(
        "[director]\nsocket = {:?}\nlog_format = \"json\"\n[[port]]\nname = \"p0\"\n\
         device = \"net_af_packet0,iface=nosuch0\"\n",
        folder.path().join("director.sock"),
    );
    fs::write(&path, config).unwrap();
    let output = Command::new(built("directord"))
        .arg("--config")
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert!(
        line["message"].as_str().unwrap().contains("nosuch0"),
        "{line}"
    );
}

#[test]
fn the_version_names_build_dpdk_and_target() {
    let output = Command::new(built("directord"))
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let release = format!("directord {} (", env!("CARGO_PKG_VERSION"));
    assert!(lines[0].starts_with(&release), "{text}");
    assert!(lines[1].starts_with("DPDK "), "{text}");
    assert!(lines[2].contains("-linux-"), "{text}");
}
