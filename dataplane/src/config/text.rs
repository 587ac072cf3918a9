//! The configuration as a file: what a director is started with, section by section, and behind it
//! what may change while it runs.

use std::net::IpAddr;

use control::conf::{self, Key, array, quoted};
use control::{Address, Conf, Network, PortSpec, Refusal, mac_text};

use super::{Config, Director, Eal, Idle, LogFormat, PortConf, Restart};
use crate::control::model::Model;
use crate::net::{Prefix, Route, StaticNeighbour};
use crate::templates::Templates;

/// One section of what a director is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `director`, `port wan`, `route 0.0.0.0/0`
    pub name: String,
    header: &'static str,
    pub keys: Vec<Key>,
}

impl Section {
    fn new(name: impl Into<String>, header: &'static str, keys: Vec<Key>) -> Self {
        let name = name.into();
        Self { name, header, keys }
    }
}

impl Config {
    /// What may change while the director runs.
    pub fn conf(&self) -> Result<Conf, Refusal> {
        let mut model = Model::new(self.director.limits()).with_ports(self.port_specs());
        model.check(&self.changes)?;
        Ok(Conf {
            network: self.network(),
            ..model.conf()
        })
    }

    /// Ports, addresses, routes and neighbours, in the order in which a model has them.
    pub fn network(&self) -> Network {
        let model = Model::new(self.director.limits()).with_ports(self.port_specs());
        // Whatever Ethernet addresses the ports have.
        model.networked(self.setup(|_| [0; 6])).network()
    }

    /// With other ports, addresses, routes and neighbours. VLANs without addresses stay with their ports.
    pub fn with_network(&self, network: &Network) -> Self {
        let mut config = self.clone();
        config.ports = network.ports.iter().map(|spec| self.bare(spec)).collect();
        for port in &mut config.ports {
            let own = (network.addresses.iter()).filter(|address| address.port == port.spec.name);
            for Address { vlan, prefix, .. } in own {
                let prefix = shape(prefix.address(), prefix.length());
                let Some(vlan) = vlan else {
                    port.addresses.push(prefix);
                    continue;
                };
                match port.vlans.iter_mut().find(|(id, _)| id == vlan) {
                    Some((_, addresses)) => addresses.push(prefix),
                    None => port.vlans.push((*vlan, vec![prefix])),
                }
            }
        }
        let routes = network.routes.iter().map(|route| Route {
            to: shape(route.to.address(), route.to.length()),
            via: route.via,
        });
        config.routes = routes.collect();
        let neighbours = network.neighbours.iter().map(|known| StaticNeighbour {
            address: known.address,
            mac: known.mac.bytes(),
        });
        config.neighbours = neighbours.collect();
        config
    }

    /// A port and the VLANs that it has here, without addresses.
    fn bare(&self, spec: &PortSpec) -> PortConf {
        let mut here = self.ports.iter();
        let here = here.find(|port| port.spec.name == spec.name);
        let vlans = here.into_iter().flat_map(|port| &port.vlans);
        PortConf {
            spec: spec.clone(),
            addresses: Vec::new(),
            vlans: vlans.map(|(id, _)| (*id, Vec::new())).collect(),
        }
    }

    /// Without what may change while it runs, but for ports that come and go.
    pub fn fixed(&self) -> Self {
        let mut config = self.with_network(&Network {
            ports: self.port_specs().collect(),
            ..Network::default()
        });
        for port in &mut config.ports {
            port.vlans.clear();
        }
        config
    }

    /// What the director is started with.
    pub fn sections(&self) -> Vec<Section> {
        let mut sections = vec![
            Section::new("director", "[director]", director(&self.director)),
            Section::new("eal", "[eal]", eal(&self.eal)),
            Section::new("restart", "[restart]", restart(&self.restart)),
        ];
        for port in &self.ports {
            let name = format!("port {}", port.spec.name);
            for (id, addresses) in &port.vlans {
                let keys = vec![Key::needed("id", id), prefixes("addresses", addresses)];
                let name = format!("{name} vlan {id}");
                sections.push(Section::new(name, "[[port.vlan]]", keys));
            }
            // In front of its VLANs.
            let at = sections.len() - port.vlans.len();
            sections.insert(at, Section::new(name, "[[port]]", self::port(port)));
        }
        sections.extend(self.routes.iter().map(route));
        sections.extend(self.neighbours.iter().map(neighbour));
        sections
    }

    /// A file that says what this one does of the start, and `running` of the rest.
    pub fn toml(&self, running: &Conf) -> String {
        let mut out = String::new();
        for section in self.with_network(&running.network).sections() {
            conf::section(&mut out, section.header, &section.keys);
        }
        running.write(&mut out);
        out
    }
}

fn director(said: &Director) -> Vec<Key> {
    let Director {
        socket,
        socket_group,
        socket_read_group,
        workers,
        control_core,
        idle,
        max_connections,
        max_templates,
        max_services,
        max_servers,
        log,
        log_format,
    } = said;
    let default = Director::default();
    let path = |path: &std::path::Path| quoted(&path.to_string_lossy());
    let group = |name, group: &Option<String>| Key::perhaps(name, group.as_deref().map(quoted));
    let level = |level: tracing::Level| quoted(&level.to_string().to_lowercase());
    let format = |format: LogFormat| {
        quoted(match format {
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        })
    };
    let idle_word = |idle: Idle| {
        quoted(match idle {
            Idle::Backoff => "backoff",
            Idle::Poll => "poll",
        })
    };
    vec![
        Key::new("socket", path(socket), path(&default.socket)),
        group("socket_group", socket_group),
        group("socket_read_group", socket_read_group),
        Key::new("workers", array(workers), array(&default.workers)),
        Key::new("control_core", control_core, default.control_core),
        Key::new("idle", idle_word(*idle), idle_word(default.idle)),
        Key::new("max_connections", max_connections, default.max_connections),
        Key::new(
            "max_templates",
            max_templates,
            Templates::default_capacity(*max_connections, workers.len()),
        ),
        Key::new("max_services", max_services, default.max_services),
        Key::new("max_servers", max_servers, default.max_servers),
        Key::new("log", level(*log), level(default.log)),
        Key::new(
            "log_format",
            format(*log_format),
            format(default.log_format),
        ),
    ]
}

fn eal(said: &Eal) -> Vec<Key> {
    let Eal {
        huge_pages,
        memory_mb,
        file_prefix,
        single_file_segments,
        extra,
        mbufs,
    } = said;
    let default = Eal::default();
    vec![
        Key::new("huge_pages", huge_pages, default.huge_pages),
        Key::new("memory_mb", memory_mb, default.memory_mb),
        Key::new(
            "file_prefix",
            quoted(file_prefix),
            quoted(&default.file_prefix),
        ),
        Key::new(
            "single_file_segments",
            single_file_segments,
            default.single_file_segments,
        ),
        Key::new("extra", array(extra.iter().map(|word| quoted(word))), "[]"),
        Key::new("mbufs", mbufs, default.mbufs),
    ]
}

fn restart(said: &Restart) -> Vec<Key> {
    let directory = said.directory.as_ref();
    let directory = directory.map(|path| quoted(&path.to_string_lossy()));
    vec![Key::perhaps("directory", directory)]
}

/// Its addresses stand behind its device.
fn port(said: &PortConf) -> Vec<Key> {
    let mut keys = said.spec.keys();
    keys.insert(2, prefixes("addresses", &said.addresses));
    keys
}

const fn shape(address: IpAddr, length: u8) -> Prefix {
    Prefix { address, length }
}

fn prefix_text(prefix: Prefix) -> String {
    format!("{}/{}", prefix.address, prefix.length)
}

fn prefixes(name: &'static str, prefixes: &[Prefix]) -> Key {
    let prefixes = prefixes.iter().map(|prefix| quoted(&prefix_text(*prefix)));
    Key::new(name, array(prefixes), "[]")
}

fn route(said: &Route) -> Section {
    let to = prefix_text(said.to);
    let keys = vec![
        Key::needed("to", quoted(&to)),
        Key::needed("via", quoted(&said.via.to_string())),
    ];
    Section::new(format!("route {to}"), "[[route]]", keys)
}

fn neighbour(said: &StaticNeighbour) -> Section {
    let address = said.address.to_string();
    let mac = mac_text(said.mac);
    let keys = vec![
        Key::needed("address", quoted(&address)),
        Key::needed("mac", quoted(&mac)),
    ];
    Section::new(format!("neighbour {address}"), "[[neighbour]]", keys)
}
