//! Messages as LVS's own encoder and decoder have them (`tests/oracle/sync.json`), and others.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::message::{Entry, Ignored, Refused, Sequence, Version, Writer, flags, read};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/oracle/sync.json");

fn recorded() -> Value {
    serde_json::from_str(&fs::read_to_string(RECORDED).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    T::try_from(value.as_u64().unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = (0..hex.len()).step_by(2);
    digits
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// "family protocol client port vip port server port flags state timeout mark [sequences|- [engine data]]"
fn entry(line: &str) -> Entry {
    let words: Vec<&str> = line.split(' ').collect();
    let address = |at: usize| {
        let port = words[at + 1].parse().unwrap();
        SocketAddr::new(words[at].parse().unwrap(), port)
    };
    let sequences = words.get(12).filter(|word| **word != "-").map(|word| {
        let numbers: Vec<u32> = word.split(',').map(|n| n.parse().unwrap()).collect();
        [&numbers[..3], &numbers[3..]].map(|numbers| Sequence {
            from: numbers[0],
            delta: numbers[1],
            previous_delta: numbers[2],
        })
    });
    Entry {
        protocol: words[1].parse().unwrap(),
        client: address(2),
        vip: address(4),
        server: address(6),
        flags: u32::from_str_radix(&words[8][2..], 16).unwrap(),
        state: words[9].parse().unwrap(),
        timeout_s: words[10].parse().unwrap(),
        mark: words[11].parse().unwrap(),
        sequences,
        engine_data: words.get(13).map(|data| data.as_bytes().to_vec()),
        local: None,
    }
}

/// As the recordings say what a backup took.
fn shown(entry: &Entry) -> String {
    let side = |address: SocketAddr| format!("{},{}", address.ip(), address.port());
    let mut shown = format!(
        "CONN proto={} af={} c={} v={} d={} flags={:#x} state={} timeout={} fwmark={}",
        entry.protocol,
        if entry.client.is_ipv6() { 6 } else { 4 },
        side(entry.client),
        side(entry.vip),
        side(entry.server),
        entry.flags,
        entry.state,
        entry.timeout_s,
        entry.mark,
    );
    if let Some(both) = entry.sequences {
        let both = both.map(|one| format!("{}/{}/{}", one.from, one.delta, one.previous_delta));
        write!(shown, " seq={}", both.join(",")).unwrap();
    }
    if let Some(data) = &entry.engine_data {
        write!(shown, " pe=sip:{}", String::from_utf8_lossy(data)).unwrap();
    }
    shown
}

/// What a backup takes of a message.
fn taken(message: &[u8], sync_id: u8) -> Vec<Entry> {
    let entries = read(message, sync_id).into_iter().flatten();
    entries.filter_map(Result::ok).collect()
}

fn written(version: Version, sync_id: u8, len_max: u16, entries: &[Entry]) -> Vec<Vec<u8>> {
    let mut writer = Writer::new(version, sync_id, len_max);
    let full: Vec<_> = entries.iter().filter_map(|e| writer.push(e)).collect();
    full.into_iter().chain(writer.take()).collect()
}

#[test]
fn messages_are_lvs_own() {
    let recorded = recorded();
    for case in list(&recorded["encode"]) {
        let name = text(&case["name"]);
        let version = match case["version"].as_u64() {
            Some(0) => Version::V0,
            _ => Version::V1,
        };
        let entries: Vec<Entry> = list(&case["entries"])
            .iter()
            .map(|e| entry(text(e)))
            .collect();
        let len_max = number(&case["maxlen"]);
        let messages = written(version, number(&case["syncid"]), len_max, &entries);
        let expected: Vec<&str> = list(&case["messages"]).iter().map(text).collect();
        let messages_hex: Vec<String> = messages.iter().map(|m| hex(m)).collect();
        assert_eq!(messages_hex, expected, "{name}");
        for (message, decoded) in messages.iter().zip(list(&case["decoded"])) {
            let shown: Vec<String> = taken(message, 0).iter().map(shown).collect();
            let decoded: Vec<&str> = list(decoded).iter().map(text).collect();
            assert_eq!(shown, decoded, "{name}");
        }
    }
}

#[test]
fn a_backup_takes_what_lvs_takes() {
    for case in list(&recorded()["decode"]) {
        let message = bytes(text(&case["message"]));
        let taken = taken(&message, number(&case["backup_syncid"]));
        let shown: Vec<String> = taken.iter().map(shown).collect();
        let accepted: Vec<&str> = list(&case["accepted"]).iter().map(text).collect();
        assert_eq!(shown, accepted, "{}", text(&case["name"]));
    }
}

const PLAIN: &str = "4 6 192.0.2.10 40000 203.0.113.80 80 10.0.0.1 8080 0x0 1 900 0";

fn message_of(entry: &Entry) -> Vec<u8> {
    let mut messages = written(Version::V1, 7, 1472, std::slice::from_ref(entry));
    assert_eq!(messages.len(), 1);
    messages.remove(0)
}

/// One entry with an option put behind it.
fn with_option(option: &[u8]) -> Vec<u8> {
    let mut message = message_of(&entry(PLAIN));
    message.extend(option);
    let size = u8::try_from(message.len()).unwrap();
    message[3] = size;
    message[8 + 3] = size - 8;
    message
}

fn first(message: &[u8]) -> Result<Entry, Refused> {
    read(message, 0).unwrap().next().unwrap()
}

#[test]
fn options_are_taken_passed_over_or_refused() {
    let plain = first(&message_of(&entry(PLAIN))).unwrap();
    // Unknown, and may be passed over or not.
    assert_eq!(first(&with_option(&[0x49, 1, 0])), Ok(plain.clone()));
    assert_eq!(first(&with_option(&[0x09, 1, 0])), Err(Refused::Skipped));
    // Without data, too long, cut off.
    assert_eq!(first(&with_option(&[0x49, 0])), Err(Refused::Broken));
    assert_eq!(first(&with_option(&[0x49, 9, 0])), Err(Refused::Broken));
    assert_eq!(first(&with_option(&[0x49])), Err(Refused::Broken));
    // Data of an engine without a name, and of one that is not there.
    assert_eq!(first(&with_option(&[2, 1, 65])), Err(Refused::Skipped));
    let other = [2, 1, 65, 3, 3, b'r', b't', b'p'];
    assert_eq!(first(&with_option(&other)), Err(Refused::Skipped));
    assert_eq!(
        first(&with_option(&[2, 1, 65, 2, 1, 65])),
        Err(Refused::Broken)
    );
    assert_eq!(first(&with_option(&[1, 1, 65])), Err(Refused::Broken));
    // A local address of a length that nobody has.
    assert_eq!(first(&with_option(&[0x4a, 3, 0, 80, 1])), Ok(plain));
}

#[test]
fn a_local_address_is_said_in_an_option_that_others_pass_over() {
    let mut fullnat = entry(PLAIN);
    fullnat.flags = 5;
    fullnat.local = Some("10.0.0.200:1024".parse().unwrap());
    let message = message_of(&fullnat);
    assert_eq!(hex(&message[8 + 36..]), "4a0604000a0000c8");
    assert_eq!(first(&message).unwrap().local, fullnat.local);
}

#[test]
fn a_message_has_255_entries_at_most() {
    let entries = vec![entry(PLAIN); 300];
    let messages = written(Version::V1, 7, 60_000, &entries);
    let counts: Vec<usize> = messages.iter().map(|m| taken(m, 7).len()).collect();
    assert_eq!(counts, [255, 45]);
}

#[test]
fn what_cannot_be_said_is_not() {
    let mut mixed = entry(PLAIN);
    mixed.server = "[2001:db8::1]:80".parse().unwrap();
    let mut datagram = entry(PLAIN);
    datagram.flags = flags::ONE_PACKET;
    assert!(written(Version::V1, 7, 1472, &[mixed, datagram]).is_empty());
}

#[test]
fn another_cluster_is_ignored() {
    let message = message_of(&entry(PLAIN));
    assert_eq!(read(&message, 8).unwrap_err(), Ignored::SyncId);
    assert_eq!(read(&message[..20], 7).unwrap_err(), Ignored::Size);
    assert_eq!(read(&[], 0).unwrap_err(), Ignored::Size);
    assert_eq!(read(&message, 7).unwrap().count(), 1);
}

fn any_address(v6: bool) -> BoxedStrategy<SocketAddr> {
    if v6 {
        (any::<[u8; 16]>(), any::<u16>())
            .prop_map(SocketAddr::from)
            .boxed()
    } else {
        (any::<[u8; 4]>(), any::<u16>())
            .prop_map(SocketAddr::from)
            .boxed()
    }
}

prop_compose! {
    fn any_sequence()(from: u32, delta: u32, previous_delta: u32) -> Sequence {
        Sequence { from, delta, previous_delta }
    }
}

prop_compose! {
    /// As a backup takes it.
    fn any_entry()(v6 in any::<bool>())(
        client in any_address(v6),
        vip in any_address(v6),
        server in any_address(v6),
        (protocol, state) in prop_oneof![(Just(6), 0..11u16), (Just(17), 0..1u16), (Just(132), 0..14u16)],
        said in any::<u32>(),
        mark in any::<u32>(),
        timeout_s in any::<u32>(),
        engine_data in proptest::option::of(vec(any::<u8>(), 1..=255)),
        local in proptest::option::of(any_address(v6)),
        sequences in [any_sequence(), any_sequence()],
    ) -> Entry {
        let kept = flags::KEPT & !flags::TEMPLATE;
        let flags = said & kept | flags::SYNC;
        let sequences = (flags & flags::SEQUENCE != 0).then_some(sequences);
        Entry { protocol, flags, state, client, vip, server, mark, timeout_s, sequences, engine_data, local }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in vec(any_entry(), 0..40), len_max in 100..2000u16) {
        let messages = written(Version::V1, 3, len_max, &entries);
        for message in &messages {
            let alone = taken(message, 3).len() == 1;
            prop_assert!(alone || message.len() <= usize::from(len_max));
        }
        let back: Vec<Entry> = messages.iter().flat_map(|message| taken(message, 3)).collect();
        prop_assert_eq!(back, entries);
    }

    #[test]
    fn anything_is_read(message in vec(any::<u8>(), 0..400), v1: bool, fits: bool) {
        let mut message = message;
        if fits && message.len() >= 8 {
            let size = u16::try_from(message.len()).unwrap();
            message[2..4].copy_from_slice(&size.to_be_bytes());
            if v1 {
                message[0] = 0;
                message[5..8].copy_from_slice(&[1, 0, 0]);
            }
        }
        if let Ok(entries) = read(&message, 0) {
            prop_assert!(entries.count() <= 255);
        }
    }

    #[test]
    fn a_spoilt_message_is_read(entries in vec(any_entry(), 1..6), at: usize, byte: u8) {
        let mut messages = written(Version::V1, 3, 1472, &entries);
        for message in &mut messages {
            let at = at % message.len();
            message[at] = byte;
            if let Ok(read) = read(message, 0) {
                prop_assert!(read.count() <= 255);
            }
        }
    }
}
