//! Headers as typed views, and checksums.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
