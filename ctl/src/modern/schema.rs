//! `schema`: what verbs print with `--json`, as JSON Schema.

use anyhow::{Result, bail};
use clap::Args;
use control::plan::Plan;
use control::{
    Address, CheckStatus, Connection, Explained, Neighbour, NodeStatus, PortStatus, Refusal,
    Service, Settings, Status, SyncStatus,
};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use super::{answers, connection, drain, drops, json, mark, network, node, show, top};

const SCHEMA: &str = "https://json-schema.org/draft/2020-12/schema";

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// The verb, such as connection list; all verbs unless set.
    verb: Vec<String>,
}

/// Adds the types that a verb's answer is made of, and refers to them.
type Of = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Verbs that print the same are in a row; those that print a line for each object say so.
const VERBS: &[(&[&str], Of)] = &[
    (
        &[
            "service list",
            "server list",
            "stats",
            "stats --watch (lines)",
        ],
        of::<Vec<Service>>,
    ),
    (&["local-address list"], of::<show::LocalAddresses<'static>>),
    (
        &["connection list", "connection kill"],
        of::<Vec<Connection>>,
    ),
    (
        &["connection watch (lines)"],
        of::<connection::Event<'static>>,
    ),
    (&["server drain (lines)"], of::<drain::Look>),
    (&["mark list"], of::<Vec<mark::Numbered<'static>>>),
    (&["sync status"], of::<Vec<SyncStatus>>),
    (&["node status"], of::<NodeStatus>),
    (&["node drain (lines)"], of::<node::Look>),
    (&["settings"], of::<Settings>),
    (&["timeouts"], of::<answers::Timeouts>),
    (&["address list"], of::<Vec<Address>>),
    (&["route list"], of::<Vec<network::Way<'static>>>),
    (&["neighbour list"], of::<Vec<Neighbour>>),
    (&["port list"], of::<Vec<PortStatus>>),
    (&["health"], of::<Vec<CheckStatus>>),
    (&["status"], of::<Status>),
    (&["top (lines)"], of::<top::Frame>),
    (&["metrics"], of::<answers::Metrics>),
    (&["drops"], of::<Vec<drops::Shown<'static>>>),
    (&["drops --follow (lines)"], of::<drops::Shown<'static>>),
    (&["capture"], of::<answers::Captured>),
    (&["check"], of::<answers::Checked>),
    (&["explain"], of::<Explained>),
    (&["plan", "apply"], of::<Plan>),
    (&["save"], of::<answers::Saved>),
    (&["import"], of::<answers::Imported<'static>>),
    (&["doctor"], of::<answers::Examined<'static>>),
    (&["version"], of::<answers::Version>),
    (&["whatever is refused"], of::<Refused>),
];

/// Instead of a verb's answer, with exit code 1.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only its shape is shown")]
struct Refused {
    refused: Refusal,
}

/// The schema of the verb that is named; or an object whose `properties` are all of them by verb. What
/// changes something and has no row prints `"done"`.
pub(super) fn run(args: &SchemaArgs) -> Result<String> {
    let wanted = args.verb.join(" ");
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let all = || {
        let each = |row: &'static (&[&str], Of)| row.0.iter().map(|verb| (*verb, row.1));
        VERBS.iter().flat_map(each)
    };
    let schema = if wanted.is_empty() {
        let shown = |(verb, of): (&str, Of)| (verb.to_owned(), of(&mut generator).to_value());
        let verbs: Map<String, Value> = all().map(shown).collect();
        serde_json::json!({ "properties": verbs })
    } else {
        let named = |verb: &str| verb.split(" (").next() == Some(wanted.as_str());
        let Some((_, of)) = all().find(|(verb, _)| named(verb)) else {
            let known: Vec<&str> = all().map(|(verb, _)| verb).collect();
            bail!(
                "no schema of {wanted:?}; there is one of each of: {}",
                known.join(", ")
            );
        };
        of(&mut generator).to_value()
    };
    let mut document = match schema {
        Value::Object(document) => document,
        _ => Map::new(),
    };
    let definitions = generator.take_definitions(true);
    document.insert("$defs".to_owned(), definitions.into());
    document.insert("$schema".to_owned(), SCHEMA.into());
    json(&document)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs rely on it: a change is seen in the review, and accepted by UPDATE_DOCS=1.
    #[test]
    fn it_is_the_documented_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema.json");
        let verb = Vec::new();
        let now = run(&SchemaArgs { verb }).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let documented = std::fs::read_to_string(path).unwrap();
        assert!(
            now == documented,
            "docs/schema.json says otherwise; UPDATE_DOCS=1 accepts"
        );
    }

    #[test]
    fn one_verb() {
        let verb = ["connection", "watch"].map(str::to_owned).to_vec();
        assert!(run(&SchemaArgs { verb }).unwrap().contains("\"event\""));
        let verb = vec!["nothing".to_owned()];
        let error = run(&SchemaArgs { verb }).unwrap_err().to_string();
        assert!(error.starts_with("no schema of \"nothing\"; "), "{error}");
    }
}
