//! What a frame is, as far as it can be read: for filters, and in one line for people.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::mac_text;

const VLAN: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

const ICMP: u8 = 1;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IP6IP: u8 = 41;
const FRAGMENT: u8 = 44;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// The port that GUE usually goes to.
const GUE: u16 = 6080;
/// The TCP option with the client's address.
const TOA: u8 = 254;

/// Extension headers that are looked past.
const EXTENSIONS_MAX: usize = 8;
/// IP packets inside one another that are shown.
const DEPTH_MAX: usize = 3;
/// Bytes shown in hexadecimal of what cannot be read.
const HEX_MAX: usize = 32;

/// A frame's headers. What is cut off is `None`, and claims nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'f> {
    pub vlan: Option<u16>,
    pub ethertype: u16,
    /// What follows the Ethernet header.
    rest: &'f [u8],
}

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// IP's number; `None` for ARP.
    pub protocol: Option<u8>,
    pub from: IpAddr,
    pub to: IpAddr,
    /// Source and destination, where the packet has them.
    pub ports: Option<(u16, u16)>,
}

impl<'f> Frame<'f> {
    /// `None` for what is shorter than an Ethernet header.
    pub fn read(frame: &'f [u8]) -> Option<Self> {
        let (ethertype, rest) = (be16(frame, 12)?, frame.get(14..)?);
        if ethertype != VLAN {
            return Some(Self {
                vlan: None,
                ethertype,
                rest,
            });
        }
        Some(Self {
            vlan: Some(be16(rest, 0)? & 0xfff),
            ethertype: be16(rest, 2)?,
            rest: rest.get(4..)?,
        })
    }

    pub fn is_arp(&self) -> bool {
        self.ethertype == ARP
    }

    /// Of an IP packet or an ARP message.
    pub fn ends(&self) -> Option<Ends> {
        if self.is_arp() {
            let arp = Arp::read(self.rest)?;
            return Some(Ends {
                protocol: None,
                from: arp.sender.into(),
                to: arp.target.into(),
                ports: None,
            });
        }
        let ip = Ip::read(self.rest).filter(|_| matches!(self.ethertype, IPV4 | IPV6))?;
        Some(Ends {
            protocol: Some(ip.protocol),
            from: ip.from,
            to: ip.to,
            ports: ip.ports(),
        })
    }
}

struct Ip<'f> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    /// Identification, offset in bytes and whether more follow.
    fragment: Option<(u32, u16, bool)>,
    /// The transport header and what follows, as far as it is there.
    rest: &'f [u8],
    /// As the headers say, of all that follows them.
    len: usize,
}

impl<'f> Ip<'f> {
    fn read(packet: &'f [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::read_v4(packet),
            6 => Self::read_v6(packet),
            _ => None,
        }
    }

    fn read_v4(packet: &'f [u8]) -> Option<Self> {
        let header_len = usize::from(packet[0] & 0xf) * 4;
        let address = |at: usize| {
            let bytes: [u8; 4] = *packet.get(at..)?.first_chunk()?;
            Some(IpAddr::from(Ipv4Addr::from(bytes)))
        };
        let place = be16(packet, 6)?;
        let (offset, more) = ((place & 0x1fff) * 8, place & 0x2000 != 0);
        let id = be16(packet, 4)?;
        Some(Self {
            from: address(12)?,
            to: address(16)?,
            protocol: *packet.get(9)?,
            fragment: (offset > 0 || more).then_some((id.into(), offset, more)),
            rest: packet.get(header_len.max(20)..).unwrap_or_default(),
            len: usize::from(be16(packet, 2)?).saturating_sub(header_len),
        })
    }

    fn read_v6(packet: &'f [u8]) -> Option<Self> {
        let address = |at: usize| {
            let bytes: [u8; 16] = *packet.get(at..)?.first_chunk()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)))
        };
        let mut ip = Self {
            from: address(8)?,
            to: address(24)?,
            protocol: *packet.get(6)?,
            fragment: None,
            rest: packet.get(40..)?,
            len: usize::from(be16(packet, 4)?),
        };
        for _ in 0..EXTENSIONS_MAX {
            let len = match (ip.protocol, ip.rest) {
                (0 | 43 | 60, [_, len, ..]) => 8 + 8 * usize::from(*len),
                (FRAGMENT, [_, _, a, b, id @ ..]) => {
                    let place = u16::from_be_bytes([*a, *b]);
                    let id = u32::from_be_bytes(*id.first_chunk()?);
                    ip.fragment = Some((id, place & !7, place & 1 != 0));
                    8
                }
                _ => break,
            };
            ip.protocol = ip.rest[0];
            ip.rest = ip.rest.get(len..).unwrap_or_default();
            ip.len = ip.len.saturating_sub(len);
        }
        Some(ip)
    }

    fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|(_, offset, _)| offset > 0)
    }

    fn ports(&self) -> Option<(u16, u16)> {
        let has = matches!(self.protocol, TCP | UDP | SCTP) && !self.is_later_fragment();
        has.then_some((be16(self.rest, 0)?, be16(self.rest, 2)?))
    }
}

struct Arp {
    operation: u16,
    sender_mac: [u8; 6],
    sender: Ipv4Addr,
    target: Ipv4Addr,
}

impl Arp {
    fn read(message: &[u8]) -> Option<Self> {
        let address = |at: usize| {
            let bytes: [u8; 4] = *message.get(at..)?.first_chunk()?;
            Some(Ipv4Addr::from(bytes))
        };
        let is_for_ipv4 = message.get(..6)? == [0, 1, 8, 0, 6, 4];
        is_for_ipv4.then_some(Self {
            operation: be16(message, 6)?,
            sender_mac: *message.get(8..)?.first_chunk()?,
            sender: address(14)?,
            target: address(24)?,
        })
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes: [u8; 2] = *bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(bytes))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(bytes))
}

/// A frame of `len` bytes, of which these are the first, in one line much like tcpdump's.
#[derive(Debug, Clone, Copy)]
pub struct Line<'f> {
    pub bytes: &'f [u8],
    pub len: u32,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(frame) = Frame::read(self.bytes) else {
            return write!(f, "{} bytes: {}", self.len, Hex(self.bytes));
        };
        if let Some(vlan) = frame.vlan {
            write!(f, "vlan {vlan}, ")?;
        }
        let shown = match frame.ethertype {
            IPV4 | IPV6 => packet(f, frame.rest, DEPTH_MAX),
            ARP => arp(f, frame.rest),
            _ => None,
        };
        shown.unwrap_or_else(|| {
            let (ethertype, rest) = (frame.ethertype, Hex(frame.rest));
            write!(f, "ethertype {ethertype:#06x}, {} bytes: {rest}", self.len)
        })
    }
}

/// The first bytes, in hexadecimal.
struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(HEX_MAX) {
            write!(f, "{byte:02x}")?;
        }
        if self.0.len() > HEX_MAX {
            f.write_str("…")?;
        }
        Ok(())
    }
}

fn arp(f: &mut fmt::Formatter<'_>, message: &[u8]) -> Option<fmt::Result> {
    let Arp {
        operation,
        sender_mac,
        sender,
        target,
    } = Arp::read(message)?;
    let mac = mac_text(sender_mac);
    Some(match operation {
        1 => write!(f, "ARP, request who-has {target} tell {sender} ({mac})"),
        2 => write!(f, "ARP, reply {sender} is-at {mac}"),
        other => write!(f, "ARP, operation {other} from {sender} to {target}"),
    })
}

/// An IP packet, and those inside it; `None`, with nothing written, when it cannot be read.
fn packet(f: &mut fmt::Formatter<'_>, bytes: &[u8], depth: usize) -> Option<fmt::Result> {
    let ip = Ip::read(bytes).filter(|_| depth > 0)?;
    Some(write_packet(f, &ip, depth))
}

fn write_packet(f: &mut fmt::Formatter<'_>, ip: &Ip<'_>, depth: usize) -> fmt::Result {
    let family = if ip.from.is_ipv6() { "IP6" } else { "IP" };
    match ip.ports() {
        Some((from, to)) => {
            let ends = [(ip.from, from), (ip.to, to)].map(std::net::SocketAddr::from);
            write!(f, "{family} {} > {}: ", ends[0], ends[1])?;
        }
        None => write!(f, "{family} {} > {}: ", ip.from, ip.to)?,
    }
    if let Some((id, offset, more)) = ip.fragment {
        let more = if more { "+" } else { "" };
        write!(f, "frag (id {id}, offset {offset}{more}), ")?;
    }
    let len = ip.len;
    if ip.is_later_fragment() {
        return write!(f, "protocol {}, length {len}", ip.protocol);
    }
    let shown = match ip.protocol {
        TCP => tcp(f, ip),
        UDP => Some(udp(f, ip, depth)),
        SCTP => sctp(f, ip),
        ICMP => icmp(f, ip, "ICMP", depth),
        ICMPV6 => icmp(f, ip, "ICMP6", depth),
        IPIP | IP6IP => packet(f, ip.rest, depth - 1),
        GRE => Some(gre(f, ip, depth)),
        _ => None,
    };
    shown.unwrap_or_else(|| {
        write!(
            f,
            "protocol {}, length {len}: {}",
            ip.protocol,
            Hex(ip.rest)
        )
    })
}

fn tcp(f: &mut fmt::Formatter<'_>, ip: &Ip<'_>) -> Option<fmt::Result> {
    const FLAGS: [(u8, char); 8] = [
        (0x01, 'F'),
        (0x02, 'S'),
        (0x04, 'R'),
        (0x08, 'P'),
        (0x20, 'U'),
        (0x40, 'E'),
        (0x80, 'W'),
        (0x10, '.'),
    ];
    let [offset, flags] = *ip.rest.get(12..)?.first_chunk()?;
    let names = FLAGS.iter().filter(|(bit, _)| flags & bit != 0);
    let names: String = names.map(|(_, name)| name).collect();
    let names = if names.is_empty() { "none" } else { &names };
    let (seq, ack, window) = (be32(ip.rest, 4)?, be32(ip.rest, 8)?, be16(ip.rest, 14)?);
    let header_len = usize::from(offset >> 4) * 4;
    let len = ip.len.saturating_sub(header_len);
    let options = options(ip.rest, header_len);
    let ack = match flags & 0x10 {
        0 => String::new(),
        _ => format!(", ack {ack}"),
    };
    Some(write!(
        f,
        "Flags [{names}], seq {seq}{ack}, win {window}{options}, length {len}"
    ))
}

/// Of a segment's options those that say how it was changed on its way.
fn options(segment: &[u8], header_len: usize) -> String {
    let mut rest = segment
        .get(20..header_len.min(segment.len()))
        .unwrap_or_default();
    let mut known = Vec::new();
    while let [kind, after @ ..] = rest {
        let len = match (kind, after.first()) {
            (1, _) => 1,
            (0, _) | (_, None | Some(0 | 1)) => break,
            (_, Some(len)) => usize::from(*len),
        };
        match (kind, after) {
            (2, [4, high, low, ..]) => {
                known.push(format!("mss {}", u16::from_be_bytes([*high, *low])));
            }
            (&TOA, _) => known.push("toa".to_owned()),
            _ => {}
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    match known.is_empty() {
        true => String::new(),
        false => format!(", options [{}]", known.join(", ")),
    }
}

fn udp(f: &mut fmt::Formatter<'_>, ip: &Ip<'_>, depth: usize) -> fmt::Result {
    let len = ip.len.saturating_sub(8);
    write!(f, "UDP, length {len}")?;
    if ip.ports().is_none_or(|(_, to)| to != GUE) {
        return Ok(());
    }
    // Version 0, no control message, and what is in it is IP.
    let inside = match ip.rest.get(8..) {
        Some([first, IPIP | IP6IP, _, _, rest @ ..]) if first & 0xe0 == 0 => {
            rest.get(usize::from(first & 0x1f) * 4..)
        }
        _ => None,
    };
    if inside.is_some() {
        write!(f, ", GUE")?;
    }
    inner(f, inside, depth)
}

fn gre(f: &mut fmt::Formatter<'_>, ip: &Ip<'_>, depth: usize) -> fmt::Result {
    write!(f, "GRE, length {}", ip.len)?;
    // Each of these flags adds a word: checksum, key, sequence number.
    let flags = be16(ip.rest, 0).unwrap_or(0);
    let words = 1 + [0x8000, 0x2000, 0x1000]
        .iter()
        .filter(|&&flag| flags & flag != 0)
        .count();
    let is_ip = be16(ip.rest, 2).is_some_and(|ethertype| matches!(ethertype, IPV4 | IPV6));
    inner(f, ip.rest.get(words * 4..).filter(|_| is_ip), depth)
}

/// A packet inside another one, if it can be read.
fn inner(f: &mut fmt::Formatter<'_>, bytes: Option<&[u8]>, depth: usize) -> fmt::Result {
    let Some(inside) = bytes.and_then(Ip::read).filter(|_| depth > 1) else {
        return Ok(());
    };
    write!(f, ": ")?;
    write_packet(f, &inside, depth - 1)
}

fn sctp(f: &mut fmt::Formatter<'_>, ip: &Ip<'_>) -> Option<fmt::Result> {
    const CHUNKS: [&str; 15] = [
        "DATA",
        "INIT",
        "INIT ACK",
        "SACK",
        "HEARTBEAT",
        "HEARTBEAT ACK",
        "ABORT",
        "SHUTDOWN",
        "SHUTDOWN ACK",
        "ERROR",
        "COOKIE ECHO",
        "COOKIE ACK",
        "ECNE",
        "CWR",
        "SHUTDOWN COMPLETE",
    ];
    let chunk = *ip.rest.get(12)?;
    Some(match CHUNKS.get(usize::from(chunk)) {
        Some(name) => write!(f, "SCTP [{name}], length {}", ip.len),
        None => write!(f, "SCTP chunk {chunk}, length {}", ip.len),
    })
}

fn icmp(f: &mut fmt::Formatter<'_>, ip: &Ip<'_>, name: &str, depth: usize) -> Option<fmt::Result> {
    let [kind, code] = *ip.rest.first_chunk()?;
    let v6 = ip.protocol == ICMPV6;
    let what = match (v6, kind, code) {
        (false, 8, _) | (true, 128, _) => "echo request",
        (false, 0, _) | (true, 129, _) => "echo reply",
        (false, 3, 0) | (true, 1, 0) => "net unreachable",
        (false, 3, 1) | (true, 1, 3) => "host unreachable",
        (false, 3, 3) | (true, 1, 4) => "port unreachable",
        (false, 3, 4) => "fragmentation needed",
        (true, 2, _) => "packet too big",
        (false, 11, _) | (true, 3, _) => "time exceeded",
        (true, 133, _) => "router solicitation",
        (true, 134, _) => "router advertisement",
        (true, 135, _) => "neighbor solicitation",
        (true, 136, _) => "neighbor advertisement",
        _ => "",
    };
    let written = match what {
        "" => write!(f, "{name} type {kind} code {code}"),
        what => write!(f, "{name} {what}"),
    };
    if written.is_err() {
        return Some(written);
    }
    let quotes = if v6 {
        kind < 128
    } else {
        matches!(kind, 3 | 4 | 5 | 11 | 12)
    };
    let quoted = ip.rest.get(8..).filter(|_| quotes);
    Some(match quoted.and_then(Ip::read).filter(|_| depth > 1) {
        Some(quoted) => write!(f, " about ").and_then(|()| write_packet(f, &quoted, depth - 1)),
        None => write!(f, ", length {}", ip.len),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(hex: &str) -> String {
        let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes: Vec<_> = (digits.chunks(2))
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let len = u32::try_from(bytes.len()).unwrap();
        Line { bytes: &bytes, len }.to_string()
    }

    const MACS: &str = "020000000001 020000000002";
    const IP: &str = "4500 0028 0001 4000 40 06 0000 0a000002 0a000001";

    #[test]
    fn packets_are_one_line_each() {
        let tcp = "9c40 0050 00000001 00000000 5002 faf0 0000 0000";
        for (packet, shown) in [
            (
                format!("{MACS} 0800 {IP} {tcp}"),
                "IP 10.0.0.2:40000 > 10.0.0.1:80: Flags [S], seq 1, win 64240, length 0",
            ),
            (
                format!("{MACS} 8100 0064 0800 {IP} {}", tcp.replace("5002", "5018")),
                "vlan 100, IP 10.0.0.2:40000 > 10.0.0.1:80: Flags [P.], seq 1, ack 0, win 64240, length 0",
            ),
            (
                format!(
                    "{MACS} 0800 4500 0020 0001 0000 40 11 0000 0a000002 0a000001 0035 0050 000c 0000 61626364"
                ),
                "IP 10.0.0.2:53 > 10.0.0.1:80: UDP, length 4",
            ),
            (
                format!(
                    "{MACS} 0800 4500 001c 0001 2001 40 11 0000 0a000002 0a000001 6162 6364 6162 6364"
                ),
                "IP 10.0.0.2 > 10.0.0.1: frag (id 1, offset 8+), protocol 17, length 8",
            ),
            (
                format!(
                    "{MACS} 0800 4500 0038 0001 0000 40 01 0000 0a000001 0a000002 0303 0000 00000000 {IP} 9c40 0050"
                ),
                "IP 10.0.0.1 > 10.0.0.2: ICMP port unreachable about IP 10.0.0.2:40000 > 10.0.0.1:80: \
                 protocol 6, length 20: 9c400050",
            ),
            (
                format!("{MACS} 0800 4500 003c 0001 0000 40 04 0000 0a000063 c0a80103 {IP} {tcp}"),
                "IP 10.0.0.99 > 192.168.1.3: IP 10.0.0.2:40000 > 10.0.0.1:80: Flags [S], seq 1, win 64240, length 0",
            ),
            (
                format!(
                    "{MACS} 86dd 60000000 0010 00 40 20010db8000000000000000000000002 20010db8000000000000000000000001 3a00 000000000000 8000 0000 00010001"
                ),
                "IP6 2001:db8::2 > 2001:db8::1: ICMP6 echo request, length 8",
            ),
            (
                format!(
                    "{MACS} 86dd 60000000 0020 84 40 20010db8000000000000000000000002 20010db8000000000000000000000001 9c40 0050 00000000 00000000 01000014"
                ),
                "IP6 [2001:db8::2]:40000 > [2001:db8::1]:80: SCTP [INIT], length 32",
            ),
            (
                format!(
                    "{MACS} 0806 0001 0800 0604 0001 020000000002 0a000002 000000000000 0a000001"
                ),
                "ARP, request who-has 10.0.0.1 tell 10.0.0.2 (02:00:00:00:00:02)",
            ),
            (
                format!("{MACS} 88cc 0207"),
                "ethertype 0x88cc, 16 bytes: 0207",
            ),
            (
                format!("{MACS} 0800 4500"),
                "ethertype 0x0800, 16 bytes: 4500",
            ),
            ("0200".to_owned(), "2 bytes: 0200"),
            (
                format!(
                    "{MACS} 0800 {IP} {} 0204 05b4 01 01 fe08 9c40 0a000003 0000",
                    tcp.replace("5002", "a002")
                ),
                "IP 10.0.0.2:40000 > 10.0.0.1:80: Flags [S], seq 1, win 64240, options [mss 1460, toa], length 0",
            ),
            (
                format!(
                    "{MACS} 0800 4500 0040 0001 0000 40 2f 0000 0a000063 c0a80103 0000 0800 {IP} {tcp}"
                ),
                "IP 10.0.0.99 > 192.168.1.3: GRE, length 44: \
                 IP 10.0.0.2:40000 > 10.0.0.1:80: Flags [S], seq 1, win 64240, length 0",
            ),
            (
                format!(
                    "{MACS} 0800 4500 0044 0001 0000 40 2f 0000 0a000063 c0a80103 8000 0800 00000000 {IP} {tcp}"
                ),
                "IP 10.0.0.99 > 192.168.1.3: GRE, length 48: \
                 IP 10.0.0.2:40000 > 10.0.0.1:80: Flags [S], seq 1, win 64240, length 0",
            ),
            (
                format!(
                    "{MACS} 0800 4500 0048 0001 0000 40 11 0000 0a000063 c0a80103 1234 17c0 0034 0000 0004 0000 {IP} {tcp}"
                ),
                "IP 10.0.0.99:4660 > 192.168.1.3:6080: UDP, length 44, GUE: \
                 IP 10.0.0.2:40000 > 10.0.0.1:80: Flags [S], seq 1, win 64240, length 0",
            ),
        ] {
            assert_eq!(line(&packet), shown);
        }
    }

    proptest! {
        /// Of whatever bytes, and of good packets cut anywhere.
        #[test]
        fn rubbish_is_a_line_too(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0..3usize) {
            let mut bytes = bytes;
            if let Some(place) = bytes.get_mut(12..14) {
                place.copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0]][kind]);
            }
            let shown = Line { bytes: &bytes, len: 120 }.to_string();
            prop_assert!(!shown.is_empty() && !shown.contains('\n'));
            let _ = Frame::read(&bytes).and_then(|frame| frame.ends());
        }
    }
}
