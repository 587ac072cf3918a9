//! `directorctl port`: the NICs, physical and virtual.

use clap::{Args, Subcommand};
use control::{
    Address, AddressPrefix, Change, KernelDriver, KernelSide, PortSpec, PortStatus, Request, Role,
    Steering, Vips,
};

use super::show::Table;
use super::values::one_of;

#[derive(Debug, Subcommand)]
pub(super) enum PortVerb {
    /// All ports: their device and its link, and what has passed.
    List,
    /// Start a device as a port; the other ports go on: directorctl port add dmz
    /// net_af_packet2,iface=veth2 --address 10.9.0.254/24
    Add(PortArgs),
    /// Stop a port and let go of its device. Its addresses and VLANs go with it; what is reached through
    /// them, routes and static neighbours, has to go before.
    Delete {
        /// The port's name.
        #[arg(value_name = "NAME")]
        port: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// For messages and listings: letters, digits, - _ .
    name: String,
    /// A virtual device with its arguments, or the PCI address of one that is bound to a DPDK driver.
    device: String,
    /// Bytes of the longest IP packet, 68 to 9200 and no more than packet buffers have room for; 1500
    /// unless set.
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    mtu: Option<u16>,
    /// Receive what is sent to other stations; =false, as unless set, for not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    promiscuous: Option<bool>,
    /// Frames may come with unfinished checksums, which are then completed; unless set, from devices whose
    /// other end is on this computer.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    partial_checksums: Option<bool>,
    /// Packets that the device queues for us, per worker, a power of two, 64 to 8192; 1024 unless set.
    #[arg(long, value_name = "PACKETS", allow_negative_numbers = true)]
    rx_descriptors: Option<u16>,
    /// The same from us.
    #[arg(long, value_name = "PACKETS", allow_negative_numbers = true)]
    tx_descriptors: Option<u16>,
    /// Who is behind the port, so that a NIC that can spreads packets over the workers as they own them;
    /// unless set, both may be.
    #[arg(long, value_parser = one_of::<Role>())]
    role: Option<Role>,
    /// The core of a worker that has a queue of the port, for each of them; unless set, all workers have one,
    /// or as many as the device has queues. Packets of the others are handed on.
    #[arg(long = "worker", value_name = "CORE")]
    workers: Vec<u16>,
    /// Give the kernel an interface that has what is not the director's: by auto (virtio-user where there
    /// is /dev/vhost-net, else tap), virtio-user or tap; none unless set.
    #[arg(long, value_name = "DRIVER", value_parser = one_of::<KernelDriver>())]
    kernel: Option<KernelDriver>,
    /// The name of that interface; the port's unless set.
    #[arg(long, value_name = "NAME", requires = "kernel")]
    kernel_name: Option<String>,
    /// Who says on the port's network where virtual addresses are: director, or kernel, as VRRP wants.
    #[arg(long, value_name = "WHO", requires = "kernel", value_parser = one_of::<Vips>())]
    vips: Option<Vips>,
    /// ADDRESS/LENGTH: an address of the port, with the length of its network's prefix; any number of
    /// them.
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<AddressPrefix>,
}

impl PortArgs {
    fn spec(&self) -> PortSpec {
        let default = PortSpec::new(&self.name, &self.device);
        PortSpec {
            mtu: self.mtu.unwrap_or(default.mtu),
            promiscuous: self.promiscuous.unwrap_or(default.promiscuous),
            partial_checksums: self.partial_checksums.unwrap_or(default.partial_checksums),
            rx_descriptors: self.rx_descriptors.unwrap_or(default.rx_descriptors),
            tx_descriptors: self.tx_descriptors.unwrap_or(default.tx_descriptors),
            role: self.role,
            workers: self.workers.clone(),
            kernel: self.kernel.map(|driver| KernelSide {
                driver,
                name: self.kernel_name.clone(),
                vips: self.vips.unwrap_or_default(),
            }),
            ..default
        }
    }

    /// The port and its addresses, all at once.
    fn changes(&self) -> Vec<Change> {
        let address = |prefix: &AddressPrefix| {
            Change::AddAddress(Address {
                port: self.name.clone(),
                vlan: None,
                prefix: *prefix,
            })
        };
        let port = std::iter::once(Change::AddPort(self.spec()));
        port.chain(self.addresses.iter().map(address)).collect()
    }
}

impl PortVerb {
    pub(super) fn request(&self) -> Request {
        match self {
            Self::List => Request::Status,
            Self::Add(args) => Request::Change(args.changes()),
            Self::Delete { port } => {
                let port = port.clone();
                Request::Change(vec![Change::DeletePort { port }])
            }
        }
    }
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
        "STEERING",
        "QUEUES",
        "MTU",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
        "DROPPED",
    ];
    let mut table = Table::new(8, title);
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
            steering(used.steering).to_owned(),
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

fn steering(steering: Option<Steering>) -> &'static str {
    match steering {
        None => "-",
        Some(Steering::Software) => "software",
        Some(Steering::Trying) => "trying",
        Some(Steering::Nic) => "nic",
        Some(Steering::OtherHash) => "software (other hash)",
        Some(Steering::NoHash) => "software (no hash)",
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
    use crate::modern::testing::parsed;
    use control::{PortHardware, PortUse};

    fn asked(line: &str) -> Result<Request, String> {
        parsed(line).map(|verb: PortVerb| verb.request())
    }

    #[test]
    fn verbs_become_requests() {
        assert_eq!(asked("list"), Ok(Request::Status));
        let plain = PortSpec::new("dmz", "net_null0");
        let add = vec![Change::AddPort(plain.clone())];
        assert_eq!(asked("add dmz net_null0"), Ok(Request::Change(add)));
        let spec = PortSpec {
            mtu: 9000,
            promiscuous: true,
            partial_checksums: true,
            rx_descriptors: 256,
            tx_descriptors: 512,
            role: Some(Role::Servers),
            workers: vec![2, 4],
            kernel: Some(KernelSide {
                driver: KernelDriver::Tap,
                name: Some("dmz0".to_owned()),
                vips: Vips::Kernel,
            }),
            ..plain
        };
        let address = |prefix: &str| {
            Change::AddAddress(Address {
                port: "dmz".to_owned(),
                vlan: None,
                prefix: prefix.parse().unwrap(),
            })
        };
        let add = vec![
            Change::AddPort(spec),
            address("10.9.0.1/24"),
            address("2001:db8::1/64"),
        ];
        let line = "add dmz net_null0 --mtu 9000 --promiscuous --partial-checksums=true \
            --rx-descriptors 256 --tx-descriptors 512 --role servers --worker 2 --worker 4 \
            --kernel tap --kernel-name dmz0 --vips kernel --address 10.9.0.1/24 --address 2001:db8::1/64";
        assert_eq!(asked(line), Ok(Request::Change(add)));
        let port = "dmz".to_owned();
        let delete = vec![Change::DeletePort { port }];
        assert_eq!(asked("delete dmz"), Ok(Request::Change(delete)));
    }

    #[test]
    fn mistakes_say_what_is_right() {
        for (line, words) in [
            ("add dmz", "<DEVICE>"),
            ("delete", "<NAME>"),
            ("add dmz net_null0 --mtu 70000", "65535"),
            (
                "add dmz net_null0 --address 10.9.0.1",
                "10.0.0.254/24 or 2001:db8::fe/64 is right",
            ),
        ] {
            let said = asked(line).unwrap_err();
            assert!(said.contains(words), "{line}: {said}");
        }
    }

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
                steering: Some(Steering::Nic),
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
PORT  DEVICE        DRIVER     MAC                LINK  SPEED      OFFLOADS  STEERING  QUEUES   MTU  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES  DROPPED
lan   0000:3b:00.0  net_ixgbe  02:00:00:00:00:01  up    10 Gbit/s  rss       nic            4  1500          10      1000           7       700        3
rs    0000:3b:00.0  net_ring   02:00:00:00:00:01  down  -          none      -              0  1500          10      1000           7       700        3
";
        assert_eq!(table(&[lan, rs]), text);
        assert_eq!(speed(Some(2500)), "2500 Mbit/s");
    }
}
