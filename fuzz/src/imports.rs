//! The files of others: what is made of them is a configuration, whatever is in them.

use std::collections::HashSet;

use control::import::{Around, Files, Kind, import};
use dataplane::config::Config;

use crate::NoNames;

const HEAD: &str = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n";

pub(crate) fn ipvsadm(data: &[u8]) {
    run(Kind::Ipvsadm, data);
}

pub(crate) fn keepalived(data: &[u8]) {
    run(Kind::Keepalived, data);
}

pub(crate) fn dpvs(data: &[u8]) {
    run(Kind::Dpvs, data);
}

/// One file, which includes itself when it likes.
struct Itself<'t>(&'t str);

impl Files for Itself<'_> {
    fn read(&self, pattern: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        match pattern {
            "again" => Ok(vec![("again".to_owned(), self.0.to_owned())]),
            _ => Err("no such file".to_owned()),
        }
    }
}

fn run(kind: Kind, data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let around = Around {
        files: &Itself(&text),
        names: &NoNames,
        config_id: "lb-1",
    };
    let Ok(import) = import(Some(kind), "input", &text, around) else {
        return;
    };
    let toml = import.toml();
    let lines: HashSet<&str> = toml.lines().collect();
    for note in &import.notes {
        let line = format!("# {note}");
        assert!(lines.contains(&*line), "{line:?} is not in the file");
    }
    let limits = "[director]\nmax_services = 1048576\nmax_servers = 1048576\n";
    if let Err(error) = Config::parse(&format!("{limits}{HEAD}{toml}"), "imported.toml") {
        panic!("{error}\n{toml}");
    }
}
