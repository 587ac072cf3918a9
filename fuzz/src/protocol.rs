//! Messages of the control socket. Those that are requests are carried out.

use control::{Hello, Reply, Request};

use crate::{ask, director, everything};

/// Enough to fill every limit.
const REQUESTS_MAX: usize = 64;

/// Lines are messages, each of which gets its length in front; what does not begin with one comes as it
/// is.
pub(crate) fn run(data: &[u8]) {
    if !data.starts_with(b"{") && !data.starts_with(b"\"") {
        let mut rest = data;
        // A length that is not there costs no memory in the daemon, which waits for the rest.
        if data
            .first_chunk()
            .is_some_and(|len| u32::from_be_bytes(*len) < 1 << 16)
        {
            let _ = control::receive::<Hello>(&mut rest);
            let _ = control::receive::<Request>(&mut rest);
        }
        return;
    }
    let mut director = director();
    for line in data.split(|byte| *byte == b'\n').take(REQUESTS_MAX) {
        let mut message = u32::try_from(line.len()).unwrap().to_be_bytes().to_vec();
        message.extend_from_slice(line);
        let _ = control::receive::<Hello>(&mut message.as_slice());
        if let Ok(request) = control::receive::<Request>(&mut message.as_slice()) {
            carry_out(&mut director, request);
        }
    }
}

/// A refused request changes nothing; a request, and its reply, are the same after a way over the wire.
fn carry_out(director: &mut dataplane::control::Control, request: Request) {
    let mut wire = Vec::new();
    control::send(&mut wire, &request).unwrap();
    let again: Request = control::receive(&mut wire.as_slice()).unwrap();
    assert_eq!(again, request);
    let before = everything(director);
    let reply = ask(director, request.clone());
    if matches!(reply, Reply::Refused(_)) || !matches!(request, Request::Change(_)) {
        assert_eq!(
            everything(director),
            before,
            "{request:?} changed something"
        );
    }
    let mut wire = Vec::new();
    control::send(&mut wire, &reply).unwrap();
    control::receive::<Reply>(&mut wire.as_slice()).unwrap();
}
