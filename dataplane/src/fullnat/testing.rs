//! Packets for tests, built from scratch with the textbook's checksum.

use proptest::prelude::*;

use crate::packet::{HeapBuf, PacketBuf};

/// RFC 1071, as its text says it.
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A packet by its parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts {
    pub(crate) v6: bool,
    pub(crate) vlan: bool,
    /// An IPv4 option of four bytes, or an IPv6 extension header of eight.
    pub(crate) extended: bool,
    pub(crate) addresses: [u8; 32],
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) options: Vec<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
    pub(crate) padding: usize,
}

fn be(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap().to_be_bytes()
}

impl Parts {
    pub(crate) fn l3(&self) -> usize {
        if self.vlan { 18 } else { 14 }
    }

    pub(crate) fn l4(&self) -> usize {
        let ip = match (self.v6, self.extended) {
            (false, false) => 20,
            (false, true) => 24,
            (true, false) => 40,
            (true, true) => 48,
        };
        self.l3() + ip
    }

    /// Length of the IP packet.
    pub(crate) fn ip_len(&self) -> u16 {
        let len = self.l4() - self.l3() + self.tcp().len();
        u16::try_from(len).unwrap()
    }

    pub(crate) fn tcp(&self) -> Vec<u8> {
        let mut options = self.options.concat();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = vec![0x12, 0x34, 0x00, 0x50];
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        let offset = u8::try_from(20 + options.len()).unwrap() / 4;
        tcp.extend([offset << 4, self.flags, 0x20, 0x00, 0, 0, 0, 7]);
        tcp.extend(options);
        tcp.extend(&self.payload);
        let check = checksum(&[self.pseudo(6, tcp.len()), tcp.clone()].concat());
        tcp[16..18].copy_from_slice(&check);
        tcp
    }

    pub(crate) fn pseudo(&self, protocol: u8, len: usize) -> Vec<u8> {
        let each = if self.v6 { 16 } else { 4 };
        let mut pseudo = self.addresses[..2 * each].to_vec();
        pseudo.extend([0, 0]);
        pseudo.extend(be(len));
        pseudo.extend([0, protocol]);
        pseudo
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        self.around(6, &self.tcp())
    }

    pub(crate) fn buf(&self) -> HeapBuf {
        HeapBuf::new(&self.frame())
    }

    /// The frame with another transport.
    pub(crate) fn around(&self, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if self.vlan {
            frame.extend([0x81, 0, 0, 100]);
        }
        let ip = if self.v6 {
            frame.extend([0x86, 0xdd]);
            self.ipv6(protocol, transport.len())
        } else {
            frame.extend([8, 0]);
            self.ipv4(protocol, transport.len())
        };
        frame.extend(ip);
        frame.extend(transport);
        frame.resize(frame.len() + self.padding, 0x77);
        frame
    }

    fn ipv4(&self, protocol: u8, len: usize) -> Vec<u8> {
        let header = self.l4() - self.l3();
        let mut ip = vec![if self.extended { 0x46 } else { 0x45 }, 0];
        ip.extend(be(header + len));
        ip.extend([0xab, 0xcd, 0x40, 0, 63, protocol, 0, 0]);
        ip.extend(&self.addresses[..8]);
        ip.resize(header, 1);
        let check = checksum(&ip);
        ip[10..12].copy_from_slice(&check);
        ip
    }

    fn ipv6(&self, protocol: u8, len: usize) -> Vec<u8> {
        let mut ip = vec![0x60, 1, 2, 3];
        ip.extend(be(len + self.l4() - self.l3() - 40));
        ip.extend([if self.extended { 60 } else { protocol }, 63]);
        ip.extend(self.addresses);
        if self.extended {
            ip.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
        }
        ip
    }
}

/// Whether the TCP checksum at `l4` is right; the addresses must be those of `parts`.
pub(crate) fn tcp_is_right(parts: &Parts, buf: &impl PacketBuf) -> bool {
    let frame = buf.bytes();
    let (l3, l4) = (parts.l3(), parts.l4());
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let end = l3
        + if parts.v6 {
            40 + word(l3 + 4)
        } else {
            word(l3 + 2)
        };
    let tcp = &frame[l4..end];
    checksum(&[parts.pseudo(6, tcp.len()), tcp.to_vec()].concat()) == [0, 0]
}

fn option() -> impl Strategy<Value = Vec<u8>> {
    let sized = |kind: u8, len: usize| {
        proptest::collection::vec(any::<u8>(), len - 2).prop_map(move |body| {
            let len = u8::try_from(len).unwrap();
            [vec![kind, len], body].concat()
        })
    };
    prop_oneof![
        3 => Just(vec![1]),
        1 => Just(vec![0]),
        2 => sized(2, 4),
        1 => sized(3, 3),
        1 => sized(4, 2),
        2 => sized(8, 10),
        1 => sized(8, 12),
        3 => (1usize..4).prop_flat_map(move |n| sized(5, 2 + 8 * n)),
        2 => (253u8..=254, prop_oneof![Just(8usize), Just(20), Just(6)])
            .prop_flat_map(move |(kind, len)| sized(kind, len)),
        1 => (9u8..250, 2usize..9).prop_flat_map(move |(kind, len)| sized(kind, len)),
    ]
}

/// TCP packets of both families with well-formed options in any order.
pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    let options = proptest::collection::vec(option(), 0..7).prop_map(|mut options| {
        while options.concat().len() > 40 {
            options.pop();
        }
        options
    });
    (
        any::<[bool; 3]>(),
        any::<[u8; 32]>(),
        any::<[u32; 2]>(),
        any::<u8>(),
        options,
        proptest::collection::vec(any::<u8>(), 0..40),
        0usize..7,
    )
        .prop_map(
            |(bools, addresses, [seq, ack], flags, options, payload, padding)| Parts {
                v6: bools[0],
                vlan: bools[1],
                extended: bools[2],
                addresses,
                seq,
                ack,
                flags: flags & 0x1f,
                options,
                payload,
                padding,
            },
        )
}
