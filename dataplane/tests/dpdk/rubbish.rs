//! A million frames of rubbish in real mbufs, through every method: whatever the director makes of
//! them, every mbuf comes back. (What becomes of each is asserted in the director's own tests,
//! without DPDK.)

#[path = "../../src/director/spoil.rs"]
#[expect(unreachable_pub, reason = "the director's own tests include it too")]
mod spoil;

use std::sync::Arc;

use dataplane::config::Config;
use dataplane::conn::Hash;
use dataplane::control::model::Model;
use dataplane::counters::Page;
use dataplane::director::Director;
use dataplane::dpdk::{Eal, Mbuf, Mempool};
use dataplane::packet::{BURST, Burst, Egress, Learned, Origin, PacketBuf, PortId};
use dataplane::steer::Steer;
use dataplane::time::Instant;
use dataplane::watch::Watch;
use spoil::{CASES, Dice, LEN_MAX, Seeds, golden};

const FRAMES: u32 = 1_000_000;

/// Takes what is sent and gives it back at once, as a port that sends does.
struct Sink {
    pool: Mempool,
    watch: Watch,
}

impl Egress for Sink {
    type Buf = Mbuf;

    fn send(&mut self, to: PortId, packet: Mbuf, origin: Origin) {
        self.watch.page().sent(to, packet.bytes().len(), origin);
    }

    fn make(&mut self, len: usize) -> Option<Mbuf> {
        let mut packet = self.pool.alloc()?;
        packet.resize(len).then_some(packet)
    }

    fn share(&mut self, _learned: Learned) {}

    fn steer(&mut self, _: usize, _: PortId, _: Option<Hash>, _: Mbuf) {
        unreachable!("one worker owns everything");
    }

    fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }
}

/// A director with the services of all cases.
fn with_every_method(sink: &mut Sink, page: Arc<Page>, configs: &[Config]) -> Director<Mbuf> {
    let setup = configs[0].setup(|port| [2, 0, 0, 0, 0, port.0]);
    let steer = Steer::new(0, 1);
    let mut director = Director::new(20_000, [1, 2], setup, steer, page).unwrap();
    let mut model = Model::new(configs[0].director.limits());
    for config in configs {
        for update in &model.apply(&config.changes).unwrap() {
            director.apply(update, sink);
        }
    }
    director
}

pub(super) fn returns_every_mbuf(eal: &Eal) {
    let (seeds, mut dice) = (Seeds::load(), Dice::new(0x9e37_79b9_7f4a_7c15));
    assert!(LEN_MAX < usize::from(super::DATA_ROOM - super::HEADROOM));
    let pool = Mempool::new(eal, "rubbish", 8191, super::DATA_ROOM, -1).unwrap();
    let configs = CASES.map(|case| Config::load(&golden(case, "config.toml")).unwrap());
    let limits = configs[0].director.limits();
    let page = Arc::new(Page::new(limits.services_max, limits.servers_max).unwrap());
    let mut sink = Sink {
        pool: pool.clone(),
        watch: Watch::new(page.clone()),
    };
    let mut director = with_every_method(&mut sink, page.clone(), &configs);
    for round in 0..FRAMES / u32::try_from(BURST).unwrap() {
        let now = Instant(round * 5);
        let mut bursts = [Burst::new(), Burst::new()];
        for _ in 0..BURST {
            let (port, frame) = seeds.spoilt(&mut dice);
            let mut packet = pool.alloc().unwrap();
            assert!(packet.resize(frame.len()));
            packet.bytes_mut().copy_from_slice(&frame);
            bursts[usize::from(port)].push(packet);
        }
        for (port, burst) in (0..).map(PortId).zip(&mut bursts) {
            director.process(now, port, burst, &mut sink);
        }
        director.tick(now, &mut sink);
        assert!(page.balanced());
        assert_eq!(
            pool.in_use(),
            page.held.get(),
            "only what waits is out: for a neighbour, or a first fragment"
        );
    }
    let forwarded: u64 = page.ports.iter().map(|port| port.forwarded.get()).sum();
    assert!(
        forwarded > u64::from(FRAMES) / 8,
        "only {forwarded} came through"
    );
    director.stop(&mut sink);
    assert_eq!((pool.in_use(), page.held.get()), (0, 0));
}
