//! How long it takes to make, tell and list ten thousand of something: printed, not judged.

use std::fmt::Write;
use std::time::Instant;

use control::{Change, MESSAGE_MAX, Reply, Request, ServerSpec, receive, send};

use super::*;
use crate::config::Config;
use crate::conn::Hash;
use crate::director::Director;
use crate::net::Setup;
use crate::packet::{Egress, HeapBuf, Learned, Origin, PortId};
use crate::steer::Steer;
use crate::update::Update;
use crate::watch::Watch;

/// For what a director announces.
struct Nowhere(Watch);

impl Egress for Nowhere {
    type Buf = HeapBuf;

    fn send(&mut self, _to: PortId, _packet: HeapBuf, _origin: Origin) {}

    fn make(&mut self, len: usize) -> Option<HeapBuf> {
        Some(HeapBuf::new(&vec![0; len]))
    }

    fn share(&mut self, _learned: Learned) {}

    fn steer(&mut self, _: usize, _: PortId, _: Option<Hash>, _: HeapBuf) {}

    fn watch(&mut self) -> &mut Watch {
        &mut self.0
    }
}

/// The time since the last call, printed.
struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a measurement")]
    fn lap(&mut self, what: &str) {
        println!("{:9.1} ms  {what}", self.0.elapsed().as_secs_f64() * 1e3);
        self.0 = Instant::now();
    }

    #[expect(clippy::disallowed_methods, reason = "a measurement")]
    fn start() -> Self {
        Self(Instant::now())
    }
}

fn file(services: u32, servers: u32, scheduler: &str) -> String {
    let mut text = String::from(
        "[director]\nmax_services = 20000\nmax_servers = 300000\n[[port]]\nname = \"lan\"\n\
         device = \"net_null0\"\naddresses = [\"10.0.0.254/24\"]\n",
    );
    let ip = |base: u32, n: u32| std::net::Ipv4Addr::from_bits(base + n);
    for service in 0..services {
        let vip = ip(0xcb00_0000, service);
        writeln!(
            text,
            "[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\nscheduler = {scheduler:?}"
        )
        .unwrap();
        for server in 0..servers {
            let rip = ip(0x0b00_0000, service * servers + server);
            writeln!(text, "[[service.server]]\naddress = \"{rip}:80\"").unwrap();
        }
    }
    text
}

/// As a worker applies a batch, a part between two bursts.
fn apply(director: &mut Director<HeapBuf>, updates: &[Update], watch: &mut Stopwatch) {
    let mut nowhere = Nowhere(Watch::new(Arc::clone(director.page())));
    let (mut rest, mut parts, mut longest) = (updates, 0, 0.0f64);
    while !rest.is_empty() {
        let part = Stopwatch::start();
        let applied = director.apply_part(rest, &mut nowhere);
        longest = longest.max(part.0.elapsed().as_secs_f64() * 1e6);
        rest = &rest[applied..];
        parts += 1;
    }
    watch.lap(&format!(
        "updates applied in {parts} parts, the longest of {longest:.0} us"
    ));
}

/// Everything on the way of a file, or of a request with as much in it, but for the socket.
fn load(services: u32, servers: u32, scheduler: &str) {
    println!("{services} services by {scheduler} with {servers} servers each");
    let text = file(services, servers, scheduler);
    let mut watch = Stopwatch::start();
    let config = Config::parse(&text, "f").unwrap();
    watch.lap("file read and checked");

    let request = Request::Change(config.changes);
    let mut message = Vec::new();
    send(&mut message, &request).unwrap();
    let length = message.len();
    watch.lap(&format!("request of {length} bytes written"));
    let request: Request = receive(&mut message.as_slice()).unwrap();
    watch.lap("request read");

    let Request::Change(changes) = request else {
        unreachable!()
    };
    let page = Arc::new(Page::new(20_000, 300_000).unwrap());
    let mut model = Model::new(config.director.limits()).watching(vec![Arc::clone(&page)]);
    let updates = model.apply(&changes).unwrap();
    watch.lap(&format!("{} updates made", updates.len()));

    let steer = Steer::new(0, 1);
    let mut director =
        Director::<HeapBuf>::new(1024, [1, 2], Setup::default(), steer, page).unwrap();
    watch.lap("a director made");
    apply(&mut director, &updates, &mut watch);

    let listed = Reply::Services(model.services(None).unwrap());
    watch.lap("all of them listed");
    let mut message = Vec::new();
    send(&mut message, &listed).unwrap();
    let length = message.len();
    watch.lap(&format!("listing of {length} bytes written"));
    assert!(length < MESSAGE_MAX / 4 * 3, "counters need room too");
    let Reply::Services(listed) = receive(&mut message.as_slice()).unwrap() else {
        unreachable!()
    };
    watch.lap("listing read");
    let listed: usize = listed.iter().map(|service| service.servers.len()).sum();
    assert_eq!(listed, (services * servers) as usize);

    let weigh = |change: &Change| match *change {
        Change::AddServer {
            service,
            server,
            spec,
        } => Some(Change::EditServer {
            service,
            server,
            spec: ServerSpec { weight: 2, ..spec },
        }),
        _ => None,
    };
    let edits: Vec<Change> = changes.iter().filter_map(weigh).collect();
    let updates = model.apply(&edits).unwrap();
    watch.lap(&format!(
        "{} updates made to edit every server",
        updates.len()
    ));
    apply(&mut director, &updates, &mut watch);
    model.apply(&[Change::Flush]).unwrap();
    watch.lap("all of them deleted");
}

#[test]
fn ten_thousand_services() {
    load(10_000, 10, "wrr");
}

#[test]
fn ten_thousand_services_with_tables() {
    load(10_000, 10, "mh");
}

#[test]
fn one_service_of_ten_thousand_servers() {
    load(1, 10_000, "wrr");
    load(1, 10_000, "conhash");
}

/// So many routes in one batch, to a worker that knows as many neighbours as it can.
#[test]
fn ten_thousand_routes() {
    const ROUTES: u32 = 10_000;
    let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.0.0.254/8\"]\n";
    let config = Config::parse(text, "f").unwrap();
    let setup = config.setup(|_| [2, 0, 0, 0, 0, 1]);
    let page = Arc::new(Page::new(1, 1).unwrap());
    let mut model = Model::new(config.director.limits())
        .with_ports(config.port_specs())
        .networked(setup.clone());
    let steer = Steer::new(0, 1);
    let mut director = Director::<HeapBuf>::new(1024, [1, 2], setup, steer, page).unwrap();
    director.meet_everybody();

    let ip = |base: u32, n: u32| std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(base + n));
    let to = |n| control::Prefix::around(ip(0xc000_0000, n << 8), 24).unwrap();
    let route = |n| {
        let via = ip(0x0a00_0001, n % 16);
        Change::AddRoute(control::Route {
            to: to(n),
            via: via.into(),
        })
    };
    let mut watch = Stopwatch::start();
    let request = Request::Change((0..ROUTES).map(route).collect());
    let mut message = Vec::new();
    send(&mut message, &request).unwrap();
    let Request::Change(changes) = receive(&mut message.as_slice()).unwrap() else {
        unreachable!()
    };
    watch.lap(&format!(
        "request of {} bytes written and read",
        message.len()
    ));
    let updates = model.apply(&changes).unwrap();
    watch.lap(&format!("{ROUTES} routes added"));
    apply(&mut director, &updates, &mut watch);
    let far = ip(0xc000_0009, (ROUTES - 1) << 8);
    let hop = director.net().way(far).map(|(_, station)| station);
    assert_eq!(hop, Some(ip(0x0a00_0001, (ROUTES - 1) % 16)));

    watch.lap("looked up");
    let via = ip(0x0a00_0002, 0);
    let one = [Change::ReplaceRoute(control::Route {
        to: to(7),
        via: via.into(),
    })];
    let updates = model.apply(&one).unwrap();
    watch.lap("one of them replaced");
    apply(&mut director, &updates, &mut watch);
    let more = [Change::AddAddress(control::Address {
        port: "lan".to_owned(),
        vlan: None,
        prefix: "172.16.0.1/12".parse().unwrap(),
    })];
    let updates = model.apply(&more).unwrap();
    watch.lap("an address added");
    apply(&mut director, &updates, &mut watch);
    let gone: Vec<_> = (0..ROUTES)
        .map(|n| Change::DeleteRoute { to: to(n) })
        .collect();
    let updates = model.apply(&gone).unwrap();
    watch.lap("all of them deleted");
    apply(&mut director, &updates, &mut watch);
    assert!(director.net().way(far).is_none());
    model.release();
    watch.lap("what was before freed");
}
