//! A million frames of rubbish in real mbufs: whatever the director makes of them, every mbuf
//! comes back. (What becomes of each is asserted in the director's own tests, without DPDK.)

use std::sync::Arc;

use dataplane::config::Config;
use dataplane::control::model::Model;
use dataplane::counters::Page;
use dataplane::director::Director;
use dataplane::dpdk::{Eal, Mbuf, Mempool};
use dataplane::packet::{BURST, Burst, Egress, Learned, Origin, PacketBuf, PortId};
use dataplane::steer::Steer;
use dataplane::time::Instant;

const CONFIG: &str = r#"
[[port]]
name = "lan"
device = "net_null0"
addresses = ["10.0.0.254/24"]
[[port]]
name = "rs"
device = "net_null1"
addresses = ["192.168.1.1/24"]
[[neighbour]]
address = "192.168.1.2"
mac = "02:00:00:00:01:02"
[[service]]
protocol = "udp"
address = "10.0.0.1:53"
[[service.server]]
address = "192.168.1.3:53"
[[service.server]]
address = "192.168.1.2:53"
"#;
const FRAMES: u32 = 1_000_000;

/// Takes what is sent and gives it back at once, as a port that sends does.
struct Sink {
    pool: Mempool,
    page: Arc<Page>,
}

impl Egress for Sink {
    type Buf = Mbuf;

    fn send(&mut self, to: PortId, packet: Mbuf, origin: Origin) {
        self.page.sent(to, packet.bytes().len(), origin);
    }

    fn make(&mut self, len: usize) -> Option<Mbuf> {
        let mut packet = self.pool.alloc()?;
        packet.resize(len).then_some(packet)
    }

    fn share(&mut self, _learned: Learned) {}

    fn steer(&mut self, _worker: usize, _from: PortId, _packet: Mbuf) {
        unreachable!("one worker owns everything");
    }
}

/// A client's UDP packet to the service.
fn good_frame() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 17, 0x24, 0xbb]);
    frame.extend([10, 0, 0, 7, 10, 0, 0, 1, 0x9c, 0x40, 0, 53, 0, 26, 0, 0]);
    frame.resize(60, 0x5a);
    frame
}

/// xorshift64: the same rubbish each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    /// A frame cut short, with some bytes anything; one in eight is another client's good one.
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = good_frame();
        frame[34] = u8::try_from(self.roll(256)).unwrap();
        if self.roll(8) == 0 {
            return frame;
        }
        for _ in 0..self.roll(4) {
            let at = self.roll(frame.len());
            frame[at] = u8::try_from(self.roll(256)).unwrap();
        }
        if self.roll(3) == 0 {
            frame.truncate(self.roll(61));
        }
        frame
    }
}

pub(super) fn returns_every_mbuf(eal: &Eal) {
    let config = Config::parse(CONFIG, "rubbish.toml").unwrap();
    let pool = Mempool::new(eal, "rubbish", 2047, super::DATA_ROOM, -1).unwrap();
    let limits = config.director.limits();
    let page = Arc::new(Page::new(limits.services_max, limits.servers_max));
    let setup = config.setup(|port| [2, 0, 0, 0, 0, port.0]);
    let steer = Steer::new(0, 1);
    let mut director = Director::new(1000, [1, 2], setup, steer, page.clone()).unwrap();
    let mut sink = Sink {
        pool: pool.clone(),
        page: page.clone(),
    };
    let mut model = Model::new(limits).watching(vec![page.clone()]);
    for update in &model.apply(&config.changes).unwrap() {
        director.apply(update, &mut sink);
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..FRAMES / u32::try_from(BURST).unwrap() {
        let mut burst = Burst::new();
        while !burst.is_full() {
            let (mut packet, frame) = (pool.alloc().unwrap(), dice.frame());
            assert!(packet.resize(frame.len()));
            packet.bytes_mut().copy_from_slice(&frame);
            burst.push(packet);
        }
        let now = Instant(round);
        director.process(now, PortId(0), &mut burst, &mut sink);
        director.tick(now, &mut sink);
        assert!(page.balanced());
        assert_eq!(
            pool.in_use(),
            page.held.get(),
            "only what waits for a neighbour is out"
        );
    }
    let forwarded = page.ports[0].forwarded.get();
    assert!(
        forwarded > u64::from(FRAMES) / 20,
        "only {forwarded} came through"
    );
    assert!(page.ports[0].dropped() > u64::from(FRAMES) / 4);
    director.stop();
    assert_eq!(pool.in_use(), 0);
}
