//! The control protocol: what `directorctl` asks and `directord` answers over the Unix socket.
//!
//! A message is a 4-byte big-endian length and that many bytes of JSON. The client opens with
//! [`Hello`]; the daemon answers with its own. Then each [`Request`] gets exactly one [`Reply`].
//! Protocol types exist once, here; the daemon never sees command-line text.

mod capture; // the last drops, and captures
mod change; // what can be changed
pub mod client;
pub mod conf; // what a configuration file says, and as TOML
mod connections; // listed, chosen and ended
pub mod doctor; // what a machine lacks
mod explain; // what becomes of a packet
mod file; // configuration files
mod hardware; // what the drivers of ports can do
pub mod health; // servers watched
pub mod import; // configurations of others
pub mod ipvsadm;
mod marks; // rules that mark packets
mod metrics; // for Prometheus, and how much workers do
mod network; // addresses, routes, static neighbours
mod node; // whether a director is to have clients
pub mod packet; // frames, read and in words
pub mod plan; // what a file would change
mod ports; // ports as they are configured
mod reply; // what the daemon answers
mod request; // what clients ask
mod sense; // what nobody can mean
mod server; // real servers
mod service; // virtual services
mod settings; // as a whole, and one by one
mod status; // how the daemon, its ports and its workers are
mod sync; // connections that other directors know of
pub mod usage;
mod words; // the words for what can be chosen

use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use capture::{
    BUFFER, BUFFER_MAX, BUFFER_MIN, Bytes, CaptureSpec, Captured, Dropped, End, PacketFilter,
    SNAPLEN_MAX, Stage, TERMS_MAX, Traffic,
};
pub use change::Change;
pub use conf::{Conf, ServerConf, ServiceConf, TimeoutsConf};
pub use connections::{Connection, Cursor, Filter, Side, Traits};
pub use explain::{Candidate, Explained, Frame, Question, Says, Sent, Step};
pub use file::File;
pub use hardware::PortHardware;
pub use health::{
    Check, CheckStatus, Dns, DnsRecord, Fitness, Health, Http, OnFailure, Passive, Payload, Probe,
    Rcode, Rhythm, ServerHealth, ServerOptions, ServiceHealth, StatusSet, Talk, Tls, Via,
};
pub use marks::{MarkRule, Ports, Prefix, WhichMark};
pub use metrics::{MetricsCursor, Pace};
pub use network::{
    Address, AddressPrefix, GATEWAYS_MAX, Gateways, KernelHop, KernelNetwork, KernelRoute, Mac,
    Neighbour, NeighbourState, Network, Route, StaticNeighbour, interface, is_link_local,
    is_station, mac_text,
};
pub use node::{Announced, NodeState, NodeStatus, Withheld};
pub use plan::Plan;
pub use ports::{KernelDriver, KernelSide, PortSpec, Role, Steering, Vips};
pub use reply::{Errno, Refusal, Reply};
pub use request::{CONNECTIONS_MAX, Request};
pub use server::{
    Drain, Draining, ForwardMode, Server, ServerSpec, Thresholds, Tunnel, TunnelChecksum,
    TunnelKind,
};
pub use service::{
    ClientAddress, Engine, HashTarget, LocalAddress, MH_TABLE_SIZE, MH_TABLE_SIZE_MAX,
    MH_TABLE_SIZE_MIN, MH_TABLE_SIZES, Netmask, OnServerGone, Persistence, Protocol, Refuse,
    SchedulerFlags, Service, ServiceKey, ServiceOptions, ServiceSpec, ServiceTimeouts,
};
pub use settings::{SETTINGS, Setting, Settings, Value};
pub use status::{PortStatus, PortUse, Rates, Status, Totals, WorkerStatus};
pub use sync::{SyncDaemon, SyncRole, SyncStatus};
pub use words::{NoFlag, Word};

/// Bumped by every incompatible change; both ends must agree.
pub const VERSION: u32 = 7;
/// Where the daemon listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/director/director.sock";
/// The longest message either side accepts, in bytes: enough for a listing of 100 000 servers.
pub const MESSAGE_MAX: usize = 64 << 20;

/// The first message of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    pub version: u32,
    /// Program and release, for people.
    pub program: String,
}

/// Writes one length-prefixed message; `InvalidData` if it is longer than [`MESSAGE_MAX`].
pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    fits(len)?;
    to.write_all(&len.to_be_bytes())?;
    to.write_all(&body)?;
    to.flush()
}

/// Reads one length-prefixed message; `InvalidData` if it is longer than [`MESSAGE_MAX`] or not a `T`.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    fits(len)?;
    let mut body = vec![0; len as usize];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

fn fits(len: u32) -> io::Result<()> {
    match len as usize <= MESSAGE_MAX {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message too long",
        )),
    }
}
