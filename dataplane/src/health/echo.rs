//! ICMP echo, of all targets by one raw socket per family.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::wire::checksum;

const REQUEST: [u8; 2] = [8, 128];
const REPLY: [u8; 2] = [0, 129];
/// Type, code, checksum, identification, sequence number; then the check and what this probe is
/// known by.
const LEN: usize = 8 + 16;

/// By family: whether it is IPv6.
#[derive(Debug)]
pub(super) struct Echo {
    sockets: [Option<UdpSocket>; 2],
    tokens: [Token; 2],
    /// Checks whose answer is missing: where from, and what it is known by.
    waiting: HashMap<usize, (IpAddr, u64)>,
}

impl Echo {
    pub(super) fn new(tokens: [Token; 2]) -> Self {
        Self {
            sockets: [None, None],
            tokens,
            waiting: HashMap::new(),
        }
    }

    pub(super) fn send(
        &mut self,
        registry: &Registry,
        check: usize,
        to: IpAddr,
        secret: u64,
    ) -> io::Result<()> {
        let ipv6 = usize::from(to.is_ipv6());
        if self.sockets[ipv6].is_none() {
            self.sockets[ipv6] = Some(open(registry, self.tokens[ipv6], to.is_ipv6())?);
        }
        let Some(socket) = &self.sockets[ipv6] else {
            return Ok(());
        };
        let mut message = [0; LEN];
        message[0] = REQUEST[ipv6];
        message[4..8].copy_from_slice(&secret.to_be_bytes()[..4]);
        message[8..16].copy_from_slice(&(check as u64).to_be_bytes());
        message[16..].copy_from_slice(&secret.to_be_bytes());
        if ipv6 == 0 {
            // The kernel sees to ICMPv6's.
            let sum = checksum::icmp(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        socket.send_to(&message, SocketAddr::new(to, 0))?;
        self.waiting.insert(check, (to, secret));
        Ok(())
    }

    pub(super) fn forget(&mut self, check: usize) {
        self.waiting.remove(&check);
    }

    /// Checks that were answered.
    pub(super) fn heard(&mut self, token: Token) -> Vec<usize> {
        let mut answered = Vec::new();
        let ipv6 = usize::from(self.tokens[1] == token);
        let Some(socket) = &self.sockets[ipv6] else {
            return answered;
        };
        let mut piece = [0; 2048];
        loop {
            match socket.recv_from(&mut piece) {
                Ok((n, from)) => {
                    let check = answer(&piece[..n], ipv6 == 1).filter(|(check, secret)| {
                        self.waiting.get(check) == Some(&(from.ip(), *secret))
                    });
                    if let Some((check, _)) = check {
                        self.waiting.remove(&check);
                        answered.push(check);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return answered,
                // Some earlier message's.
                Err(_) => {}
            }
        }
    }
}

fn open(registry: &Registry, token: Token, ipv6: bool) -> io::Result<UdpSocket> {
    let (family, protocol) = if ipv6 {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    } else {
        (AddressFamily::Inet, SockProtocol::Icmp)
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(family, SockType::Raw, flags, protocol)?;
    let mut socket = UdpSocket::from_std(socket.into());
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

/// The check that a message answers, and what its probe is known by. An IPv4 socket gives the IP
/// header, too.
fn answer(message: &[u8], ipv6: bool) -> Option<(usize, u64)> {
    let header = if ipv6 {
        0
    } else {
        usize::from(message.first()? & 0x0f) * 4
    };
    let message = message.get(header..)?;
    let number = |at: usize| Some(u64::from_be_bytes(*message.get(at..)?.first_chunk()?));
    let is_reply = message.first_chunk() == Some(&[REPLY[usize::from(ipv6)], 0]);
    is_reply.then_some((usize::try_from(number(8)?).ok()?, number(16)?))
}
