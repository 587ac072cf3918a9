//! Connections that other directors know of: LVS's synchronisation.

mod backup; // takes in what masters tell
mod daemons; // started and stopped
mod master; // tells what workers have to tell
pub mod message; // the datagrams
pub mod news; // from workers to the master
mod page; // what is counted
pub mod rules; // when a connection is told
mod socket; // the multicast group
#[cfg(test)]
mod tests;

pub use daemons::Daemons;
pub use page::SyncPage;
