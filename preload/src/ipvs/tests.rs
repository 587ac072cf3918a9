use super::*;
use crate::genetlink;
use crate::netlink::{ACK, ERROR, Message, Writer, messages};
use control::ipvsadm::{args, lower, names::NoNames};
use control::{
    Change, ForwardMode, Netmask, Persistence, Protocol, Rates, Refusal, SchedulerFlags, Server,
    ServerSpec, Service, ServiceKey, ServiceOptions, ServiceSpec, Thresholds, Totals, Tunnel,
    TunnelChecksum, TunnelKind,
};
use proptest::prelude::*;

/// Command lines of Debian's ipvsadm 1.31, each with what it sends.
const RECORDED: &str = include_str!("requests.txt");

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn service() -> ServiceKey {
    ServiceKey::at(Protocol::Tcp, "10.0.0.1:80".parse().unwrap())
}

fn listed() -> Service {
    let totals = Totals {
        conns: 1,
        in_packets: 0x1_0000_0002,
        out_packets: 3,
        in_bytes: 0x1_0000_0004,
        out_bytes: 5,
    };
    let rates = Rates {
        cps: 6,
        in_pps: 7,
        out_pps: 8,
        in_bps: 0x1_0000_0009,
        out_bps: 10,
    };
    let server = Server {
        address: "192.168.1.12:80".parse().unwrap(),
        spec: ServerSpec {
            mode: ForwardMode::Tunnel,
            weight: 3,
            tunnel: Tunnel {
                kind: TunnelKind::Gue,
                port: 6080,
                checksum: TunnelChecksum::Remote,
            },
            thresholds: Thresholds {
                upper: 200,
                lower: 100,
            },
        },
        active: 11,
        inactive: 12,
        persistent: 13,
        totals,
        rates,
        health: None,
        weight_now: None,
        draining: None,
    };
    Service {
        key: service(),
        spec: ServiceSpec {
            flags: SchedulerFlags {
                port: true,
                ..SchedulerFlags::default()
            },
            persistence: Some(Persistence {
                timeout_s: 300,
                netmask: Netmask::V4([255, 255, 255, 0].into()),
            }),
            engine: Some(control::Engine::Sip),
            ..ServiceSpec::new("sh")
        },
        totals,
        rates,
        servers: vec![server],
        options: ServiceOptions::default(),
        local_addresses: Vec::new(),
        health: None,
    }
}

/// A director with one service, and what it was asked.
fn director(asked: &mut Vec<Request>) -> impl FnMut(&Request) -> Result<Reply, i32> {
    |request| {
        asked.push(request.clone());
        Ok(match request {
            Request::Services { .. } => Reply::Services(vec![listed()]),
            Request::Timeouts => Reply::Timeouts {
                tcp: 900,
                tcp_fin: 120,
                udp: 300,
            },
            _ => Reply::Done,
        })
    }
}

/// What the original asks of us is what our own ipvsadm asks.
#[test]
fn requests_as_ipvsadm_sends_them() {
    for line in RECORDED.lines() {
        let (words, sent) = line.split_once('\t').unwrap();
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let ours = lower::request(&args::parse(&words, &NoNames).unwrap());
        let mut asked = Vec::new();
        genetlink::answered(&bytes(sent), 1, &mut director(&mut asked));
        assert_eq!(asked, ours.as_slice(), "{words:?}");
    }
    assert!(RECORDED.lines().count() >= 25);
}

fn only(command: u8, dump: bool, attributes: &[u8]) -> Vec<u8> {
    let mut asked = Vec::new();
    let ask = &mut director(&mut asked);
    match answer(command, dump, Attributes(attributes), ask).unwrap() {
        Answer::One(item) => item.attributes,
        Answer::Each(items) => items.into_iter().next().unwrap().attributes,
        Answer::Done => panic!("nothing is told"),
    }
}

/// Length and kind of each attribute, as the header has them, then its value.
const STATS: &str = "
    08000100 01000000
    08000200 02000000
    08000300 03000000
    0c000400 04000000 01000000
    0c000500 05000000 00000000
    08000600 06000000
    08000700 07000000
    08000800 08000000
    08000900 09000000
    08000a00 0a000000";
const STATS64: &str = "
    0c000100 01000000 00000000
    0c000200 02000000 01000000
    0c000300 03000000 00000000
    0c000400 04000000 01000000
    0c000500 05000000 00000000
    0c000600 06000000 00000000
    0c000700 07000000 00000000
    0c000800 08000000 00000000
    0c000900 09000000 01000000
    0c000a00 0a000000 00000000";

#[test]
fn a_service_as_a_kernel_tells_of_it() {
    let expected = format!(
        "34010100
         06000100 02000000
         06000200 06000000
         14000300 0a000001 00000000 00000000 00000000
         06000400 00500000
         07000600 73680000
         08000b00 73697000
         0c000700 13000000 ffffffff
         08000800 2c010000
         08000900 ffffff00
         5c000a00 {STATS}
         7c000c00 {STATS64}"
    );
    assert_eq!(only(GET_SERVICE, true, &[]), bytes(&expected));
}

fn key() -> Writer {
    let mut out = Writer::default();
    out.nested(attr::SERVICE, |out| {
        out.u16(svc::AF, 2);
        out.u16(svc::PROTOCOL, 6);
        out.put(svc::ADDR, &[10, 0, 0, 1]);
        out.be16(svc::PORT, 80);
    });
    out
}

#[test]
fn a_server_as_a_kernel_tells_of_it() {
    let expected = format!(
        "50010200
         14000100 c0a8010c 00000000 00000000 00000000
         06000200 00500000
         08000300 02000000
         08000400 03000000
         05000d00 01000000
         06000e00 17c00000
         06000f00 02000000
         08000500 c8000000
         08000600 64000000
         08000700 0b000000
         08000800 0c000000
         08000900 0d000000
         06000b00 02000000
         5c000a00 {STATS}
         7c000c00 {STATS64}"
    );
    assert_eq!(only(GET_DEST, true, &key().0), bytes(&expected));
}

#[test]
fn timeouts_and_version_as_a_kernel_tells_of_them() {
    let timeouts = "08000400 84030000 08000500 78000000 08000600 2c010000";
    assert_eq!(only(GET_CONFIG, false, &[]), bytes(timeouts));
    let info = "08000100 01020100 08000200 00100000";
    assert_eq!(only(GET_INFO, false, &[]), bytes(info));
}

fn refused(command: u8, dump: bool, attributes: &[u8]) -> i32 {
    let mut ask = |_: &Request| Err(libc::EPROTO);
    answer(command, dump, Attributes(attributes), &mut ask).unwrap_err()
}

#[test]
fn what_a_kernel_refuses() {
    for (command, dump) in [
        (0, false),
        (SET_INFO, false),
        (FLUSH + 1, false),
        (GET_DEST, false),
        (GET_DAEMON, false),
        (NEW_SERVICE, true),
    ] {
        assert_eq!(refused(command, dump, &[]), libc::EOPNOTSUPP, "{command}");
    }
    assert_eq!(refused(NEW_SERVICE, false, &[]), libc::EINVAL);
    assert_eq!(refused(NEW_SERVICE, false, &key().0), libc::EINVAL);
    assert_eq!(refused(NEW_DEST, false, &key().0), libc::EINVAL);
    assert_eq!(refused(NEW_DAEMON, false, &[]), libc::EINVAL);
    assert_eq!(refused(DEL_DAEMON, false, &[]), libc::EINVAL);
    let mut family = Writer::default();
    family.nested(attr::SERVICE, |out| {
        out.u16(svc::AF, 7);
        out.u32(svc::FWMARK, 1);
    });
    assert_eq!(refused(DEL_SERVICE, false, &family.0), libc::EAFNOSUPPORT);
    let mut refusing = |_: &Request| {
        Ok(Reply::Refused(Refusal {
            errno: Errno::Esrch,
            step: None,
            detail: String::new(),
        }))
    };
    let single = answer(GET_SERVICE, false, Attributes(&key().0), &mut refusing);
    assert_eq!(single, Err(libc::ESRCH));
    // But what lists the servers of no service lists none.
    let listing = answer(GET_DEST, true, Attributes(&key().0), &mut refusing);
    assert_eq!(listing, Ok(Answer::Each(Vec::new())));
}

/// Flags outside the mask stay as they are.
#[test]
fn an_edit_with_a_mask() {
    let mut out = Writer::default();
    out.nested(attr::SERVICE, |out| {
        out.0 = key().0.split_off(4);
        out.text(svc::SCHED_NAME, "wlc");
        let flags = [
            ONE_PACKET.to_ne_bytes(),
            (ONE_PACKET | SCHED2).to_ne_bytes(),
        ];
        out.put(svc::FLAGS, flags.as_flattened());
        out.u32(svc::TIMEOUT, 60);
        out.u32(svc::NETMASK, u32::MAX);
    });
    let mut asked = Vec::new();
    let done = answer(
        SET_SERVICE,
        false,
        Attributes(&out.0),
        &mut director(&mut asked),
    );
    assert_eq!(done, Ok(Answer::Done));
    let spec = ServiceSpec {
        persistence: Some(Persistence {
            timeout_s: 60,
            netmask: Netmask::whole(false),
        }),
        one_packet: true,
        ..ServiceSpec::new("wlc")
    };
    let service = service();
    let only = Some(service);
    assert_eq!(
        asked,
        [
            Request::Services { only },
            Request::Change(vec![Change::EditService { service, spec }])
        ]
    );
}

/// Recorded messages with bytes exchanged, cut, or both.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let recorded: Vec<Vec<u8>> = (RECORDED.lines())
        .map(|line| bytes(line.split_once('\t').unwrap().1))
        .collect();
    let changes = proptest::collection::vec((0usize..256, any::<u8>()), 0..6);
    (proptest::sample::select(recorded), changes, 0usize..256).prop_map(
        |(mut datagram, changes, len)| {
            for (at, byte) in changes {
                // The first bytes are how long it is and whose.
                if let Some(old) = datagram.get_mut(6 + at) {
                    *old = byte;
                }
            }
            datagram.truncate(len.max(20));
            let len = u32::try_from(datagram.len()).unwrap();
            datagram[..4].copy_from_slice(&len.to_ne_bytes());
            datagram
        },
    )
}

proptest! {
    /// Whatever is asked, something is answered that says so.
    #[test]
    fn answering_never_panics(datagram in damaged()) {
        let mut asked = Vec::new();
        let answers = genetlink::answered(&datagram, 1, &mut director(&mut asked));
        let request = messages(&datagram).next().unwrap();
        let said: Vec<Message<'_>> = answers.iter().flat_map(|bytes| messages(bytes)).collect();
        prop_assert!(said.iter().all(|message| message.seq == request.seq));
        let quiet = request.flags & ACK == 0;
        prop_assert!(quiet || said.iter().any(|message| message.kind == ERROR) || request.flags & 0x300 == 0x300);
    }

    #[test]
    fn any_attributes_are_answered(command: u8, dump: bool, attributes: Vec<u8>) {
        let mut asked = Vec::new();
        let _ = answer(command, dump, Attributes(&attributes), &mut director(&mut asked));
    }
}
