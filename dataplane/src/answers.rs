//! Servers whose packets are for clients though no connection says so: they answer datagrams that
//! were scheduled each by itself, or ask by a persistence engine's leave.

use std::net::SocketAddr;

use hashbrown::HashMap;

use crate::update::{ServerId, ServiceId};

/// A server of a service by address, whose packets get the virtual address as their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answerer {
    pub server: ServerId,
    pub service: ServiceId,
    /// Of a service of every port with port 0: the server's own port takes its place.
    pub virtual_address: SocketAddr,
    /// It is sent datagrams without a connection.
    pub one_packet: bool,
    /// It may open connections to clients.
    pub asks: bool,
    /// It was deleted; what is on its way still counts.
    pub left: bool,
    /// How many services were added before its own.
    pub born: u64,
}

impl Answerer {
    /// What a packet from this address and port of it gets as its source.
    pub fn source(&self, from: SocketAddr) -> SocketAddr {
        let mut address = self.virtual_address;
        if address.port() == 0 {
            address.set_port(from.port());
        }
        address
    }
}

/// All of a worker's answerers, by the address and port that they send from; port 0 is any.
#[derive(Debug, Default)]
pub struct Answers {
    /// Those that did not leave first, then those of older services.
    by_address: HashMap<SocketAddr, Vec<Answerer>>,
    addresses: HashMap<ServerId, SocketAddr>,
}

impl Answers {
    pub fn add(&mut self, address: SocketAddr, answerer: Answerer) {
        self.remove(answerer.server);
        self.addresses.insert(answerer.server, address);
        let here = self.by_address.entry(address).or_default();
        here.push(answerer);
        here.sort_unstable_by_key(|answerer| (answerer.left, answerer.born));
    }

    /// The server was deleted: one that is in its service has precedence.
    pub fn leave(&mut self, server: ServerId) {
        if let Some((address, answerer)) = self.remove(server) {
            let gone = Answerer {
                asks: false,
                left: true,
                ..answerer
            };
            self.add(address, gone);
        }
    }

    pub fn remove(&mut self, server: ServerId) -> Option<(SocketAddr, Answerer)> {
        let address = self.addresses.remove(&server)?;
        let here = self.by_address.get_mut(&address)?;
        let place = here.iter().position(|a| a.server == server)?;
        let gone = here.remove(place);
        if here.is_empty() {
            self.by_address.remove(&address);
        }
        Some((address, gone))
    }

    /// All that [`Self::from`] chooses from, with the addresses that they are found by.
    pub fn at(&self, from: SocketAddr) -> Vec<(SocketAddr, Answerer)> {
        let here = |address| {
            let all = self.by_address.get(&address).into_iter().flatten();
            all.map(move |answerer| (address, *answerer))
        };
        let any_port = SocketAddr::new(from.ip(), 0);
        here(from).chain(here(any_port)).collect()
    }

    /// Whose packet it is that comes from here; of several services' the oldest one's.
    pub fn from(&self, from: SocketAddr) -> Option<&Answerer> {
        if self.addresses.is_empty() {
            return None;
        }
        let any_port = SocketAddr::new(from.ip(), 0);
        let here = |address| self.by_address.get(&address).and_then(|all| all.first());
        here(from).or_else(|| here(any_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "10.1.0.1:53";

    fn answerer(server: u32, port: u16, born: u64) -> Answerer {
        Answerer {
            server: ServerId(server),
            service: ServiceId(0),
            virtual_address: SocketAddr::from(([203, 0, 113, 1], port)),
            one_packet: true,
            asks: true,
            left: false,
            born,
        }
    }

    fn whose(answers: &Answers, from: &str) -> Option<u32> {
        answers
            .from(from.parse().unwrap())
            .map(|found| found.server.0)
    }

    #[test]
    fn the_oldest_service_has_it_and_those_that_left_come_last() {
        let mut answers = Answers::default();
        let here = HERE.parse().unwrap();
        assert_eq!(whose(&answers, HERE), None);
        for (server, born) in [(0, 5), (1, 3), (2, 4)] {
            answers.add(here, answerer(server, 53, born));
        }
        assert_eq!(whose(&answers, HERE), Some(1));
        answers.leave(ServerId(1));
        assert_eq!(whose(&answers, HERE), Some(2));
        answers.leave(ServerId(2));
        answers.leave(ServerId(0));
        assert_eq!(whose(&answers, HERE), Some(1));
        for server in 0..3 {
            answers.remove(ServerId(server));
        }
        assert_eq!(whose(&answers, HERE), None);
        assert!(answers.by_address.is_empty() && answers.addresses.is_empty());
    }

    #[test]
    fn a_port_before_any_port() {
        let mut answers = Answers::default();
        answers.add("10.1.0.1:0".parse().unwrap(), answerer(0, 0, 0));
        answers.add(HERE.parse().unwrap(), answerer(1, 5353, 1));
        let source = |from: &str| {
            let from = from.parse().unwrap();
            answers.from(from).unwrap().source(from).port()
        };
        assert_eq!(source(HERE), 5353);
        assert_eq!(source("10.1.0.1:54"), 54);
        assert_eq!(whose(&answers, "10.1.0.2:54"), None);
    }
}
