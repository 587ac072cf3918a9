use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::{PortStatus, Status, WorkerStatus};

/// A machine: files below a folder.
struct Machine(TempDir);

impl Machine {
    fn with(files: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            machine.put(path, text);
        }
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn driver(&self, device: &str, driver: &str) {
        let link = self
            .0
            .path()
            .join(format!("sys/bus/pci/devices/{device}/driver"));
        symlink(format!("../../../bus/pci/drivers/{driver}"), link).unwrap();
    }

    fn pages(&self, folder: &str, total: u64, free: u64) {
        let folder = format!("{folder}/hugepages-2048kB");
        self.put(&format!("{folder}/nr_hugepages"), &format!("{total}\n"));
        self.put(&format!("{folder}/free_hugepages"), &format!("{free}\n"));
    }

    fn findings(&self, config: &str) -> Vec<Finding> {
        self.findings_of(config, Daemon::NotAsked)
    }

    fn findings_of(&self, config: &str, daemon: Daemon) -> Vec<Finding> {
        let plan = plan(Path::new("director.toml"), config).unwrap();
        examine(&read(self.0.path(), plan, daemon))
    }
}

const PCI: &str = "[director]\nworkers = [2, 3]\ncontrol_core = 1\n[eal]\nhuge_pages = true\n\
    [[port]]\nname = \"wan\"\ndevice = \"0000:3b:00.0\"\n";

/// Two nodes with two cores of one thread each; workers are to be on node 1.
fn good() -> Machine {
    let machine = Machine::with(&[
        ("proc/sys/kernel/osrelease", "6.1.0-37-amd64\n"),
        (
            "proc/cmdline",
            "quiet isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3\n",
        ),
        (
            "proc/mounts",
            "proc /proc proc rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0\n",
        ),
        (
            "proc/cpuinfo",
            "processor : 0\nflags\t\t: fpu constant_tsc nonstop_tsc\n",
        ),
        (
            "proc/self/limits",
            "Max locked memory         unlimited            unlimited            bytes\n",
        ),
        ("proc/17/comm", "sshd\n"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
        ),
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("sys/devices/system/cpu/isolated", "2-3\n"),
        ("sys/devices/system/cpu/nohz_full", "2-3\n"),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "tsc\n",
        ),
        ("sys/devices/system/node/node0/cpulist", "0-1\n"),
        ("sys/devices/system/node/node1/cpulist", "2-3\n"),
        ("sys/bus/pci/devices/0000:3b:00.0/numa_node", "1\n"),
        ("sys/class/iommu/dmar0/name", "dmar0\n"),
        ("sys/bus/pci/drivers/vfio-pci/uevent", ""),
    ]);
    for core in 0..4 {
        let cpu = format!("sys/devices/system/cpu/cpu{core}");
        machine.put(
            &format!("{cpu}/topology/thread_siblings_list"),
            &format!("{core}\n"),
        );
        machine.put(&format!("{cpu}/cpufreq/scaling_governor"), "performance\n");
    }
    machine.pages("sys/kernel/mm/hugepages", 512, 512);
    machine.pages("sys/devices/system/node/node0/hugepages", 0, 0);
    machine.pages("sys/devices/system/node/node1/hugepages", 512, 512);
    machine.driver("0000:3b:00.0", "vfio-pci");
    machine
}

/// The one finding of this topic that is not fine.
fn complaint<'f>(findings: &'f [Finding], topic: &str) -> &'f Finding {
    let mut all = findings
        .iter()
        .filter(|f| f.topic == topic && f.level != Level::Ok);
    let one = all
        .next()
        .unwrap_or_else(|| panic!("no complaint about {topic}: {findings:#?}"));
    assert!(!one.why.is_empty(), "{one:?}");
    one
}

/// That there is one, of this level, which ends with this command.
fn expect(findings: &[Finding], topic: &str, level: Level, seen: &str, mend: &str) {
    let one = complaint(findings, topic);
    assert_eq!(one.level, level, "{one:?}");
    assert!(one.seen.contains(seen), "{one:?}");
    assert!(
        one.mend.as_deref().unwrap_or_default().contains(mend),
        "{one:?}"
    );
}

#[test]
fn nothing_is_wrong_with_a_good_machine() {
    let findings = good().findings(PCI);
    let complaints: Vec<_> = findings.iter().filter(|f| f.level != Level::Ok).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(findings.iter().all(|finding| finding.mend.is_none()));
    for topic in [
        "kernel",
        "hugetlbfs",
        "huge pages",
        "transparent huge pages",
        "locked memory",
        "driver",
        "NUMA",
        "IOMMU",
        "cores",
        "isolation",
        "hyper-threads",
        "frequency",
        "clock",
        "interrupts",
    ] {
        assert!(
            findings.iter().any(|finding| finding.topic == topic),
            "{topic}"
        );
    }
}

#[test]
fn a_machine_on_which_nothing_was_done() {
    let machine = good();
    machine.put("proc/sys/kernel/osrelease", "4.19.0-27-amd64\n");
    machine.put("proc/cmdline", "quiet\n");
    machine.put("proc/mounts", "proc /proc proc rw 0 0\n");
    machine.put("proc/cpuinfo", "flags\t\t: fpu constant_tsc\n");
    machine.put(
        "proc/self/limits",
        "Max locked memory         8388608              8388608              bytes\n",
    );
    machine.put("proc/17/comm", "irqbalance\n");
    machine.put(
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always madvise [never]\n",
    );
    machine.put("sys/devices/system/cpu/isolated", "\n");
    machine.put("sys/devices/system/cpu/nohz_full", "(null)\n");
    machine.put(
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "hpet\n",
    );
    machine.put("sys/bus/pci/devices/0000:3b:00.0/numa_node", "0\n");
    machine.put("sys/bus/pci/devices/0000:3b:00.0/net/ens1f0/address", "");
    machine.put("sys/class/net/ens1f0/operstate", "up\n");
    machine.put(
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list",
        "0,2\n",
    );
    machine.put(
        "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor",
        "powersave\n",
    );
    machine.pages("sys/kernel/mm/hugepages", 100, 90);
    fs::remove_file(
        machine
            .0
            .path()
            .join("sys/bus/pci/devices/0000:3b:00.0/driver"),
    )
    .unwrap();
    machine.driver("0000:3b:00.0", "ixgbe");
    fs::remove_dir_all(machine.0.path().join("sys/class/iommu")).unwrap();
    fs::remove_dir_all(machine.0.path().join("sys/bus/pci/drivers")).unwrap();

    let findings = machine.findings(PCI);
    let expect = |topic, level, seen, mend| expect(&findings, topic, level, seen, mend);
    expect("kernel", Level::Warn, "4.19", "linux-image");
    expect(
        "hugetlbfs",
        Level::Bad,
        "not mounted",
        "mount -t hugetlbfs none /dev/hugepages",
    );
    // 512 MiB are 256 pages; 90 are free.
    let pages = "echo 266 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    expect(
        "huge pages",
        Level::Bad,
        "100 of 2 MiB, 90 free; 512 MiB wanted",
        pages,
    );
    expect(
        "transparent huge pages",
        Level::Warn,
        "never",
        "echo madvise",
    );
    expect(
        "locked memory",
        Level::Warn,
        "8192 KiB",
        "ulimit -l unlimited",
    );
    let bind = "ip link set ens1f0 down && modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci 0000:3b:00.0";
    expect(
        "driver",
        Level::Bad,
        "0000:3b:00.0 has ixgbe, as ens1f0",
        bind,
    );
    expect(
        "NUMA",
        Level::Warn,
        "node 0, workers 2-3 are not",
        "workers = [0]",
    );
    expect(
        "IOMMU",
        Level::Bad,
        "vfio-pci is not loaded",
        "enable_unsafe_noiommu_mode",
    );
    expect(
        "isolation",
        Level::Warn,
        "isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3",
        "update-grub && reboot",
    );
    expect(
        "hyper-threads",
        Level::Warn,
        "cores 0 share",
        "echo 0 > /sys/devices/system/cpu/cpu0/online",
    );
    expect(
        "frequency",
        Level::Warn,
        "powersave on cores 3",
        "cpu3/cpufreq/scaling_governor",
    );
    expect("clock", Level::Warn, "hpet", "echo tsc >");
    assert!(
        findings
            .iter()
            .any(|f| f.topic == "clock" && f.seen.contains("nonstop_tsc"))
    );
    expect(
        "interrupts",
        Level::Warn,
        "irqbalance runs",
        "systemctl disable --now irqbalance",
    );
}

#[test]
fn huge_pages_on_the_wrong_node() {
    let machine = good();
    machine.pages("sys/devices/system/node/node0/hugepages", 512, 512);
    machine.pages("sys/devices/system/node/node1/hugepages", 10, 6);
    let mend = "echo 260 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages";
    expect(
        &machine.findings(PCI),
        "huge pages",
        Level::Warn,
        "whose 2 workers want 512 MiB",
        mend,
    );
}

#[test]
fn buffers_decide_how_much_memory_is_wanted() {
    let config = PCI.replace("huge_pages = true", "huge_pages = true\nmbufs = 524288");
    let findings = good().findings(&config);
    expect(
        &findings,
        "huge pages",
        Level::Bad,
        "2560 MiB wanted",
        "echo 1280 >",
    );
}

#[test]
fn devices_and_cores_that_are_not_there() {
    let config = PCI
        .replace("3b:00.0", "af:00.0")
        .replace("workers = [2, 3]", "workers = [2, 9]");
    let findings = good().findings(&config);
    expect(
        &findings,
        "driver",
        Level::Bad,
        "no PCI device 0000:af:00.0",
        "lspci",
    );
    expect(
        &findings,
        "cores",
        Level::Bad,
        "no core 9 here, but 0-3",
        "lscpu",
    );
    let unbound = good();
    fs::remove_file(
        unbound
            .0
            .path()
            .join("sys/bus/pci/devices/0000:3b:00.0/driver"),
    )
    .unwrap();
    expect(
        &unbound.findings(PCI),
        "driver",
        Level::Bad,
        "has none",
        "dpdk-devbind.py --bind=vfio-pci",
    );
}

#[test]
fn drivers_that_dpdk_works_beside_need_no_iommu() {
    let machine = good();
    fs::remove_file(
        machine
            .0
            .path()
            .join("sys/bus/pci/devices/0000:3b:00.0/driver"),
    )
    .unwrap();
    machine.driver("0000:3b:00.0", "mlx5_core");
    fs::remove_dir_all(machine.0.path().join("sys/class/iommu")).unwrap();
    let findings = machine.findings(PCI);
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok),
        "{findings:#?}"
    );
    assert!(!findings.iter().any(|finding| finding.topic == "IOMMU"));
}

#[test]
fn without_an_iommu_vfio_must_be_told() {
    let machine = good();
    fs::remove_dir_all(machine.0.path().join("sys/class/iommu")).unwrap();
    expect(
        &machine.findings(PCI),
        "IOMMU",
        Level::Bad,
        "off",
        "enable_unsafe_noiommu_mode",
    );
    machine.put(
        "sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        "Y\n",
    );
    expect(
        &machine.findings(PCI),
        "IOMMU",
        Level::Warn,
        "does without",
        "intel_iommu=on",
    );
}

#[test]
fn cores_that_do_two_things() {
    let config = PCI.replace("control_core = 1", "control_core = 2");
    expect(
        &good().findings(&config),
        "cores",
        Level::Warn,
        "core 2 has the main thread",
        "control_core",
    );
    let machine = good();
    machine.put(
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list",
        "2-3\n",
    );
    machine.put(
        "sys/devices/system/cpu/cpu3/topology/thread_siblings_list",
        "2-3\n",
    );
    expect(
        &machine.findings(PCI),
        "hyper-threads",
        Level::Warn,
        "with another worker",
        "workers = ",
    );
}

#[test]
fn ordinary_memory_is_for_ports_without_a_nic() {
    let config = PCI.replace("huge_pages = true", "huge_pages = false");
    expect(
        &good().findings(&config),
        "huge pages",
        Level::Warn,
        "huge_pages = false",
        "huge_pages = true",
    );
    let config = config.replace("0000:3b:00.0", "net_null0");
    assert!(
        good()
            .findings(&config)
            .iter()
            .all(|finding| finding.level == Level::Ok)
    );
}

#[test]
fn interfaces_and_device_files() {
    let port = |device: &str| {
        format!(
            "[director]\nworkers = [2]\ncontrol_core = 1\n[[port]]\nname = \"a\"\ndevice = \"{device}\"\n"
        )
    };
    let machine = good();
    for queue in 0..4 {
        machine.put(
            &format!("sys/class/net/eth1/queues/rx-{queue}/rps_cpus"),
            "0\n",
        );
    }
    let af_xdp = machine.findings(&port("net_af_xdp0,iface=eth1"));
    expect(
        &af_xdp,
        "interface",
        Level::Bad,
        "eth1 has 4 queues, its AF_XDP port 1",
        "ethtool -L eth1 combined 1",
    );
    for fine in [
        "net_af_xdp0,iface=eth1,queue_count=4",
        "net_af_packet0,iface=eth1",
    ] {
        let findings = machine.findings(&port(fine));
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok),
            "{findings:#?}"
        );
    }
    let missing = machine.findings(&port("net_af_packet0,iface=eth7"));
    expect(
        &missing,
        "interface",
        Level::Bad,
        "eth7 is not there",
        "ip -brief link",
    );
    for (device, file, mend) in [
        ("net_tap0,iface=lvs", "/dev/net/tun", "modprobe tun"),
        (
            "net_virtio_user0,path=/dev/vhost-net",
            "/dev/vhost-net",
            "modprobe vhost-net",
        ),
        (
            "net_virtio_user0,path=/run/lab/a.sock",
            "/run/lab/a.sock",
            "ls -l /run/lab/a.sock",
        ),
    ] {
        expect(
            &machine.findings(&port(device)),
            "device file",
            Level::Bad,
            file,
            mend,
        );
        machine.put(file.trim_start_matches('/'), "");
        let findings = machine.findings(&port(device));
        assert!(
            findings
                .iter()
                .any(|f| f.topic == "device file" && f.level == Level::Ok)
        );
    }
    machine.put("proc/sys/kernel/osrelease", "4.19.0\n");
    let old = machine.findings(&port("net_af_xdp0,iface=eth1,queue_count=4"));
    expect(&old, "kernel", Level::Bad, "4.19", "linux-image");
}

fn running(rss: bool, link_up: bool, program: &str) -> Daemon {
    let worker = |core| WorkerStatus {
        pace: Default::default(),
        core,
        rx: 0,
        made: 0,
        held: 0,
        connections: 0,
        connections_max: 64,
        steered_out: 0,
        steered_in: 0,
        ends: Default::default(),
        drops: Default::default(),
    };
    let port = PortStatus {
        name: "wan".into(),
        device: "0000:3b:00.0".into(),
        mac: "02:00:00:00:00:01".into(),
        mtu: 1500,
        link_up,
        used: crate::PortUse::default(),
        tx_packets: 0,
        tx_bytes: 0,
        rx_packets: 0,
        rx_bytes: 0,
        ends: Default::default(),
        drops: Default::default(),
        hardware: Some(crate::PortHardware {
            driver: "net_ixgbe".into(),
            rx_queues_max: 128,
            rss,
            rx_offloads: vec!["CHECKSUM".into()],
            ..Default::default()
        }),
    };
    let status = Status {
        program: program.into(),
        uptime_s: 7,
        ports: vec![port],
        workers: vec![worker(2), worker(3)],
        balanced: true,
        mbufs_in_use: 0,
        templates: 0,
        templates_max: 64,
    };
    Daemon::Running(Box::new(Running {
        status,
        expected: "directord 1.0".into(),
    }))
}

#[test]
fn the_running_director_is_asked() {
    let machine = good();
    let fine = machine.findings_of(PCI, running(true, true, "directord 1.0"));
    assert!(
        fine.iter().all(|finding| finding.level == Level::Ok),
        "{fine:#?}"
    );
    let seen = |topic| {
        &fine
            .iter()
            .find(|finding| finding.topic == topic)
            .unwrap()
            .seen
    };
    assert_eq!(seen("director"), "directord 1.0, up 7 s, 2 workers");
    assert_eq!(seen("RSS"), "wan (net_ixgbe): with RSS, 128 receive queues");
    assert!(seen("offloads").contains("rx CHECKSUM; tx none"));

    let poor = machine.findings_of(PCI, running(false, false, "directord 0.9"));
    expect(
        &poor,
        "director",
        Level::Warn,
        "installed is directord 1.0",
        "systemctl restart directord",
    );
    expect(
        &poor,
        "link",
        Level::Bad,
        "wan (0000:3b:00.0) is down",
        "directorctl status",
    );
    expect(&poor, "RSS", Level::Warn, "no RSS", "workers = [N]");
    let silent = machine.findings_of(PCI, Daemon::Silent("cannot reach the director".into()));
    expect(
        &silent,
        "director",
        Level::Warn,
        "cannot reach",
        "systemctl start directord",
    );
}

/// What a director that runs has taken is not missing.
#[test]
fn taken_pages_are_there() {
    let machine = good();
    machine.pages("sys/kernel/mm/hugepages", 512, 0);
    machine.pages("sys/devices/system/node/node1/hugepages", 512, 0);
    assert_eq!(
        complaint(&machine.findings(PCI), "huge pages").level,
        Level::Bad
    );
    let findings = machine.findings_of(PCI, running(true, true, "directord 1.0"));
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok),
        "{findings:#?}"
    );
}

/// A running director does not say whether it has huge pages.
#[test]
fn without_a_configuration_memory_is_not_judged() {
    let port = PlannedPort {
        name: "wan".into(),
        device: "0000:3b:00.0".into(),
    };
    let plan = Plan {
        workers: vec![2, 3],
        control_core: 1,
        ports: vec![port],
        ..Plan::default()
    };
    let findings = examine(&read(good().0.path(), plan, Daemon::NotAsked));
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok),
        "{findings:#?}"
    );
}

#[test]
fn an_empty_machine_is_no_panic() {
    let machine = Machine::with(&[]);
    assert!(
        machine
            .findings(PCI)
            .iter()
            .any(|finding| finding.level == Level::Bad)
    );
    assert!(
        plan(Path::new("d.toml"), "[director]\nworkers = 3")
            .unwrap_err()
            .starts_with("d.toml: ")
    );
}

#[test]
fn cores_as_lists() {
    assert_eq!(list(&[7, 3, 2, 1]), "1-3,7");
    assert_eq!(list(&[]), "");
}
