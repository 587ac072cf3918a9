//! Errors about the packets of our own tunnels: what they say is told to the client.

use std::net::IpAddr;
use std::ops::Range;

use control::TunnelKind;

use super::{Error, tuple};
use crate::icmp::{self, ErrorKind, Made};
use crate::wire::ethernet;
use crate::wire::flow::{Tuple, UDP};
use crate::wire::ip::Ip;

const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;
const GRE_CHECKSUM: u16 = 0x8000;
const UDP_LEN: usize = 8;
/// Version and control bit of GUE: a data message of version 0 has none of them.
const GUE_NO_DATA: u8 = 0xe0;
const GUE_LEN: u8 = 0x1f;

/// An ICMP error about a packet that left in a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnelled {
    /// To whom the tunnel goes, and from where: the error was sent there.
    pub server: IpAddr,
    pub to: IpAddr,
    pub tunnel: TunnelKind,
    /// GUE's UDP destination port.
    pub port: Option<u16>,
    pub kind: ErrorKind,
    /// Bytes between the outer header's start and the inner packet.
    pub overhead: usize,
    /// Where in the frame the inner packet lies, as far as it is quoted.
    pub inner: Range<usize>,
    /// Of the inner packet.
    pub tuple: Tuple,
    /// The inner packet may not be fragmented: its sender has to know of a smaller MTU.
    pub dont_fragment: bool,
}

/// Reads the ICMP message at `l4` of the IP packet of `ip_len` bytes at `l3`. `None` if it is no
/// valid error about an IPIP, GRE or GUE packet of ours that quotes the inner packet's ports. That
/// the tunnel is configured is for the caller to see.
pub fn tunnelled(frame: &[u8], l3: usize, l4: usize, ip_len: u16) -> Option<Tunnelled> {
    let error = Error::read(frame, l3, l4, ip_len).ok()??;
    let outer = &error.quoted;
    if outer.is_later_fragment {
        return None;
    }
    let quote = &frame[error.quoted_l3..error.quote_end];
    let tunnel = Tunnel::read(outer.protocol, &quote[outer.payload..])?;
    let overhead = outer.payload + tunnel.len;
    let inner = quote.get(overhead..)?;
    let ip = Ip::parse(inner).ok()?;
    if ip.is_v6() != tunnel.is_v6 {
        return None;
    }
    Some(Tunnelled {
        server: outer.dst,
        to: error.to,
        tunnel: tunnel.kind,
        port: tunnel.port,
        kind: error.kind.about_tunnel()?,
        overhead,
        inner: error.quoted_l3 + overhead..error.quote_end,
        tuple: tuple(inner, &ip)?,
        dont_fragment: ip.dont_fragment,
    })
}

/// What lies between the outer IP header and the inner packet.
struct Tunnel {
    kind: TunnelKind,
    /// What the inner packet is said to be.
    is_v6: bool,
    len: usize,
    port: Option<u16>,
}

impl Tunnel {
    fn read(protocol: u8, header: &[u8]) -> Option<Self> {
        match protocol {
            GRE => Self::gre(header.first_chunk()?),
            UDP => Self::gue(header.first_chunk()?),
            protocol => Some(Self {
                kind: TunnelKind::Ipip,
                is_v6: is_v6(protocol)?,
                len: 0,
                port: None,
            }),
        }
    }

    fn gre(&[a, b, c, d]: &[u8; 4]) -> Option<Self> {
        let len = match u16::from_be_bytes([a, b]) {
            0 => 4,
            GRE_CHECKSUM => 8,
            _ => return None,
        };
        let is_v6 = match u16::from_be_bytes([c, d]) {
            ethernet::IPV4 => false,
            ethernet::IPV6 => true,
            _ => return None,
        };
        Some(Self {
            kind: TunnelKind::Gre,
            is_v6,
            len,
            port: None,
        })
    }

    fn gue(header: &[u8; UDP_LEN + 4]) -> Option<Self> {
        let [first, protocol] = [header[UDP_LEN], header[UDP_LEN + 1]];
        if first & GUE_NO_DATA != 0 {
            return None;
        }
        Some(Self {
            kind: TunnelKind::Gue,
            is_v6: is_v6(protocol)?,
            len: UDP_LEN + 4 + usize::from(first & GUE_LEN) * 4,
            port: Some(u16::from_be_bytes([header[2], header[3]])),
        })
    }
}

fn is_v6(protocol: u8) -> Option<bool> {
    match protocol {
        IPV4 => Some(false),
        IPV6 => Some(true),
        _ => None,
    }
}

/// The error that tells the sender of `inner`, which may be cut, what became of its packet in the
/// tunnel; `None` when the standards forbid one. For a packet too big, `kind` is to have the MTU that
/// is left inside the tunnel.
pub fn answer_for_inner(inner: &[u8], kind: ErrorKind, source: IpAddr) -> Option<Made> {
    icmp::error(inner, kind.in_family(inner.first()? >> 4 == 6)?, source)
}
