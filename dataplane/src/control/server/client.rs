//! One client: its messages in and out, a turn at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use control::{Errno, Hello, MESSAGE_MAX, Reply, Request, VERSION};
use mio::net::UnixStream;
use serde::Serialize;

use super::share::{ROUND_TIME, Shares, WAITING_MAX, WAITING_MAX_LOOKING};
use super::{Backend, Complaints, Peer, REPLY_TIMEOUT, REQUEST_TIMEOUT, Rights, clock, hello};
use crate::control::model::refuse;

/// The longest hello.
const HELLO_MAX: usize = 4096;
/// The longest request of who may only look: a configuration to be explained.
const LOOKING_MAX: usize = 1 << 20;
/// Bytes read at once.
const READ_MAX: usize = 64 << 10;
/// Reads and requests of one client before the others have their turn.
const TURN_MAX: usize = 16;

#[derive(Debug)]
pub(super) enum Next {
    /// For the socket.
    Wait,
    /// For its next turn.
    More,
    Close,
}

/// One client: reads a request, writes its reply, and only then reads on.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    peer: Peer,
    greeted: bool,
    /// The request that is arriving, and what came with it.
    input: Vec<u8>,
    /// The reply that is leaving, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// Once the output is sent, this is over.
    closing: bool,
    pub(super) ready: bool,
    /// Until then it must have moved.
    pub(super) deadline: Option<Duration>,
}

impl Client {
    pub(super) fn new(stream: UnixStream, peer: Peer, now: Duration) -> Self {
        let (input, output, deadline) = (Vec::new(), Vec::new(), Some(now + REQUEST_TIMEOUT));
        Self {
            stream,
            peer,
            greeted: false,
            input,
            output,
            sent: 0,
            closing: false,
            ready: true,
            deadline,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Bytes that wait here, for the rest of a request or for the client to take them.
    pub(super) fn waiting(&self) -> usize {
        self.input.len() + self.output.len() - self.sent
    }

    /// A turn ends after some requests, or some time.
    pub(super) fn turn(
        &mut self,
        backend: &mut impl Backend,
        now: Duration,
        shares: &mut Shares,
        complaints: &mut Complaints,
    ) -> Next {
        let began = clock();
        for _ in 0..TURN_MAX {
            if clock().duration_since(began) >= ROUND_TIME {
                return Next::More;
            }
            match self.flush(now) {
                Ok(true) if self.closing => return Next::Close,
                Ok(true) => {}
                Ok(false) => return Next::Wait,
                Err(_) => return Next::Close,
            }
            match self.frame() {
                Ok(_) if shares.waiting(self.peer.uid) > self.waiting_max() => {
                    let detail = "too much of this user waits to be sent or read already";
                    self.closing = true;
                    self.refuse(Errno::Eagain, detail, now);
                }
                Ok(Some(len)) => {
                    self.answer(len, backend, now, complaints);
                    shares.add_waiting(self.peer.uid, self.output.len());
                }
                Ok(None) => match self.fill() {
                    Ok(0) => return Next::Close,
                    Ok(n) => shares.add_waiting(self.peer.uid, n),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if !self.input.is_empty() {
                            self.deadline.get_or_insert(now + REQUEST_TIMEOUT);
                        }
                        return Next::Wait;
                    }
                    Err(_) => return Next::Close,
                },
                Err(len) => {
                    let max = self.message_max();
                    self.fail(
                        format!("a message of {len} bytes is too long, at most {max} is right"),
                        now,
                    );
                }
            }
        }
        Next::More
    }

    /// Whether everything is sent.
    fn flush(&mut self, now: Duration) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    self.deadline = Some(now + REPLY_TIMEOUT);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !self.output.is_empty() {
            self.output = Vec::new();
            self.sent = 0;
            self.deadline = None;
        }
        Ok(true)
    }

    /// Length of the whole message at the start of the input with its prefix, or the length of one
    /// that is too long.
    fn frame(&self) -> Result<Option<usize>, usize> {
        let Some((len, body)) = self.input.split_first_chunk() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*len) as usize;
        if len > self.message_max() {
            return Err(len);
        }
        Ok((body.len() >= len).then_some(len + 4))
    }

    fn message_max(&self) -> usize {
        match (self.greeted, self.peer.rights) {
            (false, _) => HELLO_MAX,
            (true, Rights::Everything) => MESSAGE_MAX,
            (true, _) => LOOKING_MAX,
        }
    }

    fn waiting_max(&self) -> usize {
        match self.peer.rights {
            Rights::Everything => WAITING_MAX,
            _ => WAITING_MAX_LOOKING,
        }
    }

    /// How many bytes came.
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; READ_MAX];
        loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(n) => {
                    self.input.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers the message in the first `len` bytes of the input.
    fn answer(
        &mut self,
        len: usize,
        backend: &mut impl Backend,
        now: Duration,
        complaints: &mut Complaints,
    ) {
        let rest = self.input.split_off(len);
        let message = std::mem::replace(&mut self.input, rest);
        let mut message = message.as_slice();
        self.deadline = None;
        if !self.greeted {
            match control::receive::<Hello>(&mut message) {
                // Its own hello tells a client of another version what is here.
                Ok(theirs) => {
                    self.greeted = true;
                    self.closing = theirs.version != VERSION;
                    self.reply(&hello(), now);
                }
                Err(error) => self.fail(format!("not a hello: {error}"), now),
            }
            return;
        }
        match control::receive::<Request>(&mut message) {
            Ok(request) if request.is_privileged() && self.peer.rights < Rights::Everything => {
                complaints.add(now, || {
                    tracing::warn!(target: "audit", peer = %self.peer, "refused a change: may only look");
                });
                let detail =
                    "only root, the daemon's user and members of its socket's group may do this";
                self.refuse(Errno::Eperm, detail, now);
            }
            Ok(request) => {
                let reply = backend.handle(request, &self.peer);
                self.reply(&reply, now);
            }
            Err(error) => self.fail(format!("not a request: {error}"), now),
        }
    }

    /// Says what was wrong with a message, and no more.
    fn fail(&mut self, detail: String, now: Duration) {
        self.closing = true;
        self.refuse(Errno::Eproto, detail, now);
    }

    fn refuse(&mut self, errno: Errno, detail: impl Into<String>, now: Duration) {
        self.reply(&Reply::Refused(refuse(errno, detail)), now);
    }

    fn reply(&mut self, message: &impl Serialize, now: Duration) {
        self.deadline = Some(now + REPLY_TIMEOUT);
        if control::send(&mut self.output, message).is_ok() {
            return;
        }
        let detail = format!("the answer is longer than {MESSAGE_MAX} bytes, ask for one service");
        if control::send(
            &mut self.output,
            &Reply::Refused(refuse(Errno::Enomem, detail)),
        )
        .is_err()
        {
            self.closing = true;
        }
    }
}
