//! `conhash` by QUIC's connection ids.

use control::{HashTarget, ServiceOptions};

use super::*;
use crate::sched::{Kind, Member, Recipe, Table};
use crate::update::{Policy, ServiceId};

fn service(hash_target: HashTarget) -> Testbed {
    let mut t = Testbed::nat(Udp, VIP, &[RS, RS2]);
    let (id, policy) = (ServiceId(0), Policy::of(Kind::Conhash));
    t.apply(Update::EditService { id, policy });
    let options = ServiceOptions {
        hash_target,
        ..ServiceOptions::default()
    };
    t.apply(Update::SetOptions { id, options });
    let members = (0..).zip([RS, RS2]).map(|(id, address)| Member {
        id: ServerId(id),
        address: address.parse().unwrap(),
        weight: 1,
    });
    let table = Table::build(Recipe {
        kind: Kind::Conhash,
        ipv6: false,
        mh_slots: control::MH_TABLE_SIZE,
        members: members.collect(),
    });
    let table = Arc::new(table.unwrap());
    t.apply(Update::SetTable { id, table });
    t
}

/// A client's first packet.
fn initial(from: &str, id: [u8; 8]) -> Frame {
    udp(
        from,
        VIP,
        &[&[0xc3, 0, 0, 0, 1, 8], &id[..], &[0; 40]].concat(),
    )
}

/// One later on.
fn short(from: &str, id: [u8; 8]) -> Frame {
    udp(from, VIP, &[&[0x41], &id[..], &[9; 30]].concat())
}

/// Who gets a packet.
fn server(t: &mut Testbed, ms: u32, frame: Frame) -> Vec<u8> {
    let sent = t.pass(ms, &frame);
    assert_eq!(sent.len(), 1);
    let destination = sent[0][30..34].to_vec();
    t.settle();
    destination
}

#[test]
fn a_client_that_changes_its_port_keeps_its_server() {
    let mut t = service(HashTarget::Qid);
    let mut counts = [0; 2];
    for n in 0..40u8 {
        let id = [n, 2, 3, 4, 5, 6, 7, 8];
        let port = u32::from(n) * 3;
        let from = |more: u32| format!("192.0.2.10:{}", 1000 + port + more);
        let first = server(&mut t, 1, initial(&from(0), id));
        assert_eq!(server(&mut t, 2, short(&from(0), id)), first);
        assert_eq!(server(&mut t, 3, short(&from(1), id)), first);
        assert_eq!(server(&mut t, 4, short(&from(2), id)), first);
        counts[usize::from(first == [10, 1, 0, 2])] += 1;
    }
    assert!(counts.iter().all(|n| *n > 5), "{counts:?}");
}

#[test]
fn without_an_id_the_address_counts() {
    for (target, data) in [
        (HashTarget::Sip, &[0x41, 1, 2, 3, 4, 5, 6, 7, 8, 9][..]),
        (HashTarget::Qid, b"short"),
        (HashTarget::Qid, b""),
    ] {
        let mut t = service(target);
        let mut ask = |port: u32| {
            let from = format!("192.0.2.10:{}", 1000 + port);
            let mut data = data.to_vec();
            if let Some(byte) = data.get_mut(1) {
                *byte = u8::try_from(port).unwrap();
            }
            server(&mut t, port, udp(&from, VIP, &data))
        };
        let first = ask(1);
        assert!((2..40).all(|port| ask(port) == first), "{target:?}");
    }
}
