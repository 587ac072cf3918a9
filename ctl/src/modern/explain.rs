//! `directorctl explain`: where a packet would go, and why.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use control::{End, Explained, File, Frame, Protocol, Question, Request, Says};

use super::show::Table;
use super::values::{address_port, one_of};

/// Where what is said of a step begins.
const INDENT: usize = 13;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[arg(value_parser = one_of::<Protocol>())]
    protocol: Protocol,
    /// ADDRESS:PORT that the packet comes from.
    #[arg(value_parser = address_port)]
    from: SocketAddr,
    /// ADDRESS:PORT that it goes to.
    #[arg(value_parser = address_port)]
    to: SocketAddr,
    /// The director's port where it comes in, p0, or p0.100 for its VLAN; where packets to its sender
    /// leave, unless set.
    #[arg(long)]
    port: Option<String>,
    /// Flags of a TCP segment, some of S, A, F, R, P and U, or a dot for none; S unless set.
    #[arg(long)]
    flags: Option<String>,
    /// Bytes of the IP packet; as few as it takes unless set.
    #[arg(long, allow_negative_numbers = true)]
    length: Option<u16>,
    /// It is a SIP message with this Call-ID.
    #[arg(long, conflicts_with = "connection_id")]
    call_id: Option<String>,
    /// It is a QUIC packet with this destination connection id, in hexadecimal.
    #[arg(long)]
    connection_id: Option<String>,
    /// As if the director ran with this configuration file: without connections, and with the
    /// neighbours that it knows.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What to ask.
pub(super) fn request(args: &ExplainArgs) -> Result<Request> {
    let file = args.config.as_ref().map(|path| {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"));
        Ok::<_, anyhow::Error>(File { name, text: text? })
    });
    let says = match (&args.call_id, &args.connection_id) {
        (Some(id), _) => Says::CallId(id.clone()),
        (None, Some(id)) => Says::ConnectionId(id.clone()),
        (None, None) => Says::Nothing,
    };
    Ok(Request::Explain(Box::new(Question {
        protocol: args.protocol,
        from: args.from,
        to: args.to,
        port: args.port.clone(),
        flags: args.flags.clone(),
        length: args.length,
        says,
        file: file.transpose()?,
    })))
}

/// The steps, what goes in and what comes out, and the end.
pub(super) fn text(explained: &Explained) -> String {
    let mut out = String::new();
    frame(&mut out, "in", &explained.packet);
    for step in &explained.steps {
        line(&mut out, &step.name, &step.says);
        match step.name.as_str() {
            "service" => near(&mut out, explained),
            "scheduler" => candidates(&mut out, explained),
            _ => {}
        }
    }
    for sent in &explained.sent {
        let name = if sent.made { "made" } else { "out" };
        frame(&mut out, name, &sent.frame);
    }
    for held in &explained.held {
        line(&mut out, "waits", held);
    }
    let end = match &explained.end {
        End::Forwarded => "FORWARDED".to_owned(),
        End::Answered => "ANSWERED".to_owned(),
        End::Punted => "PUNTED".to_owned(),
        End::Held => "HELD".to_owned(),
        End::Consumed => "CONSUMED".to_owned(),
        End::Received => "RECEIVED".to_owned(),
        End::Dropped { reason, .. } => format!("DROPPED ({reason})"),
    };
    line(&mut out, "end", &format!("{end}: {}", explained.says));
    out
}

fn line(out: &mut String, name: &str, says: &str) {
    *out += &format!("{name:<INDENT$}{says}\n");
}

/// A frame's port, its stations and what it is.
fn frame(out: &mut String, name: &str, frame: &Frame) {
    let Frame {
        port,
        from,
        to,
        packet,
        ..
    } = frame;
    line(out, name, &format!("{port}: {from} > {to}, {packet}"));
}

fn near(out: &mut String, explained: &Explained) {
    for (key, why) in &explained.near {
        line(out, "", &format!("near: {key}, but {why}"));
    }
}

fn candidates(out: &mut String, explained: &Explained) {
    if explained.candidates.is_empty() {
        return;
    }
    let mut table = Table::new(2, ["", "server", "weight", "active", "inactive", "", ""]);
    for server in &explained.candidates {
        let notes = [
            (server.weight == 0, "no weight"),
            (server.overloaded, "overloaded"),
            (server.draining, "draining"),
        ];
        let notes = notes
            .into_iter()
            .filter_map(|(is, note)| is.then_some(note));
        table.row([
            if server.chosen { ">" } else { "" }.to_owned(),
            server.server.to_string(),
            server.weight.to_string(),
            server.active.to_string(),
            server.inactive.to_string(),
            server.figure.clone().unwrap_or_default(),
            notes.collect::<Vec<_>>().join(", "),
        ]);
    }
    for row in table.text().lines() {
        line(out, "", row);
    }
}

#[cfg(test)]
mod tests {
    use control::{Candidate, Sent, ServiceKey, Step};

    use super::*;

    fn frame_of(port: &str, packet: &str) -> Frame {
        Frame {
            port: port.to_owned(),
            from: "02:00:00:00:00:01".to_owned(),
            to: "02:00:00:00:00:02".to_owned(),
            packet: packet.to_owned(),
            bytes: String::new(),
        }
    }

    fn explained() -> Explained {
        let step = |name: &str, says: &str| Step {
            name: name.to_owned(),
            says: says.to_owned(),
        };
        let candidate = |server: &str, weight, chosen| Candidate {
            server: server.parse().unwrap(),
            weight,
            active: 3,
            inactive: 12,
            overloaded: chosen,
            draining: false,
            figure: None,
            chosen,
        };
        Explained {
            packet: frame_of("wan", "IP a > b"),
            steps: vec![
                step("worker", "the only one"),
                step("service", "tcp 10.0.0.1:80, by its address and port"),
                step("scheduler", "rr: one after the other"),
            ],
            service: None,
            near: vec![(
                ServiceKey::at(Protocol::Udp, "10.0.0.1:80".parse().unwrap()),
                "it is for udp".to_owned(),
            )],
            candidates: vec![
                candidate("10.1.0.1:80", 1, true),
                candidate("10.1.0.12:80", 0, false),
            ],
            server: None,
            method: None,
            local: None,
            sent: vec![Sent {
                frame: frame_of("lan", "IP a > c"),
                made: false,
            }],
            held: vec!["IP a > d".to_owned()],
            end: End::Dropped {
                reason: "no_server".to_owned(),
                sentence: String::new(),
            },
            says: "nobody".to_owned(),
        }
    }

    #[test]
    fn steps_are_lines() {
        assert_eq!(
            text(&explained()),
            "\
in           wan: 02:00:00:00:00:01 > 02:00:00:00:00:02, IP a > b
worker       the only one
service      tcp 10.0.0.1:80, by its address and port
             near: udp 10.0.0.1:80, but it is for udp
scheduler    rr: one after the other
                server        weight  active  inactive
             >  10.1.0.1:80        1       3        12    overloaded
                10.1.0.12:80       0       3        12     no weight
out          lan: 02:00:00:00:00:01 > 02:00:00:00:00:02, IP a > c
waits        IP a > d
end          DROPPED (no_server): nobody
"
        );
    }
}
