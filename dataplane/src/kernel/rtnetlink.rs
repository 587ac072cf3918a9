//! rtnetlink (rtnetlink(7)): asks for the tables whole, and hears that something changed.
//!
//! What exactly changed is not listened to: it may have been lost when much did. All that follows from
//! a change follows from the tables as they are after it.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tables::{LinkId, Tables};

/// Of each of these the kernel says when something changed (`RTNLGRP_*`).
const GROUPS: [u32; 7] = [
    1,  // LINK
    3,  // NEIGH
    5,  // IPV4_IFADDR
    7,  // IPV4_ROUTE
    9,  // IPV6_IFADDR
    11, // IPV6_ROUTE
    32, // NEXTHOP
];
/// How often a dump begins again because something changed meanwhile.
const DUMPS_MAX: usize = 5;

/// Asks the kernel for its tables.
#[derive(Debug)]
pub struct Asking {
    socket: Socket,
    sequence: u32,
}

impl Asking {
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// All tables. They are read one after the other: a change in between is heard of afterwards.
    pub fn tables(&mut self) -> io::Result<Tables> {
        let mut tables = Tables::default();
        self.dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            &mut tables,
        )?;
        self.dump(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            &mut tables,
        )?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut route = RouteMessage::default();
            route.header.address_family = family;
            self.dump(RouteNetlinkMessage::GetRoute(route), &mut tables)?;
        }
        self.dump(
            RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
            &mut tables,
        )?;
        Ok(tables)
    }

    /// Gives an interface an address, or takes it away.
    pub fn set_address(
        &mut self,
        link: LinkId,
        address: IpAddr,
        length: u8,
        is_there: bool,
    ) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = link;
        message.header.prefix_len = length;
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
        ];
        let (request, flags) = if is_there {
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            (RouteNetlinkMessage::NewAddress(message), flags)
        } else {
            (RouteNetlinkMessage::DelAddress(message), 0)
        };
        self.ask(request, NLM_F_ACK | flags)?;
        self.answer(|_| {}).map(|_| ())
    }

    /// Whether the interface of this name is up and has a carrier. `ENODEV` if there is none.
    pub fn is_running(&mut self, name: &str) -> io::Result<bool> {
        let request = RouteNetlinkMessage::GetLink(named(name));
        self.ask(request, NLM_F_ACK)?;
        let mut found = Tables::default();
        self.answer(|part| found.take(part))?;
        Ok(found.links.values().any(|link| link.is_up))
    }

    /// Gives an interface of tun(4)'s a carrier, or takes it away (`IFLA_CARRIER`).
    pub fn set_carrier(&mut self, name: &str, is_there: bool) -> io::Result<()> {
        let mut message = named(name);
        let carrier = LinkAttribute::Carrier(is_there.into());
        message.attributes.push(carrier);
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)?;
        self.answer(|_| {}).map(|_| ())
    }

    /// Takes one table into `tables`.
    fn dump(&mut self, request: RouteNetlinkMessage, tables: &mut Tables) -> io::Result<()> {
        for _ in 0..DUMPS_MAX {
            let mut taken = tables.clone();
            if self.dump_once(request.clone(), &mut taken)? {
                *tables = taken;
                return Ok(());
            }
        }
        Err(io::Error::other("the kernel's tables do not hold still"))
    }

    /// `false` if something changed while the kernel answered.
    fn dump_once(&mut self, request: RouteNetlinkMessage, tables: &mut Tables) -> io::Result<bool> {
        self.ask(request, NLM_F_DUMP)?;
        self.answer(|part| tables.take(part))
    }

    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Whether nothing changed meanwhile.
    fn answer(&mut self, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        let mut is_whole = true;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                is_whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(is_whole),
                    // An error of none.
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(is_whole),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(part) => each(part),
                    _ => {}
                }
            }
        }
    }
}

/// About the interface of this name.
fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    message
}

/// Hears when any of the tables changes.
#[derive(Debug)]
pub struct Hearing(Socket);

impl Hearing {
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Waits for a change, at most so long; then until nothing changes for `quiet`, but no longer
    /// than ten times that. Whether there was one.
    pub fn wait(&mut self, at_most: Duration, quiet: Duration) -> io::Result<bool> {
        if !self.is_readable(at_most)? {
            return Ok(false);
        }
        for _ in 0..10 {
            self.drain()?;
            if !self.is_readable(quiet)? {
                break;
            }
        }
        self.drain()?;
        Ok(true)
    }

    fn is_readable(&self, at_most: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let mut waiting = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Forgets what was said: that something was is all that counts.
    fn drain(&self) -> io::Result<()> {
        let mut forgotten = [0; 1 << 13];
        loop {
            match self.0.recv(&mut forgotten.as_mut_slice(), 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // More changed than the kernel kept.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_does_not_run() {
        let error = Asking::new().unwrap().is_running("no-such").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENODEV as i32));
    }
}
