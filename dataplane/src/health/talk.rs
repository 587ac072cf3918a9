//! Something is said over TCP or UDP, and something is answered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use nix::libc::EINPROGRESS;

use super::Outcome;

/// How much of an answer is looked at.
const HEARD_MAX: usize = 64 << 10;

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// One probe under way.
#[derive(Debug)]
pub(super) struct Talk {
    socket: Socket,
    connected: bool,
    say: Vec<u8>,
    said: usize,
    heard: Vec<u8>,
}

/// Whether an answer is right; `None` if it may become so.
pub(super) trait Judge {
    fn judge(&self, heard: &[u8]) -> Option<Outcome>;
}

impl Judge for control::Talk {
    fn judge(&self, heard: &[u8]) -> Option<Outcome> {
        let expected = &self.expect.0;
        let found = expected.is_empty() || contains(heard, expected);
        found.then_some(Outcome::Passed)
    }
}

impl Talk {
    pub(super) fn tcp(
        registry: &Registry,
        token: Token,
        to: SocketAddr,
        by: Option<socket2::Socket>,
        say: Vec<u8>,
    ) -> io::Result<Self> {
        let mut stream = match by {
            Some(socket) => connecting(socket, to)?,
            None => TcpStream::connect(to)?,
        };
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self::new(Socket::Tcp(stream), say))
    }

    pub(super) fn udp(
        registry: &Registry,
        token: Token,
        to: SocketAddr,
        by: Option<socket2::Socket>,
        say: Vec<u8>,
    ) -> io::Result<Self> {
        let from: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut socket = match by {
            Some(socket) => UdpSocket::from_std(socket.into()),
            None => UdpSocket::bind(SocketAddr::new(from, 0))?,
        };
        socket.connect(to)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        socket.send(&say)?;
        Ok(Self::new(Socket::Udp(socket), say))
    }

    fn new(socket: Socket, say: Vec<u8>) -> Self {
        Self {
            socket,
            connected: false,
            say,
            said: 0,
            heard: Vec::new(),
        }
    }

    /// What was said.
    pub(super) fn said(&self) -> &[u8] {
        &self.say
    }

    /// Its socket is ready for something.
    pub(super) fn go_on(&mut self, judge: &impl Judge) -> Option<Outcome> {
        let outcome = match &mut self.socket {
            Socket::Tcp(_) => self.stream(judge),
            Socket::Udp(_) => self.datagrams(judge),
        };
        outcome.unwrap_or_else(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::NotConnected => None,
            ErrorKind::ConnectionRefused if matches!(self.socket, Socket::Udp(_)) => {
                Some(Outcome::Failed("port unreachable".to_owned()))
            }
            _ => Some(error.into()),
        })
    }

    fn stream(&mut self, judge: &impl Judge) -> io::Result<Option<Outcome>> {
        let Socket::Tcp(stream) = &mut self.socket else {
            return Ok(None);
        };
        if !self.connected {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            stream.peer_addr()?;
            self.connected = true;
        }
        while self.said < self.say.len() {
            self.said += stream.write(&self.say[self.said..])?;
        }
        if let Some(outcome) = judge.judge(&self.heard) {
            return Ok(Some(outcome));
        }
        let mut piece = [0; 4096];
        loop {
            let n = stream.read(&mut piece)?;
            self.heard.extend_from_slice(&piece[..n]);
            if let Some(outcome) = judge.judge(&self.heard) {
                return Ok(Some(outcome));
            }
            if n == 0 || self.heard.len() > HEARD_MAX {
                let heard = shown(&self.heard);
                return Ok(Some(Outcome::Failed(format!("answered {heard}"))));
            }
        }
    }

    fn datagrams(&mut self, judge: &impl Judge) -> io::Result<Option<Outcome>> {
        let Socket::Udp(socket) = &self.socket else {
            return Ok(None);
        };
        let mut heard = vec![0; HEARD_MAX];
        let n = socket.recv(&mut heard)?;
        let heard = &heard[..n];
        let outcome = judge.judge(heard);
        Ok(Some(outcome.unwrap_or_else(|| {
            Outcome::Failed(format!("answered {}", shown(heard)))
        })))
    }
}

fn connecting(socket: socket2::Socket, to: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

fn contains(heard: &[u8], expected: &[u8]) -> bool {
    heard.windows(expected.len()).any(|part| part == expected)
}

/// The beginning of an answer, for people.
fn shown(heard: &[u8]) -> String {
    const SHOWN_MAX: usize = 40;
    match heard {
        [] => "nothing".to_owned(),
        _ => {
            let part = &heard[..heard.len().min(SHOWN_MAX)];
            let more = if part.len() < heard.len() { "…" } else { "" };
            format!("{:?}{more}", String::from_utf8_lossy(part))
        }
    }
}
