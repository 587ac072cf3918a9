//! The commands of the family IPVS, as `linux/ip_vs.h` numbers them: to the control protocol and back.

mod asked; // attributes, to changes
mod told; // what there is, to attributes

use control::{Errno, Reply, Request};

use crate::netlink::Attributes;

const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DEL_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DEST: u8 = 5;
const SET_DEST: u8 = 6;
const DEL_DEST: u8 = 7;
const GET_DEST: u8 = 8;
const NEW_DAEMON: u8 = 9;
const DEL_DAEMON: u8 = 10;
const GET_DAEMON: u8 = 11;
const SET_CONFIG: u8 = 12;
const GET_CONFIG: u8 = 13;
const SET_INFO: u8 = 14;
const GET_INFO: u8 = 15;
const ZERO: u8 = 16;
const FLUSH: u8 = 17;

/// The highest attribute of a command.
pub(crate) const ATTRIBUTE_MAX: u8 = 6;

mod attr {
    pub(super) const SERVICE: u16 = 1;
    pub(super) const DEST: u16 = 2;
    pub(super) const TIMEOUT_TCP: u16 = 4;
    pub(super) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(super) const TIMEOUT_UDP: u16 = 6;
}

mod svc {
    pub(super) const AF: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDR: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const FWMARK: u16 = 5;
    pub(super) const SCHED_NAME: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
    pub(super) const NETMASK: u16 = 9;
    pub(super) const STATS: u16 = 10;
    pub(super) const PE_NAME: u16 = 11;
    pub(super) const STATS64: u16 = 12;
}

mod dest {
    pub(super) const ADDR: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const FWD_METHOD: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
    pub(super) const U_THRESH: u16 = 5;
    pub(super) const L_THRESH: u16 = 6;
    pub(super) const ACTIVE_CONNS: u16 = 7;
    pub(super) const INACT_CONNS: u16 = 8;
    pub(super) const PERSIST_CONNS: u16 = 9;
    pub(super) const STATS: u16 = 10;
    pub(super) const ADDR_FAMILY: u16 = 11;
    pub(super) const STATS64: u16 = 12;
    pub(super) const TUN_TYPE: u16 = 13;
    pub(super) const TUN_PORT: u16 = 14;
    pub(super) const TUN_FLAGS: u16 = 15;
}

/// Flags of a service.
const PERSISTENT: u32 = 0x1;
const ONE_PACKET: u32 = 0x4;
const SCHED1: u32 = 0x8;
const SCHED2: u32 = 0x10;
const SCHED3: u32 = 0x20;

/// Forwarding methods.
const MASQ: u32 = 0;
const TUNNEL: u32 = 2;
const DROUTE: u32 = 3;

/// Asks the director; the error is an errno.
pub(crate) type Ask<'a> = dyn FnMut(&Request) -> Result<Reply, i32> + 'a;

/// A message of the family's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) command: u8,
    pub(crate) attributes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    One(Item),
    /// A listing.
    Each(Vec<Item>),
}

/// The commands, whether each does something, and whether it lists.
pub(crate) fn operations() -> impl Iterator<Item = (u8, bool, bool)> {
    let known = (NEW_SERVICE..=FLUSH).filter(|command| *command != SET_INFO);
    known.map(|command| {
        let only_dumps = matches!(command, GET_DEST | GET_DAEMON);
        (command, !only_dumps, only_dumps || command == GET_SERVICE)
    })
}

/// What the kernel would answer to `command`, or the errno.
pub(crate) fn answer(
    command: u8,
    dump: bool,
    attributes: Attributes<'_>,
    ask: &mut Ask<'_>,
) -> Result<Answer, i32> {
    let known = operations()
        .any(|(known, does, dumps)| known == command && if dump { dumps } else { does });
    if !known {
        return Err(libc::EOPNOTSUPP);
    }
    match (command, dump) {
        (GET_SERVICE, true) => told::services(None, ask).map(Answer::Each),
        (GET_SERVICE, false) => {
            let found = told::services(Some(asked::service_key(attributes)?), ask)?;
            found.into_iter().next().map(Answer::One).ok_or(libc::ESRCH)
        }
        (GET_DEST, _) => told::servers(attributes, ask).map(Answer::Each),
        (GET_CONFIG, _) => told::timeouts(ask).map(Answer::One),
        (GET_INFO, _) => told::info(ask).map(Answer::One),
        (NEW_DAEMON | DEL_DAEMON | GET_DAEMON, _) => daemons(command),
        _ => {
            let change = asked::change(command, attributes, ask)?;
            match ask_for(&Request::Change(vec![change]), ask)? {
                Reply::Done => Ok(Answer::Done),
                _ => Err(libc::EPROTO),
            }
        }
    }
}

/// Asks; a refusal is the kernel's errno.
pub(crate) fn ask_for(request: &Request, ask: &mut Ask<'_>) -> Result<Reply, i32> {
    match ask(request)? {
        Reply::Refused(refusal) => Err(number(refusal.errno)),
        reply => Ok(reply),
    }
}

const fn number(errno: Errno) -> i32 {
    match errno {
        Errno::Eexist => libc::EEXIST,
        Errno::Enoent => libc::ENOENT,
        Errno::Esrch => libc::ESRCH,
        Errno::Einval => libc::EINVAL,
        Errno::Erange => libc::ERANGE,
        Errno::Eperm => libc::EPERM,
        Errno::Enomem => libc::ENOMEM,
        Errno::Eopnotsupp => libc::EOPNOTSUPP,
        Errno::Eproto => libc::EPROTO,
        Errno::Eagain => libc::EAGAIN,
    }
}

/// The director has no synchronisation of connections yet: none runs, and none can be started.
fn daemons(command: u8) -> Result<Answer, i32> {
    match command {
        NEW_DAEMON => Err(libc::ENOSYS),
        DEL_DAEMON => Err(libc::ESRCH),
        _ => Ok(Answer::Each(Vec::new())),
    }
}

#[cfg(test)]
mod tests;
