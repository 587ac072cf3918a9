//! FTP: data connections that control connections announce, in every way that there is to do so.

use std::net::Ipv4Addr;
use std::sync::Arc;

use control::{ClientAddress, Netmask, Persistence, ServiceOptions};
use proptest::prelude::*;

use super::super::testbed::add_server_by;
use super::*;
use crate::conn::State;
use crate::sched::Kind;
use crate::steer::Steer;
use crate::templates::Templates;
use crate::update::{Policy, ServerId, ServiceId};

const CONTROL: &str = "203.0.113.1:21";
const SERVER: &str = "10.1.0.1:21";
const CONTROL6: &str = "[2001:db8:f::1]:21";
const SERVER6: &str = "[2001:db8:1::1]:21";

/// One end of a control connection as its TCP numbers what it sends.
struct Talk {
    t: Testbed,
    ends: [&'static str; 3],
    /// As it is configured.
    server: &'static str,
    /// Of the client and the server, each as the other side gets it.
    next: [u32; 2],
    /// By how much the client got more than the server said.
    grown: u32,
}

impl Talk {
    /// A connection to service 0 that is established.
    fn begin(t: Testbed, ends: [&'static str; 3]) -> Self {
        Self::with(t, ends, ends[2])
    }

    /// As [`Self::begin`], with a server that is configured as the last.
    fn with(mut t: Testbed, [client, vip, server]: [&'static str; 3], known: &'static str) -> Self {
        let syn = |from, to| tcp(from, to, "S").numbers(1000, 0);
        t.check(0, syn(client, vip), to(known, syn(client, server)));
        let synack = |from, to| tcp(from, to, "SA").numbers(5000, 1001);
        t.check(0, synack(server, client), back(known, synack(vip, client)));
        let ack = |from, to| tcp(from, to, "A").numbers(1001, 5001);
        t.check(0, ack(client, vip), to(known, ack(client, server)));
        Self {
            t,
            ends: [client, vip, server],
            server: known,
            next: [1001, 5001],
            grown: 0,
        }
    }

    fn v4(t: Testbed) -> Self {
        Self::begin(t, [C, CONTROL, SERVER])
    }

    fn v6() -> Self {
        let t = Testbed::nat(Tcp, CONTROL6, &[SERVER6]);
        Self::begin(t, [C6, CONTROL6, SERVER6])
    }

    /// The client says this, and the server gets it as it is.
    fn client(&mut self, ms: u32, text: &str) {
        let [client, vip, server] = self.ends;
        let [seq, ack] = self.next;
        let said = |from, to, ack| tcp(from, to, "PA").numbers(seq, ack).data(text.as_bytes());
        let sent = said(client, vip, ack.wrapping_add(self.grown));
        self.t
            .check(ms, sent, to(self.server, said(client, server, ack)));
        self.next[0] += len(text);
    }

    /// The server says the first, and the client gets the second.
    fn server(&mut self, ms: u32, text: &str, gets: &str) {
        self.server_at(ms, self.next[1], text, gets);
        self.next[1] += len(text);
        self.grown = self.grown.wrapping_add(len(gets)).wrapping_sub(len(text));
    }

    fn server_at(&mut self, ms: u32, seq: u32, text: &str, gets: &str) {
        let [client, vip, server] = self.ends;
        let ack = self.next[0];
        let said = |from, seq, text: &str| {
            tcp(from, client, "PA")
                .numbers(seq, ack)
                .data(text.as_bytes())
        };
        let gets = said(vip, seq.wrapping_add(self.grown), gets);
        self.t
            .check(ms, said(server, seq, text), back(self.server, gets));
    }
}

fn len(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap()
}

fn to(server: &'static str, frame: Frame) -> End {
    To(server, vec![frame.hop()])
}

fn back(server: &'static str, frame: Frame) -> End {
    End::Back(server, vec![frame.hop()])
}

fn bed() -> Testbed {
    Testbed::nat(Tcp, CONTROL, &[SERVER])
}

/// A data connection to the server by the control connection of a client: from the one in `called`
/// to the other as the server gets it.
fn to_server(t: &mut Testbed, ms: u32, server: &'static str, client: &str, [vip, real]: [&str; 2]) {
    t.check(
        ms,
        tcp(client, vip, "S"),
        to(server, tcp(client, real, "S")),
    );
    t.check(
        ms,
        tcp(real, client, "SA"),
        back(server, tcp(vip, client, "SA")),
    );
    t.check(
        ms,
        tcp(client, vip, "A"),
        to(server, tcp(client, real, "A")),
    );
}

/// As [`to_server`], but the server calls the client.
fn to_client(t: &mut Testbed, ms: u32, server: &'static str, client: &str, [vip, real]: [&str; 2]) {
    t.check(
        ms,
        tcp(real, client, "S"),
        back(server, tcp(vip, client, "S")),
    );
    t.check(
        ms,
        tcp(client, vip, "SA"),
        to(server, tcp(client, real, "SA")),
    );
    t.check(
        ms,
        tcp(real, client, "A"),
        back(server, tcp(vip, client, "A")),
    );
}

fn states(t: &Testbed) -> Vec<State> {
    (0..20)
        .filter_map(|entry| t.director.conns.at(entry))
        .map(crate::conn::Conn::state)
        .collect()
}

#[test]
fn passive() {
    let mut talk = Talk::v4(bed());
    talk.client(1, "USER anonymous\r\n");
    talk.server(
        1,
        "331 Any password will do.\r\n",
        "331 Any password will do.\r\n",
    );
    talk.client(2, "PASV\r\n");
    talk.server(
        2,
        "227 Entering Passive Mode (10,1,0,1,195,80).\r\n",
        "227 Entering Passive Mode (203,0,113,1,195,80).\r\n",
    );
    assert_eq!(talk.grown, 3);
    let ends = ["203.0.113.1:50000", "10.1.0.1:50000"];
    to_server(&mut talk.t, 3, SERVER, "192.0.2.10:40001", ends);
    assert_eq!(states(&talk.t), [State::Established; 2]);
    // All that follows is numbered otherwise.
    talk.client(4, "RETR file\r\n");
    talk.server(4, "150 Here it comes.\r\n", "150 Here it comes.\r\n");
    talk.server(5, "226 Done.\r\n", "226 Done.\r\n");
    talk.client(6, "PASV\r\n");
    talk.server(6, "227 (10,1,0,1,4,1)\r\n", "227 (203,0,113,1,4,1)\r\n");
    talk.server(6, "226 Or not.\r\n", "226 Or not.\r\n");
    talk.client(7, "QUIT\r\n");
    assert_eq!(talk.grown, 6);
    // Only the control connection was scheduled.
    assert_eq!(talk.t.page.servers[0].conns.get(), 1);
    assert_eq!(talk.t.load(0), (2, 0));
}

#[test]
fn extended_passive() {
    let mut talk = Talk::v4(bed());
    talk.client(1, "EPSV\r\n");
    let says = "229 Entering Extended Passive Mode (|||50000|)\r\n";
    talk.server(1, says, says);
    let ends = ["203.0.113.1:50000", "10.1.0.1:50000"];
    to_server(&mut talk.t, 2, SERVER, "192.0.2.10:40001", ends);

    let mut talk = Talk::v6();
    talk.client(1, "EPSV 2\r\n");
    talk.server(1, says, says);
    let ends = ["[2001:db8:f::1]:50000", "[2001:db8:1::1]:50000"];
    to_server(&mut talk.t, 2, SERVER6, "[2001:db8:c::10]:40001", ends);
}

#[test]
fn active() {
    for says in [
        "PORT 192,0,2,10,156,65\r\n",
        "EPRT |1|192.0.2.10|40001|\r\n",
    ] {
        let mut talk = Talk::v4(bed());
        talk.client(1, says);
        talk.server(1, "200 Fine.\r\n", "200 Fine.\r\n");
        let ends = ["203.0.113.1:20", "10.1.0.1:20"];
        to_client(&mut talk.t, 2, SERVER, "192.0.2.10:40001", ends);
        assert_eq!(talk.t.page.servers[0].conns.get(), 1);
        assert_eq!(talk.t.load(0), (2, 0));
    }
    let mut talk = Talk::v6();
    talk.client(1, "EPRT |2|2001:db8:c::10|40001|\r\n");
    let ends = ["[2001:db8:f::1]:20", "[2001:db8:1::1]:20"];
    to_client(&mut talk.t, 2, SERVER6, "[2001:db8:c::10]:40001", ends);
}

/// What is expected and not come yet, as it is listed.
fn awaited(t: &Testbed, ms: u32) -> Vec<String> {
    let list = t.director.listed_templates(Instant::from_ms(ms));
    let shown = list.iter().map(|c| {
        assert!(!c.template);
        let (client, at, server) = (c.client, c.virtual_address, c.server);
        format!("{client} {at} {server} {}", c.state)
    });
    shown.collect()
}

/// Listed as LVS's entries; no client is tied to its server by it, but the server is still needed.
#[test]
fn what_is_expected_is_listed_until_it_comes() {
    let id = ServerId(0);
    let counts = |t: &Testbed| {
        let templates = t.director.templates();
        (templates.of_server(id), templates.refer_to(id))
    };
    let mut talk = Talk::v4(bed());
    talk.server(1, "229 (|||50000|)\r\n", "229 (|||50000|)\r\n");
    let passive = "192.0.2.10:0 203.0.113.1:50000 10.1.0.1:50000 LISTEN";
    assert_eq!(awaited(&talk.t, 1), [passive]);
    assert_eq!(counts(&talk.t), (0, true));
    let ends = ["203.0.113.1:50000", "10.1.0.1:50000"];
    to_server(&mut talk.t, 2, SERVER, "192.0.2.10:40001", ends);
    assert_eq!(awaited(&talk.t, 2), Vec::<String>::new());
    talk.client(3, "PORT 192,0,2,10,156,65\r\n");
    let active = "192.0.2.10:40001 203.0.113.1:20 10.1.0.1:20 LISTEN";
    assert_eq!(awaited(&talk.t, 3), [active]);
    // Nobody came for it.
    talk.t.wait(3, 125_000);
    assert_eq!(awaited(&talk.t, 125_000), Vec::<String>::new());
    talk.t.wait(125_000, 1_100_000);
    assert_eq!(counts(&talk.t), (0, false));
}

/// Ports need not be the same on both sides.
#[test]
fn a_server_at_another_port() {
    let server = "10.1.0.1:2121";
    let t = Testbed::nat(Tcp, CONTROL, &[server]);
    let mut talk = Talk::begin(t, [C, CONTROL, server]);
    talk.client(1, "PORT 192,0,2,10,156,65\r\n");
    let ends = ["203.0.113.1:20", "10.1.0.1:2120"];
    to_client(&mut talk.t, 2, server, "192.0.2.10:40001", ends);
}

/// Where no service is, a server's client gets in where the server said, once, in time, and nobody else.
#[test]
fn nobody_else_is_let_in() {
    let mut talk = Talk::v4(bed());
    let refused = |t: &mut Testbed, ms, client: &str, at: &str| {
        let reset = ours(tcp(at, client, "RA").numbers(0, 1001));
        t.check(ms, tcp(client, at, "S"), Refuse(DropReason::NotOurs, reset));
    };
    let at = "203.0.113.1:900";
    refused(&mut talk.t, 2, "192.0.2.10:40001", at);
    let says = "229 Entering Extended Passive Mode (|||900|)\r\n";
    talk.server(3, says, says);
    refused(&mut talk.t, 4, "198.51.100.9:40001", at);
    refused(&mut talk.t, 4, "192.0.2.10:40001", "203.0.113.1:901");
    // Even from a port that schedules nothing.
    to_server(
        &mut talk.t,
        5,
        SERVER,
        "192.0.2.10:20",
        [at, "10.1.0.1:900"],
    );
    refused(&mut talk.t, 6, "192.0.2.10:40001", at);
    talk.server(7, says, says);
    refused(&mut talk.t, 120_007, "192.0.2.10:40001", at);
}

/// Clients and servers speak for themselves only, in connections that are established.
#[test]
fn what_is_not_believed() {
    let mut talk = Talk::v4(bed());
    let stray = |t: &mut Testbed, server: &str, client: &str| {
        t.check(3, tcp(server, client, "S"), Drop(DropReason::NotOurs));
    };
    talk.client(1, "PORT 192,0,2,11,156,65\r\n");
    stray(&mut talk.t, "10.1.0.1:20", "192.0.2.11:40001");
    talk.client(1, "PORT 192,0,2,10,0,0\r\n");
    talk.client(1, "PORT 192,0,2,10,");
    talk.client(1, "156,65\r\n");
    stray(&mut talk.t, "10.1.0.1:20", "192.0.2.10:40001");
    talk.client(1, "PORT 192,0,2,10,156,65\r\n");
    stray(&mut talk.t, "10.1.0.1:21", "192.0.2.10:40001");
    stray(&mut talk.t, "10.1.0.2:20", "192.0.2.10:40001");
    for says in [
        "227 (10,1,0,2,4,1)\r\n",
        "227 (10,1,0,1,0,0)\r\n",
        "227 (10,1,0,1,4,",
        "229 (|||0|)\r\n",
    ] {
        talk.server(4, says, says);
    }
    // One who names the virtual address by itself is right.
    let says = "227 (203,0,113,1,3,132)\r\n";
    talk.server(5, says, says);
    let ends = ["203.0.113.1:900", "10.1.0.1:900"];
    to_server(&mut talk.t, 5, SERVER, "192.0.2.10:40001", ends);
    // The client has gone.
    let fin = |from, to| tcp(from, to, "FA").numbers(talk.next[0], talk.next[1]);
    talk.t.check(6, fin(C, CONTROL), to(SERVER, fin(C, SERVER)));
    let says = "227 (10,1,0,1,3,132)\r\n";
    talk.server(7, says, says);
}

/// What was lost is sent again, and is acknowledged selectively.
#[test]
fn retransmissions() {
    let mut talk = Talk::v4(bed());
    let (says, gets) = ("227 (10,1,0,1,3,132)\r\n", "227 (203,0,113,1,3,132)\r\n");
    talk.server(1, "220 Hello.\r\n", "220 Hello.\r\n");
    let first = talk.next[1];
    talk.server(2, says, gets);
    let more = talk.next[1];
    talk.server(3, "200 More.\r\n", "200 More.\r\n");
    let again = |talk: &mut Talk, seq: u32, grown: u32, says: &str, gets: &str| {
        let before = std::mem::replace(&mut talk.grown, grown);
        talk.server_at(4, seq, says, gets);
        talk.grown = before;
    };
    again(&mut talk, 5001, 0, "220 Hello.\r\n", "220 Hello.\r\n");
    again(&mut talk, first, 0, says, gets);
    again(&mut talk, more, 3, "200 More.\r\n", "200 More.\r\n");
    // Together in one segment, which begins before what changed.
    let both = (
        format!("220 Hello.\r\n{says}"),
        format!("220 Hello.\r\n{gets}"),
    );
    again(&mut talk, 5001, 0, &both.0, &both.1);

    let sack = |left: u32, right: u32| {
        let edges = [left.to_be_bytes(), right.to_be_bytes()].concat();
        [&[1, 1, 5, 10][..], &edges].concat()
    };
    let end = talk.next[1];
    let ack =
        |from, to, ack, sack: Vec<u8>| tcp(from, to, "A").numbers(1001, ack).tcp_options(&sack);
    for (client, server) in [
        // Nothing of the 227 came, all that is behind it did.
        ((first, more + 3, end + 3), (first, more, end)),
        // Part of it: as if it were nothing, so that all of it is sent again.
        ((first + 4, more + 3, end + 3), (first, more, end)),
        // All of it, but not the greeting.
        ((5001, first, end + 3), (5001, first, end)),
        ((end + 3, end + 3, end + 3), (end, end, end)),
    ] {
        let sent = ack(C, CONTROL, client.0, sack(client.1, client.2));
        let gets = ack(C, SERVER, server.0, sack(server.1, server.2));
        talk.t.check(5, sent, to(SERVER, gets));
    }
    // A reset without acknowledgement has no number to change.
    let reset = |from, to| tcp(from, to, "R").numbers(1001, 0);
    talk.t
        .check(6, reset(C, CONTROL), to(SERVER, reset(C, SERVER)));
}

/// Fragments have their numbers changed, but not their text.
#[test]
fn fragments_of_control_connections() {
    let mut talk = Talk::v4(bed());
    talk.server(1, "227 (10,1,0,1,3,132)\r\n", "227 (203,0,113,1,3,132)\r\n");
    let (seq, says) = (talk.next[1], b"227 (10,1,0,1,3,133)\r\n");
    let said = |from, seq| tcp(from, C, "PA").numbers(seq, 1001).data(says);
    let (sent, gets) = (said(SERVER, seq), said(CONTROL, seq + 3).hop());
    for (sent, gets) in sent.pieces(24).into_iter().zip(gets.pieces(24)) {
        talk.t.check(2, sent, End::Back(SERVER, vec![gets]));
    }
}

/// A control connection lives as long as its data connection does, without a word.
#[test]
fn long_transfers() {
    let mut talk = Talk::v4(bed());
    talk.server(1, "229 (|||900|)\r\n", "229 (|||900|)\r\n");
    let client = "192.0.2.10:40001";
    let ends = ["203.0.113.1:900", "10.1.0.1:900"];
    to_server(&mut talk.t, 2, SERVER, client, ends);
    let mut now = 2;
    for _ in 0..4 {
        talk.t.wait(now, now + 600_000);
        now += 600_000;
        let sent = talk
            .t
            .pass(now, &tcp("10.1.0.1:900", client, "PA").data(b"bytes"));
        assert_eq!(sent.len(), 1, "at {now}");
        assert_eq!(states(&talk.t), [State::Established; 2], "at {now}");
    }
    talk.server(now, "226 Done.\r\n", "226 Done.\r\n");
    talk.t.pass(now, &tcp("10.1.0.1:900", client, "R"));
    talk.t.wait(now, now + 20_000);
    assert_eq!(states(&talk.t), [State::Established]);
    talk.t.wait(now + 20_000, now + 901_000);
    assert_eq!(states(&talk.t), []);
    assert_eq!(talk.t.load(0), (0, 0));
    assert_eq!(talk.t.director.templates.used(), 0);
}

/// A packet finds its control connection even if it comes before its time was looked at.
#[test]
fn a_word_at_the_last_moment() {
    let mut talk = Talk::v4(bed());
    talk.server(1, "229 (|||900|)\r\n", "229 (|||900|)\r\n");
    let client = "192.0.2.10:40001";
    let ends = ["203.0.113.1:900", "10.1.0.1:900"];
    to_server(&mut talk.t, 2, SERVER, client, ends);
    let sent = talk.t.pass(500_000, &tcp(client, ends[0], "A"));
    assert_eq!(sent.len(), 1);
    talk.client(950_000, "NOOP\r\n");
}

/// The defence spares who controls a transfer, however little it says.
#[test]
fn a_control_connection_is_not_given_up_in_a_transfer() {
    for (transfers, left) in [(true, 2), (false, 0)] {
        let mut talk = Talk::v4(bed());
        talk.server(1, "229 (|||900|)\r\n", "229 (|||900|)\r\n");
        if transfers {
            let (client, ends) = ("192.0.2.10:40001", ["203.0.113.1:900", "10.1.0.1:900"]);
            to_server(&mut talk.t, 2, SERVER, client, ends);
            for _ in 0..9 {
                talk.t.pass(2, &tcp(client, ends[0], "A"));
            }
        }
        let settings = control::Settings {
            drop_entry: 3,
            ..control::Settings::default()
        };
        talk.t.apply(Update::SetSettings(settings));
        talk.t.wait(3, 400_000);
        assert_eq!(states(&talk.t).len(), left);
    }
}

/// Data connections are mostly at home with another worker.
#[test]
fn two_workers() {
    let steer = Steer::new(0, 2);
    let port_of = |worker| {
        (40_001..)
            .find(|port| steer.home(([192, 0, 2, 10], *port).into()) == worker)
            .unwrap()
    };
    let templates = Arc::new(Templates::new(100, [3, 4]).unwrap());
    let worker = |me| {
        let mut t = bed();
        t.director.steer = Steer::new(me, 2);
        t.director.templates = templates.clone();
        t
    };
    let control: &'static str = format!("192.0.2.10:{}", port_of(0)).leak();
    let (mut talk, mut other) = (
        Talk::begin(worker(0), [control, CONTROL, SERVER]),
        worker(1),
    );
    talk.server(1, "227 (10,1,0,1,3,132)\r\n", "227 (203,0,113,1,3,132)\r\n");
    let client = format!("192.0.2.10:{}", port_of(1));
    let ends = ["203.0.113.1:900", "10.1.0.1:900"];
    to_server(&mut other, 2, SERVER, &client, ends);
    let port: u16 = port_of(1) + 1;
    let port = (port..)
        .find(|port| steer.home(([192, 0, 2, 10], *port).into()) == 1)
        .unwrap();
    let [high, low] = port.to_be_bytes();
    talk.client(3, &format!("PORT 192,0,2,10,{high},{low}\r\n"));
    let (listener, ends) = (
        format!("192.0.2.10:{port}"),
        ["203.0.113.1:20", "10.1.0.1:20"],
    );
    to_client(&mut other, 4, SERVER, &listener, ends);
    // The last one that was announced keeps the control connection.
    for ms in [600_000, 1_200_000] {
        talk.t.wait(ms - 600_000, ms);
        other.wait(ms - 600_000, ms);
        assert_eq!(other.pass(ms, &tcp("10.1.0.1:20", &listener, "A")).len(), 1);
    }
    talk.client(1_200_001, "NOOP\r\n");
}

/// Control connections belong to the port, whatever service they found.
#[test]
fn services_of_any_port() {
    let mut t = Testbed::new(1000, setup(true));
    let persistence = Persistence {
        timeout_s: 360,
        netmask: Netmask::V4(Ipv4Addr::BROADCAST),
    };
    t.apply(Update::AddService {
        id: ServiceId(0),
        key: key(Tcp, "203.0.113.1:0"),
        policy: Policy {
            persistence: Some(persistence),
            ..Policy::of(Kind::Rr)
        },
    });
    t.apply(add_server(0, 0, "10.1.0.1:0", 1));
    let mut talk = Talk::with(t, [C, CONTROL, SERVER], "10.1.0.1:0");
    talk.client(1, "PORT 192,0,2,10,156,65\r\n");
    let ends = ["203.0.113.1:20", "10.1.0.1:20"];
    to_client(&mut talk.t, 2, "10.1.0.1:0", "192.0.2.10:40001", ends);
}

/// A server that was deleted gets no more of them.
#[test]
fn a_deleted_server() {
    let mut talk = Talk::v4(bed());
    talk.server(1, "229 (|||900|)\r\n", "229 (|||900|)\r\n");
    talk.t.apply(Update::DeleteServer { id: ServerId(0) });
    let syn = tcp("192.0.2.10:40001", "203.0.113.1:900", "S");
    talk.t.check(2, syn, Drop(DropReason::ServerGone));
    assert_eq!(states(&talk.t), [State::Established]);
}

/// FULLNAT: as under NAT, but that servers cannot call.
#[test]
fn fullnat() {
    let mut t = Testbed::new(1000, setup(true));
    t.add_service(0, Tcp, CONTROL);
    t.apply(add_server_by(ForwardMode::FullNat, 0, 0, SERVER));
    t.apply(local_addresses(0, &["10.1.0.100"]));
    let options = ServiceOptions {
        client_address: ClientAddress::None,
        ..ServiceOptions::default()
    };
    t.apply(Update::SetOptions {
        id: ServiceId(0),
        options,
    });
    let local = "10.1.0.100:1024";
    let syn = |from, to| tcp(from, to, "S").numbers(1000, 0);
    t.check(0, syn(C, CONTROL), on(syn(local, SERVER)));
    let synack = |from, to| tcp(from, to, "SA").numbers(5000, 1001);
    t.check(0, synack(SERVER, local), on(synack(CONTROL, C)));
    let ack = |from, to| tcp(from, to, "A").numbers(1001, 5001);
    t.check(0, ack(C, CONTROL), on(ack(local, SERVER)));
    let said = |from, to, text: &str| {
        tcp(from, to, "PA")
            .numbers(5001, 1001)
            .data(text.as_bytes())
    };
    let (says, gets) = ("227 (10,1,0,1,3,132)\r\n", "227 (203,0,113,1,3,132)\r\n");
    t.check(1, said(SERVER, local, says), on(said(CONTROL, C, gets)));
    let (end, taken) = (5001 + len(says), 5001 + len(gets));
    let ack = |from, to, ack| tcp(from, to, "A").numbers(1001, ack);
    t.check(2, ack(C, CONTROL, taken), on(ack(local, SERVER, end)));
    let (client, at, real) = ("192.0.2.10:40001", "203.0.113.1:900", "10.1.0.1:900");
    t.check(3, tcp(client, at, "S"), to(SERVER, tcp(local, real, "S")));
    t.check(
        3,
        tcp(real, local, "SA"),
        back(SERVER, tcp(at, client, "SA")),
    );
    let port = |from, to, ack| {
        tcp(from, to, "PA")
            .numbers(1001, ack)
            .data(b"PORT 192,0,2,10,156,65\r\n")
    };
    t.check(4, port(C, CONTROL, taken), on(port(local, SERVER, end)));
    t.check(
        5,
        tcp("10.1.0.1:20", "192.0.2.10:40001", "S"),
        Drop(DropReason::NotOurs),
    );
}

/// Direct routing changes no text.
#[test]
fn direct() {
    let mut t = Testbed::by(ForwardMode::Direct, Tcp, CONTROL, &[SERVER]);
    t.check(
        0,
        tcp(C, CONTROL, "S"),
        Direct(SERVER, tcp(C, CONTROL, "S").hop()),
    );
    assert!(!t.director.conns.at(0).unwrap().is_helped());
}

/// A server's lines: what it says, and how its TCP cuts that.
fn lines() -> impl Strategy<Value = Vec<(String, usize)>> {
    let line = prop_oneof![
        "[0-9 a-z(),|]{0,40}\r\n",
        (0u8..3, any::<u8>()).prop_map(|(host, port)| format!("227 (10,1,0,{host},4,{port})\r\n")),
        any::<u16>().prop_map(|port| format!("229 (|||{port}|)\r\n")),
    ];
    proptest::collection::vec((line, 0usize..60), 1..30)
}

proptest! {
    /// However a server's text is cut, a client gets all of it and in order.
    #[test]
    fn no_gaps(lines in lines()) {
        let mut talk = Talk::v4(bed());
        let (mut seq, mut gets) = (5001u32, 5001u32);
        for (line, cut) in lines {
            let (first, rest) = line.split_at(cut.min(line.len()));
            for text in [first, rest].iter().filter(|text| !text.is_empty()) {
                let frame = tcp(SERVER, C, "PA").numbers(seq, 1001).data(text.as_bytes());
                let sent = talk.t.pass(1, &frame);
                prop_assert_eq!(sent.len(), 1);
                let segment = &sent[0][34..];
                prop_assert_eq!(&segment[4..8], &gets.to_be_bytes());
                seq += len(text);
                gets += u32::try_from(segment.len()).unwrap() - 20;
                let ack = talk.t.pass(1, &tcp(C, CONTROL, "A").numbers(1001, gets));
                prop_assert_eq!(&ack[0][42..46], &seq.to_be_bytes());
            }
        }
    }

    /// Whatever the two say to each other.
    #[test]
    fn rubbish(
        words in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80), 0usize..80, any::<u32>()),
            1..20,
        ),
    ) {
        let starts = ["227 (10,1,0,1,", "229 (|||", "PORT 192,0,2,10,", "EPRT |1|192.0.2.10|", "227 "];
        let mut talk = Talk::v4(bed());
        for (by_client, bytes, pick, seq) in words {
            let text = [starts[pick % starts.len()].as_bytes(), &bytes].concat();
            let (from, to) = if by_client { (C, CONTROL) } else { (SERVER, C) };
            talk.t.pass(1, &tcp(from, to, "PA").numbers(seq, seq >> 1).data(&text));
        }
    }
}
