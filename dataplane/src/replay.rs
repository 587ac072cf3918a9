//! Capture in, capture and counters out: the director without DPDK.
//!
//! A classic capture does not say on which port a frame was received, so there is one capture a
//! port; frames of all of them are taken in the order of their timestamps, of equal ones the lower
//! port first. Time is milliseconds since the first frame. Port `n` has the Ethernet address
//! `02:00:00:00:00:n`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};

use crate::config::Config;
use crate::conn::Hash;
use crate::control::model::Model;
use crate::counters::{DropReason, Page};
use crate::director::Director;
use crate::packet::{Burst, Egress, HeapBuf, Learned, Origin, PacketBuf, PortId};
use crate::steer::Steer;
use crate::time::Instant;
use crate::watch::Watch;
use crate::watch::tap::Note;

/// The longest pause between two calls of [`Director::tick`].
const TICK_MS: u32 = 100;
/// The table's hash is keyed alike each time, so that a replay can be repeated.
const SECRET: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// What leaves a director that has no NIC: kept, and counted as a NIC that refuses nothing would.
#[derive(Debug)]
pub struct Wire {
    watch: Watch,
    pub sent: Vec<(PortId, HeapBuf)>,
    pub learned: Vec<Learned>,
    pub steered: Vec<(usize, PortId, Option<Hash>, HeapBuf)>,
}

impl Wire {
    /// Counts in `page`, the director's own.
    pub fn new(page: Arc<Page>) -> Self {
        Self {
            watch: Watch::new(page),
            sent: Vec::new(),
            learned: Vec::new(),
            steered: Vec::new(),
        }
    }
}

impl Egress for Wire {
    type Buf = HeapBuf;

    fn send(&mut self, to: PortId, packet: HeapBuf, origin: Origin) {
        let note = self.watch.note().clone();
        self.watch.leaving(0, &packet, to, origin, &note);
        self.watch.left(1);
        self.watch.page().sent(to, packet.bytes().len(), origin);
        self.sent.push((to, packet));
    }

    fn make(&mut self, len: usize) -> Option<HeapBuf> {
        Some(HeapBuf::new(&vec![0; len]))
    }

    fn share(&mut self, learned: Learned) {
        self.learned.push(learned);
    }

    fn steer(&mut self, worker: usize, from: PortId, hash: Option<Hash>, packet: HeapBuf) {
        self.steered.push((worker, from, hash, packet));
    }

    fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    fn note(&mut self, note: impl FnOnce() -> Note) {
        if self.watch.is_tapped() {
            self.watch.set_note(note());
        }
    }
}

/// A frame, when it passed and on which port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub at: Instant,
    pub port: PortId,
    pub bytes: Vec<u8>,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Frames that left, in order, of all ports.
    pub sent: Vec<Frame>,
    /// Counters that moved, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Sends `frames`, in the order of time, through a director configured by `config`.
pub fn run(config: &Config, frames: &[Frame]) -> io::Result<Outcome> {
    let limits = config.director.limits();
    let page = Arc::new(Page::new(limits.services_max, limits.servers_max)?);
    let mut wire = Wire::new(page.clone());
    let mut director = Director::new(
        config.director.max_connections,
        SECRET,
        config.setup(|port| [2, 0, 0, 0, 0, port.0]),
        Steer::new(0, 1),
        page.clone(),
    )?;
    let mut model = Model::new(limits)
        .watching(vec![page.clone()])
        .with_ports(config.port_specs());
    let updates = model
        .apply(&config.changes)
        .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidInput, refusal.detail))?;
    for update in &updates {
        director.apply(update, &mut wire);
    }
    let (mut now, mut sent) = (Instant::default(), Vec::new());
    for frame in frames {
        while frame.at.since(now) > TICK_MS {
            now = now.plus_ms(TICK_MS);
            director.tick(now, &mut wire);
            take(now, &mut wire, &mut sent);
        }
        now = frame.at;
        let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes)]);
        director.process(now, frame.port, &mut burst, &mut wire);
        director.tick(now, &mut wire);
        take(now, &mut wire, &mut sent);
    }
    director.stop(&mut wire);
    Ok(Outcome {
        sent,
        counters: counters(&page, config.ports.len(), &model),
    })
}

fn take(at: Instant, wire: &mut Wire, sent: &mut Vec<Frame>) {
    sent.extend(wire.sent.drain(..).map(|(port, packet)| Frame {
        at,
        port,
        bytes: packet.bytes().to_vec(),
    }));
}

/// Every counter that moved.
fn counters(page: &Page, ports: usize, model: &Model) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (number, port) in page.ports.iter().enumerate().take(ports) {
        let mut put = |name: &str, value| all.insert(format!("port.{number}.{name}"), value);
        put("rx", port.rx.get());
        put("rx_bytes", port.rx_bytes.get());
        put("made", port.made.get());
        put("forwarded", port.forwarded.get());
        put("answered", port.answered.get());
        put("punted", port.punted.get());
        put("consumed", port.consumed.get());
        put("tx", port.tx.get());
        put("tx_bytes", port.tx_bytes.get());
        for reason in DropReason::ALL {
            let value = port.drops[*reason as usize].get();
            put(&format!("drop.{}", reason.name()), value);
        }
    }
    all.insert("connections".to_owned(), page.connections.get().into());
    for service in model.services(None).unwrap_or_default() {
        for server in service.servers {
            let of = format!("{} {}", service.key, server.address);
            let mut put = |name: &str, value| all.insert(format!("{of}.{name}"), value);
            put("conns", server.totals.conns);
            put("in_packets", server.totals.in_packets);
            put("in_bytes", server.totals.in_bytes);
            put("out_packets", server.totals.out_packets);
            put("out_bytes", server.totals.out_bytes);
            put("active", server.active.into());
            put("inactive", server.inactive.into());
        }
    }
    all.retain(|_, value| *value > 0);
    all
}

/// Reads one classic capture a port and puts their frames in the order of time. A frame that the
/// capture cut is refused: the director would count it as truncated.
pub fn read<R: Read>(captures: impl IntoIterator<Item = (PortId, R)>) -> io::Result<Vec<Frame>> {
    let mut stamped = Vec::new();
    for (port, capture) in captures {
        let mut reader = PcapReader::new(capture).map_err(io::Error::other)?;
        while let Some(packet) = reader.next_packet() {
            let packet = packet.map_err(io::Error::other)?;
            if packet.data.len() != packet.orig_len as usize {
                let reason = format!("port {}: a frame of the capture is cut", port.0);
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            stamped.push((packet.timestamp, port, packet.data.into_owned()));
        }
    }
    stamped.sort_by_key(|(at, port, _)| (*at, *port));
    let first = stamped.first().map_or(Duration::ZERO, |(at, ..)| *at);
    stamped
        .into_iter()
        .map(|(at, port, bytes)| {
            let at = u32::try_from((at - first).as_millis()).map_err(io::Error::other)?;
            let at = Instant::from_ms(at);
            Ok(Frame { at, port, bytes })
        })
        .collect()
}

/// Writes frames as a classic capture that begins with the epoch.
pub fn write<'f>(to: impl Write, frames: impl IntoIterator<Item = &'f Frame>) -> io::Result<()> {
    let header = PcapHeader {
        endianness: pcap_file::Endianness::Little,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(to, header).map_err(io::Error::other)?;
    for frame in frames {
        let packet = PcapPacket {
            timestamp: Duration::from_millis(frame.at.0.into()),
            orig_len: u32::try_from(frame.bytes.len()).map_err(io::Error::other)?,
            data: Cow::Borrowed(&frame.bytes),
        };
        writer.write_packet(&packet).map_err(io::Error::other)?;
    }
    Ok(())
}
