//! Who may do what: root, the daemon's user and the socket's group may change things, a second
//! group may only look.

use std::ffi::CString;
use std::fmt;
use std::io;

use mio::net::UnixStream;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};

/// What a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    Nothing,
    /// Whatever changes nothing and shows no packets.
    Look,
    Everything,
}

/// Who is at the other end, as the kernel says, and what that allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    pub pid: i32,
    pub rights: Rights,
    /// Tells its connection from all others.
    pub client: u64,
}

#[cfg(test)]
impl Peer {
    /// Who may do everything, over the connection of this number.
    pub(crate) const fn root(client: u64) -> Self {
        Self {
            uid: 0,
            gid: 0,
            pid: 1,
            rights: Rights::Everything,
            client,
        }
    }
}

impl Peer {
    /// Whether the peer could do by itself whatever the director can.
    pub fn is_trusted(&self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} gid {} pid {}", self.uid, self.gid, self.pid)
    }
}

/// `[director]` names a group that the system does not have.
#[derive(Debug, thiserror::Error)]
#[error("no such group {name:?} ({key}); create it: addgroup --system {name}")]
pub struct NoGroup {
    key: &'static str,
    name: String,
}

/// The groups of the socket.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    changing: Gid,
    looking: Option<Gid>,
}

impl Access {
    /// Without names: the daemon's own group may change things, no other may look.
    pub fn by_name(group: Option<&str>, read_group: Option<&str>) -> Result<Self, NoGroup> {
        let changing = group.map(|name| find("socket_group", name)).transpose()?;
        let looking = read_group.map(|name| find("socket_read_group", name));
        Ok(Self {
            changing: changing.unwrap_or_else(getegid),
            looking: looking.transpose()?,
        })
    }

    /// Of the socket file: the kernel knows but one group of it, so with two of them it lets everybody
    /// connect, and [`Self::peer`] tells who may stay.
    pub(super) fn mode(&self) -> u32 {
        if self.looking.is_some() { 0o666 } else { 0o660 }
    }

    pub(super) fn owner(&self) -> u32 {
        self.changing.as_raw()
    }

    pub(super) fn peer(&self, stream: &UnixStream) -> io::Result<Peer> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        Ok(Peer {
            uid,
            gid,
            pid: credentials.pid(),
            rights: self.rights(uid, gid),
            client: 0,
        })
    }

    fn rights(&self, uid: u32, gid: u32) -> Rights {
        if uid == 0 || uid == geteuid().as_raw() || gid == self.changing.as_raw() {
            return Rights::Everything;
        }
        let groups = groups_of(uid);
        let is_in = |group: Gid| gid == group.as_raw() || groups.contains(&group);
        if is_in(self.changing) {
            Rights::Everything
        } else if self.looking.is_some_and(is_in) {
            Rights::Look
        } else {
            Rights::Nothing
        }
    }
}

fn find(key: &'static str, name: &str) -> Result<Gid, NoGroup> {
    let group = Group::from_name(name).ok().flatten();
    let missing = || NoGroup {
        key,
        name: name.to_owned(),
    };
    group.map(|group| group.gid).ok_or_else(missing)
}

fn groups_of(uid: u32) -> Vec<Gid> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return Vec::new();
    };
    let name = CString::new(user.name).ok();
    name.and_then(|name| getgrouplist(&name, user.gid).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: u32 = 4_000_000_000;

    #[test]
    fn each_group_has_its_rights() {
        let (daemon, own) = (geteuid().as_raw(), getegid().as_raw());
        let alone = Access::by_name(None, None).unwrap();
        assert_eq!((alone.mode(), alone.owner()), (0o660, own));
        let looking = Access {
            looking: Some(Gid::from_raw(3_999_999_999)),
            ..alone
        };
        assert_eq!(looking.mode(), 0o666);
        for (uid, gid, of_alone, of_looking) in [
            (0, STRANGER, Rights::Everything, Rights::Everything),
            (daemon, STRANGER, Rights::Everything, Rights::Everything),
            (STRANGER, own, Rights::Everything, Rights::Everything),
            (STRANGER, 3_999_999_999, Rights::Nothing, Rights::Look),
            (STRANGER, STRANGER, Rights::Nothing, Rights::Nothing),
        ] {
            assert_eq!(alone.rights(uid, gid), of_alone, "{uid} {gid}");
            assert_eq!(looking.rights(uid, gid), of_looking, "{uid} {gid}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_is_named() {
        let error = Access::by_name(None, Some("no-such-group")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no such group \"no-such-group\" (socket_read_group); create it: addgroup --system no-such-group"
        );
    }
}
