//! Two workers on real devices: ports with a queue for each, and ports that one of them has to itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crossbeam::channel::bounded;
use dataplane::config::Config;
use dataplane::conn::Hash;
use dataplane::control::MAILBOX_MAX;
use dataplane::control::model::Model;
use dataplane::counters::{Page, balanced};
use dataplane::daemon::ports::Ports;
use dataplane::director::Director;
use dataplane::dpdk::{Eal, Mbuf, Mempool, register_worker};
use dataplane::packet::{Egress, Learned, Origin, PortId};
use dataplane::steer::Steer;
use dataplane::time::Clock;
use dataplane::watch::Watch;
use dataplane::worker::{Worker, links};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

const WORKERS: usize = 2;
const CLIENT: [u8; 4] = [198, 51, 100, 9];
/// The clients' ports: one datagram each, and one in two fragments.
const PORTS: std::ops::Range<u16> = 2000..2300;
const EACH: u64 = 3;

/// For changes of configuration, at which nothing leaves.
struct Nowhere(Watch);

impl Egress for Nowhere {
    type Buf = Mbuf;

    fn send(&mut self, _: PortId, _: Mbuf, _: Origin) {}

    fn make(&mut self, _: usize) -> Option<Mbuf> {
        None
    }

    fn share(&mut self, _: Learned) {}

    fn steer(&mut self, _: usize, _: PortId, _: Option<Hash>, _: Mbuf) {}

    fn watch(&mut self) -> &mut Watch {
        &mut self.0
    }
}

/// What a client sends: UDP, whole or a piece of it. `fragment` is the word with flags and offset.
fn frame(id: u16, fragment: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0];
    let len = u16::try_from(20 + data.len()).unwrap();
    for word in [len, id, fragment] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend([64, 17, 0, 0]);
    frame.extend(CLIENT);
    frame.extend([10, 0, 0, 100]);
    frame.extend(data);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn datagram(port: u16, len: u16) -> Vec<u8> {
    let mut data = vec![0xa5; usize::from(len)];
    data[..2].copy_from_slice(&port.to_be_bytes());
    data[2..4].copy_from_slice(&53u16.to_be_bytes());
    data[4..6].copy_from_slice(&len.to_be_bytes());
    data[6..8].fill(0);
    data
}

/// A capture of what the clients of these ports send.
fn capture(path: &Path, ports: impl Iterator<Item = u16>) {
    let mut writer = PcapWriter::new(File::create(path).unwrap()).unwrap();
    let mut write = |frame: Vec<u8>| {
        let len = u32::try_from(frame.len()).unwrap();
        let packet = PcapPacket::new(Duration::ZERO, len, &frame);
        writer.write_packet(&packet).unwrap();
    };
    for port in ports {
        let whole = datagram(port, 64);
        write(frame(0, 0, &datagram(port, 20)));
        write(frame(port, 0x2000, &whole[..32]));
        write(frame(port, 4, &whole[32..]));
    }
}

fn is_whole(frame: &[u8]) -> bool {
    frame[20..22] == [0, 0]
}

/// Frames that left by a port.
fn sent(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    let frames = paths.iter().flat_map(|path| {
        let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
        let frames = std::iter::from_fn(|| Some(reader.next_packet()?.unwrap().data.to_vec()));
        frames.collect::<Vec<_>>()
    });
    frames.collect()
}

/// A device that receives what is in the first files, a queue each, and sends into the others.
fn device(number: u8, received: &[PathBuf], sent: &[PathBuf]) -> String {
    let option = |key: &'static str| move |path: &PathBuf| format!(",{key}={}", path.display());
    let rx = received.iter().map(option("rx_pcap"));
    let options: String = rx.chain(sent.iter().map(option("tx_pcap"))).collect();
    format!("net_pcap{number}{options}")
}

pub(super) fn share_ports(eal: &Eal) {
    for queues in [1, 2] {
        with_queues(eal, queues);
    }
}

fn with_queues(eal: &Eal, queues: u8) {
    let folder = tempfile::tempdir().unwrap();
    let files = |name: &str| -> Vec<PathBuf> {
        let of = |queue| folder.path().join(format!("{name}{queue}"));
        (0..queues).map(of).collect()
    };
    let (asked, silent, back, out) = (files("asked"), files("silent"), files("back"), files("out"));
    for (queue, path) in (0..).zip(&asked) {
        capture(path, PORTS.filter(|port| port % u16::from(queues) == queue));
    }
    silent.iter().for_each(|path| capture(path, 0..0));
    let devices = [
        device(2 * queues, &asked, &back),
        device(2 * queues + 1, &silent, &out),
    ];
    let config = configuration(&devices);
    let pools: Vec<_> = (0..WORKERS)
        .map(|worker| {
            Mempool::new(eal, &format!("shared{worker}"), 4095, super::DATA_ROOM, -1).unwrap()
        })
        .collect();
    devices.iter().for_each(|device| eal.plug(device).unwrap());
    let mut ports = Ports::new(eal, &config.director.workers, &pools);
    let all = ports
        .start_all(config.port_specs().collect::<Vec<_>>().iter())
        .unwrap();
    let pages: Arc<[_]> = (0..WORKERS)
        .map(|_| Arc::new(Page::new(8, 8).unwrap()))
        .collect();
    let (ended, clock) = (AtomicBool::new(false), Clock::start());
    thread::scope(|scope| {
        for (me, (queues, links)) in all.into_iter().zip(links(WORKERS)).enumerate() {
            let (config, pages, pool, ended) = (&config, Arc::clone(&pages), &pools[me], &ended);
            scope.spawn(move || {
                let registered = register_worker(eal, core(me)).unwrap();
                let (_mailbox, commands) = bounded(MAILBOX_MAX);
                let (director, idle) = (director(config, me, pages), config.director.idle);
                let hz = eal.cycles_per_second();
                let mut worker = Worker::new(
                    director,
                    queues,
                    pool.clone(),
                    links,
                    commands,
                    clock,
                    idle,
                    hz,
                );
                worker.run(ended);
                drop((worker, registered));
            });
        }
        let total = EACH * PORTS.len() as u64;
        let ended_packets = || pages.iter().map(|page| page.ended()).sum::<u64>();
        let all_ended = (0..10_000).any(|_| {
            thread::sleep(Duration::from_millis(1));
            ended_packets() >= total
        });
        ended.store(true, Relaxed);
        assert!(all_ended, "{} of {total}", ended_packets());
    });
    drop(ports);
    devices
        .iter()
        .for_each(|device| eal.unplug(device).unwrap());
    assert_eq!(pools.iter().map(Mempool::in_use).sum::<u32>(), 0);
    counted(&pages, queues);
    arrived(&sent(&out));
}

fn core(worker: usize) -> u16 {
    let present = Path::new("/sys/devices/system/cpu/cpu1").exists();
    u16::from(worker == 1 && present)
}

fn configuration(devices: &[String]) -> Config {
    let text = format!(
        "[director]\nworkers = [0, 1]\nmax_connections = 2048\n\
         [[port]]\nname = \"wan\"\ndevice = \"{}\"\naddresses = [\"198.51.100.1/24\"]\n\
         [[port]]\nname = \"lan\"\ndevice = \"{}\"\naddresses = [\"10.1.0.254/24\"]\n\
         [[neighbour]]\naddress = \"10.1.0.1\"\nmac = \"02:00:00:00:01:01\"\n\
         [[service]]\nprotocol = \"udp\"\naddress = \"10.0.0.100:53\"\nscheduler = \"rr\"\n\
         [[service.server]]\naddress = \"10.1.0.1:53\"\nmethod = \"nat\"\n",
        devices[0], devices[1]
    );
    Config::parse(&text, "two workers").unwrap()
}

fn director(config: &Config, me: usize, pages: Arc<[Arc<Page>]>) -> Director<Mbuf> {
    let setup = config.setup(|port| [2, 0, 0, 0, 0, port.0]);
    let (steer, page) = (Steer::new(me, WORKERS), Arc::clone(&pages[me]));
    let mut nowhere = Nowhere(Watch::new(Arc::clone(&page)));
    let mut director = Director::new(2048, [1, 2], setup, steer, page)
        .unwrap()
        .among(pages);
    let mut model = Model::new(config.director.limits());
    for update in &model.apply(&config.changes).unwrap() {
        director.apply(update, &mut nowhere);
    }
    director
}

/// Every packet has its end, connections are at home, and who has no queue has others receive and send.
fn counted(pages: &[Arc<Page>], queues: u8) {
    assert!(balanced(pages.iter().map(|page| &**page)));
    let total = EACH * PORTS.len() as u64;
    let forwarded = |page: &Page| page.ports[0].forwarded.get();
    assert_eq!(pages.iter().map(|page| forwarded(page)).sum::<u64>(), total);
    assert_eq!(pages.iter().map(|page| page.rx()).sum::<u64>(), total);
    let homes = |port| Steer::new(0, WORKERS).home(SocketAddr::from((CLIENT, port)));
    for (me, page) in pages.iter().enumerate() {
        let clients = PORTS.filter(|port| homes(*port) == me).count();
        assert_eq!(page.connections.get() as usize, clients, "at home");
        assert_eq!(page.servers[0].in_packets.get(), EACH * clients as u64);
        assert_eq!(page.port(PortId(0)).dropped(), 0);
    }
    let handed = |count: fn(&Page) -> u64| pages.iter().map(|page| count(page)).sum::<u64>();
    let (out, taken) = (
        handed(|page| page.steered_out.get()),
        handed(|page| page.steered_in.get()),
    );
    assert_eq!(out, taken);
    assert!(out > total / 4);
    if queues == 1 {
        assert_eq!((pages[1].rx(), forwarded(&pages[1])), (0, 0));
        assert!(pages[1].steered_out.get() >= pages[1].servers[0].in_packets.get());
    } else {
        assert!(
            pages
                .iter()
                .all(|page| page.rx() > 0 && forwarded(page) > 0)
        );
    }
}

/// Each datagram left once, and each fragment.
fn arrived(frames: &[Vec<u8>]) {
    let ours = frames.iter().filter(|frame| frame[12..14] == [8, 0]);
    let ours: Vec<_> = ours.collect();
    assert_eq!(ours.len(), usize::from(PORTS.end - PORTS.start) * 3);
    let whole = ours.iter().filter(|frame| is_whole(frame));
    let ports: BTreeSet<_> = whole.map(|frame| [frame[34], frame[35]]).collect();
    assert_eq!(ports.len(), PORTS.len());
    for frame in ours {
        assert_eq!(frame[..6], [2, 0, 0, 0, 1, 1]);
        assert_eq!(frame[30..34], [10, 1, 0, 1], "translated");
    }
}
