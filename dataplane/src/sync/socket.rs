//! The multicast group that synchronised directors share, on one interface of the kernel's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use control::SyncDaemon;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

/// The MTU of an interface that does not say.
const MTU: u32 = 1500;

/// Where a daemon speaks.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Everything that was left out filled in as LVS does.
    pub(super) daemon: SyncDaemon,
    index: u32,
}

impl Place {
    /// `ENODEV` for an interface that there is not, `EINVAL` for a group that is none.
    pub(super) fn of(daemon: &SyncDaemon) -> io::Result<Self> {
        let index = if_nametoindex(daemon.interface.as_str())?;
        if !daemon.group.is_multicast() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let daemon = daemon.on(mtu(&daemon.interface));
        Ok(Self { daemon, index })
    }

    pub(super) fn sync_id(&self) -> u8 {
        self.daemon.sync_id
    }

    pub(super) fn len_max(&self) -> u16 {
        self.daemon.max_len.unwrap_or(u16::MAX)
    }

    /// The same at a later port: with several the connections are spread over them.
    #[must_use]
    pub(super) fn at(&self, number: u16) -> Self {
        let mut place = self.clone();
        place.daemon.port = self.daemon.port.saturating_add(number);
        place
    }

    /// To send to the group by: what is sent goes out by the interface alone, and is not heard here.
    pub(super) fn speaker(&self) -> io::Result<UdpSocket> {
        let socket = self.socket()?;
        match self.daemon.group {
            IpAddr::V4(_) => {
                socket.set_multicast_ttl_v4(self.daemon.ttl.into())?;
                socket.set_multicast_loop_v4(false)?;
                socket.bind(&SockAddr::from(SocketAddr::from((
                    Ipv4Addr::UNSPECIFIED,
                    0,
                ))))?;
            }
            IpAddr::V6(_) => {
                socket.set_multicast_if_v6(self.index)?;
                socket.set_multicast_hops_v6(self.daemon.ttl.into())?;
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
        match self.daemon.group {
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
        let mut to = SocketAddr::new(self.daemon.group, self.daemon.port);
        if let SocketAddr::V6(to) = &mut to {
            to.set_scope_id(self.index);
        }
        to
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = Domain::for_address(SocketAddr::new(self.daemon.group, 0));
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind_device(Some(self.daemon.interface.as_bytes()))?;
        Ok(socket)
    }
}

fn mtu(interface: &str) -> u32 {
    let path = format!("/sys/class/net/{interface}/mtu");
    let mtu = std::fs::read_to_string(path).ok();
    mtu.and_then(|mtu| mtu.trim().parse().ok()).unwrap_or(MTU)
}
