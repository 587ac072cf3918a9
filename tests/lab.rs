//! A director with one client network and one server network, driven packet by packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use control::{Change, Connection, LocalAddress, Protocol, Reply, Request, ServiceKey};
use dataplane::control::model::{Limits, Model};
use dataplane::counters::Page;
use dataplane::director::Director;
use dataplane::net::{Interface, Prefix, Route, Setup, StaticNeighbour};
use dataplane::packet::{Burst, HeapBuf, PacketBuf, PortId};
use dataplane::replay::Wire;
use dataplane::steer::Steer;
use dataplane::templates::INVALID_PORT;
use dataplane::time::Instant;

use crate::frames::{self, Frame, Mac};
use crate::recorded;

const CLIENTS: PortId = PortId(0);
const SERVERS: PortId = PortId(1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfcff, 0, 0, 0, 0, 0, 0, 1);

/// Clients are anywhere, behind a gateway; servers are all of 192.168.1.0/24 and fd00:1::/120 but
/// .254 and ::fe.
#[derive(Debug)]
pub struct Lab {
    model: Model,
    director: Director<HeapBuf>,
    wire: Wire,
    now: Instant,
}

fn mac(port: PortId) -> Mac {
    [2, 0, 0, 0, 0, port.0]
}

fn station(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [2, 0xff, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let [a, b, .., c, d] = address.octets();
            [2, 0xfe, a, b, c, d]
        }
    }
}

/// A server's address in the network of either family.
fn servers(n: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, n.into());
    [Ipv4Addr::new(192, 168, 1, n).into(), v6.into()]
}

fn is_server(address: IpAddr) -> bool {
    let network = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets()[..3].to_vec(),
        IpAddr::V6(address) => address.octets()[..15].to_vec(),
    };
    servers(0).map(network).contains(&network(address))
}

fn setup() -> Setup {
    let prefix = |address: IpAddr| Prefix {
        address,
        length: if address.is_ipv4() { 24 } else { 64 },
    };
    let interface = |port, addresses: [IpAddr; 2]| Interface {
        port,
        vlan: None,
        mac: mac(port),
        mtu: 1500,
        partial_checksums: false,
        kernel: None,
        addresses: addresses.map(prefix).to_vec(),
    };
    let everywhere = |via: IpAddr, all: IpAddr| Route {
        to: Prefix {
            address: all,
            length: 0,
        },
        via,
    };
    let gateways = [GATEWAY.into(), GATEWAY6.into()];
    let ours = Ipv6Addr::new(0xfcff, 0, 0, 0, 0, 0, 0, 0xfe);
    Setup {
        interfaces: vec![
            interface(CLIENTS, [Ipv4Addr::new(192, 0, 2, 254).into(), ours.into()]),
            interface(SERVERS, servers(254)),
        ],
        routes: vec![
            everywhere(gateways[0], Ipv4Addr::UNSPECIFIED.into()),
            everywhere(gateways[1], Ipv6Addr::UNSPECIFIED.into()),
        ],
        neighbours: (1..254)
            .flat_map(servers)
            .chain(gateways)
            .map(|address| StaticNeighbour {
                address,
                mac: station(address),
            })
            .collect(),
    }
}

impl Default for Lab {
    fn default() -> Self {
        let limits = Limits {
            services_max: 8,
            servers_max: 64,
        };
        let page = Page::new(limits.services_max, limits.servers_max);
        let page = Arc::new(page.expect("memory for 64 servers"));
        let director = Director::new(4096, [3, 4], setup(), Steer::new(0, 1), page.clone())
            .expect("memory for 4096 connections");
        let model = Model::new(limits).watching(vec![page.clone()]);
        Self {
            model: model.sharing(director.templates().clone()),
            director,
            wire: Wire::new(page),
            now: Instant::default(),
        }
    }
}

impl Lab {
    /// Applies changes as the daemon does.
    pub fn change(&mut self, changes: &[Change]) {
        match self.applied(changes) {
            Reply::Done => {}
            refused => panic!("{changes:?}: {refused:?}"),
        }
    }

    fn applied(&mut self, changes: &[Change]) -> Reply {
        let updates = match self.model.apply(changes) {
            Ok(updates) => updates,
            Err(refusal) => return Reply::Refused(refusal),
        };
        for update in &updates {
            self.director.apply(update, &mut self.wire);
        }
        self.wire.sent.clear();
        Reply::Done
    }

    /// Answers a command line as the daemon does, all connections at once.
    pub fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::Change(changes) => self.applied(changes),
            Request::Connections { .. } => {
                let mut list = self.director.listed(self.now);
                let templates = self.director.listed_templates(self.now);
                list.extend(templates);
                Reply::Connections { list, next: None }
            }
            _ => recorded::told(&self.model, request),
        }
    }

    /// Time passes without packets.
    pub fn wait(&mut self, ms: u32) {
        self.now = self.now.plus_ms(ms);
        self.director.tick(self.now, &mut self.wire);
    }

    /// A step of the estimator of rates.
    pub fn estimate(&mut self) {
        self.model.estimate();
    }

    /// What leaves when `frame` comes in: the IP packets.
    pub fn send(&mut self, frame: &Frame) -> Vec<Vec<u8>> {
        let (port, from) = match frame.from.ip() {
            from if is_server(from) => (SERVERS, from),
            IpAddr::V4(_) => (CLIENTS, GATEWAY.into()),
            IpAddr::V6(_) => (CLIENTS, GATEWAY6.into()),
        };
        let frame = frame.clone().between(station(from), mac(port));
        let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
        // Answers are rationed, and no recording was made within one millisecond.
        self.now = self.now.plus_ms(5);
        self.director
            .process(self.now, port, &mut burst, &mut self.wire);
        assert!(self.director.page().balanced());
        let sent = self.wire.sent.drain(..);
        sent.map(|(_, packet)| packet.bytes()[14..].to_vec())
            .collect()
    }

    /// The server that a client's packet is sent on to.
    pub fn chosen(&mut self, frame: &Frame) -> Option<SocketAddr> {
        let sent = self.send(frame);
        let packet = frames::Parts::of(sent.first()?);
        let address: IpAddr = match packet.to.first_chunk::<16>() {
            Some(address) => (*address).into(),
            None => (*packet.to.first_chunk::<4>()?).into(),
        };
        let port = u16::from_be_bytes([packet.segment[2], packet.segment[3]]);
        let is_error = matches!(packet.protocol, 1 | 58);
        (!is_error).then_some(SocketAddr::new(address, port))
    }

    /// A TCP handshake; `None` when there was no server for it.
    pub fn connect(&mut self, client: &str, virtual_address: &str) -> Option<SocketAddr> {
        let server = self.chosen(&frames::tcp(client, virtual_address, "S"))?;
        let back = self.send(&frames::tcp(&server.to_string(), client, "SA"));
        assert_eq!(back.len(), 1, "the SYN-ACK goes back");
        let again = self.chosen(&frames::tcp(client, virtual_address, "A"));
        assert_eq!(again, Some(server), "the handshake stays with its server");
        Some(server)
    }

    /// The templates that clients' next connections go by.
    pub fn templates(&self) -> Vec<Connection> {
        let list = self.director.listed_templates(self.now);
        let is_valid = |template: &Connection| template.virtual_address.port() != INVALID_PORT;
        list.into_iter().filter(is_valid).collect()
    }

    /// A service's local addresses and their use.
    pub fn local_addresses(&self, service: &ServiceKey) -> Vec<LocalAddress> {
        let services = self.model.services(Some(service)).expect("the service");
        let local = services.iter().flat_map(|s| &s.local_addresses);
        local.copied().collect()
    }

    /// Weight, active and inactive connections of a service's servers.
    pub fn servers(&self, service: &ServiceKey) -> Vec<(SocketAddr, u32, u32, u32)> {
        let services = self.model.services(Some(service)).expect("the service");
        let servers = services.iter().flat_map(|service| &service.servers);
        servers
            .map(|s| (s.address, s.spec.weight, s.active, s.inactive))
            .collect()
    }
}

/// The service of this protocol at this address.
pub fn service(protocol: Protocol, address: &str) -> ServiceKey {
    ServiceKey::at(protocol, address.parse().expect("an address and port"))
}
