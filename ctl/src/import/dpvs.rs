//! dpvs.conf: how DPVS itself runs. Its services are in its keepalived.conf, or made by its ipvsadm.

use super::blocks::{Dialect, Statement, read};
use super::draft::{Draft, TIMEOUT_MAX_S};
use super::{Around, Import, Kind, Place, Wrong};

pub(super) fn import(file: &str, text: &str, around: Around<'_>) -> Result<Import, Wrong> {
    let read = read(Dialect::Dpvs, file, text, around)?;
    let mut draft = Draft::new(Kind::Dpvs);
    draft.notes(read.notes);
    for statement in &read.statements {
        match statement.keyword() {
            "ipvs_defs" => {
                for block in statement.inner() {
                    ipvs(&mut draft, block);
                }
            }
            "worker_defs" | "netif_defs" => {
                for inner in statement.inner() {
                    left(&mut draft, inner, machine(statement.keyword()));
                }
            }
            keyword => left(&mut draft, statement, elsewhere(keyword)),
        }
    }
    let services = "services are not in dpvs.conf: import DPVS's keepalived.conf, or what its ipvsadm -S prints";
    let place = Place {
        file: file.into(),
        line: 1,
    };
    draft.note(&place, None, services);
    Ok(draft.finish(&read.files))
}

fn left(draft: &mut Draft, statement: &Statement, why: &str) {
    draft.note(
        &statement.place,
        None,
        format!("{}: {why}", statement.shown()),
    );
}

fn machine(keyword: &str) -> &'static str {
    match keyword {
        "worker_defs" => {
            "workers are cores, [director] workers = [1, 2] says which; they share out queues themselves"
        }
        _ => {
            "ports are [[port]] sections, with device, addresses, mtu and descriptors; buffers are [eal] mbufs"
        }
    }
}

fn elsewhere(keyword: &str) -> &'static str {
    match keyword {
        "global_defs" => "logging is [director] log",
        "neigh_defs" => "neighbours are kept by rules of their own",
        "ipv4_defs" | "ipv6_defs" => "fragments and routes are dealt with by rules of their own",
        "sa_pool" => "local addresses are shared out among workers by themselves",
        "timer_defs" | "ctrl_defs" | "ipset_defs" => "there is nothing like it to set",
        _ => "not known",
    }
}

fn ipvs(draft: &mut Draft, block: &Statement) {
    let protocol = block.keyword();
    for inner in block.inner() {
        match (protocol, inner.keyword()) {
            ("tcp" | "udp", "timeout") => {
                for state in inner.inner() {
                    timeout(draft, protocol, state);
                }
            }
            ("conn", "expire_quiescent_template") => draft.expire_quiescent_template = true,
            (_, keyword) => left(draft, inner, setting(keyword)),
        }
    }
    if block.block.is_none() || !matches!(protocol, "tcp" | "udp" | "conn") {
        left(draft, block, "not known");
    }
}

fn setting(keyword: &str) -> &'static str {
    match keyword {
        "conn_pool_size" => "connections per worker are [director] max_connections",
        "conn_init_timeout" => "half-open connections time out as in LVS",
        "uoa_mode" | "uoa_max_trail" => "UOA is a service's own, client_address = \"uoa\"",
        "defence_tcp_drop" | "defence_udp_drop" => {
            "what has no server is a service's own, refuse = \"drop\""
        }
        "synproxy" => "there is no SYN proxy",
        "redirect" => "packets find their worker by themselves",
        "fast_xmit_close" => "next hops are cached anyway",
        _ => "there is nothing like it to set",
    }
}

/// LVS sets three of them and has the others fixed.
fn timeout(draft: &mut Draft, protocol: &str, state: &Statement) {
    let seconds = state.value().and_then(|text| text.parse().ok());
    let place = match (protocol, state.keyword()) {
        ("tcp", "established") => &mut draft.timeouts.tcp,
        ("tcp", "fin_wait") => &mut draft.timeouts.tcp_fin,
        ("udp", "normal") => &mut draft.timeouts.udp,
        _ => {
            return left(
                draft,
                state,
                "this state's timeout is LVS's own and cannot be set",
            );
        }
    };
    match seconds.filter(|seconds| (1..=TIMEOUT_MAX_S).contains(seconds)) {
        Some(seconds) => *place = Some(seconds),
        None => left(
            draft,
            state,
            &format!("no timeout, 1 to {TIMEOUT_MAX_S} seconds is right"),
        ),
    }
}
