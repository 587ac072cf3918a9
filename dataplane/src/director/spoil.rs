//! Frames of the golden captures, spoilt. The tests with DPDK include this file too: it needs only
//! `std`.

use std::fs;
use std::path::{Path, PathBuf};

/// Cases that have one network, and no service in common. The settings of the last are those of all.
pub const CASES: [&str; 15] = [
    "nat6",
    "nat-sctp",
    "direct6",
    "tunnel-ipip",
    "tunnel-gre",
    "tunnel-gue",
    "fullnat-toa",
    "fullnat-proxy",
    "fullnat-udp",
    "fullnat-64",
    "fullnat-46",
    "icmp-errors",
    "fragments",
    "mss",
    "schedule-icmp",
];
const PORTS: usize = 2;
/// No frame becomes longer.
pub const LEN_MAX: usize = 1700;
/// Where most headers lie.
const HEADERS: usize = 100;

/// A file of a golden case.
pub fn golden(case: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(case)
        .join(file)
}

/// xorshift64: the same rubbish each time.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Less than `sides`, which is at least 1.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("less than a usize")
    }

    pub fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).expect("a byte")
    }
}

/// What the cases' clients and servers sent: the port each frame came in on, and its bytes.
#[derive(Debug)]
pub struct Seeds(Vec<(u8, Vec<u8>)>);

impl Seeds {
    pub fn load() -> Self {
        let mut seeds = Vec::new();
        for case in CASES
            .iter()
            .chain(&["nd", "nat-tcp", "nat-udp", "direct", "arp", "vlan"])
        {
            for (number, port) in (0..PORTS).zip(0..) {
                // The case `direct` has one port.
                let file = golden(case, &format!("in.{number}.pcap"));
                let Ok(capture) = fs::read(file) else {
                    continue;
                };
                seeds.extend(frames(&capture).map(|frame| (port, frame.to_vec())));
            }
        }
        assert!(seeds.len() > 200, "the captures are there");
        Self(seeds)
    }

    /// A frame and the port that it comes in on; one in eight is as it was.
    pub fn spoilt(&self, dice: &mut Dice) -> (u8, Vec<u8>) {
        let (port, seed) = &self.0[dice.roll(self.0.len())];
        let mut frame = seed.clone();
        if dice.roll(8) == 0 {
            return (*port, frame);
        }
        if dice.roll(3) == 0 {
            another_client(&mut frame, dice);
        }
        for _ in 0..dice.roll(4) {
            self.spoil(&mut frame, dice);
        }
        // Else what is behind a checksum that is looked at would never be seen.
        if dice.roll(2) == 0 {
            repair(&mut frame);
        }
        (*port, frame)
    }

    fn spoil(&self, frame: &mut Vec<u8>, dice: &mut Dice) {
        let len = frame.len().max(1);
        let within = if dice.roll(4) == 0 { len } else { HEADERS };
        let at = dice.roll(len.min(within));
        match dice.roll(12) {
            0 => frame.truncate(dice.roll(len)),
            1 => frame.resize((len + dice.roll(600)).min(LEN_MAX), 0x5a),
            // The end of another one, from the same place on or from anywhere.
            2 => {
                let (_, other) = &self.0[dice.roll(self.0.len())];
                let from = if dice.roll(2) == 0 {
                    at
                } else {
                    dice.roll(other.len())
                };
                frame.truncate(at);
                frame.extend(other.get(from..).unwrap_or_default());
                frame.truncate(LEN_MAX);
            }
            // Lengths, offsets and numbers at the edge of something.
            3..=5 => {
                let edges = [
                    0,
                    1,
                    4,
                    7,
                    8,
                    19,
                    20,
                    40,
                    len - 1,
                    len,
                    0x3fff,
                    0x7fff,
                    0xffff,
                ];
                let edge = u16::try_from(edges[dice.roll(edges.len())]).expect("16 bits");
                if let Some(word) = frame.get_mut(at..at + 2) {
                    word.copy_from_slice(&edge.to_be_bytes());
                }
            }
            6..=8 => {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = dice.byte();
                }
            }
            _ => {
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << dice.roll(8);
                }
            }
        }
    }
}

/// The frames of a classic capture.
fn frames(capture: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = &capture[24..];
    std::iter::from_fn(move || {
        let (header, behind) = rest.split_first_chunk::<16>()?;
        let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let (frame, behind) = behind.split_at(usize::try_from(len).expect("a frame"));
        rest = behind;
        Some(frame)
    })
}

/// Where the payload of an untagged IP packet without extension headers begins, and its protocol.
fn payload(frame: &[u8]) -> Option<(usize, u8)> {
    match frame.get(12..24)? {
        [0x08, 0x00, first, .., protocol] => Some((14 + usize::from(first & 15) * 4, *protocol)),
        [0x86, 0xdd, _, _, _, _, _, _, next, ..] => Some((54, *next)),
        _ => None,
    }
}

/// Gives TCP, UDP and SCTP another source port.
fn another_client(frame: &mut [u8], dice: &mut Dice) {
    if let Some((at, 6 | 17 | 132)) = payload(frame)
        && let Some(port) = frame.get_mut(at..at + 2)
    {
        port.copy_from_slice(&[0x9c, dice.byte()]);
    }
}

/// Makes the checksum of an ICMP message right.
fn repair(frame: &mut [u8]) {
    let Some((at, 1 | 58)) = payload(frame) else {
        return;
    };
    let is_v6 = frame[12] == 0x86;
    let (field, base) = if is_v6 { (18, 54) } else { (16, 14) };
    let len = base + usize::from(u16::from_be_bytes([frame[field], frame[field + 1]]));
    let end = len.min(frame.len());
    if end < at + 4 {
        return;
    }
    frame[at + 2..at + 4].fill(0);
    let mut sum = match is_v6 {
        true => words(&frame[22..54]) + 58 + u32::try_from(end - at).expect("a frame"),
        false => 0,
    };
    sum += words(&frame[at..end]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).expect("folded");
    frame[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
}

fn words(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}
