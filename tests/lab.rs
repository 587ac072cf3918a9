//! A director with one client network and one server network, driven packet by packet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use control::{Change, LocalAddress, Protocol, ServiceKey};
use dataplane::control::model::{Limits, Model};
use dataplane::counters::Page;
use dataplane::director::Director;
use dataplane::net::{Interface, Prefix, Route, Setup, StaticNeighbour};
use dataplane::packet::{Burst, HeapBuf, PacketBuf, PortId};
use dataplane::replay::Wire;
use dataplane::steer::Steer;
use dataplane::time::Instant;

use crate::frames::{self, Frame, Mac};

const CLIENTS: PortId = PortId(0);
const SERVERS: PortId = PortId(1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Clients are anywhere, behind a gateway; servers are all of 192.168.1.0/24 but .254.
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

fn station(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [2, 0xff, a, b, c, d]
}

fn setup() -> Setup {
    let interface = |port, address| Interface {
        port,
        vlan: None,
        mac: mac(port),
        mtu: 1500,
        addresses: vec![Prefix {
            address: IpAddr::V4(address),
            length: 24,
        }],
    };
    let servers = (1..254).map(|n| Ipv4Addr::new(192, 168, 1, n));
    Setup {
        interfaces: vec![
            interface(CLIENTS, [192, 0, 2, 254].into()),
            interface(SERVERS, [192, 168, 1, 254].into()),
        ],
        routes: vec![Route {
            to: Prefix {
                address: Ipv4Addr::UNSPECIFIED.into(),
                length: 0,
            },
            via: GATEWAY.into(),
        }],
        neighbours: servers
            .chain([GATEWAY])
            .map(|address| StaticNeighbour {
                address: address.into(),
                mac: station(address),
            })
            .collect(),
        partial_checksums: Vec::new(),
    }
}

impl Default for Lab {
    fn default() -> Self {
        let limits = Limits {
            services_max: 8,
            servers_max: 64,
        };
        let page = Arc::new(Page::new(limits.services_max, limits.servers_max));
        let director = Director::new(4096, [3, 4], setup(), Steer::new(0, 1), page.clone())
            .expect("memory for 4096 connections");
        Self {
            model: Model::new(limits).watching(vec![page.clone()]),
            director,
            wire: Wire::new(page),
            now: Instant::default(),
        }
    }
}

impl Lab {
    /// Applies changes as the daemon does.
    pub fn change(&mut self, changes: &[Change]) {
        let updates = self
            .model
            .apply(changes)
            .unwrap_or_else(|refusal| panic!("{changes:?}: {refusal:?}"));
        for update in &updates {
            self.director.apply(update, &mut self.wire);
        }
        self.wire.sent.clear();
    }

    /// What leaves when `frame` comes in: the IPv4 packets.
    pub fn send(&mut self, frame: &Frame) -> Vec<Vec<u8>> {
        let (port, from) = match frame.from.ip() {
            IpAddr::V4(from) if from.octets()[..3] == [192, 168, 1] => (SERVERS, from),
            _ => (CLIENTS, GATEWAY),
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
    pub fn chosen(&mut self, frame: &Frame) -> Option<SocketAddrV4> {
        let sent = self.send(frame);
        let ip = sent.first().filter(|ip| ip[9] != 1)?;
        let address = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
        Some(SocketAddrV4::new(
            address,
            u16::from_be_bytes([ip[22], ip[23]]),
        ))
    }

    /// A TCP handshake; `None` when there was no server for it.
    pub fn connect(&mut self, client: &str, virtual_address: &str) -> Option<SocketAddrV4> {
        let server = self.chosen(&frames::tcp(client, virtual_address, "S"))?;
        let back = self.send(&frames::tcp(&server.to_string(), client, "SA"));
        assert_eq!(back.len(), 1, "the SYN-ACK goes back");
        let again = self.chosen(&frames::tcp(client, virtual_address, "A"));
        assert_eq!(again, Some(server), "the handshake stays with its server");
        Some(server)
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
