//! Configurations of others become ours: what each sample gives, and what is said of it.
//! `UPDATE_GOLDEN=1` accepts what comes out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use control::client::ClientError;
use control::import::{Around, Files, Import, Kind, SCHEDULERS, Wrong, import};
use control::ipvsadm::names::NoNames;
use control::ipvsadm::run::Ipvsadm;
use control::{Change, Reply, Request};
use dataplane::config::Config;
use dataplane::control::model::{Limits, Model};
use system_tests::recorded;

const HEAD: &str = include_str!("import/head.toml");

/// Files by name; a pattern is a name.
struct Canned<'f>(&'f [(&'f str, &'f str)]);

impl Files for Canned<'_> {
    fn read(&self, pattern: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        let found = self.0.iter().filter(|(name, _)| *name == pattern);
        Ok(found
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect())
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("import")
}

fn read(kind: Option<Kind>, text: &str, files: &[(&str, &str)]) -> Result<Import, Wrong> {
    let around = Around {
        files: &Canned(files),
        names: &NoNames,
        config_id: "lb-1",
    };
    import(kind, "input", text, around)
}

/// What the daemon makes of it, with a port in front.
fn checked(toml: &str) -> Config {
    Config::parse(&format!("{HEAD}{toml}"), "imported.toml")
        .unwrap_or_else(|error| panic!("{error}\n{toml}"))
}

#[test]
fn samples_as_accepted() {
    let accept = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (case, kind) in [
        ("ipvsadm", Kind::Ipvsadm),
        ("dpvs-ipvsadm", Kind::Ipvsadm),
        ("keepalived", Kind::Keepalived),
        ("dpvs-keepalived", Kind::Keepalived),
        ("dpvs", Kind::Dpvs),
    ] {
        let folder = folder().join(case);
        let input = fs::read_to_string(folder.join("input")).unwrap();
        let mail = fs::read_to_string(folder.join("conf.d/mail.conf")).unwrap_or_default();
        let files = [("conf.d/*.conf", mail.as_str())];
        let found = read(None, &input, &files).unwrap();
        assert_eq!(found.kind, kind, "{case}");
        let toml = found.toml();
        checked(&toml);
        let complaints: String = found.notes.iter().map(|note| format!("{note}\n")).collect();
        for (name, text) in [("expected.toml", toml), ("complaints", complaints)] {
            let path = folder.join(name);
            if accept {
                fs::write(&path, &text).unwrap();
            }
            let accepted = fs::read_to_string(&path).unwrap_or_default();
            assert!(text == accepted, "{}: now\n{text}", path.display());
        }
    }
}

/// Every note is a comment too.
#[test]
fn what_is_said_is_written() {
    let input = fs::read_to_string(folder().join("keepalived/input")).unwrap();
    let found = read(None, &input, &[]).unwrap();
    let toml = found.toml();
    assert!(found.notes.len() > 20);
    for note in &found.notes {
        assert!(toml.contains(&format!("# {note}\n")), "{note}");
    }
}

#[test]
fn what_cannot_be_understood_has_a_place() {
    for (kind, text, right) in [
        (
            Kind::Keepalived,
            "a {\n b {\n}\n",
            "input:1: the block of a has no }",
        ),
        (
            Kind::Keepalived,
            "a\n}\n",
            "input:2: } without a { in front of it",
        ),
        (
            Kind::Keepalived,
            "{\n",
            "input:1: { without a keyword in front of it",
        ),
        (
            Kind::Keepalived,
            "a \"b\n",
            "input:1: a quotation mark without its second",
        ),
        (
            Kind::Keepalived,
            "$A=$A $A\n\n$A\n",
            "input:3: parameters within parameters without end",
        ),
        (
            Kind::Keepalived,
            "include self\n",
            "self:1: more than 16 files within files",
        ),
        (
            Kind::Dpvs,
            "ipvs_defs {\n",
            "input:1: the block of ipvs_defs has no }",
        ),
        (
            Kind::Ipvsadm,
            "-A -t 10.0.0.1:80\n-A -t 10.0.0.1:80:80\n",
            "input:2: illegal virtual server address[:port] specified",
        ),
        (
            Kind::Ipvsadm,
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "input:1: IP Virtual Server version 1.2.1 (size=4096): no command line, what ipvsadm -S -n prints is right",
        ),
    ] {
        let wrong = read(Some(kind), text, &[("self", "include self\n")]).unwrap_err();
        assert_eq!(wrong.to_string(), right, "{text:?}");
    }
    let wrong = read(None, "what is this\n", &[]).unwrap_err();
    assert!(wrong.to_string().contains("--from"), "{wrong}");
}

#[test]
fn the_schedulers_are_the_directors() {
    let ours = dataplane::sched::Kind::ALL.map(dataplane::sched::Kind::name);
    assert_eq!(SCHEDULERS, ours);
}

/// What a director saves, imported and read by another, is the same.
#[test]
fn a_saved_director_is_read_back() {
    let input = fs::read_to_string(folder().join("ipvsadm/input")).unwrap();
    let first = checked(&read(None, &input, &[]).unwrap().toml());
    let saved = saved(&first.changes);
    assert!(saved.lines().count() > 15, "{saved}");
    let second = checked(&read(None, &saved, &[]).unwrap().toml());
    assert_eq!(self::saved(&second.changes), saved);
}

/// So is what LVS has no words for, by ipvsadm-restore and by an import.
#[test]
fn a_flag_without_a_name_is_saved_and_restored() {
    let mut first = model(&[]);
    let line = b"-A -t 10.0.0.1:80 -s sh -b flag-3 --options mss=1380\n-A -t 10.0.0.1:81 -s mh -b flag-3\n";
    ipvsadm(&mut first, "ipvsadm", &["-R"], line);
    let saved = ipvsadm(&mut first, "ipvsadm-save", &["-n"], b"");
    // As upstream, which cannot read it.
    assert!(saved.ends_with("-A -t 10.0.0.1:81 -s mh -b \n"), "{saved}");
    let mut second = model(&[]);
    ipvsadm(&mut second, "ipvsadm-restore", &[], saved.as_bytes());
    assert_eq!(second.services(None), first.services(None));
}

#[test]
fn what_only_we_have_is_saved_and_restored() {
    let toml = r#"
[[service]]
protocol = "tcp"
address = "10.0.0.1:80"
client_address = "proxy-v2"
mss = 1380
timeout_tcp = 60
timeout_tcp_fin = 5
refuse = "reset"
on_server_gone = "reschedule"
reset_on_expiry = true
slow_start = 30
local_addresses = ["192.168.1.200", "2001:db8::200"]
[[service.server]]
address = "192.168.1.2:80"
method = "fullnat"
[[service.server]]
address = "[2001:db8::2]:80"
method = "fullnat"

[[service]]
protocol = "tcp"
address = "10.0.0.1:81"
scheduler = "mh"
mh_table_size = 251

[[service]]
protocol = "udp"
address = "10.0.0.1:443"
scheduler = "conhash"
hash_target = "qid"
timeout_udp = 7
"#;
    let first = checked(toml);
    let saved = saved(&first.changes);
    assert!(
        saved.contains(
            "-A -t 10.0.0.1:80 -s wlc --options client_address=proxy-v2,mss=1380,timeout_tcp=60,\
             timeout_tcp_fin=5,refuse=reset,on_server_gone=reschedule,reset_on_expiry=true,\
             slow_start=30\n--add-laddr -t 10.0.0.1:80 -z 192.168.1.200\n"
        ),
        "{saved}"
    );
    let mut second = model(&[]);
    ipvsadm(&mut second, "ipvsadm-restore", &[], saved.as_bytes());
    assert_eq!(second.services(None), model(&first.changes).services(None));
    let imported = read(None, &saved, &[]).unwrap();
    assert_eq!(imported.notes, []);
    let third = model(&checked(&imported.toml()).changes);
    assert_eq!(third.services(None), second.services(None));
}

fn model(changes: &[Change]) -> Model {
    let limits = Limits {
        services_max: 64,
        servers_max: 64,
    };
    let mut model = Model::new(limits);
    model.apply(changes).unwrap();
    model
}

/// `ipvsadm -S -n` of a director with this configuration.
fn saved(changes: &[Change]) -> String {
    ipvsadm(&mut model(changes), "ipvsadm-save", &["-n"], b"")
}

fn ipvsadm(model: &mut Model, name: &str, words: &[&str], mut input: &[u8]) -> String {
    let mut output = Vec::new();
    let mut ask = |request: &Request| -> Result<Reply, ClientError> {
        Ok(match request {
            Request::Change(changes) => {
                model.apply(changes).unwrap();
                Reply::Done
            }
            _ => recorded::told(model, request),
        })
    };
    let mut ipvsadm = Ipvsadm {
        names: &NoNames,
        ask: &mut ask,
        input: &mut input,
        output: &mut output,
    };
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    ipvsadm.run(name, &words).unwrap();
    String::from_utf8(output).unwrap()
}

#[test]
fn ten_thousand_services() {
    let mut text = String::new();
    for i in 0..10_000u32 {
        let vip = Ipv4Addr::from_bits(0x0a00_0001 + i);
        text += &format!("-A -t {vip}:80 -s wlc\n-a -t {vip}:80 -r 192.168.0.2:80 -m -w 1\n");
    }
    let toml = read(None, &text, &[]).unwrap().toml();
    assert!(toml.contains("# [director] has to have max_services = 16384 or more.\n"));
    let head = "[director]\nmax_services = 16384\n";
    let config = Config::parse(&format!("{head}{HEAD}{toml}"), "imported.toml").unwrap();
    assert!(config.changes.len() >= 20_000);
}
