//! What LVS takes of a service although nobody can mean it. ipvsadm's words get it as with LVS; the
//! director's own words refuse it.

use crate::{Protocol, ServiceKey, ServiceSpec, Word};

impl ServiceSpec {
    /// Why this does nothing, or nothing but harm, and what would be right.
    pub fn pointless(&self, key: &ServiceKey) -> Option<String> {
        let engine = self.engine?.word();
        if self.persistence.is_none() {
            return Some(format!(
                "service {key} has engine {engine} but no persistence, which it goes with"
            ));
        }
        // Only a service by mark may have UDP among others.
        let protocol = key
            .protocol()
            .filter(|protocol| *protocol != Protocol::Udp)?;
        Some(format!(
            "service {key} has engine {engine}, which reads SIP over UDP only: udp or a mark is right, not {}",
            protocol.name()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Netmask, Persistence};

    #[test]
    fn an_engine_goes_with_persistence_and_udp() {
        let key = |protocol| ServiceKey::at(protocol, "10.0.0.1:5060".parse().unwrap());
        let mut spec = ServiceSpec::new("rr");
        assert_eq!(spec.pointless(&key(Protocol::Tcp)), None);
        spec.engine = Some(Engine::Sip);
        assert_eq!(
            spec.pointless(&key(Protocol::Udp)).unwrap(),
            "service udp 10.0.0.1:5060 has engine sip but no persistence, which it goes with"
        );
        spec.persistence = Some(Persistence {
            timeout_s: 60,
            netmask: Netmask::whole(false),
        });
        assert_eq!(spec.pointless(&key(Protocol::Udp)), None);
        assert_eq!(
            spec.pointless(&key(Protocol::Sctp)).unwrap(),
            "service sctp 10.0.0.1:5060 has engine sip, which reads SIP over UDP only: udp or a mark is \
             right, not sctp"
        );
    }
}
