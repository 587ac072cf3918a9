//! What an ICMP error says, in either family, and what it is in the other one (RFC 7915).

use crate::icmp::Unreachable;
use crate::wire::icmp::{self, Icmp, v6};

/// What an ICMP error says, in the words of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorKind {
    pub is_v6: bool,
    /// Type and code.
    pub kind: u8,
    pub code: u8,
    /// The MTU or pointer where there is one, otherwise 0.
    rest: u32,
}

impl ErrorKind {
    pub(super) fn unreachable(is_v6: bool, what: Unreachable) -> Self {
        if let Unreachable::TooBig(mtu) = what {
            return Self::too_big(is_v6, mtu.into());
        }
        let (kind, code) = match (is_v6, what) {
            (false, Unreachable::Net) => (icmp::UNREACHABLE, icmp::UNREACHABLE_NET),
            (false, Unreachable::Host) => (icmp::UNREACHABLE, icmp::UNREACHABLE_HOST),
            (false, _) => (icmp::UNREACHABLE, icmp::UNREACHABLE_PORT),
            (true, Unreachable::Net) => (v6::UNREACHABLE, v6::NO_ROUTE),
            (true, Unreachable::Host) => (v6::UNREACHABLE, v6::UNREACHABLE_ADDRESS),
            (true, _) => (v6::UNREACHABLE, v6::UNREACHABLE_PORT),
        };
        Self::new(is_v6, kind, code)
    }

    pub(super) fn time_exceeded(is_v6: bool) -> Self {
        let kind = if is_v6 {
            v6::TIME_EXCEEDED
        } else {
            icmp::TIME_EXCEEDED
        };
        Self::new(is_v6, kind, 0)
    }

    fn too_big(is_v6: bool, mtu: u32) -> Self {
        let (kind, code) = if is_v6 {
            (v6::TOO_BIG, 0)
        } else {
            (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED)
        };
        let rest = if is_v6 { mtu } else { mtu.min(0xffff) };
        Self {
            rest,
            ..Self::new(is_v6, kind, code)
        }
    }

    const fn new(is_v6: bool, kind: u8, code: u8) -> Self {
        Self {
            is_v6,
            kind,
            code,
            rest: 0,
        }
    }

    /// Of a received message; `None` if it is no error that concerns connections: over IPv4 all but
    /// types 3, 4 and 11 (as LVS), over IPv6 all that is no error.
    pub(crate) fn read(is_v6: bool, message: &Icmp) -> Option<Self> {
        let (kind, code, rest) = (message.kind, message.code, message.rest.get());
        let rest = match (is_v6, kind, code) {
            (true, v6::TOO_BIG | v6::PARAMETER_PROBLEM, _) => rest,
            (true, ..) if v6::is_error(kind) => 0,
            (false, icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED) => rest & 0xffff,
            (false, icmp::UNREACHABLE | icmp::SOURCE_QUENCH | icmp::TIME_EXCEEDED, _) => 0,
            _ => return None,
        };
        Some(Self {
            rest,
            ..Self::new(is_v6, kind, code)
        })
    }

    /// The MTU that is too small, if it is that.
    pub fn mtu(&self) -> Option<u32> {
        let is_too_big = match (self.is_v6, self.kind) {
            (true, kind) => kind == v6::TOO_BIG,
            (false, kind) => kind == icmp::UNREACHABLE && self.code == icmp::FRAGMENTATION_NEEDED,
        };
        is_too_big.then_some(self.rest)
    }

    /// The same with another MTU, if it has one.
    #[must_use]
    pub fn with_mtu(self, mtu: u32) -> Self {
        self.mtu().map_or(self, |_| Self::too_big(self.is_v6, mtu))
    }

    /// How much of the packet the message quotes before the extensions of RFC 4884 begin, if it says.
    pub(crate) fn quote_len(&self, message: &Icmp) -> Option<usize> {
        let [first, second, ..] = message.rest.get().to_be_bytes();
        let len = match (self.is_v6, self.kind) {
            (false, icmp::UNREACHABLE | icmp::TIME_EXCEEDED) => usize::from(second) * 4,
            (true, v6::UNREACHABLE | v6::TIME_EXCEEDED) => usize::from(first) * 8,
            _ => 0,
        };
        Some(len).filter(|len| *len != 0)
    }

    /// The same; an MTU of 0, which routers from before RFC 1191 send, becomes what its §7 guesses
    /// from the length of the packet that was too long.
    pub(crate) fn or_plateau(self, len: usize) -> Self {
        const PLATEAUS: [u16; 11] = [
            65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
        ];
        if self.is_v6 || self.mtu() != Some(0) {
            return self;
        }
        let below = PLATEAUS.into_iter().find(|&mtu| usize::from(mtu) < len);
        self.with_mtu(below.unwrap_or(68).into())
    }

    /// What the client of a tunnel may be told; a field of the tunnel's header that is at fault is
    /// nothing that it could know (RFC 2473 §8.2), and what else errors say concerns no client.
    pub(crate) fn about_tunnel(self) -> Option<Self> {
        match (self.is_v6, self.kind) {
            (false, _) => Some(self),
            (true, v6::UNREACHABLE | v6::TOO_BIG | v6::TIME_EXCEEDED) => Some(self),
            (true, v6::PARAMETER_PROBLEM) => Some(Self::unreachable(true, Unreachable::Host)),
            _ => None,
        }
    }

    /// The same in the given family; `None` where RFC 7915 §4.2 and §5.2 say that there is nothing
    /// to tell. An MTU stays as it is.
    pub fn in_family(self, is_v6: bool) -> Option<Self> {
        match (self.is_v6, is_v6, self.mtu()) {
            (from, to, _) if from == to => Some(self),
            (_, _, Some(mtu)) => Some(Self::too_big(is_v6, mtu)),
            (false, ..) => self.v4_to_v6(),
            (true, ..) => self.v6_to_v4(),
        }
    }

    fn v4_to_v6(self) -> Option<Self> {
        /// Where IPv6 has its "next header".
        const NEXT_HEADER: u32 = 6;
        let (kind, code) = match (self.kind, self.code) {
            (icmp::UNREACHABLE, icmp::UNREACHABLE_PROTOCOL) => {
                return Some(Self {
                    rest: NEXT_HEADER,
                    ..Self::new(true, v6::PARAMETER_PROBLEM, v6::UNKNOWN_NEXT_HEADER)
                });
            }
            (icmp::UNREACHABLE, icmp::UNREACHABLE_PORT) => (v6::UNREACHABLE, v6::UNREACHABLE_PORT),
            (icmp::UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12) => (v6::UNREACHABLE, v6::NO_ROUTE),
            (icmp::UNREACHABLE, 9 | 10 | 13 | 15) => (v6::UNREACHABLE, v6::PROHIBITED),
            (icmp::TIME_EXCEEDED, code) => (v6::TIME_EXCEEDED, code),
            _ => return None,
        };
        Some(Self::new(true, kind, code))
    }

    fn v6_to_v4(self) -> Option<Self> {
        /// "Communication with destination host administratively prohibited."
        const HOST_PROHIBITED: u8 = 10;
        let (kind, code) = match (self.kind, self.code) {
            (v6::UNREACHABLE, v6::NO_ROUTE | v6::BEYOND_SCOPE | v6::UNREACHABLE_ADDRESS) => {
                (icmp::UNREACHABLE, icmp::UNREACHABLE_HOST)
            }
            (v6::UNREACHABLE, v6::PROHIBITED) => (icmp::UNREACHABLE, HOST_PROHIBITED),
            (v6::UNREACHABLE, v6::UNREACHABLE_PORT) => (icmp::UNREACHABLE, icmp::UNREACHABLE_PORT),
            (v6::TIME_EXCEEDED, code) => (icmp::TIME_EXCEEDED, code),
            (v6::PARAMETER_PROBLEM, v6::UNKNOWN_NEXT_HEADER) => {
                (icmp::UNREACHABLE, icmp::UNREACHABLE_PROTOCOL)
            }
            (v6::PARAMETER_PROBLEM, v6::ERRONEOUS_FIELD) => {
                return Some(Self {
                    rest: u32::from(v4_pointer(self.rest)?) << 24,
                    ..Self::new(false, icmp::PARAMETER_PROBLEM, 0)
                });
            }
            _ => return None,
        };
        Some(Self::new(false, kind, code))
    }

    /// The first eight bytes of the message, its checksum 0.
    pub(super) fn head(&self) -> Icmp {
        Icmp {
            kind: self.kind,
            code: self.code,
            checksum: 0.into(),
            rest: self.rest.into(),
        }
    }
}

/// The byte of an IPv4 header that says what byte `pointer` of an IPv6 header says (RFC 7915, figure 6).
const fn v4_pointer(pointer: u32) -> Option<u8> {
    match pointer {
        0 => Some(0),
        1 => Some(1),
        4 | 5 => Some(2),
        6 => Some(9),
        7 => Some(8),
        8..=23 => Some(12),
        24..=39 => Some(16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type, code, MTU or pointer word.
    type Words = (u8, u8, u32);

    fn kind(is_v6: bool, (kind, code, rest): Words) -> ErrorKind {
        let new = ErrorKind::new(is_v6, kind, code);
        ErrorKind { rest, ..new }
    }

    fn table(to_v6: bool, rows: &[(Words, Option<Words>)]) {
        for &(from, to) in rows {
            let told = kind(!to_v6, from).in_family(to_v6);
            assert_eq!(told, to.map(|to| kind(to_v6, to)), "{from:?}");
            assert_eq!(kind(to_v6, from).in_family(to_v6), Some(kind(to_v6, from)));
        }
    }

    #[test]
    fn rfc_7915_section_4_2() {
        let no_route = Some((1, 0, 0));
        let prohibited = Some((1, 1, 0));
        table(
            true,
            &[
                ((3, 0, 0), no_route),
                ((3, 1, 0), no_route),
                ((3, 2, 0), Some((4, 1, 6))),
                ((3, 3, 0), Some((1, 4, 0))),
                ((3, 4, 1400), Some((2, 0, 1400))),
                ((3, 5, 0), no_route),
                ((3, 6, 0), no_route),
                ((3, 7, 0), no_route),
                ((3, 8, 0), no_route),
                ((3, 9, 0), prohibited),
                ((3, 10, 0), prohibited),
                ((3, 11, 0), no_route),
                ((3, 12, 0), no_route),
                ((3, 13, 0), prohibited),
                ((3, 14, 0), None),
                ((3, 15, 0), prohibited),
                ((3, 16, 0), None),
                ((4, 0, 0), None),
                ((11, 0, 0), Some((3, 0, 0))),
                ((11, 1, 0), Some((3, 1, 0))),
            ],
        );
    }

    #[test]
    fn rfc_7915_section_5_2() {
        let host = Some((3, 1, 0));
        let pointer = |at: u32| Some((12, 0, at << 24));
        table(
            false,
            &[
                ((1, 0, 0), host),
                ((1, 1, 0), Some((3, 10, 0))),
                ((1, 2, 0), host),
                ((1, 3, 0), host),
                ((1, 4, 0), Some((3, 3, 0))),
                ((1, 5, 0), None),
                ((2, 0, 1400), Some((3, 4, 1400))),
                ((2, 0, 100_000), Some((3, 4, 65_535))),
                ((3, 0, 0), Some((11, 0, 0))),
                ((3, 1, 0), Some((11, 1, 0))),
                ((4, 1, 6), Some((3, 2, 0))),
                ((4, 2, 40), None),
                ((4, 0, 0), pointer(0)),
                ((4, 0, 1), pointer(1)),
                ((4, 0, 2), None),
                ((4, 0, 4), pointer(2)),
                ((4, 0, 5), pointer(2)),
                ((4, 0, 6), pointer(9)),
                ((4, 0, 7), pointer(8)),
                ((4, 0, 8), pointer(12)),
                ((4, 0, 23), pointer(12)),
                ((4, 0, 24), pointer(16)),
                ((4, 0, 39), pointer(16)),
                ((4, 0, 40), None),
                ((100, 0, 0), None),
            ],
        );
    }

    #[test]
    fn an_mtu_of_nothing_becomes_the_next_plateau() {
        let zero = kind(false, (3, 4, 0));
        for (len, mtu) in [
            (1500, 1492),
            (1492, 1006),
            (65_535, 32_000),
            (68, 68),
            (0, 68),
        ] {
            assert_eq!(zero.or_plateau(len).mtu(), Some(mtu), "{len} bytes");
        }
        let known = kind(false, (3, 4, 1400));
        assert_eq!(
            (known.or_plateau(1500), known.with_mtu(1280).mtu()),
            (known, Some(1280))
        );
        let other = kind(false, (3, 3, 0));
        assert_eq!(
            (other.or_plateau(1500), other.with_mtu(5), other.mtu()),
            (other, other, None)
        );
        assert_eq!(
            kind(true, (2, 7, 1300)).mtu(),
            Some(1300),
            "RFC 4443 ignores its code"
        );
    }
}
