//! Rules that mark packets: their order, what they cannot be, and who is told.

use control::{MarkRule, Ports, Prefix, WhichMark};

use super::*;
use crate::marks::MARK_RULES_MAX;
use crate::packet::PortId;

fn rule(mark: u32, destination: &str) -> MarkRule {
    MarkRule {
        destination: Some(destination.parse().unwrap()),
        ..MarkRule::new(mark)
    }
}

fn add(rule: &MarkRule, at: Option<usize>) -> Change {
    let rule = rule.clone();
    Change::AddMark { rule, at }
}

fn delete(number: usize) -> Change {
    Change::DeleteMark(WhichMark::Number(number))
}

fn model() -> Model {
    Model::new(LIMITS).with_ports([
        PortSpec::new("wan", "net_null0"),
        PortSpec::new("lan", "net_null1"),
    ])
}

#[test]
fn rules_have_an_order() {
    let mut model = model();
    let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.0/24"].map(|to| rule(7, to));
    let batch = [add(&a, None), add(&c, None), add(&b, Some(2))];
    let updates = model.apply(&batch).unwrap();
    assert_eq!(model.marks(), [a.clone(), b.clone(), c.clone()]);
    // However many changed, the workers are told once.
    let [Update::SetMarks(marks)] = &updates[..] else {
        panic!("{updates:?}")
    };
    assert_eq!(marks.rules().len(), 3);
    model.apply(&[delete(1), add(&a, Some(3))]).unwrap();
    assert_eq!(model.marks(), [b.clone(), c.clone(), a.clone()]);
    let by_content = Change::DeleteMark(WhichMark::Rule(c));
    model
        .apply(&[by_content, add(&rule(0, "192.0.2.3"), Some(1))])
        .unwrap();
    assert_eq!(model.marks(), [rule(0, "192.0.2.3"), b, a]);
}

#[test]
fn a_refused_batch_leaves_the_rules() {
    let mut model = model();
    let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|to| rule(7, to));
    model.apply(&[add(&a, None), add(&b, None)]).unwrap();
    let batch = [delete(1), add(&rule(8, "192.0.2.3"), Some(1)), delete(9)];
    assert_eq!(model.apply(&batch).unwrap_err().step, Some(2));
    assert_eq!(model.marks(), [a, b]);
    assert!(model.uses_are_counted());
}

#[test]
fn ports_are_known_by_name() {
    let mut model = model();
    let at_lan = MarkRule {
        in_port: Some("lan".to_owned()),
        ..MarkRule::new(7)
    };
    let updates = model.apply(&[add(&at_lan, None)]).unwrap();
    let [Update::SetMarks(marks)] = &updates[..] else {
        panic!("{updates:?}")
    };
    assert_eq!(marks.rules()[0].from, Some(PortId(1)));
}

#[test]
fn rules_that_cannot_be() {
    let mut model = model();
    let there = rule(7, "192.0.2.1");
    let local = "192.0.2.200".parse().unwrap();
    let (service, address) = (key(1), local);
    let has_local = Change::AddLocalAddress { service, address };
    model
        .apply(&[add(&there, None), add_service(1), has_local])
        .unwrap();
    let two_families = MarkRule {
        source: Some("2001:db8::/32".parse().unwrap()),
        ..there.clone()
    };
    let at_port = |name: &str| MarkRule {
        in_port: Some(name.to_owned()),
        ..MarkRule::new(7)
    };
    let tagged = |vlan| MarkRule {
        vlan: Some(vlan),
        ..MarkRule::new(7)
    };
    let taken = Change::AddLocalAddress {
        service: key(1),
        address: "192.0.2.1".parse().unwrap(),
    };
    let absent = Change::DeleteMark(WhichMark::Rule(rule(8, "192.0.2.1")));
    for (change, errno, detail) in [
        (
            add(&there, None),
            Errno::Eexist,
            "mark rule 1 says the same: mark 7: to 192.0.2.1",
        ),
        (
            add(&MarkRule::new(1), Some(0)),
            Errno::Erange,
            "a mark rule cannot be number 0 of 1, 1 to 2 is right",
        ),
        (
            add(&MarkRule::new(1), Some(3)),
            Errno::Erange,
            "a mark rule cannot be number 3 of 1, 1 to 2 is right",
        ),
        (
            add(&two_families, None),
            Errno::Einval,
            "source and destination of a mark rule are of two families, one is right",
        ),
        (
            add(&at_port("dmz"), None),
            Errno::Enoent,
            "no port \"dmz\" for a mark rule, there is wan, lan",
        ),
        (
            add(&tagged(0), None),
            Errno::Einval,
            "VLAN 0 cannot be, 1 to 4094 is right",
        ),
        (
            add(&tagged(4095), None),
            Errno::Einval,
            "VLAN 4095 cannot be, 1 to 4094 is right",
        ),
        (
            add(&rule(7, "192.0.2.200"), None),
            Errno::Einval,
            "192.0.2.200 is a local address, a mark rule needs another one",
        ),
        (
            taken,
            Errno::Einval,
            "192.0.2.1 is a mark rule's destination, a local address needs another one",
        ),
        (delete(0), Errno::Enoent, "no mark rule 0, there are 1 to 1"),
        (delete(2), Errno::Enoent, "no mark rule 2, there are 1 to 1"),
        (
            absent,
            Errno::Enoent,
            "no such mark rule: mark 8: to 192.0.2.1, there are 1 to 1",
        ),
    ] {
        let refusal = model.apply(std::slice::from_ref(&change)).unwrap_err();
        assert_eq!(
            (refusal.errno, refusal.detail.as_str()),
            (errno, detail),
            "{change:?}"
        );
    }
    let refusal = Model::new(LIMITS)
        .apply(&[add(&at_port("lan"), None)])
        .unwrap_err();
    assert_eq!(
        refusal.detail,
        "no port \"lan\" for a mark rule, there is none"
    );
    model.apply(&[delete(1)]).unwrap();
    assert_eq!(
        model.apply(&[delete(1)]).unwrap_err().detail,
        "no mark rule 1, there is none"
    );
}

#[test]
fn too_many_rules() {
    let mut model = model();
    let numbered = |n: usize| MarkRule {
        ports: Some(Ports::one(u16::try_from(n).unwrap())),
        destination: Some(Prefix::whole([192, 0, 2, 1].into())),
        ..MarkRule::new(7)
    };
    let all: Vec<_> = (0..MARK_RULES_MAX)
        .map(|n| add(&numbered(n), None))
        .collect();
    model.apply(&all).unwrap();
    let refusal = model.apply(&[add(&MarkRule::new(1), None)]).unwrap_err();
    assert_eq!(refusal.errno, Errno::Enomem);
    assert_eq!(
        refusal.detail,
        "there are 4096 mark rules already, no more is right"
    );
}
