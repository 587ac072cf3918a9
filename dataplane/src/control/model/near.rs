//! Services that a packet nearly belongs to.

use control::ServiceKey;

use super::Model;
use crate::wire::flow::Tuple;

/// The most that are named.
const NEAR_MAX: usize = 5;

impl Model {
    /// Services at a packet's address, and why it is not theirs.
    pub fn near(&self, tuple: &Tuple) -> Vec<(ServiceKey, String)> {
        let mut near: Vec<(u8, ServiceKey, String)> = Vec::new();
        for key in self.by_key.keys() {
            let ServiceKey::Address { protocol, address } = *key else {
                continue;
            };
            let same_port = address.port() == tuple.to.port();
            let same_protocol = protocol.number() == tuple.protocol;
            let (rank, why) = match (address.ip() == tuple.to.ip(), same_port, same_protocol) {
                (true, true, false) => (0, format!("it is for {}", protocol.name())),
                (true, false, true) => (1, format!("it is at port {}", address.port())),
                (true, false, false) => {
                    let (name, port) = (protocol.name(), address.port());
                    (2, format!("it is for {name}, at port {port}"))
                }
                _ => continue,
            };
            near.push((rank, *key, why));
        }
        near.sort_unstable_by_key(|(rank, key, _)| (*rank, *key));
        near.truncate(NEAR_MAX);
        near.into_iter().map(|(_, key, why)| (key, why)).collect()
    }
}
