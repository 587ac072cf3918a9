//! Names of hosts and ports, both ways.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use dns_lookup::{AddrInfoHints, getaddrinfo, getnameinfo};
use nix::libc;

/// A transport protocol as far as port names depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// Where names come from; the tests bring their own.
pub trait Names {
    /// The first IPv4 address of a host.
    fn host(&self, name: &str) -> Option<Ipv4Addr>;
    /// The port of a service name; of any protocol when none is known yet.
    fn port(&self, name: &str, transport: Option<Transport>) -> Option<u16>;
    fn host_name(&self, address: IpAddr) -> Option<String>;
    fn port_name(&self, port: u16, transport: Transport) -> Option<String>;
}

/// Asks nobody: all that it knows is that http is port 80. For tests.
#[derive(Debug, Clone, Copy)]
pub struct NoNames;

impl Names for NoNames {
    fn host(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }

    fn port(&self, name: &str, _: Option<Transport>) -> Option<u16> {
        (name == "http").then_some(80)
    }

    fn host_name(&self, _: IpAddr) -> Option<String> {
        None
    }

    fn port_name(&self, _: u16, _: Transport) -> Option<String> {
        None
    }
}

/// The C library's resolver: /etc/hosts, DNS and /etc/services as the system is set up.
#[derive(Debug, Clone, Copy)]
pub struct SystemNames;

impl Names for SystemNames {
    fn host(&self, name: &str) -> Option<Ipv4Addr> {
        (name, 0)
            .to_socket_addrs()
            .ok()?
            .find_map(|found| match found {
                SocketAddr::V4(v4) => Some(*v4.ip()),
                SocketAddr::V6(_) => None,
            })
    }

    fn port(&self, name: &str, transport: Option<Transport>) -> Option<u16> {
        let (socktype, protocol) = match transport {
            None => (0, 0),
            Some(Transport::Tcp) => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
            Some(Transport::Udp) => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            Some(Transport::Sctp) => (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        };
        let hints = AddrInfoHints {
            socktype,
            protocol,
            ..AddrInfoHints::default()
        };
        let mut found = getaddrinfo(None, Some(name), Some(hints)).ok()?;
        found.next()?.ok().map(|info| info.sockaddr.port())
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        let asked = SocketAddr::new(address, 0);
        // A resolver that fails is the same to a listing as an address without a name.
        let (name, _) = getnameinfo(&asked, libc::NI_NAMEREQD | libc::NI_NUMERICSERV).ok()?;
        Some(name)
    }

    fn port_name(&self, port: u16, transport: Transport) -> Option<String> {
        let flags = match transport {
            Transport::Tcp => 0,
            Transport::Udp => libc::NI_DGRAM,
            // getnameinfo(3) knows no third kind of socket.
            Transport::Sctp => return None,
        };
        let asked = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let (_, name) = getnameinfo(&asked, flags | libc::NI_NUMERICHOST).ok()?;
        (name != port.to_string()).then_some(name)
    }
}
