//! The multicast group that synchronised directors share, on one interface of the kernel's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use control::{SyncDaemon, SyncRole};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

/// UDP over IPv4 and over IPv6: headers of a datagram.
const HEADERS_V4: u32 = 28;
const HEADERS_V6: u32 = 48;
/// What LVS takes for a link's MTU when it sends.
const MTU: u32 = 1500;
const MTU_MAX: u32 = 65_535;
/// The longest datagram of a backup is not shorter.
const BACKUP_MIN: u32 = 1024;

/// Where a daemon speaks, everything that was left out filled in as LVS does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) role: SyncRole,
    pub(super) interface: String,
    pub(super) index: u32,
    pub(super) sync_id: u8,
    /// Of a datagram without its headers.
    pub(super) len_max: u16,
    pub(super) group: IpAddr,
    pub(super) port: u16,
    pub(super) ttl: u8,
}

impl Place {
    /// `ENODEV` for an interface that there is not, `EINVAL` for a group that is none.
    pub(super) fn of(daemon: &SyncDaemon) -> io::Result<Self> {
        let interface = daemon.interface.clone();
        let index = if_nametoindex(interface.as_str())?;
        let group = daemon.group;
        if !group.is_multicast() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let headers = if group.is_ipv4() {
            HEADERS_V4
        } else {
            HEADERS_V6
        };
        let (least, usual) = match daemon.role {
            SyncRole::Master => (1, MTU),
            SyncRole::Backup => (BACKUP_MIN, mtu(&interface).clamp(MTU, MTU_MAX)),
        };
        let most = MTU_MAX - headers;
        let len_max = daemon
            .max_len
            .map_or(usual - headers, |len| u32::from(len).clamp(least, most));
        Ok(Self {
            role: daemon.role,
            interface,
            index,
            sync_id: daemon.sync_id,
            len_max: u16::try_from(len_max).unwrap_or(u16::MAX),
            group,
            port: daemon.port,
            ttl: daemon.ttl,
        })
    }

    /// As it is listed.
    pub(super) fn daemon(&self) -> SyncDaemon {
        SyncDaemon {
            role: self.role,
            interface: self.interface.clone(),
            sync_id: self.sync_id,
            max_len: Some(self.len_max),
            group: self.group,
            port: self.port,
            ttl: self.ttl,
        }
    }

    /// The same at a later port: with several the connections are spread over them.
    #[must_use]
    pub(super) fn at(&self, number: u16) -> Self {
        let port = self.port.saturating_add(number);
        Self {
            port,
            ..self.clone()
        }
    }

    /// To send to the group by: what is sent goes out by the interface alone, and is not heard here.
    pub(super) fn speaker(&self) -> io::Result<UdpSocket> {
        let socket = self.socket()?;
        match self.group {
            IpAddr::V4(_) => {
                socket.set_multicast_ttl_v4(self.ttl.into())?;
                socket.set_multicast_loop_v4(false)?;
                socket.bind(&SockAddr::from(SocketAddr::from((
                    Ipv4Addr::UNSPECIFIED,
                    0,
                ))))?;
            }
            IpAddr::V6(_) => {
                socket.set_multicast_if_v6(self.index)?;
                socket.set_multicast_hops_v6(self.ttl.into())?;
                socket.set_multicast_loop_v6(false)?;
                socket.bind(&SockAddr::from(SocketAddr::from((
                    Ipv6Addr::UNSPECIFIED,
                    0,
                ))))?;
            }
        }
        Ok(socket.into())
    }

    /// To hear the group by; a wait for a datagram ends after `patience`.
    pub(super) fn listener(&self, patience: Duration) -> io::Result<UdpSocket> {
        let socket = self.socket()?;
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(self.to()))?;
        match self.group {
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(self.index))?;
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, self.index)?,
        }
        socket.set_read_timeout(Some(patience))?;
        Ok(socket.into())
    }

    /// The group.
    pub(super) fn to(&self) -> SocketAddr {
        let mut to = SocketAddr::new(self.group, self.port);
        if let SocketAddr::V6(to) = &mut to {
            to.set_scope_id(self.index);
        }
        to
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = Domain::for_address(SocketAddr::new(self.group, 0));
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind_device(Some(self.interface.as_bytes()))?;
        Ok(socket)
    }
}

fn mtu(interface: &str) -> u32 {
    let path = format!("/sys/class/net/{interface}/mtu");
    let mtu = std::fs::read_to_string(path).ok();
    mtu.and_then(|mtu| mtu.trim().parse().ok()).unwrap_or(MTU)
}
