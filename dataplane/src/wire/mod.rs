//! Headers on the wire: what each packet is, and what changes in it.

pub mod arp; // ARP for Ethernet and IPv4 (RFC 826)
pub mod checksum; // whole checksums, for packets of our own
pub mod delta; // incremental checksums, for packets that are forwarded
pub mod ethernet; // Ethernet and 802.1Q
pub mod flow; // what the fast path needs of a packet
pub mod icmp; // ICMP (RFC 792) and ICMPv6 (RFC 4443)
pub mod ip; // IP headers of both families, in full
pub mod nd; // neighbour discovery (RFC 4861)
pub mod partial; // checksums that the sender left to its hardware
pub mod quic; // QUIC's connection ids (RFC 8999)
pub mod sctp; // SCTP chunks and checksum (RFC 9260)
pub mod tcp; // TCP options
