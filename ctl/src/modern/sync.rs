//! `directorctl sync`: daemons that synchronise connections with other directors.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use control::{Change, Request, SyncDaemon, SyncRole, SyncStatus};

use super::show::Table;
use super::values::one_of;

#[derive(Debug, Subcommand)]
pub(super) enum SyncVerb {
    /// The daemons that run, and what they have told or heard since the director started.
    #[command(
        long_about = "The daemons that run, and what they have told or heard since the director started. LOST \
                      is what was lost on the way: of a master, what the network or its own queue had no \
                      room for; of a backup, what it could not read, knows no server of or has no room for. \
                      COMPLETE says whether a master has told a backup everything since that began."
    )]
    Status,
    /// Tell other directors of connections (master), or take in what they tell (backup).
    Start(StartArgs),
    /// Stop a daemon.
    Stop {
        #[arg(value_parser = one_of::<SyncRole>())]
        role: SyncRole,
    },
}

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    #[arg(value_parser = one_of::<SyncRole>())]
    role: SyncRole,
    /// The kernel's interface to the other directors.
    #[arg(long)]
    interface: String,
    /// Directors that stand by for each other have the same; a backup with 0 takes everybody's.
    #[arg(long, default_value_t = 0)]
    sync_id: u8,
    /// Bytes of a datagram without its headers; 1472 unless the interface's MTU is higher (backup).
    #[arg(long)]
    max_len: Option<u16>,
    /// The multicast group.
    #[arg(long, default_value = "224.0.0.81")]
    group: IpAddr,
    #[arg(long, default_value_t = 8848)]
    port: u16,
    /// How many routers a datagram passes, and one more.
    #[arg(long, default_value_t = 1)]
    ttl: u8,
}

impl StartArgs {
    fn daemon(&self) -> SyncDaemon {
        SyncDaemon {
            role: self.role,
            interface: self.interface.clone(),
            sync_id: self.sync_id,
            max_len: self.max_len,
            group: self.group,
            port: self.port,
            ttl: self.ttl,
        }
    }
}

impl SyncVerb {
    pub(super) fn request(&self) -> Request {
        Request::Change(vec![match self {
            Self::Status => return Request::SyncDaemons,
            Self::Start(args) => Change::StartSync(args.daemon()),
            Self::Stop { role } => Change::StopSync { role: *role },
        }])
    }
}

pub(super) fn table(daemons: &[SyncStatus]) -> String {
    let title = [
        "ROLE",
        "INTERFACE",
        "SYNC ID",
        "GROUP",
        "MESSAGES",
        "BYTES",
        "CONNECTIONS",
        "LOST",
        "LAG MS",
        "COMPLETE",
    ];
    let mut table = Table::new(4, title);
    let perhaps = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for status in daemons {
        let daemon = &status.daemon;
        table.row([
            daemon.role.to_string(),
            daemon.interface.clone(),
            daemon.sync_id.to_string(),
            format!("{} port {}", daemon.group, daemon.port),
            status.messages.to_string(),
            status.bytes.to_string(),
            status.connections.to_string(),
            status.lost.to_string(),
            perhaps(status.lag_ms.map(|ms| ms.to_string())),
            perhaps(
                status
                    .complete
                    .map(|done| if done { "yes" } else { "no" }.to_owned()),
            ),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modern::testing::parsed;

    fn asked(line: &str) -> Result<Request, String> {
        parsed(line).map(|verb: SyncVerb| verb.request())
    }

    #[test]
    fn verbs_become_requests() {
        assert_eq!(asked("status"), Ok(Request::SyncDaemons));
        let plain = SyncDaemon::new(SyncRole::Backup, "eth1");
        assert_eq!(
            asked("start backup --interface eth1"),
            Ok(Request::Change(vec![Change::StartSync(plain.clone())]))
        );
        let all = SyncDaemon {
            role: SyncRole::Master,
            sync_id: 7,
            max_len: Some(1400),
            group: "ff02::81".parse().unwrap(),
            port: 9000,
            ttl: 3,
            ..plain
        };
        assert_eq!(
            asked(
                "start master --interface eth1 --sync-id 7 --max-len 1400 --group ff02::81 --port 9000 --ttl 3"
            ),
            Ok(Request::Change(vec![Change::StartSync(all)]))
        );
        assert_eq!(
            asked("stop master"),
            Ok(Request::Change(vec![Change::StopSync {
                role: SyncRole::Master
            }]))
        );
        for wrong in [
            "start master",
            "start both --interface eth0",
            "stop",
            "stop 1",
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn daemons_are_listed_with_what_they_did() {
        let status = |role, lag_ms, complete| SyncStatus {
            daemon: SyncDaemon::new(role, "eth1"),
            messages: 3,
            bytes: 4000,
            connections: 100,
            lost: 1,
            lag_ms,
            complete,
        };
        let text = table(&[
            status(SyncRole::Master, Some(20), None),
            status(SyncRole::Backup, None, Some(false)),
        ]);
        assert_eq!(
            text,
            "ROLE    INTERFACE  SYNC ID  GROUP                 MESSAGES  BYTES  CONNECTIONS  LOST  LAG MS  COMPLETE\n\
             master  eth1       0        224.0.0.81 port 8848         3   4000          100     1      20         -\n\
             backup  eth1       0        224.0.0.81 port 8848         3   4000          100     1       -        no\n"
        );
    }
}
