//! Ports come and go: refusals, numbers, counters.

use control::{Address, MarkRule, PortSpec, Prefix, Route, StaticNeighbour};

use super::*;
use crate::counters::{DropReason, Page};
use crate::net::{Interface, Setup};
use crate::packet::{PORTS_MAX, PortId};

fn spec(name: &str) -> PortSpec {
    PortSpec::new(name, format!("net_{name}"))
}

fn add(name: &str) -> Change {
    Change::AddPort(spec(name))
}

fn delete(name: &str) -> Change {
    let port = name.to_owned();
    Change::DeletePort { port }
}

fn has(port: &str, vlan: Option<u16>, prefix: &str) -> Change {
    Change::AddAddress(Address {
        port: port.to_owned(),
        vlan,
        prefix: prefix.parse().unwrap(),
    })
}

/// With a port `lan`.
fn model(pages: Vec<Arc<Page>>) -> Model {
    let setup = Setup {
        interfaces: vec![Interface {
            port: PortId(0),
            vlan: None,
            mac: [2; 6],
            mtu: 1500,
            partial_checksums: false,
            addresses: Vec::new(),
            kernel: None,
        }],
        ..Setup::default()
    };
    let model = Model::new(LIMITS).watching(pages);
    model.with_ports([spec("lan")]).networked(setup)
}

/// Applies `changes` where devices open, and returns the ids of ports that came and that went.
fn apply(model: &mut Model, changes: &[Change]) -> Result<(Vec<PortId>, Vec<PortId>), Refusal> {
    let mut opened = Vec::new();
    let applied = model.apply_with(changes, &mut |port: NewPort<'_>| {
        opened.push(port.id);
        Ok([2, 0, 0, 0, 9, port.id.0])
    })?;
    Ok((opened, applied.closed))
}

#[test]
fn what_cannot_be_is_refused() {
    let mut model = model(Vec::new());
    let rule = MarkRule {
        in_port: Some("dmz".to_owned()),
        ..MarkRule::new(7)
    };
    apply(
        &mut model,
        &[
            add("dmz"),
            has("dmz", None, "10.9.0.1/24"),
            Change::AddMark { rule, at: None },
        ],
    )
    .unwrap();
    let before = model.network();
    let changed = |change: fn(&mut PortSpec)| {
        let mut spec = spec("new");
        change(&mut spec);
        Change::AddPort(spec)
    };
    use Errno::{Eexist, Einval, Enoent};
    for (change, errno, words) in [
        (add("dmz"), Eexist, "there is a port dmz already"),
        (
            changed(|spec| spec.device = "net_lan,iface=x".to_owned()),
            Eexist,
            "device net_lan is port lan already",
        ),
        (
            changed(|spec| spec.name = "a b".to_owned()),
            Einval,
            "letters, digits, - _ . are right",
        ),
        (
            changed(|spec| spec.device = "eth0".to_owned()),
            Einval,
            "a virtual device like \"net_af_packet0,iface=veth0\"",
        ),
        (
            changed(|spec| spec.mtu = 67),
            Einval,
            "mtu = 67 is out of range, 68 to 9200 is right",
        ),
        (
            changed(|spec| spec.rx_descriptors = 63),
            Einval,
            "rx_descriptors = 63 is out of range, 64 to 8192 is right",
        ),
        (
            changed(|spec| spec.tx_descriptors = 100),
            Einval,
            "tx_descriptors = 100 is not a power of two, 128 is right",
        ),
        (
            delete("wan"),
            Enoent,
            "no port \"wan\" for deletion, there is lan, dmz",
        ),
        (
            delete("dmz"),
            Einval,
            "mark rule 1 is for packets from port dmz, delete that first",
        ),
    ] {
        let refusal = apply(&mut model, std::slice::from_ref(&change)).unwrap_err();
        assert_eq!(refusal.errno, errno, "{refusal}");
        assert!(refusal.detail.contains(words), "{refusal}");
        assert_eq!(model.network(), before);
    }
}

/// What is reached through a port goes before it.
#[test]
fn a_port_that_is_needed_stays() {
    let mut model = model(Vec::new());
    let route = Route {
        to: "10.8.0.0/16".parse().unwrap(),
        via: "10.9.0.2".parse().unwrap(),
    };
    let neighbour = StaticNeighbour {
        address: "10.7.0.3".parse().unwrap(),
        mac: "02:00:00:00:00:07".parse().unwrap(),
    };
    let all = [
        add("dmz"),
        has("dmz", None, "10.9.0.1/24"),
        has("dmz", Some(7), "10.7.0.1/24"),
        Change::AddRoute(route.clone()),
        Change::AddNeighbour(neighbour),
    ];
    apply(&mut model, &all).unwrap();
    let before = model.network();
    let to: Prefix = route.to;
    for (first, words) in [
        (
            None,
            "gateway 10.9.0.2 of the route to 10.8.0.0/16 is reached by port dmz",
        ),
        (
            Some(Change::DeleteRoute { to }),
            "static neighbour 10.7.0.3 is reached by port dmz",
        ),
    ] {
        let changes: Vec<_> = first.into_iter().chain([delete("dmz")]).collect();
        let refusal = apply(&mut model, &changes).unwrap_err();
        assert!(refusal.detail.contains(words), "{refusal}");
        assert_eq!(model.network(), before);
    }
    let address = neighbour.address;
    let rest = [
        Change::DeleteRoute { to },
        Change::DeleteNeighbour { address },
        delete("dmz"),
    ];
    assert_eq!(apply(&mut model, &rest).unwrap().1, [PortId(1)]);
    let network = model.network();
    assert_eq!(network.ports, [spec("lan")]);
    assert_eq!(network.addresses, []);
    assert!(
        apply(&mut model, &[delete("lan")])
            .unwrap_err()
            .detail
            .contains("the only one")
    );
}

/// Nothing of a batch is left when a device does not open; the devices are opened last.
#[test]
fn a_device_that_does_not_open_takes_all_back() {
    let mut model = model(Vec::new());
    let before = model.network();
    let changes = [add("a"), has("a", None, "10.9.0.1/24"), add("b")];
    let mut asked = Vec::new();
    let refusal = model.apply_with(&changes, &mut |port: NewPort<'_>| {
        asked.push(port.id);
        match port.spec.name.as_str() {
            "a" => Ok([2; 6]),
            _ => Err(refuse(Errno::Einval, "no")),
        }
    });
    assert_eq!(refusal.unwrap_err().detail, "no");
    assert_eq!(asked, [PortId(1), PortId(2)]);
    assert_eq!(model.network(), before);
    let wrong = [add("a"), has("a", None, "10.9.0.1/24"), add("a")];
    let mut opens = |_: NewPort<'_>| panic!("all else comes first");
    let refusal = model.apply_with(&wrong, &mut opens).unwrap_err();
    assert_eq!(refusal.step, Some(2));
    // What comes and goes in one batch is never opened.
    let (opened, closed) = apply(&mut model, &[add("a"), delete("a")]).unwrap();
    assert_eq!((opened, closed), (vec![], vec![]));
}

/// Workers learn the Ethernet address that the device says, of VLANs too.
#[test]
fn the_devices_address_is_told() {
    let mut model = model(Vec::new());
    let changes = [add("a"), has("a", Some(7), "10.9.0.1/24")];
    let applied = model.apply_with(&changes, &mut |_: NewPort<'_>| Ok([2, 0, 0, 0, 0, 0x55]));
    let updates = applied.unwrap().updates;
    let [Update::SetNetwork(network)] = &updates[..] else {
        panic!("{updates:?}");
    };
    let macs = network.interfaces().iter().map(|on| (on.port, on.mac));
    let own: Vec<_> = macs.filter(|(port, _)| *port == PortId(1)).collect();
    assert_eq!(own, [(PortId(1), [2, 0, 0, 0, 0, 0x55]); 2]);
}

#[test]
fn numbers_come_back_with_their_names_and_go_to_others_last() {
    let mut model = model(Vec::new());
    let opened = |model: &mut Model, changes: &[Change]| apply(model, changes).unwrap().0;
    assert_eq!(
        opened(&mut model, &[add("a"), add("b")]),
        [PortId(1), PortId(2)]
    );
    // Closed after the batch: neither name nor device nor number are free before.
    for again in [add("a"), Change::AddPort(PortSpec::new("c", "net_a,x=1"))] {
        let refusal = apply(&mut model, &[delete("a"), again]).unwrap_err();
        assert!(refusal.detail.contains("only being deleted"), "{refusal}");
    }
    opened(&mut model, &[delete("a")]);
    assert_eq!(opened(&mut model, &[add("c")]), [PortId(3)]);
    assert_eq!(opened(&mut model, &[add("a")]), [PortId(1)]);
    assert_eq!(model.ports().names(), ["lan", "a", "b", "c"]);
    opened(&mut model, &[delete("b"), delete("a")]);
    assert_eq!(
        (model.ports().name(PortId(2)), model.ports().find("b")),
        ("b".to_owned(), None)
    );
    let many: Vec<_> = (4..PORTS_MAX).map(|n| add(&format!("p{n}"))).collect();
    opened(&mut model, &many);
    assert_eq!(
        opened(&mut model, &[add("x")]),
        [PortId(2)],
        "it went first"
    );
    assert_eq!(opened(&mut model, &[add("y")]), [PortId(1)]);
    let refusal = apply(&mut model, &[add("z")]).unwrap_err();
    assert!(refusal.detail.contains("32 ports already"), "{refusal}");
}

/// One of a new name begins with nothing, one that comes back goes on.
#[test]
fn counters_are_a_names() {
    let pages = vec![
        Arc::new(Page::new(4, 4).unwrap()),
        Arc::new(Page::new(4, 4).unwrap()),
    ];
    let mut model = model(pages.clone());
    let counted = |model: &Model, id: PortId| {
        let before = model.ports().before(id);
        let all = pages.iter().map(|page| page.port(id)).chain([&*before]);
        let all: Vec<_> = all.collect();
        (
            stats::sum(&all, |page| page.rx.get()),
            stats::sum(&all, |page| page.dropped()),
        )
    };
    let id = PortId(1);
    apply(&mut model, &[add("a")]).unwrap();
    pages[0].port(id).rx.add(5);
    pages[1].port(id).rx.add(6);
    pages[1].count_drop(id, DropReason::NotOurs);
    assert_eq!(counted(&model, id), (11, 1));
    apply(&mut model, &[delete("a")]).unwrap();
    apply(&mut model, &[add("a")]).unwrap();
    assert_eq!(counted(&model, id), (11, 1));
    let many: Vec<_> = (2..PORTS_MAX).map(|n| add(&format!("p{n}"))).collect();
    apply(&mut model, &many).unwrap();
    apply(&mut model, &[delete("a")]).unwrap();
    assert_eq!(apply(&mut model, &[add("x")]).unwrap().0, [id]);
    assert_eq!(counted(&model, id), (0, 0));
    pages[0].port(id).rx.add(1);
    assert_eq!(counted(&model, id), (1, 0));
}

#[test]
fn the_audit_log_says_what_was_there() {
    let mut model = model(Vec::new());
    apply(&mut model, &[add("a"), has("a", None, "10.9.0.1/24")]).unwrap();
    assert_eq!(
        model.was(&delete("a")).unwrap(),
        "a: device \"net_a\", with 1 addresses"
    );
    assert_eq!(model.was(&add("b")), None);
}
