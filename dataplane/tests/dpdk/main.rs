//! DPDK for real, on virtual devices: mbufs balance, queues carry, mistakes are named.
//!
//! One EAL a process, so this is one test. What needs an EAL of its own runs in a child: this
//! program again, told by the environment which part it plays.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod overload; // a worker with more than it can do
mod ports; // ports that come and go
mod rubbish; // the director over real mbufs
mod workers; // two workers on ports of one queue, and of two

use std::collections::HashSet;
use std::process::Command;

use control::Role;
use dataplane::dpdk::{
    Eal, EalConfig, Error, HEADROOM, Mbuf, Mempool, Offer, Port, PortConfig, RxQueue, TxQueue,
    data_room, free_burst, register_worker, socket_of, with_room,
};
use dataplane::packet::{BURST, Burst, PacketBuf};
use dataplane::steer::RETA;
use pcap_file::pcap::{PcapPacket, PcapWriter};

/// Names the part of a child process.
const ROLE: &str = "DPDK_TEST_ROLE";
const DATA_ROOM: u16 = 2048 + HEADROOM;

#[test]
fn dpdk() {
    match std::env::var(ROLE).as_deref() {
        Ok("unknown vdev") => unknown_vdev(),
        Ok("refused option") => refused_option(),
        Ok("mbuf outlives everything") => mbuf_outlives_everything(),
        Ok("veth") => veth(),
        Ok("jumbo frames") => jumbo_frames(),
        Ok("frames in pieces") => frames_in_pieces(),
        Ok(other) => panic!("no such part: {other}"),
        Err(_) => {
            for role in [
                "unknown vdev",
                "refused option",
                "mbuf outlives everything",
                "frames in pieces",
            ] {
                in_child(role);
            }
            match Veth::new() {
                Some(_veth) => {
                    in_child("veth");
                    in_child("jumbo frames");
                }
                None => println!("skipped: AF_PACKET on a veth pair (needs root and ip)"),
            }
            all();
        }
    }
}

fn in_child(role: &str) {
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program)
        .args(["--exact", "dpdk", "--nocapture"])
        .env(ROLE, role)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[child.stdout, child.stderr].concat()).into_owned();
    assert!(child.status.success(), "{role}: {}: {text}", child.status);
}

fn eal_config() -> EalConfig {
    let vdevs = [
        "net_ring0",
        "net_ring1",
        "net_ring2",
        "net_ring3",
        "net_ring4",
        "net_null0",
        "net_null1",
    ];
    EalConfig {
        file_prefix: format!("director-test-{}", std::process::id()),
        huge_pages: false,
        memory_mb: 128,
        pci: false,
        single_file_segments: false,
        vdevs: vdevs.map(str::to_owned).to_vec(),
        devices: Vec::new(),
        main_core: 0,
        extra: Vec::new(),
    }
}

/// The runtime files of this process's EAL, which DPDK leaves behind.
struct RuntimeFiles;

impl Drop for RuntimeFiles {
    fn drop(&mut self) {
        let prefix = eal_config().file_prefix;
        let _ = std::fs::remove_dir_all(format!("/var/run/dpdk/{prefix}"));
    }
}

fn port_config(device: &str, queues: u16) -> PortConfig {
    PortConfig {
        name: "test".to_owned(),
        device: device.to_owned(),
        tx_queues: queues,
        one_pool: queues == 1,
        rx_descriptors: 256,
        tx_descriptors: 256,
        mtu: 1500,
        promiscuous: true,
        role: None,
        reta: RETA,
    }
}

fn unknown_vdev() {
    let _files = RuntimeFiles;
    let vdev = "net_nosuch0,iface=nowhere";
    let config = EalConfig {
        vdevs: vec![vdev.to_owned()],
        ..eal_config()
    };
    let error = Eal::init(&config).unwrap_err();
    assert!(
        matches!(&error, Error::Device { device, .. } if device == vdev),
        "{error}"
    );
    assert_eq!(
        Eal::init(&eal_config()).unwrap_err(),
        Error::AlreadyInitialised
    );
}

fn refused_option() {
    let _files = RuntimeFiles;
    let config = EalConfig {
        extra: vec!["--no-such-option".to_owned()],
        ..eal_config()
    };
    let error = Eal::init(&config).unwrap_err();
    assert!(matches!(error, Error::Eal(_)), "{error}");
}

/// Its memory must stay, or this would crash.
fn mbuf_outlives_everything() {
    let _files = RuntimeFiles;
    let eal = Eal::init(&eal_config()).unwrap();
    let pool = Mempool::new(&eal, "short-lived", 64, DATA_ROOM, -1).unwrap();
    let mut mbuf = pool.alloc().unwrap();
    drop(pool);
    drop(eal);
    assert!(mbuf.resize(1000));
    mbuf.bytes_mut().fill(0x5a);
    assert!(mbuf.bytes().iter().all(|&byte| byte == 0x5a));
}

/// A pair of network interfaces, `dtaPID` and `dtbPID`, removed when dropped.
struct Veth(u32);

impl Veth {
    fn new() -> Option<Self> {
        let id = std::process::id();
        let (a, b) = (format!("dta{id}"), format!("dtb{id}"));
        let ip = |args: &[&str]| Command::new("ip").args(args).output();
        let made = ip(&["link", "add", &a, "type", "veth", "peer", "name", &b]).ok()?;
        let pair = made.status.success().then_some(Self(id))?;
        for name in [a, b] {
            assert!(ip(&["link", "set", &name, "up"]).unwrap().status.success());
        }
        Some(pair)
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["link", "del", &format!("dta{}", self.0)])
            .output();
    }
}

/// Real sockets: what one end sends, the other receives, and the pool balances after the close.
fn veth() {
    let _files = RuntimeFiles;
    let id = std::os::unix::process::parent_id();
    let [a, b] =
        [("0", "a"), ("1", "b")].map(|(n, end)| format!("net_af_packet{n},iface=dt{end}{id}"));
    let config = EalConfig {
        vdevs: vec![a.clone(), b.clone()],
        ..eal_config()
    };
    let eal = Eal::init(&config).unwrap();
    let pool = Mempool::new(&eal, "veth", 4095, DATA_ROOM, -1).unwrap();
    let two = Port::start(&eal, &port_config(&a, 2), &[pool.clone(), pool.clone()]);
    let error = two.map(drop).unwrap_err().to_string();
    assert!(
        error.contains("offers 1 queues to receive and 1 to send, 2 and 2 are wanted"),
        "{error}"
    );
    assert!(error.contains("net_af_packet0,qpairs=2"), "{error}");
    let long = Port::start(
        &eal,
        &PortConfig {
            mtu: 2020,
            ..port_config(&a, 1)
        },
        std::slice::from_ref(&pool),
    );
    let error = long.map(drop).unwrap_err().to_string();
    assert!(error.contains("MTU 2020: it offers"), "{error}");

    let one = std::slice::from_ref(&pool);
    let (port, _rx, mut tx) = start(&eal, &a, one);
    let quiet = PortConfig {
        promiscuous: false,
        ..port_config(&b, 1)
    };
    let (_other, mut rx, _tx) = Port::start(&eal, &quiet, one).unwrap();
    assert!(hears_all_multicast(&format!("dtb{id}")));
    assert_ne!(port.mac(), [0; 6]);
    let mut burst = Burst::new();
    let mut ours = frame(&pool, 100, 0xffff_ffff);
    ours.bytes_mut()[4..6].fill(0xff);
    burst.push(ours);
    assert_eq!(tx[0].send(&mut burst), 1);
    let arrived = (0..10_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_micros(100));
        rx[0].recv(&mut burst);
        burst
            .iter()
            .any(|mbuf| mbuf.bytes().len() == 100 && mbuf.bytes()[6..].iter().all(|&b| b == 0xa5))
    });
    assert!(arrived);
    drop(burst);
    drop((port, _rx, tx, _other, rx, _tx));
    assert_eq!(pool.in_use(), 0);
}

/// Whether the interface is promiscuous or in the mode for all multicast.
fn hears_all_multicast(interface: &str) -> bool {
    let flags = std::fs::read_to_string(format!("/sys/class/net/{interface}/flags")).unwrap();
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap();
    flags & (0x100 | 0x200) != 0
}

/// A packet of 9200 bytes crosses whole, by the ring that `with_room` asks for.
fn jumbo_frames() {
    const MTU: u16 = 9200;
    let _files = RuntimeFiles;
    let id = std::os::unix::process::parent_id();
    let [a, b, bad] = [("0", "a"), ("1", "b"), ("2", "a")]
        .map(|(n, end)| format!("net_af_packet{n},iface=dt{end}{id}"));
    let (a, b) = (with_room(&a, MTU), with_room(&b, MTU));
    let bad = format!("{bad},framesz=3072,blocksz=4096");
    let config = EalConfig {
        vdevs: vec![a.clone(), b.clone(), bad.clone()],
        ..eal_config()
    };
    let eal = Eal::init(&config).unwrap();
    let room = u16::try_from(data_room(&b, MTU)).unwrap();
    let pool = Mempool::new(&eal, "jumbo", 2047, room, -1).unwrap();
    let one = std::slice::from_ref(&pool);
    let start = |device: &str| {
        let config = PortConfig {
            mtu: MTU,
            ..port_config(device, 1)
        };
        Port::start(&eal, &config, one)
    };
    let error = start(&bad).map(drop).unwrap_err().to_string();
    assert!(error.contains("not a multiple of framesz=3072"), "{error}");

    let (port, rx_a, mut tx) = start(&a).unwrap();
    let (other, mut rx, tx_b) = start(&b).unwrap();
    assert_eq!(port.mtu(), MTU);
    let mut ours = frame(&pool, 18 + usize::from(MTU), 0xffff_ffff);
    ours.bytes_mut()[4..6].fill(0xff);
    ours.bytes_mut()[12..16].copy_from_slice(&[0x81, 0, 0, 7]);
    let sent = ours.bytes().to_vec();
    let mut burst = Burst::new();
    burst.push(ours);
    assert_eq!(tx[0].send(&mut burst), 1);
    let arrived = (0..10_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_micros(100));
        rx[0].recv(&mut burst);
        burst.iter().any(|mbuf| mbuf.bytes() == sent)
    });
    assert!(arrived);
    drop(burst);
    drop((port, rx_a, tx, other, rx, tx_b));
    assert_eq!(pool.in_use(), 0);
}

/// A frame longer than a buffer is dropped and told of; its neighbours are received.
fn frames_in_pieces() {
    let _files = RuntimeFiles;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut capture = PcapWriter::new(&mut file).unwrap();
    for len in [60u16, 5000, 61, 4000] {
        let frame = vec![0xa5; usize::from(len)];
        let packet = PcapPacket::new(std::time::Duration::ZERO, u32::from(len), &frame);
        capture.write_packet(&packet).unwrap();
    }
    let device = format!("net_pcap0,rx_pcap={}", file.path().display());
    let config = EalConfig {
        vdevs: vec![device.clone()],
        ..eal_config()
    };
    let eal = Eal::init(&config).unwrap();
    let pool = Mempool::new(&eal, "pieces", 511, DATA_ROOM, -1).unwrap();
    let (port, mut rx, tx) = start(&eal, &device, std::slice::from_ref(&pool));
    let mut burst = Burst::new();
    assert_eq!(rx[0].recv(&mut burst), 4);
    let lengths: Vec<_> = burst.iter().map(|mbuf| mbuf.bytes().len()).collect();
    assert_eq!(lengths, [60, 61]);
    let mut pieces = Vec::new();
    rx[0].free_scattered(|first, len| pieces.push((first.to_vec(), len)));
    for (first, _) in &pieces {
        assert!(first.len() >= 1024 && first.iter().all(|byte| *byte == 0xa5));
    }
    assert_eq!(
        pieces.iter().map(|piece| piece.1).collect::<Vec<_>>(),
        [5000, 4000]
    );
    rx[0].free_scattered(|_, _| panic!("they are freed"));
    assert_eq!(pool.in_use(), 2, "the pieces are freed");
    drop((burst, port, rx, tx));
    assert_eq!(pool.in_use(), 0);
}

fn all() {
    mistakes_before_the_eal();
    let _files = RuntimeFiles;
    let eal = Eal::init(&eal_config()).unwrap();
    assert_eq!(
        Eal::init(&eal_config()).unwrap_err(),
        Error::AlreadyInitialised
    );
    pools(&eal);
    frames_move_within_their_buffer(&eal);
    let pool = Mempool::new(&eal, "ports", 8191, DATA_ROOM, socket_of(0)).unwrap();
    mistakes_with_ports(&eal, &pool);
    round_trip_and_refusal(&eal, &pool);
    two_workers_two_queues(&eal, &pool);
    hashes_of_one_end(&eal, &pool);
    a_million_cycles(&eal, &pool);
    overload::the_mailbox_is_served_whatever_arrives(&eal);
    rubbish::returns_every_mbuf(&eal);
    ports::devices_come_and_go(&eal, &pool);
    ports::a_director_goes_on(&eal);
    workers::share_ports(&eal);
    let clone = pool.clone();
    drop(eal);
    drop(pool);
    // The clone alone keeps pool and EAL.
    assert!(clone.alloc().is_some());
}

fn mistakes_before_the_eal() {
    let with_vdev = |vdev: &str| EalConfig {
        vdevs: vec![vdev.to_owned()],
        ..eal_config()
    };
    for vdev in ["net_af_packet0,iface=nowhere0", "net_af_xdp0", ",iface=lo"] {
        let error = Eal::init(&with_vdev(vdev)).unwrap_err();
        assert!(
            matches!(&error, Error::Device { device, .. } if device == vdev),
            "{error}"
        );
    }
    let error = Eal::init(&EalConfig {
        main_core: 9999,
        ..eal_config()
    })
    .unwrap_err();
    assert!(matches!(error, Error::Core { core: 9999, .. }), "{error}");
    let error = Eal::init(&EalConfig {
        file_prefix: "a\0b".to_owned(),
        ..eal_config()
    });
    assert!(matches!(error, Err(Error::Eal(_))), "{error:?}");

    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|free| free.trim() == "0") {
        let error = Eal::init(&EalConfig {
            huge_pages: true,
            ..eal_config()
        })
        .unwrap_err();
        assert!(
            matches!(&error, Error::HugePages(text) if text.contains("echo 64 >")),
            "{error}"
        );
    } else {
        println!("skipped: huge pages wanted where there are none (this machine has some)");
    }
}

fn pools(eal: &Eal) {
    let wrong = [
        ("", 64, DATA_ROOM),
        ("none", 0, DATA_ROOM),
        ("small", 64, HEADROOM),
        ("n\0", 64, 2048),
    ];
    for (name, mbufs, room) in wrong {
        let error = Mempool::new(eal, name, mbufs, room, -1).unwrap_err();
        assert!(
            matches!(&error, Error::Mempool { name: named, .. } if named == name),
            "{error}"
        );
    }
    let error = Mempool::new(eal, "a-name-that-is-much-too-long", 64, DATA_ROOM, -1).unwrap_err();
    assert!(error.to_string().contains("a name has 1 to"), "{error}");
    let error = Mempool::new(eal, "huge", 1 << 20, DATA_ROOM, -1).unwrap_err();
    assert!(error.to_string().contains("MiB"), "{error}");

    let pool = Mempool::new(eal, "exhaust", 100, DATA_ROOM, -1).unwrap();
    let again = Mempool::new(eal, "exhaust", 100, DATA_ROOM, -1).unwrap_err();
    assert!(again.to_string().contains("exhaust"), "{again}");
    let out: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((out.len(), pool.in_use()), (100, 100));
    let mut burst = Burst::new();
    assert!(!pool.alloc_burst(&mut burst, 1));
    assert!(burst.is_empty());
    drop(out);
    assert_eq!(pool.in_use(), 0);

    assert!(pool.alloc_burst(&mut burst, BURST - 1));
    assert!(!pool.alloc_burst(&mut burst, 2), "more than a burst");
    assert!(pool.alloc_burst(&mut burst, 1));
    assert_eq!((burst.len(), pool.in_use()), (BURST, 32));
    free_burst(burst);
    assert_eq!(pool.in_use(), 0);
    drop(pool);
    // Its last owner went with no mbuf out: the name is free again.
    drop(Mempool::new(eal, "exhaust", 100, DATA_ROOM, -1).unwrap());
}

fn frames_move_within_their_buffer(eal: &Eal) {
    let pool = Mempool::new(eal, "bounds", 64, DATA_ROOM, -1).unwrap();
    let mut mbuf = pool.alloc().unwrap();
    assert!(mbuf.bytes().is_empty());
    assert!(mbuf.resize(2048), "all behind the headroom");
    assert!(!mbuf.resize(2049));
    assert!(!mbuf.resize(1 << 16), "not mistaken for 0");
    assert_eq!(mbuf.bytes().len(), 2048);

    assert!(mbuf.resize(4));
    mbuf.bytes_mut().copy_from_slice(b"abcd");
    assert!(!mbuf.prepend(usize::from(HEADROOM) + 1));
    assert!(!mbuf.prepend(1 << 16));
    assert!(mbuf.prepend(usize::from(HEADROOM)), "all of the headroom");
    assert!(!mbuf.prepend(1));
    assert_eq!(&mbuf.bytes()[usize::from(HEADROOM)..], b"abcd");
    assert!(mbuf.resize(usize::from(DATA_ROOM)));
    assert!(!mbuf.resize(usize::from(DATA_ROOM) + 1));

    mbuf.trim_front(usize::from(HEADROOM) + 1);
    assert_eq!(&mbuf.bytes()[..3], b"bcd");
    mbuf.prefetch();
    assert!(mbuf.resize(3));
    mbuf.trim_front(3);
    assert!(mbuf.bytes().is_empty());
    let past = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mbuf.trim_front(1)));
    assert!(past.is_err(), "no frame has a negative length");
    drop(mbuf);
    assert_eq!(pool.in_use(), 0);
}

fn mistakes_with_ports(eal: &Eal, pool: &Mempool) {
    let refusal = |config: &PortConfig, pools: &[Mempool]| {
        Port::start(eal, config, pools)
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    let one = std::slice::from_ref(pool);
    for device in ["net_tap7,iface=tap7", "0000:ff:1f.7", "a\0b", ""] {
        let text = refusal(&port_config(device, 1), one);
        assert!(text.contains("DPDK has no port"), "{text}");
    }
    let text = refusal(&port_config("net_ring2", 1), &[]);
    assert!(text.contains("wants at least one mempool"), "{text}");
    // What was refused is not lost: the device can be had with a better configuration.
    let text = refusal(&port_config("net_ring2", 17), &vec![pool.clone(); 17]);
    assert!(
        text.contains("offers 16 queues to receive and 16 to send, 17 and 17 are wanted"),
        "{text}"
    );
    let text = refusal(
        &PortConfig {
            mtu: 2048,
            ..port_config("net_ring2", 1)
        },
        one,
    );
    assert!(
        text.contains("MTU 2048 needs mbufs of 2198 bytes"),
        "{text}"
    );
    let text = refusal(
        &PortConfig {
            mtu: 20,
            ..port_config("net_ring2", 1)
        },
        one,
    );
    assert!(text.contains("MTU 20: it offers"), "{text}");
    drop(start(eal, "net_ring2", one));
    assert_eq!(pool.in_use(), 0);
}

fn frame(pool: &Mempool, len: usize, number: u32) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    assert!(mbuf.resize(len));
    mbuf.bytes_mut().fill(0xa5);
    mbuf.bytes_mut()[..4].copy_from_slice(&number.to_be_bytes());
    mbuf
}

fn number(mbuf: &Mbuf) -> u32 {
    u32::from_be_bytes(mbuf.bytes()[..4].try_into().unwrap())
}

fn start(eal: &Eal, device: &str, pools: &[Mempool]) -> (Port, Vec<RxQueue>, Vec<TxQueue>) {
    Port::start(
        eal,
        &port_config(device, u16::try_from(pools.len()).unwrap()),
        pools,
    )
    .unwrap()
}

fn round_trip_and_refusal(eal: &Eal, pool: &Mempool) {
    let one = std::slice::from_ref(pool);
    let (port, mut rx, mut tx) = start(eal, "net_ring0", one);
    assert_eq!(
        (port.hardware().driver.as_str(), port.queues()),
        ("net_ring", 1)
    );
    assert_eq!(port.speed_mbps(), Some(10_000), "as the driver claims");
    assert!(!port.spreads(), "one queue");
    assert!(port.link_up());
    assert_eq!(
        (port.name(), port.device(), port.mtu()),
        ("test", "net_ring0", 1500)
    );
    assert!(
        port.hardware().driver.contains("net_ring"),
        "{}",
        port.hardware()
    );
    let twice = Port::start(eal, &port_config("net_ring0", 1), one)
        .map(drop)
        .unwrap_err();
    assert!(twice.to_string().contains("already"), "{twice}");

    let mut burst: Burst<Mbuf> = (0..5).map(|i| frame(pool, 60 + i as usize, i)).collect();
    assert_eq!(tx[0].send(&mut burst), 5);
    assert!(burst.is_empty());
    assert_eq!(rx[0].recv(&mut burst), 5);
    for (i, mbuf) in (0..).zip(&burst) {
        assert_eq!((number(mbuf), mbuf.bytes().len()), (i, 60 + i as usize));
        assert!(mbuf.bytes()[4..].iter().all(|&byte| byte == 0xa5));
    }
    free_burst(burst);
    assert_eq!(pool.in_use(), 0);
    assert_eq!(tx[0].send(&mut Burst::new()), 0);

    // The ring holds 1023: the burst that meets its end is sent in part.
    let mut sent = 0;
    loop {
        let mut burst: Burst<Mbuf> = (sent..sent + 32).map(|i| frame(pool, 60, i)).collect();
        let taken = u32::try_from(tx[0].send(&mut burst)).unwrap();
        let refused: Vec<_> = burst.iter().map(number).collect();
        assert_eq!(refused, (sent + taken..sent + 32).collect::<Vec<_>>());
        burst.clear();
        sent += taken;
        assert_eq!(pool.in_use(), sent, "what was refused is ours to free");
        if taken < 32 {
            break;
        }
    }
    assert_eq!(sent, 1023);
    let mut burst = Burst::new();
    assert_eq!(rx[0].recv(&mut burst), BURST);
    assert_eq!(
        burst.iter().map(number).collect::<Vec<_>>(),
        (0..32).collect::<Vec<_>>()
    );
    drop(burst);
    rx[0].free_scattered(|_, _| panic!("none was"));
    port.stop();
    drop(rx);
    assert_eq!(
        pool.in_use(),
        1023 - 32,
        "a queue is left, so the port still runs"
    );
    drop(tx);
    assert_eq!(pool.in_use(), 0, "the port closed");
}

fn two_workers_two_queues(eal: &Eal, pool: &Mempool) {
    let second = Mempool::new(eal, "second", 2047, DATA_ROOM, -1).unwrap();
    let pools = [pool.clone(), second.clone()];
    let (port, rx, tx) = start(eal, "net_ring1", &pools);
    let cores = std::fs::read_to_string("/sys/devices/system/cpu/present").unwrap();
    let cores = if cores.trim() == "0" { 1 } else { 2 };
    std::thread::scope(|scope| {
        for (i, (mut rx, mut tx)) in (0..2).zip(rx.into_iter().zip(tx)) {
            let pool = &pools[usize::from(i)];
            scope.spawn(move || {
                let worker = register_worker(eal, i % cores).unwrap();
                let again = register_worker(eal, i % cores).unwrap_err();
                assert!(again.to_string().contains("already"), "{again}");
                let mut seen = HashSet::new();
                let mut burst = Burst::new();
                for round in 0..1000u32 {
                    let numbers = round * 8..round * 8 + 8;
                    burst.extend(numbers.map(|n| frame(pool, 60, n)));
                    assert_eq!(tx.send(&mut burst), 8);
                    while rx.recv(&mut burst) > 0 {
                        seen.extend(burst.drain(..).map(|mbuf| number(&mbuf)));
                    }
                }
                assert_eq!(seen.len(), 8000);
                drop((rx, tx));
                drop(worker);
                assert!(register_worker(eal, 9999).is_err());
            });
        }
    });
    assert_eq!((pool.in_use(), second.in_use()), (0, 0));
    assert_eq!(port.stats().rx_nombuf, 0);
}

/// A device that cannot hash packets by one end is not told to, and is a port all the same.
fn hashes_of_one_end(eal: &Eal, pool: &Mempool) {
    assert_eq!(Port::offer(eal, "net_nosuch0"), Offer::default());
    let pools = [pool.clone(), pool.clone()];
    for (device, table) in [("net_null7", RETA), ("net_ring7", 0)] {
        for role in [Role::Clients, Role::Servers] {
            eal.plug(device).unwrap();
            let offer = Port::offer(eal, device);
            assert_eq!(offer.table, table, "{device}");
            assert!(offer.rx_queues >= 2 && offer.tx_queues >= 2 && !offer.polls_all);
            let config = PortConfig {
                role: Some(role),
                ..port_config(device, 2)
            };
            let (port, mut rx, tx) = Port::start(eal, &config, &pools).unwrap();
            assert_eq!(port.hashes(), None, "{device}");
            let mut burst = Burst::new();
            rx[1].recv(&mut burst);
            assert!(burst.iter().all(|packet| packet.rss_hash().is_none()));
            drop((burst, port, rx, tx));
            assert_eq!(pool.in_use(), 0);
            eal.unplug(device).unwrap();
        }
    }
}

/// Allocate, then send, receive or free, in every mixture: the pool balances at the end.
fn a_million_cycles(eal: &Eal, pool: &Mempool) {
    let (port, mut rx, mut tx) = start(eal, "net_null0", std::slice::from_ref(pool));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut cycles = 0;
    while cycles < 1_000_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let n = (random % 33) as usize;
        let mut burst = Burst::new();
        assert!(pool.alloc_burst(&mut burst, n));
        burst.iter_mut().for_each(|mbuf| assert!(mbuf.resize(60)));
        match (random >> 32) % 4 {
            0 => drop(burst),
            1 => free_burst(burst),
            2 => assert_eq!(tx[0].send(&mut burst), n),
            _ => {
                burst.clear();
                assert_eq!(rx[0].recv(&mut burst), BURST);
            }
        }
        cycles += n;
    }
    assert_eq!(pool.in_use(), 0);
    drop((port, rx, tx));
    assert_eq!(pool.in_use(), 0);
}
