//! Generic netlink: who asks for the family IPVS is told of ours, who asks it something is answered.

use crate::ipvs::{self, Answer, Ask, Item};
use crate::netlink::{self, ACK, Attributes, DONE, DUMP, ERROR, HEADER, MULTI, Message, Writer};

/// The kernel's families have numbers up to 1023.
const FAMILY: u16 = 0x4956;
const FAMILY_NAME: &str = "IPVS";
const FAMILY_VERSION: u8 = 1;

/// The family of families.
const CONTROLLER: u16 = 16;
const CONTROLLER_VERSION: u8 = 2;
const NEW_FAMILY: u8 = 1;
const GET_FAMILY: u8 = 3;
/// Attributes of a family.
mod attr {
    pub(super) const ID: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const VERSION: u16 = 3;
    pub(super) const HEADER_SIZE: u16 = 4;
    pub(super) const ATTRIBUTE_MAX: u16 = 5;
    pub(super) const OPERATIONS: u16 = 6;
    pub(super) const OPERATION_ID: u16 = 1;
    pub(super) const OPERATION_FLAGS: u16 = 2;
}
/// Flags of an operation: for administrators, its attributes are checked.
const ADMIN_CHECKED: u32 = 0x1 | 0x8;
const HAS_DO: u32 = 0x2;
const HAS_DUMP: u32 = 0x4;

/// What the kernel puts into one datagram of a listing; every program has room for it.
const DATAGRAM_MAX: usize = 3776;

/// A message's command, and what is behind generic netlink's header.
fn opened<'a>(message: &Message<'a>) -> Option<(u8, Attributes<'a>)> {
    let (header, attributes) = message.payload.split_first_chunk::<4>()?;
    Some((header[0], Attributes(attributes)))
}

fn asks_for_family(message: &Message<'_>) -> bool {
    let names_it = |(command, attributes): (u8, Attributes<'_>)| {
        command == GET_FAMILY
            && (attributes.text(attr::NAME) == Some(FAMILY_NAME)
                || attributes.u16(attr::ID) == Some(FAMILY))
    };
    message.kind == CONTROLLER && opened(message).is_some_and(names_it)
}

/// Whether what begins so is worth a closer look.
pub(crate) fn may_be_ours(beginning: &[u8]) -> bool {
    netlink::kind(beginning).is_some_and(|kind| kind == FAMILY || kind == CONTROLLER)
}

/// Whether what is sent to generic netlink is for the director; its first message decides.
pub(crate) fn is_ours(datagram: &[u8]) -> bool {
    (netlink::messages(datagram).next())
        .is_some_and(|message| message.kind == FAMILY || asks_for_family(&message))
}

/// The datagrams that answer one, for who has the port id `port`.
pub(crate) fn answered(datagram: &[u8], port: u32, ask: &mut Ask<'_>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for message in netlink::messages(datagram) {
        let to = Addressee {
            message: &message,
            port,
        };
        match answer(&message, ask) {
            Ok(Answer::Done) => {}
            Ok(Answer::One(item)) => out.push(to.item(&item, 0)),
            Ok(Answer::Each(items)) => {
                out.extend(to.listing(&items));
                // Its end stands for the acknowledgement.
                continue;
            }
            Err(errno) => {
                out.push(to.outcome(errno, message.bytes));
                continue;
            }
        }
        if message.flags & ACK != 0 {
            out.push(to.outcome(0, message.bytes.get(..HEADER).unwrap_or_default()));
        }
    }
    out
}

fn answer(message: &Message<'_>, ask: &mut Ask<'_>) -> Result<Answer, i32> {
    if asks_for_family(message) {
        return Ok(Answer::One(family()));
    }
    if message.kind != FAMILY {
        return Err(libc::ENOENT);
    }
    let (command, attributes) = opened(message).ok_or(libc::EINVAL)?;
    ipvs::answer(command, message.flags & DUMP == DUMP, attributes, ask)
}

/// The family as the kernel's controller tells of it.
fn family() -> Item {
    let mut out = Writer::default();
    out.text(attr::NAME, FAMILY_NAME);
    out.u16(attr::ID, FAMILY);
    out.u32(attr::VERSION, FAMILY_VERSION.into());
    out.u32(attr::HEADER_SIZE, 0);
    out.u32(attr::ATTRIBUTE_MAX, ipvs::ATTRIBUTE_MAX.into());
    out.nested(attr::OPERATIONS, |list| {
        for (n, (command, does, dumps)) in (1..).zip(ipvs::operations()) {
            let flags = [(does, HAS_DO), (dumps, HAS_DUMP)];
            let flags = flags.map(|(set, flag)| if set { flag } else { 0 });
            list.nested(n, |operation| {
                operation.u32(attr::OPERATION_ID, command.into());
                operation.u32(attr::OPERATION_FLAGS, flags[0] | flags[1] | ADMIN_CHECKED);
            });
        }
    });
    Item {
        command: NEW_FAMILY,
        attributes: out.0,
    }
}

/// Who asked what.
struct Addressee<'a> {
    message: &'a Message<'a>,
    port: u32,
}

impl Addressee<'_> {
    fn message(&self, kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        netlink::message(kind, flags, self.message.seq, self.port, payload)
    }

    fn item(&self, item: &Item, flags: u16) -> Vec<u8> {
        let version = match self.message.kind {
            CONTROLLER => CONTROLLER_VERSION,
            _ => FAMILY_VERSION,
        };
        let mut payload = vec![item.command, version, 0, 0];
        payload.extend_from_slice(&item.attributes);
        self.message(self.message.kind, flags, &payload)
    }

    /// 0 is success; of what failed all is quoted.
    fn outcome(&self, errno: i32, quoted: &[u8]) -> Vec<u8> {
        let mut payload = (-errno).to_ne_bytes().to_vec();
        payload.extend_from_slice(quoted);
        self.message(ERROR, 0, &payload)
    }

    fn listing(&self, items: &[Item]) -> Vec<Vec<u8>> {
        let messages = items.iter().map(|item| self.item(item, MULTI));
        let end = self.message(DONE, MULTI, &0i32.to_ne_bytes());
        let mut out: Vec<Vec<u8>> = Vec::new();
        for message in messages.chain([end]) {
            match out.last_mut() {
                Some(last) if last.len() + message.len() <= DATAGRAM_MAX => last.extend(message),
                _ => out.push(message),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{Reply, Service, ServiceKey, ServiceOptions, ServiceSpec};

    /// As libnl asks.
    const ASKED: [u8; 32] = [
        32, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 9, 0, 0, 0, 3, 1, 0, 0, 9, 0, 2, 0, b'I', b'P', b'V',
        b'S', 0, 0, 0, 0,
    ];

    fn request(command: u8, flags: u16) -> Vec<u8> {
        netlink::message(FAMILY, flags, 7, 9, &[command, 1, 0, 0])
    }

    #[test]
    fn only_ours_is_taken() {
        assert!(is_ours(&ASKED));
        assert!(is_ours(&request(4, DUMP)));
        assert!(may_be_ours(&ASKED) && may_be_ours(&request(1, 0)));
        let mut other = ASKED;
        other[24] = b'X';
        assert!(!is_ours(&other));
        assert!(!is_ours(&ASKED[..31]));
        let route = netlink::message(18, 0, 7, 9, &ASKED[16..]);
        assert!(!is_ours(&route) && !may_be_ours(&route));
        assert!(!is_ours(b"\0\0\0\x2a{\"version\":3}"));
    }

    #[test]
    fn the_family_is_told_of_and_acknowledged() {
        let answers = answered(&ASKED, 9, &mut |request| panic!("{request:?}"));
        let [family, acknowledged] = &answers[..] else {
            panic!("{answers:?}")
        };
        let message = netlink::messages(family).next().unwrap();
        assert_eq!((message.kind, message.flags, message.seq), (16, 0, 7));
        assert_eq!(family[12..16], [9, 0, 0, 0]);
        let (command, attributes) = opened(&message).unwrap();
        assert_eq!(command, NEW_FAMILY);
        assert_eq!(attributes.text(attr::NAME), Some("IPVS"));
        assert_eq!(attributes.u16(attr::ID), Some(FAMILY));
        let operations = attributes.nested(attr::OPERATIONS).unwrap();
        assert_eq!(operations.count(), 16);
        let mut expected = vec![36, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        expected.extend(&ASKED[..16]);
        assert_eq!(*acknowledged, expected);
    }

    #[test]
    fn what_fails_is_quoted_whole() {
        let asked = request(17, ACK);
        let answers = answered(&asked, 9, &mut |_| Err(libc::ECONNREFUSED));
        let mut expected = vec![40, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0];
        expected.extend((-libc::ECONNREFUSED).to_ne_bytes());
        expected.extend(&asked);
        assert_eq!(answers, [expected]);
    }

    #[test]
    fn a_listing_is_divided_and_ended() {
        let service = |mark: u32| Service {
            key: ServiceKey::Mark {
                mark: mark.try_into().unwrap(),
                ipv6: false,
            },
            spec: ServiceSpec::new("rr"),
            totals: control::Totals::default(),
            rates: control::Rates::default(),
            servers: Vec::new(),
            options: ServiceOptions::default(),
            local_addresses: Vec::new(),
            health: None,
        };
        let services: Vec<Service> = (1..=100).map(service).collect();
        let answers = answered(&request(4, ACK | DUMP), 9, &mut |_| {
            Ok(Reply::Services(services.clone()))
        });
        assert!(answers.len() > 5);
        assert!(
            answers
                .iter()
                .all(|datagram| datagram.len() <= DATAGRAM_MAX)
        );
        let all = answers.concat();
        let kinds: Vec<u16> = netlink::messages(&all)
            .map(|message| message.kind)
            .collect();
        assert_eq!(kinds.len(), 101);
        assert!(kinds[..100].iter().all(|kind| *kind == FAMILY));
        assert_eq!(kinds[100], DONE);
        assert!(netlink::messages(&all).all(|message| message.flags == MULTI));
    }
}
