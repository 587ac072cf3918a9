//! `directorctl port`: the NICs, physical and virtual.

use clap::Subcommand;
use control::PortStatus;

use super::show::Table;

#[derive(Debug, Subcommand)]
pub(super) enum PortVerb {
    /// All ports: their device and its link, and what has passed.
    List,
}

pub(super) fn table(ports: &[PortStatus]) -> String {
    let title = [
        "PORT",
        "DEVICE",
        "DRIVER",
        "MAC",
        "LINK",
        "SPEED",
        "OFFLOADS",
        "QUEUES",
        "MTU",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
        "DROPPED",
    ];
    let mut table = Table::new(7, title);
    for port in ports {
        let driver = port.hardware.as_ref().map(|hardware| &hardware.driver);
        let used = &port.used;
        let words = [
            port.name.clone(),
            port.device.clone(),
            driver.map_or("-", String::as_str).to_owned(),
            port.mac.clone(),
            if port.link_up { "up" } else { "down" }.to_owned(),
            speed(used.speed_mbps),
            or_none(&used.offloads),
        ];
        let numbers = [
            u64::from(used.queues),
            u64::from(port.mtu),
            port.rx_packets,
            port.rx_bytes,
            port.tx_packets,
            port.tx_bytes,
            port.drops.values().sum(),
        ];
        table.row(words.into_iter().chain(numbers.map(|n| n.to_string())));
    }
    table.text()
}

fn speed(mbps: Option<u32>) -> String {
    match mbps {
        None => "-".to_owned(),
        Some(mbps) if mbps >= 1000 && mbps % 1000 == 0 => format!("{} Gbit/s", mbps / 1000),
        Some(mbps) => format!("{mbps} Mbit/s"),
    }
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{PortHardware, PortUse};

    fn driver(name: &str) -> Option<PortHardware> {
        Some(PortHardware {
            driver: name.to_owned(),
            ..PortHardware::default()
        })
    }

    #[test]
    fn a_line_for_each_port() {
        let lan = PortStatus {
            name: "lan".to_owned(),
            device: "0000:3b:00.0".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            mtu: 1500,
            link_up: true,
            hardware: driver("net_ixgbe"),
            used: PortUse {
                speed_mbps: Some(10_000),
                queues: 4,
                offloads: vec!["rss".to_owned()],
            },
            tx_packets: 7,
            tx_bytes: 700,
            rx_packets: 10,
            rx_bytes: 1000,
            ends: Default::default(),
            drops: [("no_route".to_owned(), 1), ("truncated".to_owned(), 2)].into(),
        };
        let mut rs = lan.clone();
        rs.name = "rs".to_owned();
        rs.link_up = false;
        (rs.hardware, rs.used) = (driver("net_ring"), PortUse::default());
        let text = "\
PORT  DEVICE        DRIVER     MAC                LINK  SPEED      OFFLOADS  QUEUES   MTU  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES  DROPPED
lan   0000:3b:00.0  net_ixgbe  02:00:00:00:00:01  up    10 Gbit/s  rss            4  1500          10      1000           7       700        3
rs    0000:3b:00.0  net_ring   02:00:00:00:00:01  down  -          none           0  1500          10      1000           7       700        3
";
        assert_eq!(table(&[lan, rs]), text);
        assert_eq!(speed(Some(2500)), "2500 Mbit/s");
    }
}
