//! Messages of other directors: what is read of one is written and read again, and taken up.

use dataplane::sync::message::{Entry, Version, Writer, read};
use dataplane::time::Instant;

use crate::packets::director;

const LEN_MAX: u16 = 1472;

pub(crate) fn run(data: &[u8]) {
    let Ok(entries) = read(data, 0) else { return };
    let entries: Vec<Entry> = entries.filter_map(Result::ok).collect();
    assert_eq!(again(&entries), entries);
    let (mut director, mut wire, page) = director();
    for entry in &entries {
        // What is not kept is counted.
        let _ = director.synced(Instant::default(), entry);
    }
    let counts = &page.sync;
    let counted = counts.kept.get() + counts.unkept();
    assert_eq!(counted, entries.len() as u64);
    director.tick(Instant::from_ms(1), &mut wire);
    director.stop(&mut wire);
    assert!(page.balanced());
}

/// Written by us and read once more.
fn again(entries: &[Entry]) -> Vec<Entry> {
    let mut writer = Writer::new(Version::V1, 0, LEN_MAX);
    let mut messages: Vec<Vec<u8>> = entries
        .iter()
        .filter_map(|entry| writer.push(entry))
        .collect();
    messages.extend(writer.take());
    let read = messages.iter().flat_map(|message| {
        let entries = read(message, 0).expect("what we write is a message");
        entries.map(|entry| entry.expect("what we write is right"))
    });
    read.collect()
}
