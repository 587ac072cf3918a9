//! Headers on the wire: what each packet is, and what changes in it.

pub mod delta; // incremental checksums
pub mod flow; // what the fast path needs of a packet
