//! Cores: whether workers have theirs for themselves, and what the time is read from.

use super::{Facts, Finding, list};

const CORES: &str = "cores";
/// Clock sources that are read without a system call.
const FAST_CLOCKS: [&str; 3] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"];
const TSC_FLAGS: [&str; 2] = ["constant_tsc", "nonstop_tsc"];

pub(super) fn examine(facts: &Facts, findings: &mut Vec<Finding>) {
    existence(facts, findings);
    findings.push(isolation(facts));
    findings.push(siblings(facts));
    findings.push(governor(facts));
    clock(facts, findings);
    findings.push(irqbalance(facts));
}

fn existence(facts: &Facts, findings: &mut Vec<Finding>) {
    let plan = &facts.plan;
    let exists = |core: &u16| facts.cpus.iter().any(|cpu| cpu.id == *core);
    let wanted = plan.workers.iter().chain([&plan.control_core]).copied();
    let missing: Vec<u16> = wanted.filter(|core| !exists(core)).collect();
    let all: Vec<u16> = facts.cpus.iter().map(|cpu| cpu.id).collect();
    if !missing.is_empty() {
        let seen = format!("no core {} here, but {}", list(&missing), list(&all));
        findings.push(
            Finding::bad(CORES, seen, "a worker or the main thread is to run there").mend(
                "lscpu --extended=CPU,CORE,NODE   # then workers and control_core in [director]",
            ),
        );
    } else if plan.workers.contains(&plan.control_core) {
        let seen = format!(
            "core {} has the main thread and a worker",
            plan.control_core
        );
        let why = "statistics and changes of the configuration stop the worker for milliseconds";
        findings.push(
            Finding::warn(CORES, seen, why)
                .mend("control_core = N in [director], a core without a worker"),
        );
    } else {
        let seen = format!(
            "workers on {}, main thread on {}",
            list(&plan.workers),
            plan.control_core
        );
        findings.push(Finding::ok(CORES, seen));
    }
}

fn isolation(facts: &Facts) -> Finding {
    let (topic, workers) = ("isolation", &facts.plan.workers);
    let cores = list(workers);
    let missing = |has: &[u16]| workers.iter().any(|core| !has.contains(core));
    let wanted = [
        ("isolcpus", &facts.isolated),
        ("nohz_full", &facts.tickless),
        ("rcu_nocbs", &facts.callback_free),
    ];
    let wanted = wanted
        .into_iter()
        .filter(|(_, has)| missing(has.as_slice()));
    let wanted: Vec<String> = wanted.map(|(word, _)| format!("{word}={cores}")).collect();
    if wanted.is_empty() {
        return Finding::ok(topic, format!("cores {cores} are kept free"));
    }
    let seen = format!("cores {cores} are not kept free: no {}", wanted.join(" "));
    let why = "whatever else runs on a worker's core delays packets, and fills the port's queue";
    let words = wanted.join(" ");
    Finding::warn(topic, seen, why).mend(format!(
        "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{words} /' /etc/default/grub && update-grub && reboot"
    ))
}

/// Hardware threads that share a core with a worker.
fn siblings(facts: &Facts) -> Finding {
    let (topic, workers) = ("hyper-threads", &facts.plan.workers);
    let of_workers = facts.cpus.iter().filter(|cpu| workers.contains(&cpu.id));
    let mut others: Vec<u16> = of_workers
        .flat_map(|cpu| {
            cpu.siblings
                .iter()
                .copied()
                .filter(|other| *other != cpu.id)
        })
        .collect();
    others.sort_unstable();
    others.dedup();
    let why = "two hardware threads of a core share its caches and units: neither has its speed";
    if others.is_empty() {
        return Finding::ok(topic, "workers share no core");
    }
    if let Some(both) = others.iter().find(|core| workers.contains(core)) {
        let seen = format!("the worker on {both} shares its core with another worker");
        return Finding::warn(topic, seen, why)
            .mend("workers = [...] in [director], one of each CORE of: lscpu --extended=CPU,CORE");
    }
    let seen = format!("cores {} share the workers' and are on", list(&others));
    let off = others
        .iter()
        .map(|core| format!("echo 0 > /sys/devices/system/cpu/cpu{core}/online"));
    Finding::warn(topic, seen, why).mend(off.collect::<Vec<_>>().join(" ; "))
}

fn governor(facts: &Facts) -> Finding {
    let topic = "frequency";
    let of_workers = facts
        .cpus
        .iter()
        .filter(|cpu| facts.plan.workers.contains(&cpu.id));
    let slow: Vec<(u16, &str)> = of_workers
        .filter_map(|cpu| Some((cpu.id, cpu.governor.as_deref()?)))
        .filter(|(_, governor)| *governor != "performance")
        .collect();
    let Some((_, governor)) = slow.first() else {
        return Finding::ok(topic, "nothing slows the workers' cores");
    };
    let cores: Vec<u16> = slow.iter().map(|(core, _)| *core).collect();
    let seen = format!("governor {governor} on cores {}", list(&cores));
    let why = "a core that was slowed down in a pause takes its time to come back";
    let each = cores.iter().map(|core| {
        format!("echo performance > /sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")
    });
    Finding::warn(topic, seen, why).mend(each.collect::<Vec<_>>().join(" ; "))
}

fn clock(facts: &Facts, findings: &mut Vec<Finding>) {
    let topic = "clock";
    if let Some(source) = &facts.clock_source {
        let why = "a worker reads the time in every pass, and this one is read by a system call";
        findings.push(if FAST_CLOCKS.contains(&source.as_str()) {
            Finding::ok(topic, source)
        } else {
            Finding::warn(topic, source, why)
                .mend("echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource")
        });
    }
    let missing = TSC_FLAGS
        .iter()
        .filter(|flag| !facts.cpu_flags.iter().any(|has| has == *flag));
    let missing: Vec<&str> = missing.copied().collect();
    let known = !facts.cpu_flags.is_empty();
    if known && !missing.is_empty() {
        let seen = format!("the processor does not have {}", missing.join(" nor "));
        findings.push(Finding::warn(
            topic,
            seen,
            "cycles per packet are not comparable when its counter changes speed",
        ));
    }
}

fn irqbalance(facts: &Facts) -> Finding {
    let topic = "interrupts";
    if !facts.irqbalance {
        return Finding::ok(topic, "irqbalance does not run");
    }
    let workers = &facts.plan.workers;
    if workers.iter().all(|core| facts.isolated.contains(core)) {
        return Finding::ok(topic, "irqbalance runs, and leaves isolated cores alone");
    }
    let why = "it gives interrupts of other devices to the workers' cores";
    Finding::warn(topic, "irqbalance runs", why).mend("systemctl disable --now irqbalance")
}
