//! The client's end of the control socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Hello, Reply, Request, VERSION, receive, send};

/// A director that answers takes less than this.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why the director was not asked, or its answer not understood.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "cannot reach the director at {}: Permission denied (be root or of the socket's group)",
        .0.display()
    )]
    Denied(PathBuf),
    #[error("cannot reach the director at {}: {error} (is directord running? {hint})", .path.display())]
    Unreachable {
        path: PathBuf,
        error: String,
        hint: &'static str,
    },
    #[error(
        "the director speaks version {theirs} of the protocol ({program}), this program {VERSION}: install the same release of both"
    )]
    Version { theirs: u32, program: String },
    #[error("lost the director: {0}")]
    Lost(io::Error),
    #[error("the director gave an answer to another question")]
    Unexpected,
}

/// An open connection to the director.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects and agrees on the protocol; `hint` says how to name another path.
    pub fn connect(path: &Path, program: &str, hint: &'static str) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied(path.to_owned()),
            _ => ClientError::Unreachable {
                path: path.to_owned(),
                error: plain(&error),
                hint,
            },
        })?;
        stream
            .set_read_timeout(Some(ANSWER_MAX))
            .map_err(ClientError::Lost)?;
        let mut client = Self { stream };
        let hello = Hello {
            version: VERSION,
            program: format!("{program} {}", env!("CARGO_PKG_VERSION")),
        };
        let theirs: Hello = client.exchange(&hello)?;
        if theirs.version == VERSION {
            Ok(client)
        } else {
            Err(ClientError::Version {
                theirs: theirs.version,
                program: theirs.program,
            })
        }
    }

    /// Asks one thing and waits for its answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.exchange(request)
    }

    fn exchange<T: DeserializeOwned>(
        &mut self,
        message: &impl Serialize,
    ) -> Result<T, ClientError> {
        let sent = send(&mut self.stream, message);
        match (receive(&mut self.stream), sent) {
            // Whoever is not served is told so, perhaps before he asks.
            (Ok(answer), _) => Ok(answer),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(ClientError::Lost(error)),
        }
    }
}

/// The C library's text, without the number that Rust adds.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_daemon_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no.sock");
        let error = Client::connect(&path, "t", "--socket names another path").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot reach the director at {}: No such file or directory \
                 (is directord running? --socket names another path)",
                path.display()
            )
        );
    }

    #[test]
    fn another_version_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _: Hello = receive(&mut stream).unwrap();
            let old = Hello {
                version: VERSION + 1,
                program: "directord 9".into(),
            };
            send(&mut stream, &old).unwrap();
        });
        let error = Client::connect(&path, "t", "").unwrap_err();
        daemon.join().unwrap();
        assert!(matches!(error, ClientError::Version { theirs, .. } if theirs == VERSION + 1));
    }
}
