//! The Unix socket: many clients, none of which can hold up or harm another.

mod client; // one client: a turn at a time
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use control::{Errno, Hello, Reply, Request, VERSION};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist};

use self::client::{Client, Next};
use super::PROGRAM;
use super::model::refuse;

/// The most clients served at a time.
pub const CLIENTS_MAX: usize = 64;
/// How often [`Backend::tick`] is called at least.
pub const TICK: Duration = Duration::from_millis(500);
/// How long a request (and a client's hello) may take to arrive.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take no byte of its reply.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

const LISTENER: Token = Token(CLIENTS_MAX);
const WAKER: Token = Token(CLIENTS_MAX + 1);

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    pub pid: i32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} gid {} pid {}", self.uid, self.gid, self.pid)
    }
}

impl Peer {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid(),
        })
    }

    /// Root, the daemon's own user and members of its group may.
    fn may_change(&self) -> bool {
        let group = getegid();
        self.uid == 0
            || self.uid == geteuid().as_raw()
            || self.gid == group.as_raw()
            || self.is_member(group)
    }

    fn is_member(&self, group: Gid) -> bool {
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else {
            return false;
        };
        let Ok(name) = std::ffi::CString::new(user.name) else {
            return false;
        };
        getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
    }
}

/// What stands behind the socket.
pub trait Backend {
    /// `peer` may do what `request` asks.
    fn handle(&mut self, request: Request, peer: &Peer) -> Reply;
    /// Called after every wake-up, at least every [`TICK`]; `now` counts from the server's start.
    fn tick(&mut self, now: Duration);
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another directord answers at {}; stop it or choose another socket", .0.display())]
    Taken(PathBuf),
    #[error("{} exists and is not a socket; remove it or choose another", .0.display())]
    NotASocket(PathBuf),
    #[error("{what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// The socket and its clients.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    waker: Arc<Waker>,
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our socket file.
    file: (u64, u64),
    clients: [Option<Client>; CLIENTS_MAX],
    started: Instant,
}

impl Server {
    /// Opens the socket at `path` with mode 0660, creating its directory and replacing a socket
    /// that nobody answers.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what| {
            move |source| BindError::Io {
                what,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(parent) = path.parent() {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(failed("creating the directory of"))?;
        }
        clear(path)?;
        let mut listener = UnixListener::bind(path).map_err(failed("binding"))?;
        fs::set_permissions(path, Permissions::from_mode(0o660))
            .map_err(failed("setting the mode of"))?;
        let file = identity(path).map_err(failed("looking at"))?;
        let poll = Poll::new().map_err(failed("polling"))?;
        let registry = poll.registry();
        registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(failed("polling"))?;
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(failed("polling"))?);
        let (clients, started) = ([const { None }; CLIENTS_MAX], clock());
        Ok(Self {
            poll,
            waker,
            listener,
            path: path.to_owned(),
            file,
            clients,
            started,
        })
    }

    /// Wakes [`Server::run`] at once, from any thread.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Serves until `stop`.
    pub fn run(&mut self, backend: &mut impl Backend, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(CLIENTS_MAX + 2);
        let mut pending = false;
        while !stop.load(Relaxed) {
            let timeout = if pending { Duration::ZERO } else { TICK };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if let Some(Some(client)) = self.clients.get_mut(event.token().0) {
                    client.ready = true;
                }
            }
            let now = clock().duration_since(self.started);
            // Also without an event: an accept that failed for want of descriptors is tried anew.
            self.accept(now);
            pending = self.serve(backend, now);
            backend.tick(clock().duration_since(self.started));
        }
        Ok(())
    }

    fn accept(&mut self, now: Duration) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.welcome(stream, now) {
                        tracing::warn!(%error, "cannot serve a client");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut stream: UnixStream, now: Duration) -> io::Result<()> {
        let Some(slot) = self.clients.iter().position(Option::is_none) else {
            let full = refuse(
                Errno::Eagain,
                format!("{CLIENTS_MAX} clients are served already, try again later"),
            );
            control::send(&mut stream, &hello())?;
            return control::send(&mut stream, &Reply::Refused(full));
        };
        let peer = Peer::of(&stream)?;
        self.poll.registry().register(
            &mut stream,
            Token(slot),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.clients[slot] = Some(Client::new(stream, peer, now));
        Ok(())
    }

    /// Gives every client that is ready its turn. Whether some have more to do.
    fn serve(&mut self, backend: &mut impl Backend, now: Duration) -> bool {
        let mut pending = false;
        for slot in &mut self.clients {
            let Some(client) = slot else { continue };
            let next = if client.ready {
                client.turn(backend, now)
            } else {
                Next::Wait
            };
            client.ready = matches!(next, Next::More);
            pending |= client.ready;
            if matches!(next, Next::Close)
                || client.deadline.is_some_and(|deadline| now >= deadline)
            {
                *slot = None;
            }
        }
        pending
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody else's by now, perhaps.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Removes the socket that a daemon left at `path` when it died.
fn clear(path: &Path) -> Result<(), BindError> {
    let failed = |what| {
        move |source| BindError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at")(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // A full queue of clients: somebody is there, if slow.
        Ok(_) => Err(BindError::Taken(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(BindError::Taken(path.to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("removing the stale socket"))
        }
        Err(error) => Err(failed("looking at")(error)),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the control server is where the control side's time comes from"
)]
fn clock() -> Instant {
    Instant::now()
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        program: PROGRAM.to_owned(),
    }
}
