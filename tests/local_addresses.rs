//! FULLNAT's local addresses: their use as it is listed follows the connections.

use control::{Change, ForwardMode, LocalAddress, Protocol, ServerSpec, ServiceSpec, Tunnel};
use system_tests::frames;
use system_tests::lab::{Lab, service};

const LOCAL: &str = "192.168.1.253";
const SERVER: &str = "192.168.1.1:8080";

#[test]
fn use_is_listed_for_every_service_that_shares_the_address() {
    let (web, other) = (
        service(Protocol::Tcp, "203.0.113.1:80"),
        service(Protocol::Tcp, "203.0.113.2:80"),
    );
    let add = |service| Change::AddService {
        service,
        spec: ServiceSpec::new("rr"),
    };
    let address = LOCAL.parse().expect("an address");
    let local = |service| Change::AddLocalAddress { service, address };
    let server = Change::AddServer {
        service: web,
        server: SERVER.parse().expect("an address and port"),
        spec: ServerSpec {
            mode: ForwardMode::FullNat,
            weight: 1,
            tunnel: Tunnel::default(),
            thresholds: control::Thresholds::default(),
        },
    };
    let mut lab = Lab::default();
    lab.change(&[add(web), add(other), local(web), local(other), server]);
    let in_use = |in_use| {
        vec![LocalAddress {
            address,
            in_use,
            exhausted: 0,
        }]
    };
    assert_eq!(lab.local_addresses(&other), in_use(0));
    for client in ["198.51.100.1:4000", "198.51.100.2:4000"] {
        let sent = lab.send(&frames::tcp(client, "203.0.113.1:80", "S"));
        assert_eq!(sent.len(), 1, "{client} is served");
        assert_eq!(sent[0][12..16], [192, 168, 1, 253], "by the local address");
    }
    assert_eq!(lab.local_addresses(&web), in_use(2));
    assert_eq!(lab.local_addresses(&other), in_use(2), "the same ports");
    // Connections outlive the address, and it finds them again.
    let gone = |service| Change::DeleteLocalAddress { service, address };
    lab.change(&[gone(web), gone(other)]);
    assert_eq!(lab.local_addresses(&web), []);
    let syn = frames::tcp("198.51.100.3:4000", "203.0.113.1:80", "S");
    assert!(lab.send(&syn).is_empty(), "no local address, no connection");
    lab.change(&[local(web)]);
    assert_eq!(lab.local_addresses(&web), in_use(2));
    assert_eq!(lab.send(&syn).len(), 1);
    assert_eq!(lab.local_addresses(&web), in_use(3));
}
