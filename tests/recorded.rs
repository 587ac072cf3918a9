//! The machine on which the real ipvsadm was recorded, as far as its listings show it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use control::ipvsadm::names::{Names, Transport};
use control::{Reply, Request};
use dataplane::conn::state::State;
use dataplane::control::model::Model;

/// The names of the machine that made the recordings.
#[derive(Debug, Clone, Copy)]
pub struct RecordedNames;

const HOSTS: &[(&str, IpAddr)] = &[
    ("vip.example", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
    ("rs1.example", IpAddr::V4(Ipv4Addr::new(192, 168, 1, 11))),
    (
        "vip6.example",
        IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 1)),
    ),
];
const PORTS: &[(&str, u16)] = &[
    ("domain", 53),
    ("http", 80),
    ("https", 443),
    ("sip", 5060),
    ("mdns", 5353),
    ("http-alt", 8080),
];

impl Names for RecordedNames {
    fn host(&self, name: &str) -> Option<Ipv4Addr> {
        HOSTS.iter().find_map(|(host, address)| match address {
            IpAddr::V4(address) if *host == name => Some(*address),
            _ => None,
        })
    }

    fn port(&self, name: &str, _: Option<Transport>) -> Option<u16> {
        PORTS
            .iter()
            .find(|(port, _)| *port == name)
            .map(|(_, number)| *number)
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        HOSTS
            .iter()
            .find(|(_, known)| address == *known)
            .map(|(name, _)| (*name).into())
    }

    fn port_name(&self, port: u16, _: Transport) -> Option<String> {
        PORTS
            .iter()
            .find(|(_, known)| port == *known)
            .map(|(name, _)| (*name).into())
    }
}

/// What the model alone answers.
pub fn told(model: &Model, request: &Request) -> Reply {
    match request {
        Request::Services { only } => match model.services(only.as_ref()) {
            Ok(list) => Reply::Services(list),
            Err(refusal) => Reply::Refused(refusal),
        },
        Request::Timeouts => {
            let seconds = |state| model.timeouts().ms(state) / 1000;
            Reply::Timeouts {
                tcp: seconds(State::Established),
                tcp_fin: seconds(State::FinWait),
                udp: seconds(State::Udp),
            }
        }
        _ => panic!("ipvsadm asks the model no {request:?}"),
    }
}
