//! Addresses that are announced while clients are to come.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::control::model::NewPort;
use crate::kernel::tables::{Link, Tables};
use crate::net::Prefix;

/// Devices of a machine whose kernel has only `lo`, and what it was given and is left with.
#[derive(Clone, Default)]
struct Host(Rc<RefCell<HostState>>);

#[derive(Default)]
struct HostState {
    tables: Tables,
    /// The tables are news.
    is_new: bool,
    is_watched: bool,
}

impl Host {
    fn with(address: &str) -> Self {
        let host = Self::default();
        {
            let mut state = host.0.borrow_mut();
            let link = Link {
                name: "lo".to_owned(),
                ..Link::default()
            };
            state.tables.links.insert(1, link);
            (state.tables.addresses).push((1, address.parse().unwrap(), 32));
            state.is_new = true;
        }
        host
    }

    fn addresses(&self) -> Vec<String> {
        let state = self.0.borrow();
        let addresses = state.tables.addresses.iter();
        addresses
            .map(|(link, address, length)| format!("{address}/{length} {link}"))
            .collect()
    }
}

impl Hardware for Host {
    fn machine(&self) -> Machine {
        Machine::default()
    }

    fn open(&mut self, _: NewPort<'_>) -> Result<[u8; 6], Refusal> {
        unreachable!("no port comes")
    }

    fn close(&mut self, _: PortId) {}

    fn watch_kernel(&mut self) {
        self.0.borrow_mut().is_watched = true;
    }

    fn kernels_tables(&mut self) -> Option<Tables> {
        let mut state = self.0.borrow_mut();
        let news = state.is_watched && std::mem::take(&mut state.is_new);
        news.then(|| state.tables.clone())
    }

    fn set_kernels_address(&mut self, link: u32, prefix: Prefix, set: Setting) {
        let mut state = self.0.borrow_mut();
        let place = (link, prefix.address, prefix.length);
        state.tables.addresses.retain(|known| *known != place);
        if set == Setting::Add {
            state.tables.addresses.push(place);
        }
        state.is_new = true;
    }
}

#[test]
fn addresses_are_announced_while_clients_are_to_come() {
    let vip = key().address().unwrap().ip();
    // What a director that was killed left behind.
    let host = Host::with(&vip.to_string());
    let mut control = Control::new(LIMITS, Vec::new(), 64, host.clone());
    let health = control::Health {
        announce: Some("lo".to_owned()),
        min_healthy: 1,
        ..control::Health::default()
    };
    let health = |min_healthy| Change::SetHealth {
        service: key(),
        health: Box::new(control::Health {
            min_healthy,
            ..health.clone()
        }),
    };
    let tick = |control: &mut Control| {
        for _ in 0..3 {
            control.tick(Duration::from_secs(1));
        }
    };
    control
        .change(&[add_service(), add_server(), health(1)])
        .unwrap();
    tick(&mut control);
    assert_eq!(host.addresses(), [""; 0], "no server is known to be up");
    control.change(&[health(0)]).unwrap();
    tick(&mut control);
    assert_eq!(host.addresses(), [format!("{vip}/32 1")]);
    let ask = |control: &mut Control, request| control.handle(request, &Peer::root(1));
    assert_eq!(ask(&mut control, Request::DrainNode), Reply::Done);
    assert_eq!(host.addresses(), [""; 0]);
    let Reply::Node(status) = ask(&mut control, Request::Node) else {
        panic!()
    };
    assert_eq!(status.state, control::NodeState::Draining);
    let withheld = Some(control::Withheld::Node);
    assert_eq!(status.addresses[0].withheld, withheld);
    ask(&mut control, Request::UndrainNode);
    tick(&mut control);
    assert_eq!(host.addresses(), [format!("{vip}/32 1")]);
    control.leave();
    assert_eq!(host.addresses(), [""; 0]);
}
