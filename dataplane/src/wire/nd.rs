//! Neighbour discovery for IPv6 over Ethernet (RFC 4861), whole IPv6 packets.

use std::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::checksum;

pub const ROUTER_SOLICITATION: u8 = 133;
pub const ROUTER_ADVERTISEMENT: u8 = 134;
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
pub const REDIRECT: u8 = 137;

/// Length of a [`Packet`].
pub const LEN: usize = size_of::<Packet>();
/// A packet with any other hop limit was sent from beyond the link.
pub const HOP_LIMIT: u8 = 255;
/// All stations of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ICMPV6: u8 = 58;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// The sender of an advertisement was asked.
const SOLICITED: u32 = 0x4000_0000;
/// It replaces an Ethernet address that is known.
const OVERRIDE: u32 = 0x2000_0000;
/// A message with more is not valid: no network needs that many.
const OPTIONS_MAX: usize = 32;

/// An IPv6 header.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy, PartialEq, Eq,
)]
#[repr(C)]
pub struct Header {
    version_class_flow: U32,
    payload_len: U16,
    next: u8,
    hop_limit: u8,
    src: [u8; 16],
    dst: [u8; 16],
}

/// A neighbour solicitation or advertisement without its options.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy, PartialEq, Eq,
)]
#[repr(C)]
pub struct Neighbour {
    kind: u8,
    code: u8,
    checksum: U16,
    flags: U32,
    target: [u8; 16],
}

/// The source's or target's link-layer address.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy, PartialEq, Eq,
)]
#[repr(C)]
pub struct LinkLayer {
    kind: u8,
    /// In units of 8 bytes.
    len: u8,
    mac: [u8; 6],
}

/// A message of our own: IPv6 / ICMPv6 with one option.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy, PartialEq, Eq,
)]
#[repr(C)]
pub struct Packet {
    header: Header,
    neighbour: Neighbour,
    option: LinkLayer,
}

impl Packet {
    /// Who has `target`? Tell `source`, who is at `mac`. Goes to `to`: the target itself or its
    /// [`solicited_node`].
    pub fn solicitation(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr, to: Ipv6Addr) -> Self {
        let option = (SOURCE_LINK_LAYER, mac);
        Self::new((source, to), NEIGHBOUR_SOLICITATION, 0, target, option)
    }

    /// `target` is at `mac`, for `asker`; one who has no address yet is told as everybody else.
    pub fn answer(mac: [u8; 6], target: Ipv6Addr, asker: Ipv6Addr) -> Self {
        if asker.is_unspecified() {
            return Self::announcement(mac, target);
        }
        let (flags, option) = (SOLICITED | OVERRIDE, (TARGET_LINK_LAYER, mac));
        Self::new(
            (target, asker),
            NEIGHBOUR_ADVERTISEMENT,
            flags,
            target,
            option,
        )
    }

    /// `target` is at `mac`, for everybody (RFC 4861 §7.2.6).
    pub fn announcement(mac: [u8; 6], target: Ipv6Addr) -> Self {
        let (flags, option) = (OVERRIDE, (TARGET_LINK_LAYER, mac));
        Self::new(
            (target, ALL_NODES),
            NEIGHBOUR_ADVERTISEMENT,
            flags,
            target,
            option,
        )
    }

    #[expect(clippy::cast_possible_truncation, reason = "32 bytes of payload")]
    fn new(
        (src, dst): (Ipv6Addr, Ipv6Addr),
        kind: u8,
        flags: u32,
        target: Ipv6Addr,
        (option, mac): (u8, [u8; 6]),
    ) -> Self {
        let mut packet = Self {
            header: Header {
                version_class_flow: (6 << 28).into(),
                payload_len: ((LEN - size_of::<Header>()) as u16).into(),
                next: ICMPV6,
                hop_limit: HOP_LIMIT,
                src: src.octets(),
                dst: dst.octets(),
            },
            neighbour: Neighbour {
                kind,
                code: 0,
                checksum: 0.into(),
                flags: flags.into(),
                target: target.octets(),
            },
            option: LinkLayer {
                kind: option,
                len: 1,
                mac,
            },
        };
        let message = &packet.as_bytes()[size_of::<Header>()..];
        let sum = checksum::transport(src.into(), dst.into(), ICMPV6, message);
        packet.neighbour.checksum = sum.into();
        packet
    }
}

/// A valid message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Somebody at `source` asks where `target` is; one who only wants to know whether the address
    /// is free has the unspecified one.
    Solicitation {
        source: Ipv6Addr,
        target: Ipv6Addr,
        /// The source's; `None` where it is left out, as it may be.
        mac: Option<[u8; 6]>,
    },
    /// `source` says where `target` is.
    Advertisement {
        source: Ipv6Addr,
        target: Ipv6Addr,
        /// The target's; `None` where it is left out, as it may be.
        mac: Option<[u8; 6]>,
        /// It answers a question.
        solicited: bool,
        /// It replaces another Ethernet address that is known.
        overrides: bool,
    },
    /// From or for a router: a solicitation, an advertisement or a redirect.
    Router,
}

impl Message {
    /// The message whose IPv6 header is the first of `packet` and whose ICMPv6 header begins at
    /// `l4`; bytes after the IPv6 payload are padding. `None` when it is not valid (RFC 4861 §6.1,
    /// §7.1, §8.1).
    pub fn parse(packet: &[u8], l4: usize) -> Option<Self> {
        let (header, _) = Header::ref_from_prefix(packet).ok()?;
        let end = size_of::<Header>() + usize::from(header.payload_len.get());
        let message = packet.get(l4..end)?;
        let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
        let [kind, code, ..] = *message else {
            return None;
        };
        let is_valid = header.hop_limit == HOP_LIMIT
            && code == 0
            && !src.is_multicast()
            && checksum::transport(src.into(), dst.into(), ICMPV6, message) == 0;
        if !is_valid {
            return None;
        }
        match kind {
            NEIGHBOUR_SOLICITATION => Self::solicitation(src, dst, message),
            NEIGHBOUR_ADVERTISEMENT => Self::advertisement(src, dst, message),
            ROUTER_SOLICITATION => {
                let mac = link_layer(message.get(8..)?, SOURCE_LINK_LAYER)?;
                (mac.is_none() || !src.is_unspecified()).then_some(Self::Router)
            }
            ROUTER_ADVERTISEMENT => Self::of_router(src, message.get(16..)?),
            REDIRECT => Self::of_router(src, message.get(40..)?),
            _ => None,
        }
    }

    fn solicitation(source: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Option<Self> {
        let (neighbour, options) = Neighbour::ref_from_prefix(message).ok()?;
        let target = Ipv6Addr::from(neighbour.target);
        let mac = link_layer(options, SOURCE_LINK_LAYER)?;
        let may_be_probe = mac.is_none() && dst == solicited_node(target);
        let is_valid = !target.is_multicast() && (!source.is_unspecified() || may_be_probe);
        is_valid.then_some(Self::Solicitation {
            source,
            target,
            mac,
        })
    }

    fn advertisement(source: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Option<Self> {
        let (neighbour, options) = Neighbour::ref_from_prefix(message).ok()?;
        let target = Ipv6Addr::from(neighbour.target);
        let mac = link_layer(options, TARGET_LINK_LAYER)?;
        let flags = neighbour.flags.get();
        let solicited = flags & SOLICITED != 0;
        let to_one = !(solicited && dst.is_multicast());
        let is_valid = to_one && !target.is_multicast();
        is_valid.then_some(Self::Advertisement {
            source,
            target,
            mac,
            solicited,
            overrides: flags & OVERRIDE != 0,
        })
    }

    fn of_router(src: Ipv6Addr, options: &[u8]) -> Option<Self> {
        link_layer(options, SOURCE_LINK_LAYER)?;
        src.is_unicast_link_local().then_some(Self::Router)
    }
}

/// The first Ethernet address among `options` of type `kind`, if there is one; `None` when an
/// option is not valid.
fn link_layer(mut options: &[u8], kind: u8) -> Option<Option<[u8; 6]>> {
    let mut found = None;
    for _ in 0..OPTIONS_MAX {
        let [this, units, ..] = *options else { break };
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        let mac = match option {
            [_, _, mac @ ..] if this == kind => Some(<[u8; 6]>::try_from(mac).ok()?),
            [] => return None,
            _ => None,
        };
        found = found.or(mac);
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// The group in which the stations with an address like `target` are asked for it.
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let [low, high] = [u16::from_be_bytes([b, c]), 0xff00 | u16::from(a)];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}

/// The Ethernet address of a multicast group (RFC 2464 §7).
pub fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The link-local address of the station at `mac` (RFC 4291, appendix A).
pub fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let network = 0xfe80 << 112;
    Ipv6Addr::from_bits(network | u128::from(u64::from_be_bytes(id)))
}

/// Whether frames to the multicast group `mac` may carry neighbour discovery for us: all nodes, or
/// a solicited-node group. Whether it is one of ours is seen by the target of the message.
#[inline]
pub const fn is_group_of_ours(mac: &[u8; 6]) -> bool {
    matches!(mac, [0x33, 0x33, 0, 0, 0, 1] | [0x33, 0x33, 0xff, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const ASKER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    const TARGET: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab, 0xcdef);

    #[test]
    fn a_solicitation_both_ways() {
        let to = solicited_node(TARGET);
        let packet = Packet::solicitation(MAC, ASKER, TARGET, to);
        let mut bytes = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
        bytes.extend([ASKER.octets(), to.octets()].concat());
        bytes.extend([135, 0, 0x7e, 0xe5, 0, 0, 0, 0]);
        bytes.extend(TARGET.octets());
        bytes.extend([1, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(packet.as_bytes(), bytes);
        let asked = Message::Solicitation {
            source: ASKER,
            target: TARGET,
            mac: Some(MAC),
        };
        assert_eq!(Message::parse(&bytes, 40), Some(asked));
        bytes.extend([0xa5; 9]);
        assert_eq!(Message::parse(&bytes, 40), Some(asked), "with padding");
        for len in 0..LEN {
            assert_eq!(Message::parse(&bytes[..len], 40), None, "{len} bytes");
        }
    }

    #[test]
    fn advertisements_both_ways() {
        let answer = Packet::answer(MAC, TARGET, ASKER);
        let mut expected = Message::Advertisement {
            source: TARGET,
            target: TARGET,
            mac: Some(MAC),
            solicited: true,
            overrides: true,
        };
        assert_eq!(Message::parse(answer.as_bytes(), 40), Some(expected));
        assert_eq!(answer.header.dst, ASKER.octets());
        assert_eq!(answer.as_bytes()[40..42], [136, 0]);
        assert_eq!(answer.as_bytes()[44..48], [0x60, 0, 0, 0]);
        assert_eq!(answer.as_bytes()[64..], [2, 1, 2, 0, 0, 0, 0, 9]);

        let all = Packet::announcement(MAC, TARGET);
        if let Message::Advertisement { solicited, .. } = &mut expected {
            *solicited = false;
        }
        assert_eq!(Message::parse(all.as_bytes(), 40), Some(expected));
        assert_eq!(all.header.dst, ALL_NODES.octets());
        assert_eq!(Packet::answer(MAC, TARGET, Ipv6Addr::UNSPECIFIED), all);
    }

    #[test]
    fn addresses_made_of_others() {
        let group = solicited_node(TARGET);
        assert_eq!(group, "ff02::1:ffab:cdef".parse::<Ipv6Addr>().unwrap());
        assert_eq!(group_mac(group), [0x33, 0x33, 0xff, 0xab, 0xcd, 0xef]);
        assert_eq!(group_mac(ALL_NODES), [0x33, 0x33, 0, 0, 0, 1]);
        let mac = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
        let own = "fe80::5054:ff:fe12:3456".parse::<Ipv6Addr>().unwrap();
        assert_eq!(link_local(mac), own);
    }

    #[test]
    fn groups() {
        for ours in [[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 1, 2, 3]] {
            assert!(is_group_of_ours(&ours));
        }
        for other in [[0x33, 0x33, 0, 0, 0, 2], [0x33, 0, 0, 0, 0, 1], [0xff; 6]] {
            assert!(!is_group_of_ours(&other));
        }
    }

    #[test]
    fn options_are_walked_and_bounded() {
        let mac = [1, 1, 2, 0, 0, 0, 0, 9];
        let other = [14, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(link_layer(&[], 1), Some(None));
        assert_eq!(link_layer(&mac, 1), Some(Some(MAC)));
        assert_eq!(link_layer(&mac, 2), Some(None));
        let both = [&other[..], &mac].concat();
        assert_eq!(link_layer(&both, 1), Some(Some(MAC)));
        let two = [&mac[..], &[1, 1, 2, 0, 0, 0, 0, 8]].concat();
        assert_eq!(link_layer(&two, 1), Some(Some(MAC)), "the first counts");
        for bad in [
            &[1][..],
            &[1, 1, 2, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0],
            &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 1, 2, 0, 0, 0, 0, 9, 5],
        ] {
            assert_eq!(link_layer(bad, 1), None, "{bad:?}");
        }
        let many = [5, 1, 0, 0, 0, 0, 0, 0].repeat(OPTIONS_MAX);
        assert_eq!(link_layer(&many, 1), Some(None));
        assert_eq!(link_layer(&[&many[..], &mac].concat(), 1), None);
    }
}
