//! What the fuzzer begins with: our configurations, recorded command lines, golden captures, samples of
//! imports; and the words in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use control::{Change, Request};
use dataplane::config::Config;
use dataplane::packet::PortId;
use dataplane::replay;

#[path = "../../dataplane/src/director/spoil.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "the director's own tests include it too"
)]
mod spoil;

pub(crate) use spoil::{CASES, golden};

/// Of a word for the fuzzer's dictionary.
const WORD_MAX: usize = 40;
const WORDS_MAX: usize = 2000;

/// A name and bytes of each seed of a target.
pub fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "protocol" => requests(),
        "ipvsadm" => recorded(|_| true),
        "restore" => {
            recorded(|line| line.starts_with("ipvsadm -A") || line.starts_with("ipvsadm -a"))
        }
        "configuration" => files("configs", |name| name.ends_with(".toml")),
        "import-ipvsadm" => samples(&["ipvsadm", "dpvs-ipvsadm"]),
        "import-keepalived" => samples(&["keepalived", "dpvs-keepalived"]),
        "import-dpvs" => samples(&["dpvs"]),
        "packets" => captures(),
        "sync" => messages(),
        _ => Vec::new(),
    }
}

/// The words of text seeds, as a libFuzzer dictionary has them.
pub fn dictionary(seeds: &[(String, Vec<u8>)]) -> String {
    let mut words = BTreeSet::new();
    for (_, seed) in seeds {
        let text = String::from_utf8_lossy(seed);
        let of_word = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
        let found = text.split(|c| !of_word(c));
        let found = found.filter(|word| (2..=WORD_MAX).contains(&word.len()));
        words.extend(found.map(str::to_owned));
    }
    let words = words.into_iter().take(WORDS_MAX);
    words.map(|word| format!("\"{word}\"\n")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let folder = fs::read_dir(root().join(folder)).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    let named = files.map(|path| {
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            path,
        )
    });
    let named = named.filter(|(name, _)| wanted(name));
    named
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

fn samples(cases: &[&str]) -> Vec<(String, Vec<u8>)> {
    let path = |case: &str| root().join("tests/import").join(case).join("input");
    cases
        .iter()
        .map(|case| ((*case).to_owned(), fs::read(path(case)).unwrap()))
        .collect()
}

/// What configurations would ask over the socket: a line for each change, and the questions.
fn requests() -> Vec<(String, Vec<u8>)> {
    let asked = [
        Request::Services { only: None },
        Request::Connections {
            cursor: control::Cursor::default(),
            filter: control::Filter::default(),
        },
        Request::Timeouts,
        Request::Settings,
        Request::Status,
        Request::Neighbours,
        Request::Marks,
        Request::Node,
        Request::DrainNode,
        Request::UndrainNode,
        Request::SyncDaemons,
    ];
    let json = |request: &Request| serde_json::to_string(request).unwrap();
    let line = |change: &Change| json(&Request::Change(vec![change.clone()]));
    let mut seeds = vec![
        (
            "questions".to_owned(),
            asked
                .iter()
                .map(json)
                .collect::<Vec<_>>()
                .join("\n")
                .into_bytes(),
        ),
        (
            "hello".to_owned(),
            b"{\"version\":3,\"program\":\"directorctl\"}".to_vec(),
        ),
    ];
    for (name, text) in files("configs", |name| name.ends_with(".toml")) {
        let text = String::from_utf8(text).unwrap();
        let config = Config::parse(&text, &name).unwrap();
        let lines: Vec<String> = config.changes.iter().map(line).collect();
        seeds.push((name, lines.join("\n").into_bytes()));
    }
    seeds
}

/// The command lines of the recordings: those of one recording are one seed.
fn recorded(wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let text = fs::read_to_string(root().join("tests/oracle/ipvsadm.jsonl")).unwrap();
    let mut seeds = BTreeSet::new();
    for line in text.lines() {
        let recording: serde_json::Value = serde_json::from_str(line).unwrap();
        let setup = recording["setup"].as_array().into_iter().flatten();
        let commands = setup
            .chain([&recording["cmd"]])
            .filter_map(serde_json::Value::as_str);
        let commands = commands
            .filter(|line| wanted(line))
            .filter_map(|line| line.strip_prefix("ipvsadm "));
        let lines: Vec<&str> = commands.collect();
        seeds.insert(lines.join("\n"));
    }
    let seeds = (0..).zip(seeds);
    seeds
        .map(|(number, seed)| (format!("recorded-{number}"), seed.into_bytes()))
        .collect()
}

/// The golden cases' frames, as the target reads them.
/// Messages that kernels sent.
fn messages() -> Vec<(String, Vec<u8>)> {
    let path = root().join("tests/oracle/sync.json");
    let recorded: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases = (0..).zip(recorded["encode"].as_array().unwrap());
    let messages = cases.flat_map(|(case, recorded)| {
        let messages = recorded["messages"].as_array().unwrap();
        let numbered = (0..).zip(messages.clone());
        numbered.map(move |(number, hexadecimal)| {
            let text = hexadecimal.as_str().unwrap();
            let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            let bytes = (0..text.len()).step_by(2).map(byte);
            (format!("{case}-{number}"), bytes.collect())
        })
    });
    messages.collect()
}

fn captures() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for case in CASES
        .iter()
        .chain(&["nd", "nat-tcp", "nat-udp", "direct", "arp"])
    {
        let captures = (0..2).filter_map(|port| {
            let capture = fs::File::open(golden(case, &format!("in.{port}.pcap"))).ok()?;
            Some((PortId(port), capture))
        });
        let mut seed = Vec::new();
        for frame in replay::read(captures).unwrap() {
            let len = u16::try_from(frame.bytes.len()).unwrap();
            seed.push(frame.port.0 | 1 << 2);
            seed.extend(len.to_be_bytes());
            seed.extend(&frame.bytes);
        }
        seeds.push(((*case).to_owned(), seed));
    }
    seeds
}
