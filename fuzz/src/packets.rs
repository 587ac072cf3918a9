//! Frames for a director that has a service of every kind.

use std::sync::{Arc, LazyLock};

use dataplane::config::Config;
use dataplane::control::model::{Limits, Model};
use dataplane::counters::Page;
use dataplane::director::Director;
use dataplane::net::Setup;
use dataplane::packet::{Burst, HeapBuf, PacketBuf as _, PortId};
use dataplane::replay::Wire;
use dataplane::steer::Steer;
use dataplane::time::Instant;
use dataplane::update::Update;
use dataplane::wire::flow::Seen;

use crate::seeds::{CASES, golden};

const SECRET: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
/// Few, so that the table fills.
const CONNECTIONS_MAX: u32 = 64;
const FRAMES_MAX: usize = 64;
const FRAME_MAX: usize = 1700;
const MTU: usize = 1500;
/// Most services of all cases, and most servers.
const LIMITS: Limits = Limits {
    services_max: 64,
    servers_max: 128,
};

/// Interfaces, and what makes the services of all golden cases.
static SERVICES: LazyLock<(Setup, Vec<Update>)> = LazyLock::new(|| {
    let configs = CASES.map(|case| Config::load(&golden(case, "config.toml")).unwrap());
    let setup = configs[0].setup(|port| [2, 0, 0, 0, 0, port.0]);
    let mut model = Model::new(LIMITS);
    let updates = configs
        .iter()
        .flat_map(|config| model.apply(&config.changes).unwrap());
    (setup, updates.collect())
});

/// One that has a service of every kind, where its packets leave, and what it counts.
pub(crate) fn director() -> (Director<HeapBuf>, Wire, Arc<Page>) {
    let (setup, updates) = &*SERVICES;
    let page = Arc::new(Page::new(LIMITS.services_max, LIMITS.servers_max).unwrap());
    let mut wire = Wire::new(Arc::clone(&page));
    let steer = Steer::new(0, 1);
    let mut director = Director::new(
        CONNECTIONS_MAX,
        SECRET,
        setup.clone(),
        steer,
        Arc::clone(&page),
    )
    .unwrap();
    for update in updates {
        director.apply(update, &mut wire);
    }
    (director, wire, page)
}

/// A frame is a byte for its port and for how long after the one before it comes, two for its length,
/// and itself.
pub(crate) fn run(data: &[u8]) {
    let (mut director, mut wire, page) = director();
    let mut now = Instant::default();
    for (port, ms, frame) in frames(data).take(FRAMES_MAX) {
        now = now.plus_ms(ms);
        let mut burst = Burst::from_iter([HeapBuf::new(frame)]);
        director.process(now, port, &mut burst, &mut wire);
        director.tick(now, &mut wire);
        assert!(page.balanced(), "a packet has no end");
        for (_, packet) in wire.sent.drain(..) {
            let seen = Seen::parse(packet.bytes());
            assert!(
                seen.is_ok_and(|seen| usize::from(seen.ip_len) <= MTU),
                "{:02x?}",
                packet.bytes()
            );
        }
    }
    director.stop(&mut wire);
    assert!(page.balanced());
}

fn frames(data: &[u8]) -> impl Iterator<Item = (PortId, u32, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let ([way, high, low], behind) = rest.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes([*high, *low])) % FRAME_MAX;
        let (frame, behind) = behind.split_at(len.min(behind.len()));
        rest = behind;
        // Milliseconds, or minutes.
        let pause = u32::from(way >> 2);
        let ms = if pause > 48 { pause * 6000 } else { pause };
        Some((PortId(way & 1), ms, frame))
    })
}
