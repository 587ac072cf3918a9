//! Ports that come and go: devices alone, and under a director that runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use control::{
    Address, Change, KernelDriver, KernelSide, PortSpec, PortStatus, Refusal, Reply, Request,
    Status, Vips,
};
use crossbeam::channel::bounded;
use dataplane::config::Idle;
use dataplane::control::model::Limits;
use dataplane::control::server::{Backend, Peer, Rights};
use dataplane::control::{Control, MAILBOX_MAX, Worker as Handle};
use dataplane::counters::Page;
use dataplane::daemon::ports::Ports;
use dataplane::director::Director;
use dataplane::dpdk::{Eal, Mempool, Port, register_worker};
use dataplane::net::{Interface, Prefix, Setup};
use dataplane::packet::{Burst, PortId};
use dataplane::steer::Steer;
use dataplane::time::Clock;
use dataplane::worker::{Worker, links};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

use super::{DATA_ROOM, frame, port_config};

const LIMITS: Limits = Limits {
    services_max: 4,
    servers_max: 4,
};
const US: [u8; 4] = [10, 9, 0, 1];
const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 9];

pub(super) fn devices_come_and_go(eal: &Eal, pool: &Mempool) {
    let device = "net_ring9";
    let one = std::slice::from_ref(pool);
    for (wrong, words) in [
        ("net_nosuch0", "cannot be added"),
        ("net_af_packet0,iface=nowhere0", "no network interface"),
        ("0000:ff:1f.7", "cannot be added"),
    ] {
        let error = eal.plug(wrong).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!eal.has(wrong));
    }
    assert!(eal.unplug(device).is_err(), "it is not there");
    for _ in 0..3 {
        eal.plug(device).unwrap();
        assert!(eal.has(device));
        let (port, mut rx, mut tx) = Port::start(eal, &port_config(device, 1), one).unwrap();
        let mut burst: Burst<_> = (0..30).map(|n| frame(pool, 60, n)).collect();
        assert_eq!(tx[0].send(&mut burst), 30);
        let error = eal.unplug(device).unwrap_err().to_string();
        assert!(error.contains("a port uses it"), "{error}");
        drop((port, tx));
        assert_eq!(rx[0].recv(&mut burst), 30, "a queue keeps the port open");
        assert_eq!(pool.in_use(), 30);
        drop((burst, rx));
        assert_eq!(pool.in_use(), 0);
        eal.unplug(device).unwrap();
        assert!(!eal.has(device));
    }
    eal.plug(device).unwrap();
    let (port, rx, mut tx) = Port::start(eal, &port_config(device, 1), one).unwrap();
    let mut burst: Burst<_> = (0..30).map(|n| frame(pool, 60, n)).collect();
    assert_eq!(tx[0].send(&mut burst), 30);
    drop((port, rx, tx));
    assert_eq!(pool.in_use(), 0, "what waits in its queues is freed");
    eal.unplug(device).unwrap();
}

/// A director with one port, and what it takes to give it others.
struct Lab<'p> {
    control: Control,
    page: Arc<Page>,
    pool: &'p Mempool,
}

impl Lab<'_> {
    fn ask(&mut self, changes: Vec<Change>) -> Result<(), Refusal> {
        let peer = Peer {
            uid: 0,
            gid: 0,
            pid: 1,
            rights: Rights::Everything,
            client: 1,
        };
        match self.control.handle(Request::Change(changes), &peer) {
            Reply::Done => Ok(()),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    fn status(&mut self) -> Status {
        let peer = Peer {
            uid: 0,
            gid: 0,
            pid: 1,
            rights: Rights::Look,
            client: 1,
        };
        match self.control.handle(Request::Status, &peer) {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    fn port(&mut self, name: &str) -> Option<PortStatus> {
        let ports = self.status().ports;
        ports.into_iter().find(|port| port.name == name)
    }

    /// Waits until the worker has answered so many packets of a port.
    fn answered(&mut self, port: PortId, n: u64) {
        let answered = || self.page.ports[port.index()].answered.get() == n;
        let came = (0..10_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            answered()
        });
        assert!(came, "{:?}", self.page.ports[port.index()]);
    }
}

/// With a worker, on the memory of `pool`.
fn under_a_director(eal: &Eal, pool: &Mempool, test: impl FnOnce(&mut Lab<'_>)) {
    let lan = PortSpec::new("lan", "net_ring3");
    let mut ports = Ports::new(eal, &[0], std::slice::from_ref(pool));
    let mut queues = ports.start_all([&lan]).unwrap();
    let setup = Setup {
        interfaces: vec![Interface {
            port: PortId(0),
            vlan: None,
            mac: ports.mac(PortId(0)),
            mtu: lan.mtu,
            partial_checksums: false,
            kernel: None,
            addresses: vec![Prefix {
                address: [10, 0, 0, 1].into(),
                length: 24,
            }],
        }],
        ..Setup::default()
    };
    let page = Arc::new(Page::new(LIMITS.services_max, LIMITS.servers_max).unwrap());
    let (mailbox, commands) = bounded(MAILBOX_MAX);
    let (ended, clock) = (AtomicBool::new(false), Clock::start());
    std::thread::scope(|scope| {
        let (setup_here, page_here, ended) = (setup.clone(), Arc::clone(&page), &ended);
        let queues = queues.remove(0);
        let thread = scope.spawn(move || {
            let registered = register_worker(eal, 0).unwrap();
            let steer = Steer::new(0, 1);
            let director = Director::new(1024, [1, 2], setup_here, steer, page_here).unwrap();
            let mut worker = Worker::new(
                director,
                queues,
                pool.clone(),
                links(1).remove(0),
                commands,
                clock,
                Idle::Backoff,
                eal.cycles_per_second(),
            );
            worker.run(ended);
            drop(worker);
            drop(registered);
        });
        let handles = vec![Handle {
            core: 0,
            page: Arc::clone(&page),
            mailbox,
        }];
        ports.serve(&handles);
        let control = Control::new(LIMITS, handles, 1024, ports);
        let control = control.with_ports([lan]).networked(setup);
        let mut lab = Lab {
            control,
            page,
            pool,
        };
        let tested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&mut lab)));
        ended.store(true, Relaxed);
        thread.join().unwrap();
        drop(lab);
        if let Err(panic) = tested {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A capture of one request for our Ethernet address.
fn request(path: &Path) {
    let mut frame = [[0xff; 6], ASKER].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(ASKER);
    frame.extend([10, 9, 0, 2]);
    frame.extend([0; 6]);
    frame.extend(US);
    frame.resize(60, 0);
    let mut capture = PcapWriter::new(std::fs::File::create(path).unwrap()).unwrap();
    let packet = PcapPacket::new(Duration::ZERO, 60, &frame);
    capture.write_packet(&packet).unwrap();
}

/// The frames that are not a gratuitous request of our own.
fn answers(path: &Path) -> Vec<Vec<u8>> {
    let mut capture = PcapReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let frames = std::iter::from_fn(|| Some(capture.next_packet()?.unwrap().data.to_vec()));
    frames.filter(|frame| frame[..6] == ASKER).collect()
}

fn add(device: &str, mtu: u16) -> Vec<Change> {
    let spec = PortSpec {
        mtu,
        rx_descriptors: 64,
        tx_descriptors: 64,
        ..PortSpec::new("dmz", device)
    };
    let address = Address {
        port: "dmz".to_owned(),
        vlan: None,
        prefix: "10.9.0.1/24".parse().unwrap(),
    };
    vec![Change::AddPort(spec), Change::AddAddress(address)]
}

fn delete(name: &str) -> Vec<Change> {
    let port = name.to_owned();
    vec![Change::DeletePort { port }]
}

fn comes_and_goes(lab: &mut Lab<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    request(&input);
    let (rx, tx) = (input.display(), output.display());
    let device = format!("net_pcap9,rx_pcap={rx},tx_pcap={tx}");
    let at_rest = lab.pool.in_use();
    for round in 1..=3 {
        lab.ask(add(&device, 1500)).unwrap();
        // What the address is announced by, and the answer.
        lab.answered(PortId(1), 2 * round);
        let port = lab.port("dmz").unwrap();
        assert_eq!((port.rx_packets, port.tx_packets), (round, 2 * round));
        lab.ask(delete("dmz")).unwrap();
        assert_eq!(answers(&output).len(), 1);
        assert_eq!(lab.port("dmz"), None);
        assert!(lab.status().balanced);
        assert_eq!(lab.pool.in_use(), at_rest);
    }
}

fn mistakes(lab: &mut Lab<'_>) {
    let at_rest = lab.pool.in_use();
    for (changes, words) in [
        (
            add("net_nosuch0", 1500),
            "port dmz: device net_nosuch0: cannot be added",
        ),
        (add("net_ring9", 9000), "MTU 9000 needs mbufs of"),
        (
            add("net_ring3", 1500),
            "device net_ring3 is port lan already",
        ),
        (delete("lan"), "port lan is the only one"),
        (delete("dmz"), "no port \"dmz\" for deletion, there is lan"),
    ] {
        let refusal = lab.ask(changes).unwrap_err();
        assert!(refusal.detail.contains(words), "{refusal}");
        assert_eq!(lab.status().ports.len(), 1);
    }
    // What was refused is not left behind; and one port of two that come fails.
    let two = |device: &str| {
        let other = PortSpec::new("other", device);
        [add("net_ring9", 1500), vec![Change::AddPort(other)]].concat()
    };
    let refusal = lab.ask(two("net_nosuch0")).unwrap_err();
    assert!(refusal.detail.starts_with("port other: "), "{refusal}");
    assert_eq!(lab.status().ports.len(), 1);
    lab.ask(two("net_ring8")).unwrap();
    assert_eq!(lab.status().ports.len(), 3);
    // The ring gives back what is sent to it.
    let heard = (0..10_000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        lab.port("dmz").unwrap().rx_packets > 0
    });
    assert!(heard);
    lab.ask([delete("dmz"), delete("other")].concat()).unwrap();
    assert_eq!(lab.status().ports.len(), 1);
    assert_eq!(lab.pool.in_use(), at_rest);
}

/// The kernel has an interface for as long as there is the port, and sends by it what every new
/// interface does.
fn beside_the_kernel(lab: &mut Lab<'_>) {
    let may_have_one = nix::unistd::geteuid().is_root() && Path::new("/dev/net/tun").exists();
    if !may_have_one {
        return;
    }
    let at_rest = lab.pool.in_use();
    let name = format!("dmz{}", std::process::id());
    let there = Path::new("/sys/class/net").join(&name);
    let spec = PortSpec {
        mtu: 1400,
        kernel: Some(KernelSide {
            driver: KernelDriver::Tap,
            name: Some(name.clone()),
            vips: Vips::Director,
        }),
        ..PortSpec::new("dmz", "net_null9,no-rx=1")
    };
    for round in 1..=2 {
        lab.ask(vec![Change::AddPort(spec.clone())]).unwrap();
        let read = |key: &str| std::fs::read_to_string(there.join(key)).unwrap();
        let (port, side) = (lab.port("dmz").unwrap(), lab.port("dmz-kernel").unwrap());
        assert_eq!(port.mac, side.mac);
        assert_eq!(read("address").trim(), port.mac);
        assert_eq!(read("mtu").trim(), "1400");
        let sent = |port: Option<PortStatus>| port.unwrap().tx_packets;
        let came = (0..10_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            sent(lab.port("dmz")) >= round
        });
        assert!(came, "the kernel's packets leave");
        let refusal = lab.ask(delete("dmz-kernel")).unwrap_err();
        assert!(refusal.detail.contains("no port"), "{refusal}");
        lab.ask(delete("dmz")).unwrap();
        assert!(!there.exists());
        assert!(lab.status().balanced);
        assert_eq!(lab.pool.in_use(), at_rest);
    }
}

pub(super) fn a_director_goes_on(eal: &Eal) {
    let pool = Mempool::new(eal, "director", 8191, DATA_ROOM, -1).unwrap();
    under_a_director(eal, &pool, |lab| {
        comes_and_goes(lab);
        mistakes(lab);
        beside_the_kernel(lab);
    });
    assert_eq!(pool.in_use(), 0);
}
