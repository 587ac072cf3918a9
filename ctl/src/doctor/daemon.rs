//! The running director, and what the drivers of its ports can do.

use super::{Daemon, Facts, Finding};
use crate::{PortHardware, PortStatus};

const DIRECTOR: &str = "director";

pub(super) fn examine(facts: &Facts, findings: &mut Vec<Finding>) {
    let running = match &facts.daemon {
        Daemon::Running(running) => running,
        Daemon::Silent(reason) => {
            findings.push(
                Finding::warn(
                    DIRECTOR,
                    reason,
                    "ports' links, RSS and offloads are known to it alone",
                )
                .mend("systemctl start directord"),
            );
            return;
        }
        Daemon::NotAsked => return,
    };
    let (status, expected) = (&running.status, &running.expected);
    let seen = format!(
        "{}, up {} s, {} workers",
        status.program,
        status.uptime_s,
        status.workers.len()
    );
    findings.push(if status.program == *expected {
        Finding::ok(DIRECTOR, seen)
    } else {
        let seen = format!("{seen}; installed is {expected}");
        Finding::warn(
            DIRECTOR,
            seen,
            "a release that was installed runs after a restart, which ends connections",
        )
        .mend("systemctl restart directord")
    });
    for port in &status.ports {
        findings.push(link(port));
        if let Some(hardware) = &port.hardware {
            findings.push(rss(port, hardware, status.workers.len()));
            findings.push(offloads(port, hardware));
        }
    }
}

fn link(port: &PortStatus) -> Finding {
    let (topic, name, device) = ("link", &port.name, &port.device);
    if port.link_up {
        return Finding::ok(topic, format!("{name} is up"));
    }
    Finding::bad(
        topic,
        format!("{name} ({device}) is down"),
        "nothing comes in and nothing leaves there",
    )
    .mend(
        "directorctl status   # after cable, switch port or the interface's other end were seen to",
    )
}

fn rss(port: &PortStatus, hardware: &PortHardware, workers: usize) -> Finding {
    let (topic, name) = ("RSS", &port.name);
    let PortHardware {
        driver,
        rx_queues_max,
        rss,
        ..
    } = hardware;
    let seen = format!(
        "{name} ({driver}): {} RSS, {rx_queues_max} receive queues",
        if *rss { "with" } else { "no" }
    );
    if workers < 2 || *rss {
        return Finding::ok(topic, seen);
    }
    let why = "the port gives all packets to one worker, which hands most of them to the others";
    Finding::warn(topic, seen, why)
        .mend("workers = [N] in [director], one of them, or a NIC with RSS")
}

/// The director's own code computes checksums: what a NIC offers is good to know, not needed.
fn offloads(port: &PortStatus, hardware: &PortHardware) -> Finding {
    let names = |offloads: &[String]| {
        if offloads.is_empty() {
            "none".to_owned()
        } else {
            offloads.join(" ")
        }
    };
    let (rx, tx) = (names(&hardware.rx_offloads), names(&hardware.tx_offloads));
    Finding::ok(
        "offloads",
        format!("{}: rx {rx}; tx {tx}; none is needed", port.name),
    )
}
