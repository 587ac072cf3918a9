//! What ports are made of: NICs and their drivers and nodes, interfaces of the kernel's, device files.

use super::{Device, Facts, Finding, Interface, list};

const DRIVER: &str = "driver";
/// Drivers through which DPDK reaches a device.
const USERSPACE: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];
/// Drivers that DPDK works beside.
const SHARED: [&str; 3] = ["mlx5_core", "mlx4_core", "mana"];
/// The first kernel with all that AF_XDP needs here.
const AF_XDP_KERNEL: (u32, u32) = (5, 4);

pub(super) fn examine(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.push(kernel(facts));
    for device in &facts.devices {
        findings.push(driver(device));
        findings.extend(node(facts, device));
    }
    findings.extend(iommu(facts));
    let ports = &facts.plan.ports;
    for interface in &facts.interfaces {
        let port = ports
            .iter()
            .find(|port| port.argument("iface") == Some(&interface.name));
        let is_af_xdp = port.is_some_and(|port| port.is_driven_by("net_af_xdp"));
        let wanted = port.and_then(|port| port.argument("queue_count")?.parse().ok());
        findings.push(interface_of(
            interface,
            is_af_xdp.then_some(wanted.unwrap_or(1)),
        ));
    }
    findings.extend(
        facts
            .files
            .iter()
            .map(|(file, is_there)| device_file(file, *is_there)),
    );
}

fn kernel(facts: &Facts) -> Finding {
    let topic = "kernel";
    let wants_af_xdp = facts
        .plan
        .ports
        .iter()
        .any(|port| port.is_driven_by("net_af_xdp"));
    let mut numbers = facts.kernel.split(|c: char| !c.is_ascii_digit());
    let mut next = || {
        numbers
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    let is_new = (next(), next()) >= AF_XDP_KERNEL;
    let mend = "apt-get install linux-image-amd64 && reboot";
    match (is_new, wants_af_xdp) {
        (true, _) => Finding::ok(topic, &facts.kernel),
        (false, true) => {
            Finding::bad(topic, &facts.kernel, "AF_XDP ports need Linux 5.4 or newer").mend(mend)
        }
        (false, false) => Finding::warn(
            topic,
            &facts.kernel,
            "the director is tested on Linux 5.4 and newer",
        )
        .mend(mend),
    }
}

fn driver(device: &Device) -> Finding {
    let address = &device.address;
    if !device.is_present {
        let why = "the configuration names a device that this machine does not have";
        return Finding::bad(DRIVER, format!("no PCI device {address}"), why)
            .mend("lspci -D -d ::0200");
    }
    let bind = format!("modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {address}");
    match (device.driver.as_deref(), &device.interface) {
        (Some(driver), _) if USERSPACE.contains(&driver) || SHARED.contains(&driver) => {
            Finding::ok(DRIVER, format!("{address} has {driver}"))
        }
        (None, _) => {
            let why = "DPDK reaches a NIC through vfio-pci";
            Finding::bad(DRIVER, format!("{address} has none"), why).mend(bind)
        }
        (Some(driver), None) => {
            let why = "the kernel's driver has the NIC, DPDK cannot";
            Finding::bad(DRIVER, format!("{address} has {driver}"), why).mend(bind)
        }
        (Some(driver), Some((interface, is_up))) => {
            let why =
                "the kernel's driver has the NIC, DPDK cannot; its interface goes when it is bound";
            let down = if *is_up {
                format!("ip link set {interface} down && ")
            } else {
                String::new()
            };
            Finding::bad(
                DRIVER,
                format!("{address} has {driver}, as {interface}"),
                why,
            )
            .mend(format!("{down}{bind}"))
        }
    }
}

/// Whether the workers are beside the NIC.
fn node(facts: &Facts, device: &Device) -> Option<Finding> {
    let node = facts
        .nodes
        .iter()
        .find(|node| Some(node.id) == device.node)?;
    if facts.nodes.len() < 2 {
        return None;
    }
    let workers = facts.plan.workers.iter().copied();
    let far: Vec<u16> = workers.filter(|core| !node.cpus.contains(core)).collect();
    let (topic, address) = ("NUMA", &device.address);
    if far.is_empty() {
        return Some(Finding::ok(
            topic,
            format!("{address} and all workers are on node {}", node.id),
        ));
    }
    let seen = format!(
        "{address} is on node {}, workers {} are not",
        node.id,
        list(&far)
    );
    let why = "every packet crosses from one processor to the other";
    let mut near: Vec<u16> = node
        .cpus
        .iter()
        .copied()
        .filter(|core| *core != facts.plan.control_core)
        .collect();
    near.truncate(facts.plan.workers.len());
    let cores = near
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    Some(Finding::warn(topic, seen, why).mend(format!(
        "workers = [{cores}] in [director] of the configuration"
    )))
}

fn iommu(facts: &Facts) -> Option<Finding> {
    let needs = |device: &&Device| {
        !device
            .driver
            .as_deref()
            .is_some_and(|driver| SHARED.contains(&driver))
    };
    facts.devices.iter().find(needs)?;
    let topic = "IOMMU";
    let iommu = facts.iommu;
    Some(if iommu.present {
        Finding::ok(topic, "on")
    } else if iommu.unsafe_allowed {
        let why = "the NIC can write to any memory of this machine; fine in a virtual machine without an IOMMU";
        Finding::warn(topic, "off, and vfio does without", why).mend(
            "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&intel_iommu=on iommu=pt /' /etc/default/grub && update-grub && reboot",
        )
    } else {
        let seen = if iommu.vfio {
            "off"
        } else {
            "off, and vfio-pci is not loaded"
        };
        Finding::bad(topic, seen, "vfio-pci takes no NIC without one unless it is told to").mend(
            "modprobe vfio enable_unsafe_noiommu_mode=1 ; echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        )
    })
}

/// `queues` is how many an AF_XDP port takes; other ports see all of the interface.
fn interface_of(interface: &Interface, queues: Option<u16>) -> Finding {
    let (topic, name) = ("interface", &interface.name);
    if !interface.is_present {
        let why = "a port of the configuration is on it";
        return Finding::bad(topic, format!("{name} is not there"), why).mend("ip -brief link");
    }
    match queues {
        Some(queues) if interface.queues > queues => {
            let seen = format!(
                "{name} has {} queues, its AF_XDP port {queues}",
                interface.queues
            );
            let why = "packets that come in on the other queues do not reach the director";
            Finding::bad(topic, seen, why).mend(format!("ethtool -L {name} combined {queues}"))
        }
        _ => Finding::ok(topic, format!("{name}, {} queues", interface.queues)),
    }
}

fn device_file(file: &str, is_there: bool) -> Finding {
    let topic = "device file";
    if is_there {
        return Finding::ok(topic, file);
    }
    let seen = format!("{file} is missing");
    match file {
        "/dev/net/tun" => {
            Finding::bad(topic, seen, "net_tap makes its interface with it").mend("modprobe tun")
        }
        "/dev/vhost-net" => Finding::bad(topic, seen, "virtio-user reaches the kernel by it")
            .mend("modprobe vhost-net"),
        socket => Finding::bad(
            topic,
            seen,
            "a virtio-user port connects to it when it starts",
        )
        .mend(format!(
            "ls -l {socket}   # after the virtual switch or testpmd behind it was started"
        )),
    }
}
