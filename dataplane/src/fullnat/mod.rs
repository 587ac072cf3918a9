//! FULLNAT: both ends of a connection are replaced, so that real servers answer the director from
//! anywhere. A local address and port stands in for the client, and the server is told who that is.

pub mod client; // what each segment of a connection needs of the rest
pub(crate) mod frame; // the IP packet in a frame: lengths, gaps, checksums
pub mod lease; // local addresses and ports
pub mod proxy; // the PROXY protocol, versions 1 and 2
pub mod segment; // changes in a TCP header: options, sequence numbers
pub mod toa; // the client's address as a TCP option
pub mod uoa; // the client's address in a private header before UDP

#[cfg(test)]
mod testing;

pub use frame::NoRoom;
