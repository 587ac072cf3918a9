//! The Unix socket: many clients, none of which can hold up or harm another.

mod access; // who may do what
mod client; // one client: a turn at a time
mod share; // what each user takes
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use control::{Errno, Hello, Refusal, Reply, Request, VERSION};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};

pub use self::access::{Access, NoGroup, Peer, Rights};
use self::client::{Client, Next};
use self::share::Shares;
use super::PROGRAM;
use super::model::refuse;

/// The most clients served at a time, ...
pub const CLIENTS_MAX: usize = 1024;
/// ... of which so many are kept for who may change things, ...
pub const CLIENTS_KEPT: usize = 64;
/// ... and no other user has more than these.
pub const CLIENTS_PER_USER: usize = 256;
/// How often [`Backend::tick`] is called at least.
pub const TICK: Duration = Duration::from_millis(250);
/// How long a request (and a client's hello) may take to arrive.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take no byte of its reply.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

const LISTENER: Token = Token(CLIENTS_MAX);
const WAKER: Token = Token(CLIENTS_MAX + 1);

/// What stands behind the socket.
pub trait Backend {
    /// `peer` may do what `request` asks.
    fn handle(&mut self, request: Request, peer: &Peer) -> Reply;
    /// The client asks nothing any more.
    fn gone(&mut self, _peer: &Peer) {}
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
    access: Access,
    /// By token.
    clients: Vec<Option<Client>>,
    /// Whose turn is first in the next round.
    first: usize,
    complaints: Complaints,
    /// Clients so far.
    served: u64,
    started: Instant,
}

impl Server {
    /// Opens the socket at `path` for the groups of `access`, creating its directory and replacing a
    /// socket that nobody answers.
    pub fn bind(path: &Path, access: Access) -> Result<Self, BindError> {
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
        // Who may not connect before its mode is set may not connect in between either.
        chown(path, None, Some(access.owner())).map_err(failed("giving its group"))?;
        fs::set_permissions(path, Permissions::from_mode(access.mode()))
            .map_err(failed("setting the mode of"))?;
        let file = identity(path).map_err(failed("looking at"))?;
        let poll = Poll::new().map_err(failed("polling"))?;
        let registry = poll.registry();
        registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(failed("polling"))?;
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(failed("polling"))?);
        Ok(Self {
            poll,
            waker,
            listener,
            path: path.to_owned(),
            file,
            access,
            clients: (0..CLIENTS_MAX).map(|_| None).collect(),
            first: 0,
            complaints: Complaints::default(),
            served: 0,
            started: clock(),
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
            let error = match self.listener.accept() {
                Ok((stream, _)) => match self.welcome(stream, now) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => error,
            };
            self.complaints.add(now, || {
                tracing::warn!(%error, "cannot serve a client");
            });
            if error.raw_os_error().is_some() {
                return; // no descriptors: tried anew in the next round
            }
        }
    }

    fn welcome(&mut self, mut stream: UnixStream, now: Duration) -> io::Result<()> {
        let mut peer = self.access.peer(&stream)?;
        self.served += 1;
        peer.client = self.served;
        let slot = match self.slot(&peer) {
            Ok(slot) => slot,
            Err(refusal) => {
                if refusal.errno == Errno::Eperm {
                    self.complaints.add(now, || {
                        tracing::warn!(target: "audit", %peer, "not served: {refusal}");
                    });
                }
                // A client that takes not even this has filled its own buffer.
                control::send(&mut stream, &hello())?;
                return control::send(&mut stream, &Reply::Refused(refusal));
            }
        };
        self.poll.registry().register(
            &mut stream,
            Token(slot),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.clients[slot] = Some(Client::new(stream, peer, now));
        Ok(())
    }

    /// Where a new client is put.
    fn slot(&self, peer: &Peer) -> Result<usize, Refusal> {
        if peer.rights == Rights::Nothing {
            let who = "only root, the daemon's user and the groups of its socket may talk to the director";
            return Err(refuse(Errno::Eperm, who));
        }
        let free = self
            .clients
            .iter()
            .filter(|client| client.is_none())
            .count();
        let same = |client: &&Client| client.peer().uid == peer.uid;
        let own = self.clients.iter().flatten().filter(same).count();
        if peer.rights == Rights::Look && (own >= CLIENTS_PER_USER || free <= CLIENTS_KEPT) {
            let detail = format!(
                "{own} clients of this user are served already, of all users {}, try again later",
                CLIENTS_MAX - free
            );
            return Err(refuse(Errno::Eagain, detail));
        }
        let full = || {
            let detail = format!("{CLIENTS_MAX} clients are served already, try again later");
            refuse(Errno::Eagain, detail)
        };
        self.clients
            .iter()
            .position(Option::is_none)
            .ok_or_else(full)
    }

    /// Gives every client that is ready its turn, a user's clients together no more than some time.
    /// Whether some have more to do.
    fn serve(&mut self, backend: &mut impl Backend, now: Duration) -> bool {
        let mut pending = false;
        let mut shares = Shares::default();
        for client in self.clients.iter().flatten() {
            shares.add_waiting(client.peer().uid, client.waiting());
        }
        let first = self.first;
        for slot in (first..CLIENTS_MAX).chain(0..first) {
            let Some(client) = &mut self.clients[slot] else {
                continue;
            };
            let uid = client.peer().uid;
            if client.ready && shares.is_spent(uid) {
                pending = true;
                continue;
            }
            let next = if client.ready {
                let began = clock();
                let next = client.turn(backend, now, &mut shares, &mut self.complaints);
                shares.spend(uid, clock().duration_since(began));
                if shares.is_spent(uid) {
                    self.first = slot + 1;
                }
                next
            } else {
                Next::Wait
            };
            client.ready = matches!(next, Next::More);
            pending |= client.ready;
            if matches!(next, Next::Close)
                || client.deadline.is_some_and(|deadline| now >= deadline)
            {
                backend.gone(client.peer());
                self.clients[slot] = None;
            }
        }
        pending
    }
}

/// Lines in the log about clients: a hostile one cannot fill it.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    since: Duration,
    made: u32,
    left_out: u32,
}

impl Complaints {
    /// The most a second.
    const MAX: u32 = 10;

    fn add(&mut self, now: Duration, complain: impl FnOnce()) {
        if now >= self.since + Duration::from_secs(1) {
            if self.left_out > 0 {
                tracing::warn!("{} more lines about clients were left out", self.left_out);
            }
            (self.since, self.made, self.left_out) = (now, 0, 0);
        }
        if self.made < Self::MAX {
            self.made += 1;
            complain();
        } else {
            self.left_out += 1;
        }
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
