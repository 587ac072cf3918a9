//! ICMP errors that belong to connections and to tunnels. Bytes in, bytes out: what they quote is
//! read here, the connection is for the caller to find, and then the error is readdressed in place,
//! rewritten for the other family, or told on to the client of a tunnel.

mod family; // errors from one family to the other
#[cfg(test)]
mod tests;
mod tunnel; // errors about the packets of our own tunnels

use std::net::{IpAddr, SocketAddr};

use zerocopy::FromBytes;

pub use self::family::translate_family;
pub use self::tunnel::{Tunnelled, answer_for_inner, tunnelled};
use crate::counters::DropReason;
use crate::icmp::{self, ErrorKind};
use crate::wire::checksum;
use crate::wire::flow::{SCTP, TCP, Tuple, UDP};
use crate::wire::icmp::{Icmp, LEN};
use crate::wire::ip::{Ip, decrement_ttl, readdress};

/// What every error quotes of a transport header at least (RFC 792), and all of it that matters:
/// ports and TCP's sequence number.
const L4_MIN: usize = 8;

/// An ICMP error and the packet that it quotes. Offsets are from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Related {
    /// As the quoted packet had it.
    pub quoted: Tuple,
    pub kind: ErrorKind,
    /// Where the quoted IP header begins.
    pub quoted_l3: usize,
    /// Where the quoted transport header begins; eight bytes of it are there.
    pub quoted_l4: usize,
    /// Who sent the error, and to whom.
    pub from: IpAddr,
    pub to: IpAddr,
    /// Where the quote ends, without the extensions of RFC 4884.
    quote_end: usize,
    /// Where the error's IP packet ends.
    end: usize,
}

/// Reads the ICMP message at `l4` of the IP packet of `ip_len` bytes at `l3`. `None` if it is no
/// error or does not quote enough of a TCP, UDP or SCTP packet. A fragment of an error is for the
/// caller to refuse.
pub fn related(
    frame: &[u8],
    l3: usize,
    l4: usize,
    ip_len: u16,
) -> Result<Option<Related>, DropReason> {
    let Some(error) = Error::read(frame, l3, l4, ip_len)? else {
        return Ok(None);
    };
    let quote = &frame[error.quoted_l3..error.quote_end];
    Ok(tuple(quote, &error.quoted).map(|quoted| Related {
        quoted,
        kind: error.kind,
        quoted_l3: error.quoted_l3,
        quoted_l4: error.quoted_l3 + error.quoted.payload,
        from: error.from,
        to: error.to,
        quote_end: error.quote_end,
        end: error.end,
    }))
}

/// The tuple of a packet that may be cut, if it has ports and enough is there.
fn tuple(packet: &[u8], ip: &Ip) -> Option<Tuple> {
    let has_ports = matches!(ip.protocol, TCP | UDP | SCTP) && !ip.is_later_fragment;
    let l4: &[u8; L4_MIN] = packet.get(ip.payload..)?.first_chunk()?;
    let [a, b, c, d, ..] = *l4;
    has_ports.then_some(Tuple {
        protocol: ip.protocol,
        from: SocketAddr::new(ip.src, u16::from_be_bytes([a, b])),
        to: SocketAddr::new(ip.dst, u16::from_be_bytes([c, d])),
    })
}

/// An ICMP error of which nothing but the quoted IP header has been looked at.
struct Error {
    from: IpAddr,
    to: IpAddr,
    kind: ErrorKind,
    quoted: Ip,
    quoted_l3: usize,
    quote_end: usize,
    end: usize,
}

impl Error {
    /// `None` if it is no error or quotes too little; an error with a wrong checksum or a quote
    /// whose header is not valid is bad.
    fn read(frame: &[u8], l3: usize, l4: usize, ip_len: u16) -> Result<Option<Self>, DropReason> {
        let end = l3 + usize::from(ip_len);
        let packet = frame.get(l3..end).ok_or(DropReason::Truncated)?;
        let outer = Ip::parse(packet)?;
        let message = frame.get(l4..end).ok_or(DropReason::Truncated)?;
        let is_v6 = outer.is_v6();
        let Ok((head, quote)) = Icmp::ref_from_prefix(message) else {
            return Ok(None);
        };
        let kind = match ErrorKind::read(is_v6, head) {
            Some(kind) if outer.protocol == icmp::protocol(is_v6) => kind,
            _ => return Ok(None),
        };
        let is_whole = is_v6 || checksum::ipv4_header(&packet[..outer.payload]) == 0;
        if !is_whole || icmp::checksum_of(outer.src, outer.dst, message) != 0 {
            return Err(DropReason::BadChecksum);
        }
        let quote = &quote[..kind.quote_len(head).unwrap_or(quote.len()).min(quote.len())];
        let quoted = match Ip::parse(quote) {
            Ok(quoted) if quoted.is_v6() == is_v6 => quoted,
            Err(DropReason::Truncated) => return Ok(None),
            _ => return Err(DropReason::BadHeader),
        };
        Ok(Some(Self {
            from: outer.src,
            to: outer.dst,
            kind: kind.or_plateau(quoted.total_len),
            quoted,
            quoted_l3: l4 + LEN,
            quote_end: l4 + LEN + quote.len(),
            end,
        }))
    }
}

/// Readdresses, in place, the error that [`related`] found in this frame: the error itself goes
/// from and to `outer`, and quotes a packet of `quoted`, whose TCP sequence number is greater by
/// `quoted_seq`. Its checksums are right afterwards, but the quoted transport checksum stays as it
/// was (as in LVS). The error has one hop less to live. All addresses are of the error's family.
pub fn translate(
    frame: &mut [u8],
    l3: usize,
    related: &Related,
    outer: (IpAddr, IpAddr),
    quoted: &Tuple,
    quoted_seq: Option<u32>,
) {
    let (head, message) = frame[l3..related.end].split_at_mut(related.quoted_l3 - LEN - l3);
    decrement_ttl(head);
    readdress(head, outer.0, outer.1);
    let (header, l4) = message[LEN..].split_at_mut(related.quoted_l4 - related.quoted_l3);
    readdress(header, quoted.from.ip(), quoted.to.ip());
    if let Some(l4) = l4.first_chunk_mut() {
        *l4 = readdressed(*l4, quoted, quoted_seq);
    }
    icmp::seal(outer.0, outer.1, message);
}

/// A quoted transport header with the ports of `quoted`; of TCP, with a sequence number that is
/// greater by `seq`.
fn readdressed(mut l4: [u8; L4_MIN], quoted: &Tuple, seq: Option<u32>) -> [u8; L4_MIN] {
    l4[..2].copy_from_slice(&quoted.from.port().to_be_bytes());
    l4[2..4].copy_from_slice(&quoted.to.port().to_be_bytes());
    if let (TCP, Some(seq)) = (quoted.protocol, seq) {
        let old = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
        l4[4..].copy_from_slice(&old.wrapping_add(seq).to_be_bytes());
    }
    l4
}
