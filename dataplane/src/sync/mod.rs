//! Connections that other directors know of: LVS's synchronisation.

pub mod message; // the datagrams
pub mod rules; // when a connection is told
#[cfg(test)]
mod tests;
