//! The last drops: shown, watched, written as a capture.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use clap::Args;
use control::client::{Client, ClientError};
use control::packet::Line;
use control::{Dropped, Reply, Request, SNAPLEN_MAX};
use schemars::JsonSchema;
use serde::Serialize;

use super::pcapng::{self, Packet, Writer};

/// How often the director is asked while drops are watched.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct DropsArgs {
    /// Those for this reason only, by the counter's name: no_server for example.
    #[arg(long, value_name = "NAME")]
    reason: Option<String>,
    /// The last so many; unless set all that the director remembers, 256 of each worker.
    #[arg(long, value_name = "COUNT")]
    last: Option<usize>,
    /// Go on with those that come, until interrupted.
    #[arg(long)]
    follow: bool,
    /// Write the packets, as far as they were kept, to this file instead; "-" is standard output.
    #[arg(long, value_name = "FILE")]
    pcapng: Option<PathBuf>,
}

/// As JSON: with the packet in words.
#[derive(Serialize, JsonSchema)]
pub(super) struct Shown<'d> {
    #[serde(flatten)]
    dropped: &'d Dropped,
    packet: String,
}

impl<'d> Shown<'d> {
    fn of(dropped: &'d Dropped) -> Self {
        let packet = line(dropped).to_string();
        Self { dropped, packet }
    }
}

fn line(dropped: &Dropped) -> Line<'_> {
    Line {
        bytes: &dropped.bytes.0,
        len: dropped.length,
    }
}

pub(super) fn run(args: &DropsArgs, client: &mut Client, json: bool) -> Result<String> {
    let (mut list, mut counts) = ask(client, Vec::new())?;
    choose(args, &mut list);
    let surplus = list.len() - args.last.unwrap_or(list.len()).min(list.len());
    list.drain(..surplus);
    let mut file = match &args.pcapng {
        Some(path) => Some(Writer::create(path, SNAPLEN_MAX)?),
        None => None,
    };
    if !args.follow && file.is_none() {
        return shown(&list, json);
    }
    loop {
        match put(&list, json, file.as_mut()) {
            Err(error) if pcapng::is_closed(&error) => return Ok(String::new()),
            put => put?,
        }
        if !args.follow {
            return Ok(String::new());
        }
        std::thread::sleep(PERIOD);
        let before: u64 = counts.iter().sum();
        (list, counts) = ask(client, counts)?;
        let lost = (counts.iter().sum::<u64>() - before).saturating_sub(list.len() as u64);
        if lost > 0 {
            eprintln!("directorctl: {lost} more drops came too fast to be kept");
        }
        choose(args, &mut list);
    }
}

fn ask(client: &mut Client, after: Vec<u64>) -> Result<(Vec<Dropped>, Vec<u64>)> {
    match client.ask(&Request::Drops { after })? {
        Reply::Drops { list, counts } => Ok((list, counts)),
        Reply::Refused(refusal) => Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    }
}

fn choose(args: &DropsArgs, list: &mut Vec<Dropped>) {
    if let Some(reason) = &args.reason {
        list.retain(|dropped| dropped.reason == *reason);
    }
}

fn shown(list: &[Dropped], json: bool) -> Result<String> {
    if json {
        return super::json(&list.iter().map(Shown::of).collect::<Vec<_>>());
    }
    Ok(list.iter().map(text).collect())
}

/// `2026-01-02T03:04:05.123456Z worker 1 lan no_server: IP … (the service has no server …)`
fn text(dropped: &Dropped) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(dropped.at_ns);
    format!(
        "{} worker {} {} {}: {} ({})\n",
        humantime::format_rfc3339_micros(at),
        dropped.worker,
        dropped.port,
        dropped.reason,
        line(dropped),
        dropped.sentence,
    )
}

/// As they come: a line each, of JSON or text, or into the file.
fn put(list: &[Dropped], json: bool, file: Option<&mut Writer>) -> Result<()> {
    let Some(file) = file else {
        let mut out = io::stdout().lock();
        for dropped in list {
            match json {
                true => writeln!(out, "{}", serde_json::to_string(&Shown::of(dropped))?)?,
                false => out.write_all(text(dropped).as_bytes())?,
            }
        }
        return Ok(out.flush()?);
    };
    for dropped in list {
        let (reason, sentence) = (&dropped.reason, &dropped.sentence);
        let comment = format!(
            "dropped: {reason} ({sentence}); from {}; worker {}",
            dropped.port, dropped.worker
        );
        file.write(&Packet {
            port: &dropped.port,
            leaves: false,
            at_ns: dropped.at_ns,
            bytes: &dropped.bytes.0,
            length: dropped.length,
            missed: 0,
            comment: &comment,
        })?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use control::Bytes;

    use super::*;

    fn dropped() -> Dropped {
        Dropped {
            at_ns: 1_700_000_000_123_456_789,
            worker: 1,
            port: "lan".into(),
            vlan: None,
            reason: "not_ours".into(),
            sentence: "nothing matches".into(),
            length: 60,
            bytes: Bytes(vec![2, 0]),
        }
    }

    #[test]
    fn drops_are_a_line_each() {
        assert_eq!(
            shown(&[dropped()], false).unwrap(),
            "2023-11-14T22:13:20.123456Z worker 1 lan not_ours: 60 bytes: 0200 (nothing matches)\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&shown(&[dropped()], true).unwrap()).unwrap();
        let expected = serde_json::json!([{
            "at_ns": 1_700_000_000_123_456_789u64, "worker": 1, "port": "lan", "vlan": null,
            "reason": "not_ours", "sentence": "nothing matches", "length": 60, "bytes": "AgA=",
            "packet": "60 bytes: 0200",
        }]);
        assert_eq!(json, expected);
    }
}
