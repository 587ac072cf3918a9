//! Probes that go by the director: each is a client's connection, which opens at the server that is
//! probed. They leave by the kernel's side of a port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::{Outcome, lower};
use crate::templates::{Hold, Key, Templates, Tie};
use crate::time::Clock;
use crate::update::ServerId;
use crate::wire::flow::{TCP, UDP};

/// The way of clients to a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Way {
    pub server: ServerId,
    /// What the kernel calls its side of the port that clients come by; `None` where there is none.
    pub side: Option<String>,
}

/// Where the workers look up which server a probe is about.
#[derive(Debug, Clone)]
pub struct Gate {
    pub templates: Arc<Templates>,
    pub clock: Clock,
}

/// One probe's passage, until it is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Gate,
    hold: Option<Hold>,
    side: String,
}

impl Gate {
    /// A socket that is not connected yet: what it sends to `to` goes to that server.
    pub(super) fn enter(
        &self,
        way: &Way,
        kind: Type,
        to: SocketAddr,
    ) -> Result<(Socket, Pass), Outcome> {
        let nowhere = || Outcome::Unsent("no port has the kernel beside it".to_owned());
        let side = way.side.as_ref().ok_or_else(nowhere)?;
        let bound = bound(side, kind, to);
        let (socket, port) =
            bound.map_err(|error| Outcome::Unsent(format!("{side}: {}", lower(&error))))?;
        let protocol = if kind == Type::STREAM { TCP } else { UDP };
        let key = Key::probe(protocol, port, to);
        let tie = Tie {
            server: way.server,
            server_port: 0,
            timeout_ms: 0,
        };
        let hold = self.templates.make(&key, self.clock.now().0, tie);
        let hold = hold.ok_or_else(|| Outcome::Unsent("no template is free".to_owned()))?;
        let pass = Pass {
            gate: self.clone(),
            hold: Some(hold),
            side: side.clone(),
        };
        Ok((socket, pass))
    }
}

impl Pass {
    /// What a probe came to. If the director did not get it, that says nothing of the server.
    pub(super) fn judge(mut self, outcome: Outcome) -> Outcome {
        let side = &self.side;
        match outcome {
            outcome @ Outcome::Unsent(_) => outcome,
            outcome if self.gate.end(&mut self.hold) => outcome,
            Outcome::Passed => Outcome::Unsent(format!(
                "something else answered than what the director had from {side}"
            )),
            Outcome::Failed(why) => {
                Outcome::Unsent(format!("the director had nothing from {side}: {why}"))
            }
        }
    }
}

impl Gate {
    /// Whether the connection came.
    fn end(&self, hold: &mut Option<Hold>) -> bool {
        let hold = hold.take();
        hold.is_some_and(|hold| self.templates.retract(hold, self.clock.now().0))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.end(&mut self.hold);
    }
}

/// A socket on that interface, and its port. What it is sent to is on the link, whatever the kernel's
/// routes and addresses say elsewhere; and what it opened ends at once.
fn bound(side: &str, kind: Type, to: SocketAddr) -> io::Result<(Socket, u16)> {
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(side.as_bytes()))?;
    let any: IpAddr = match to {
        SocketAddr::V4(_) => {
            setsockopt(&socket, sockopt::DontRoute, &true)?;
            Ipv4Addr::UNSPECIFIED.into()
        }
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            Ipv6Addr::UNSPECIFIED.into()
        }
    };
    if kind == Type::STREAM {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    socket.bind(&SocketAddr::new(any, 0).into())?;
    let port = socket.local_addr()?.as_socket().map_or(0, |own| own.port());
    Ok((socket, port))
}
