//! `directorctl mark`: rules that mark packets, for services by mark.

use clap::{Args, Subcommand};
use control::{Change, MarkRule, Ports, Prefix, Protocol, Request, WhichMark};
use schemars::JsonSchema;
use serde::Serialize;

use super::show::Table;
use super::values::one_of;

#[derive(Debug, Subcommand)]
pub(super) enum MarkVerb {
    /// The rules, in the order in which they are tried: the first that holds marks a packet.
    List,
    /// Add a rule at the end of the list, or where --at says.
    Add {
        #[command(flatten)]
        rule: RuleArgs,
        /// Number that the rule gets; those from there on get one more.
        #[arg(long)]
        at: Option<usize>,
    },
    /// Delete a rule by its number; those behind it get one less.
    Delete { number: usize },
}

#[derive(Debug, Args)]
pub(super) struct RuleArgs {
    /// What packets get for which all holds that is named; 0 keeps them from later rules.
    #[arg(allow_negative_numbers = true)]
    mark: u32,
    /// Where they come from: ADDRESS or ADDRESS/LENGTH.
    #[arg(long)]
    source: Option<Prefix>,
    /// Where they go to: ADDRESS or ADDRESS/LENGTH. The director answers for a whole address.
    #[arg(long)]
    destination: Option<Prefix>,
    /// All three unless named.
    #[arg(long, value_parser = one_of::<Protocol>())]
    protocol: Option<Protocol>,
    /// PORT or FIRST-LAST.
    #[arg(long)]
    source_port: Option<Ports>,
    /// Destination PORT or FIRST-LAST.
    #[arg(long)]
    port: Option<Ports>,
    /// Name of the director's port at which they come in.
    #[arg(long)]
    in_port: Option<String>,
    /// Their tag, 1 to 4094.
    #[arg(long)]
    vlan: Option<u16>,
}

impl RuleArgs {
    fn rule(&self) -> MarkRule {
        MarkRule {
            mark: self.mark,
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            source_ports: self.source_port,
            ports: self.port,
            in_port: self.in_port.clone(),
            vlan: self.vlan,
        }
    }
}

impl MarkVerb {
    pub(super) fn request(&self) -> Request {
        let change = match self {
            Self::List => return Request::Marks,
            Self::Add { rule, at } => Change::AddMark {
                rule: rule.rule(),
                at: *at,
            },
            Self::Delete { number } => Change::DeleteMark(WhichMark::Number(*number)),
        };
        Request::Change(vec![change])
    }
}

/// A rule with its number, for programs.
#[derive(Serialize, JsonSchema)]
pub(super) struct Numbered<'r> {
    number: usize,
    #[serde(flatten)]
    rule: &'r MarkRule,
}

impl<'r> Numbered<'r> {
    pub(super) fn all(rules: &'r [MarkRule]) -> Vec<Self> {
        let numbered = (1..).zip(rules);
        numbered
            .map(|(number, rule)| Self { number, rule })
            .collect()
    }
}

/// The rules, numbered; what a rule does not name is `any`.
pub(super) fn table(rules: &[MarkRule]) -> String {
    let title = [
        "NUMBER",
        "MARK",
        "SOURCE",
        "DESTINATION",
        "PROTOCOL",
        "SOURCE PORT",
        "PORT",
        "IN PORT",
        "VLAN",
    ];
    fn shown(value: &Option<impl ToString>) -> String {
        value.as_ref().map_or("any".to_owned(), ToString::to_string)
    }
    let mut table = Table::new(title.len(), title);
    for (number, rule) in (1..).zip(rules) {
        table.row([
            format!("{number}"),
            rule.mark.to_string(),
            shown(&rule.source),
            shown(&rule.destination),
            shown(&rule.protocol.map(Protocol::name)),
            shown(&rule.source_ports),
            shown(&rule.ports),
            shown(&rule.in_port),
            shown(&rule.vlan),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modern::testing::parsed;

    fn asked(line: &str) -> Result<Request, String> {
        parsed(line).map(|verb: MarkVerb| verb.request())
    }

    fn web() -> MarkRule {
        MarkRule {
            source: Some("198.51.100.0/24".parse().unwrap()),
            destination: Some("192.0.2.10".parse().unwrap()),
            protocol: Some(Protocol::Tcp),
            source_ports: Some("1024-65535".parse().unwrap()),
            ports: Some(Ports::one(80)),
            in_port: Some("wan".to_owned()),
            vlan: Some(100),
            ..MarkRule::new(7)
        }
    }

    #[test]
    fn verbs_become_requests() {
        assert_eq!(asked("list"), Ok(Request::Marks));
        let line = "add 7 --destination 192.0.2.10 --protocol tcp --port 80 \
                    --source 198.51.100.0/24 --source-port 1024-65535 --in-port wan --vlan 100 --at 2";
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let change = Change::AddMark {
            rule: web(),
            at: Some(2),
        };
        assert_eq!(asked(&words), Ok(Request::Change(vec![change])));
        let change = Change::AddMark {
            rule: MarkRule::new(0),
            at: None,
        };
        assert_eq!(asked("add 0"), Ok(Request::Change(vec![change])));
        let change = Change::DeleteMark(WhichMark::Number(3));
        assert_eq!(asked("delete 3"), Ok(Request::Change(vec![change])));
    }

    #[test]
    fn mistakes_say_what_is_right() {
        for (line, words) in [
            ("add 7 --destination 192.0.2.10/24", "192.0.2.0/24 is right"),
            (
                "add 7 --source nowhere",
                "10.0.0.0/8, 10.0.0.1 or 2001:db8::/32 is right",
            ),
            ("add 7 --port http", "80 or 8000-8010 is right"),
            ("add 7 --protocol icmp", "[possible values: tcp, udp, sctp]"),
            ("add -1", "-1 is not in 0..=4294967295"),
            ("delete", "<NUMBER>"),
        ] {
            let said = asked(line).unwrap_err();
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn rules_are_numbered() {
        let rules = [web(), MarkRule::new(8)];
        assert_eq!(
            table(&rules),
            "\
NUMBER  MARK  SOURCE           DESTINATION  PROTOCOL  SOURCE PORT  PORT  IN PORT  VLAN
1       7     198.51.100.0/24  192.0.2.10   tcp       1024-65535   80    wan      100
2       8     any              any          any       any          any   any      any
"
        );
        let json = serde_json::to_value(Numbered::all(&rules)).unwrap();
        assert_eq!(json[1]["number"], 2);
        assert_eq!(json[0]["ports"], "80");
    }
}
