//! Huge pages, per machine and per NUMA node, and limits on locked memory.

use super::{Daemon, Facts, Finding, HugePages};

/// Bytes of a packet buffer in its pool, headers and headroom included.
const MBUF_BYTES: u64 = 2560;
const HUGE: &str = "huge pages";
const WHY_FREE: &str = "DPDK takes its memory from them at start, and refuses to start with less";
const WHY_NODE: &str =
    "a worker whose packets lie in another node's memory waits for it with every one";

pub(super) fn examine(facts: &Facts, findings: &mut Vec<Finding>) {
    huge_pages(facts, findings);
    transparent(facts, findings);
    memlock(facts, findings);
}

fn huge_pages(facts: &Facts, findings: &mut Vec<Finding>) {
    if !facts.plan.huge_pages {
        findings.push(unused(facts));
        return;
    }
    findings.push(match &facts.hugetlbfs {
        Some(place) => Finding::ok("hugetlbfs", format!("mounted on {place}")),
        None => Finding::bad(
            "hugetlbfs",
            "not mounted",
            "DPDK maps huge pages as files of it",
        )
        .mend("mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages"),
    });
    let wanted_kb = wanted_kb(facts);
    let running = matches!(facts.daemon, Daemon::Running(_));
    // What a director that runs has taken is no longer free, and nevertheless there.
    let usable = |pages: &[HugePages]| kb(pages, if running { |p| p.total } else { |p| p.free });
    let (have_kb, seen) = (usable(&facts.pages), describe(&facts.pages));
    if have_kb >= wanted_kb {
        findings.push(Finding::ok(
            HUGE,
            format!("{seen}; {} MiB wanted", wanted_kb / 1024),
        ));
    } else {
        let pages = two_mb(&facts.pages).map_or(0, |pages| pages.total);
        let more = (wanted_kb - have_kb).div_ceil(2048);
        let command = format!(
            "echo {} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            pages + more
        );
        let seen = format!("{seen}; {} MiB wanted", wanted_kb / 1024);
        findings.push(Finding::bad(HUGE, seen, WHY_FREE).mend(command));
        return;
    }
    per_node(facts, wanted_kb, usable, findings);
}

fn per_node(
    facts: &Facts,
    wanted_kb: u64,
    usable: impl Fn(&[HugePages]) -> u64,
    findings: &mut Vec<Finding>,
) {
    if facts.nodes.len() < 2 {
        return;
    }
    let workers = &facts.plan.workers;
    for node in &facts.nodes {
        let here = workers
            .iter()
            .filter(|core| node.cpus.contains(core))
            .count() as u64;
        if here == 0 {
            continue;
        }
        let share_kb = (wanted_kb * here).div_ceil(workers.len() as u64);
        let seen = format!("{} on node {}", describe(&node.pages), node.id);
        if usable(&node.pages) >= share_kb {
            findings.push(Finding::ok(HUGE, seen));
            continue;
        }
        let pages = two_mb(&node.pages).map_or(0, |pages| pages.total);
        let more = (share_kb - usable(&node.pages)).div_ceil(2048);
        let seen = format!("{seen}, whose {here} workers want {} MiB", share_kb / 1024);
        findings.push(Finding::warn(HUGE, seen, WHY_NODE).mend(format!(
            "echo {} > /sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages",
            pages + more,
            node.id
        )));
    }
}

/// The configuration does without, or is not known.
fn unused(facts: &Facts) -> Finding {
    if facts.plan.file.is_none() {
        let seen = describe(&facts.pages);
        return Finding::ok(HUGE, format!("{seen}; what is wanted, --config FILE tells"));
    }
    if facts.plan.ports.iter().any(|port| port.pci().is_some()) {
        let why = "packet buffers on small pages cost a miss of the TLB each, and need an IOMMU";
        return Finding::warn(HUGE, "huge_pages = false with a port on a NIC", why)
            .mend("huge_pages = true in [eal] of the configuration");
    }
    Finding::ok(HUGE, "not used: huge_pages = false")
}

fn wanted_kb(facts: &Facts) -> u64 {
    let plan = &facts.plan;
    let buffers_kb = plan.mbufs * plan.workers.len() as u64 * MBUF_BYTES / 1024;
    buffers_kb.max(plan.memory_mb.max(64) * 1024)
}

fn kb(pages: &[HugePages], number: fn(&HugePages) -> u64) -> u64 {
    pages
        .iter()
        .map(|pages| pages.size_kb * number(pages))
        .sum()
}

fn two_mb(pages: &[HugePages]) -> Option<&HugePages> {
    pages.iter().find(|pages| pages.size_kb == 2048)
}

fn describe(pages: &[HugePages]) -> String {
    let kinds = pages.iter().filter(|pages| pages.total > 0).map(|pages| {
        format!(
            "{} of {} MiB, {} free",
            pages.total,
            pages.size_kb / 1024,
            pages.free
        )
    });
    let kinds = kinds.collect::<Vec<_>>();
    if kinds.is_empty() {
        "none".to_owned()
    } else {
        kinds.join("; ")
    }
}

fn transparent(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(word) = &facts.transparent else {
        return;
    };
    findings.push(match word.as_str() {
        "never" => Finding::warn(
            "transparent huge pages",
            "never",
            "tables of connections for which no huge page was reserved then lie on small ones",
        )
        .mend("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        word => Finding::ok("transparent huge pages", word),
    });
}

fn memlock(facts: &Facts, findings: &mut Vec<Finding>) {
    let topic = "locked memory";
    findings.push(match facts.memlock {
        None => Finding::ok(topic, "no limit"),
        Some(bytes) => Finding::warn(
            topic,
            format!("{} KiB at most in this shell", bytes / 1024),
            "a director that this shell starts cannot lock DMA memory and AF_XDP's rings; systemd's unit has no limit",
        )
        .mend("ulimit -l unlimited"),
    });
}
