//! The director, asked over its control socket.

use std::env;
use std::path::Path;

use control::client::{Client, ClientError};
use control::{DEFAULT_SOCKET, Reply, Request};

/// A connection that is opened by the first question, at the path in DIRECTOR_SOCKET or the usual one.
#[derive(Default)]
pub(crate) struct Director(Option<Client>);

impl Director {
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, i32> {
        let client = match &mut self.0 {
            Some(client) => client,
            none => none.insert(connect().map_err(|error| errno(&error))?),
        };
        client.ask(request).map_err(|error| errno(&error))
    }
}

fn connect() -> Result<Client, ClientError> {
    let path = env::var_os("DIRECTOR_SOCKET").unwrap_or_else(|| DEFAULT_SOCKET.into());
    Client::connect(Path::new(&path), "libdirector_ipvs", "")
}

/// What programs have words for.
fn errno(error: &ClientError) -> i32 {
    match error {
        ClientError::Denied(_) => libc::EPERM,
        ClientError::Unreachable { .. } => libc::ECONNREFUSED,
        ClientError::Version { .. } | ClientError::Unexpected => libc::EPROTO,
        ClientError::Lost(error) => error.raw_os_error().unwrap_or(libc::ECONNRESET),
    }
}
