//! A million frames that nobody should send, through every method: whatever the director makes of
//! them, each has one end, and nothing is left when their time has passed.

use control::{Change, ForwardMode, ServiceSpec, Settings};

use super::spoil::{CASES, Dice, Seeds, golden};
use super::testbed::{MTU, Testbed};
use super::*;
use crate::config::Config;
use crate::control::model::Model;
use crate::packet::{BURST, Burst, HeapBuf};
use crate::wire::flow::Seen;

const FRAMES: u32 = 1_000_000;

/// A director with the services of all cases.
fn with_every_method() -> (Testbed, Model, Vec<Change>) {
    let configs = CASES.map(|case| Config::load(&golden(case, "config.toml")).unwrap());
    let setup = configs[0].setup(|port| [2, 0, 0, 0, 0, port.0]);
    let limits = configs[0].director.limits();
    let page = Page::new(limits.services_max, limits.servers_max).unwrap();
    let mut bed = Testbed::with(20_000, setup, page);
    let mut model = Model::new(limits).watching(vec![bed.page.clone()]);
    for config in &configs {
        for update in model.apply(&config.changes).unwrap() {
            bed.director.apply(&update, &mut bed.out);
        }
    }
    let changes = configs.iter().flat_map(|config| config.changes.clone());
    (bed, model, changes.collect())
}

fn fullnat_connections(bed: &Testbed) -> u32 {
    let conns = &bed.director.conns;
    let all = (0..conns.capacity()).filter_map(|entry| conns.at(entry));
    let fullnat = all.filter(|conn| conn.mode() == ForwardMode::FullNat);
    u32::try_from(fullnat.count()).unwrap()
}

#[test]
fn a_million_frames_of_rubbish_each_have_one_end() {
    let (seeds, mut dice) = (Seeds::load(), Dice::new(0x9e37_79b9_7f4a_7c15));
    let (mut bed, mut model, changes) = with_every_method();
    let (mut frames, mut leases_max) = (0u32, 0);
    while frames < FRAMES {
        // Some 150 s in all, so that connections end too.
        let now = Instant(frames / 7);
        let mut bursts = [Burst::new(), Burst::new()];
        for _ in 0..BURST {
            let (port, frame) = seeds.spoilt(&mut dice);
            bursts[usize::from(port)].push(HeapBuf::new(&frame));
        }
        frames += u32::try_from(BURST).unwrap();
        for (port, burst) in (0..).map(PortId).zip(&mut bursts) {
            bed.director.process(now, port, burst, &mut bed.out);
        }
        bed.director.tick(now, &mut bed.out);
        for (_, packet) in bed.out.sent.drain(..) {
            let seen = Seen::parse(packet.bytes());
            assert!(
                seen.is_ok_and(|seen| seen.ip_len <= MTU),
                "{:?}: {}",
                seen,
                super::frames::describe(packet.bytes())
            );
        }
        bed.out.learned.clear();
        assert!(bed.page.balanced(), "after {frames} frames");
        bed.every_drop_is_kept();
        if frames.is_multiple_of(2048) {
            let change = &changes[dice.roll(changes.len())];
            bed.reconfigure(&mut model, change, dice.roll(4) > 0);
            let leases = bed.director.leases.in_use();
            assert_eq!(leases, fullnat_connections(&bed), "after {frames} frames");
            leases_max = leases_max.max(leases);
        }
    }
    everything_happened(&bed, frames);
    assert!(leases_max > 100, "only {leases_max} leases at a time");
    nothing_is_left(&mut bed, Instant(frames / 7));
}

impl Testbed {
    /// Takes away the server that `change` adds, or puts it back; or sets what it sets; or schedules
    /// each datagram of its service by itself.
    fn reconfigure(&mut self, model: &mut Model, change: &Change, pmtu_disc: bool) {
        let change = match change.clone() {
            Change::AddService { service, spec } => Change::EditService {
                service,
                spec: ServiceSpec {
                    one_packet: !pmtu_disc,
                    ..spec
                },
            },
            Change::SetSettings(settings) => Change::SetSettings(Settings {
                pmtu_disc,
                ..settings
            }),
            Change::AddServer {
                service, server, ..
            } if !pmtu_disc => Change::DeleteServer { service, server },
            change => change,
        };
        // What is there cannot be added, nor what is gone be deleted.
        for update in model.apply(&[change]).unwrap_or_default() {
            self.director.apply(&update, &mut self.out);
        }
    }
}

/// The rubbish was not so bad that it proves nothing.
fn everything_happened(bed: &Testbed, frames: u32) {
    let moved = |counter: fn(&crate::counters::PortPage) -> u64| {
        bed.page.ports.iter().map(counter).sum::<u64>()
    };
    assert_eq!(moved(|p| p.rx.get()), u64::from(frames));
    let forwarded = moved(|p| p.forwarded.get());
    assert!(
        forwarded > u64::from(frames) / 8,
        "only {forwarded} came through"
    );
    for reason in [
        DropReason::Truncated,
        DropReason::BadHeader,
        DropReason::BadChecksum,
        DropReason::NotForUs,
        DropReason::UnknownVlan,
        DropReason::UnknownEthertype,
        DropReason::BadArp,
        DropReason::BadNd,
        DropReason::BadSource,
        DropReason::NotOurs,
        DropReason::NoConnection,
        DropReason::NoServer,
        DropReason::ServerGone,
        DropReason::TtlExpired,
        DropReason::TooBig,
        DropReason::Fragment,
        DropReason::FragmentTiny,
        DropReason::FragmentTimeout,
    ] {
        let ports = bed.page.ports.iter();
        let drops: u64 = ports.map(|p| p.drops[reason as usize].get()).sum();
        assert!(drops > 50, "{} x {}", drops, reason.name());
    }
    let servers = bed.page.servers.iter();
    let used = servers.filter(|s| s.in_packets.get() > 50).count();
    assert!(used > 50, "only {used} servers were used");
}

fn nothing_is_left(bed: &mut Testbed, from: Instant) {
    for ms in (0..4_000_000).step_by(100) {
        bed.director.tick(from.plus_ms(ms), &mut bed.out);
        bed.out.sent.clear();
    }
    assert!(bed.page.balanced());
    assert_eq!(bed.page.held.get(), 0);
    assert_eq!(bed.page.connections.get(), 0);
    assert_eq!(bed.director.leases.in_use(), 0);
    for server in bed.page.servers.iter() {
        assert_eq!((server.active.get(), server.inactive.get()), (0, 0));
    }
}
