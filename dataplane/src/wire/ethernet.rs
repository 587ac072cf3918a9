//! Ethernet II with at most one 802.1Q tag.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
pub const VLAN: u16 = 0x8100;
pub const IPV6: u16 = 0x86dd;

pub const BROADCAST: [u8; 6] = [0xff; 6];
/// The shortest frame, without frame check sequence.
pub const FRAME_MIN: usize = 60;
/// The longest header: with a tag.
pub const HEADER_MAX: usize = 18;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy)]
#[repr(C)]
pub struct Ethernet {
    pub dst: [u8; 6],
    pub src: [u8; 6],
    pub ethertype: U16,
}

/// What follows the EtherType [`VLAN`].
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy)]
#[repr(C)]
pub struct Tag {
    /// Priority (3 bits), drop eligible (1), VLAN (12).
    pub control: U16,
    pub ethertype: U16,
}

/// Whether an untagged frame says that it carries this.
#[inline(always)]
pub fn carries(frame: &[u8], ethertype: u16) -> bool {
    let link = frame.first_chunk::<14>();
    link.is_some_and(|[.., high, low]| [*high, *low] == ethertype.to_be_bytes())
}

/// A station's address, ready to be compared with that of many frames at one comparison each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Station(u64);

impl Station {
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([0, 0, a, b, c, d, e, f]))
    }

    pub const fn address(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Whether a frame is addressed to it.
    #[inline(always)]
    pub fn is_meant(self, frame: &[u8]) -> bool {
        // Shifted, the two bytes behind the address do not count.
        frame
            .first_chunk()
            .is_some_and(|first| u64::from_le_bytes(*first) << 16 == self.0)
    }
}

/// A frame's link layer, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub dst: [u8; 6],
    pub src: [u8; 6],
    /// `None` too when the tag only carries a priority (VLAN 0).
    pub vlan: Option<u16>,
    /// Of what begins at `l3`.
    pub ethertype: u16,
    pub l3: usize,
}

impl Link {
    /// `None` when the frame ends before its header does.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (ethernet, rest) = Ethernet::ref_from_prefix(frame).ok()?;
        let Ethernet {
            dst,
            src,
            ethertype,
        } = *ethernet;
        if ethertype.get() != VLAN {
            return Some(Self {
                dst,
                src,
                vlan: None,
                ethertype: ethertype.get(),
                l3: 14,
            });
        }
        let (tag, _) = Tag::ref_from_prefix(rest).ok()?;
        let vlan = Some(tag.control.get() & 0x0fff).filter(|&vlan| vlan != 0);
        Some(Self {
            dst,
            src,
            vlan,
            ethertype: tag.ethertype.get(),
            l3: 18,
        })
    }
}

/// A header and its length, 14 or 18.
pub fn header(
    dst: [u8; 6],
    src: [u8; 6],
    vlan: Option<u16>,
    ethertype: u16,
) -> ([u8; HEADER_MAX], u8) {
    let mut bytes = [0; HEADER_MAX];
    let outer = vlan.map_or(ethertype, |_| VLAN);
    bytes[..14].copy_from_slice(
        Ethernet {
            dst,
            src,
            ethertype: outer.into(),
        }
        .as_bytes(),
    );
    let Some(vlan) = vlan else { return (bytes, 14) };
    let tag = Tag {
        control: (vlan & 0x0fff).into(),
        ethertype: ethertype.into(),
    };
    bytes[14..].copy_from_slice(tag.as_bytes());
    (bytes, 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn both_ways() {
        let (bytes, len) = header(A, B, None, IPV4);
        assert_eq!(len, 14);
        assert_eq!(bytes[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        let link = Link {
            dst: A,
            src: B,
            vlan: None,
            ethertype: IPV4,
            l3: 14,
        };
        assert_eq!(Link::parse(&bytes[..14]), Some(link));

        let (bytes, len) = header(A, B, Some(100), ARP);
        assert_eq!(len, 18);
        assert_eq!(bytes[12..], [0x81, 0, 0, 100, 8, 6]);
        let link = Link {
            dst: A,
            src: B,
            vlan: Some(100),
            ethertype: ARP,
            l3: 18,
        };
        assert_eq!(Link::parse(&bytes), Some(link));
    }

    #[test]
    fn priority_is_not_a_vlan() {
        let (mut bytes, _) = header(A, B, Some(7), IPV4);
        bytes[14] = 0xe0; // priority 7
        assert_eq!(Link::parse(&bytes).unwrap().vlan, Some(7));
        bytes[15] = 0;
        let link = Link::parse(&bytes).unwrap();
        assert_eq!((link.vlan, link.l3, link.ethertype), (None, 18, IPV4));
    }

    #[test]
    fn truncated() {
        let (bytes, _) = header(A, B, Some(7), IPV4);
        for len in 0..18 {
            assert_eq!(Link::parse(&bytes[..len]), None, "{len} bytes");
        }
    }
}
