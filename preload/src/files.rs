//! What the kernel shows of IPVS under /proc, and programs read there.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use control::{Connection, Cursor, Filter, Protocol, Reply, Request, Word};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::ipvs::{Ask, ask_for};

/// What `ipvsadm -Lc` reads.
const CONNECTIONS: &[u8] = b"/proc/net/ip_vs_conn";

const TITLE: &str =
    "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";

/// Whether a file is shown from here.
pub(crate) fn is_ours(path: &[u8]) -> bool {
    path == CONNECTIONS
}

/// A file with all connections, which is open and has no name. They are taken page by page.
pub(crate) fn open(ask: &mut Ask<'_>) -> Result<OwnedFd, i32> {
    let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    let fd = memfd_create(c"ip_vs_conn", MFdFlags::MFD_CLOEXEC).map_err(|errno| errno as i32)?;
    let mut out = BufWriter::new(File::from(fd));
    out.write_all(TITLE.as_bytes()).map_err(errno)?;
    let mut cursor = Some(Cursor::default());
    while let Some(at) = cursor {
        let (list, next) = page(at, ask)?;
        for conn in &list {
            writeln!(out, "{}", line(conn)).map_err(errno)?;
        }
        cursor = next;
    }
    let mut file = out
        .into_inner()
        .map_err(|error| errno(error.into_error()))?;
    file.rewind().map_err(errno)?;
    Ok(file.into())
}

fn page(cursor: Cursor, ask: &mut Ask<'_>) -> Result<(Vec<Connection>, Option<Cursor>), i32> {
    let filter = Filter::default();
    match ask_for(&Request::Connections { cursor, filter }, ask)? {
        Reply::Connections { list, next } => Ok((list, next)),
        _ => Err(libc::EPROTO),
    }
}

fn line(conn: &Connection) -> String {
    let protocol = match conn.protocol {
        None => "IP",
        Some(Protocol::Tcp) => "TCP",
        Some(Protocol::Udp) => "UDP",
        Some(Protocol::Sctp) => "SCTP",
    };
    let [client, service, server] =
        [conn.client, conn.virtual_address, conn.server].map(hexadecimal);
    let engine = conn.engine.as_ref();
    let engine = engine.map_or(String::new(), |(engine, data)| {
        format!(" {} {data}", engine.word())
    });
    let seconds = conn.expires_ms / 1000;
    format!(
        "{protocol:<3} {client} {service} {server} {:<11} {seconds:>7}{engine}",
        conn.state
    )
}

/// `0A000001 0050`, `fc00:0000:…:0001 0050`
fn hexadecimal(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(v4) => format!("{:08X} {port:04X}", v4.to_bits()),
        IpAddr::V6(v6) => {
            let groups = v6.segments().map(|group| format!("{group:04x}"));
            format!("{} {port:04X}", groups.join(":"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Engine;
    use std::io::Read;

    fn connection(protocol: Option<Protocol>, ends: [&str; 3], state: &str) -> Connection {
        let [client, virtual_address, server] = ends.map(|end| end.parse().unwrap());
        Connection {
            protocol,
            client,
            virtual_address,
            server,
            local: None,
            state: state.into(),
            expires_ms: 899_999,
            in_packets: 1,
            out_packets: 1,
            bytes: 80,
            worker: 0,
            template: protocol.is_none(),
            engine: None,
        }
    }

    /// As kernels listed them.
    #[test]
    fn connections_as_a_kernel_shows_them() {
        let tcp = connection(
            Some(Protocol::Tcp),
            ["10.1.0.1:40001", "10.0.0.1:3001", "192.168.1.11:3001"],
            "ESTABLISHED",
        );
        assert_eq!(
            line(&tcp),
            "TCP 0A010001 9C41 0A000001 0BB9 C0A8010B 0BB9 ESTABLISHED     899"
        );
        let v6 = connection(
            Some(Protocol::Udp),
            ["[fd00::7]:1", "[fc00::1]:53", "192.168.1.11:53"],
            "UDP",
        );
        assert_eq!(
            line(&v6),
            "UDP fd00:0000:0000:0000:0000:0000:0000:0007 0001 \
             fc00:0000:0000:0000:0000:0000:0000:0001 0035 C0A8010B 0035 UDP             899"
        );
        let sip = Connection {
            engine: Some((Engine::Sip, "a84b4c76e66710".into())),
            ..connection(
                None,
                ["10.1.0.1:0", "10.0.0.1:5060", "192.168.1.11:5060"],
                "ASSURED",
            )
        };
        assert_eq!(
            line(&sip),
            "IP  0A010001 0000 0A000001 13C4 C0A8010B 13C4 ASSURED         899 sip a84b4c76e66710"
        );
    }

    #[test]
    fn all_pages_are_in_the_file() {
        let next = Cursor {
            worker: 1,
            entry: 7,
        };
        let ends = ["10.1.0.1:40001", "10.0.0.1:3001", "192.168.1.11:3001"];
        let one = connection(Some(Protocol::Tcp), ends, "CLOSE");
        let mut asked = Vec::new();
        let fd = open(&mut |request| {
            let Request::Connections { cursor, .. } = request else {
                panic!("{request:?}")
            };
            asked.push(*cursor);
            Ok(Reply::Connections {
                list: vec![one.clone()],
                next: (*cursor != next).then_some(next),
            })
        });
        let mut text = String::new();
        File::from(fd.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{TITLE}{0}\n{0}\n", line(&one)));
        assert_eq!(asked, [Cursor::default(), next]);
        let refused = open(&mut |_| Err(libc::ECONNREFUSED));
        assert_eq!(refused.unwrap_err(), libc::ECONNREFUSED);
    }
}
