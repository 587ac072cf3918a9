//! Errors from one family to the other, for FULLNAT between IPv6 clients and IPv4 servers (RFC 7915).

use std::net::IpAddr;

use super::{L4_MIN, Related, readdressed};
use crate::icmp::{self, Made};
use crate::wire::flow::Tuple;
use crate::wire::ip::{Head, Ip};

/// By how much an IPv6 header is longer than one of IPv4.
const GROWTH: u32 = 20;
/// The least MTU that each family knows (RFC 791 §3.2, RFC 8200 §5).
const V4_MTU_MIN: u32 = 68;
const V6_MTU_MIN: u32 = 1280;

/// The error that [`related`](super::related) found in this frame, in the family of `outer` and
/// `quoted`, which is the other one; otherwise as [`translate`](super::translate). `None` where
/// RFC 7915 says that nothing is told. IP options, extension headers, and the extensions of
/// RFC 4884 are not taken along. The quoted packet was whole to its sender, so that no fragment
/// header is made for a quoted fragment.
pub fn translate_family(
    frame: &[u8],
    l3: usize,
    related: &Related,
    outer: (IpAddr, IpAddr),
    quoted: &Tuple,
    quoted_seq: Option<u32>,
) -> Option<Made> {
    let is_v6 = outer.0.is_ipv6();
    let kind = related.kind.in_family(is_v6)?;
    let kind = match related.kind.mtu() {
        Some(mtu) if is_v6 => kind.with_mtu(mtu.saturating_add(GROWTH).max(V6_MTU_MIN)),
        Some(mtu) => kind.with_mtu(mtu.saturating_sub(GROWTH).max(V4_MTU_MIN)),
        None => kind,
    };
    let error = Ip::parse(frame.get(l3..related.end)?).ok()?;
    let quote = Ip::parse(frame.get(related.quoted_l3..related.quote_end)?).ok()?;
    let (l4, rest) = frame[related.quoted_l4..related.quote_end].split_first_chunk::<L4_MIN>()?;
    let head = Head {
        src: outer.0,
        dst: outer.1,
        tos: error.tos,
        ttl: error.ttl.saturating_sub(1),
        protocol: icmp::protocol(is_v6),
    };
    let quoted_head = Head {
        src: quoted.from.ip(),
        dst: quoted.to.ip(),
        tos: quote.tos,
        ttl: quote.ttl,
        protocol: quote.protocol,
    };
    let header = quoted_head.before(quote.total_len.saturating_sub(quote.payload))?;
    let l4 = readdressed(*l4, quoted, quoted_seq);
    icmp::message(&head, kind, &[&header, &l4, rest])
}
