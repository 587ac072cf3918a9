//! Messages of LVS's connection synchronisation, versions 0 and 1 (`ip_vs_sync.c`).
//!
//! ```text
//! version 1   0, sync id, size (2), entries, 1, 0 (2)            big-endian, 8 bytes
//!   entry     kind, protocol, size (2, top 4 bits 0), flags (4), state (2), client, virtual and server
//!             port (2 each), mark (4), timeout in seconds (4), client, virtual and server address;
//!             options: type, length, data; entries begin at multiples of 4
//!   of ours   no entries, and after the header a word of 4 bytes: see [`Word`]
//! version 0   entries, sync id, size (2)                         IPv4 alone
//!   entry     0, protocol, three ports, three addresses, flags (2), state (2); sequence numbers
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A connection's flags on the wire (`IP_VS_CONN_F_*`).
pub mod flags {
    /// The forwarding method.
    pub const METHOD: u32 = 0x0007;
    pub const NAT: u32 = 0;
    pub const TUNNEL: u32 = 2;
    pub const DIRECT: u32 = 3;
    /// Came by synchronisation.
    pub const SYNC: u32 = 0x0020;
    pub const HASHED: u32 = 0x0040;
    pub const NO_OUTPUT: u32 = 0x0080;
    pub const INACTIVE: u32 = 0x0100;
    /// Sequence numbers change on their way.
    pub const SEQUENCE: u32 = 0x0600;
    /// Those of what the server sends.
    pub const SEQUENCE_OUT: u32 = 0x0200;
    pub const NO_CLIENT_PORT: u32 = 0x0800;
    pub const TEMPLATE: u32 = 0x1000;
    pub const ONE_PACKET: u32 = 0x2000;
    /// What a backup takes over.
    pub const KEPT: u32 = METHOD | NO_OUTPUT | INACTIVE | SEQUENCE | NO_CLIENT_PORT | TEMPLATE;
}

/// Entries in one message: its count is a byte.
const ENTRIES_MAX: u8 = 255;
const HEADER: usize = 8;
const HEADER_V0: usize = 4;
/// A message that says a word.
const SPOKEN: usize = 12;
/// An IPv4 entry up to its addresses, and after them.
const PORTS_END: usize = 24;
const FIXED_V4: usize = PORTS_END + 3 * 4;
const SEQUENCES: usize = 24;

/// The one persistence engine that there is.
const ENGINE: &str = "sip";

/// What an option is about.
mod option {
    pub(super) const SEQUENCE: u8 = 1;
    pub(super) const ENGINE_DATA: u8 = 2;
    pub(super) const ENGINE_NAME: u8 = 3;
    /// Ours: the local address and port of a FULLNAT connection.
    pub(super) const LOCAL: u8 = 0x0a;
    /// Who does not know it passes over it.
    pub(super) const MAY_BE_IGNORED: u8 = 0x40;

    pub(super) const ENGINE_NAME_MAX: usize = 16;
}

/// How one direction's TCP sequence numbers change (`struct ip_vs_seq`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequence {
    /// From this number on by `delta`, before it by `previous_delta`.
    pub from: u32,
    pub delta: u32,
    pub previous_delta: u32,
}

/// One connection or template. All three addresses are of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// IP protocol; 0 in templates of services by mark.
    pub protocol: u8,
    /// See [`flags`].
    pub flags: u32,
    pub state: u16,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub server: SocketAddr,
    pub mark: u32,
    /// The timeout itself, not what is left of it; 0 where unknown.
    pub timeout_s: u32,
    /// Of what the client sends and of what the server sends; there if the flags say so.
    pub sequences: Option<[Sequence; 2]>,
    /// What the persistence engine, SIP's, knows the client by.
    pub engine_data: Option<Vec<u8>>,
    /// FULLNAT's local address and port.
    pub local: Option<SocketAddr>,
}

impl Entry {
    pub fn is_template(&self) -> bool {
        self.flags & flags::TEMPLATE != 0
    }

    fn is_v6(&self) -> bool {
        self.client.is_ipv6()
    }
}

/// What directors of ours say to each other beside connections, in a message without entries: others,
/// the kernel too, find nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A backup that has just begun asks for all connections.
    Want,
    /// A master has told all connections since it was asked.
    Done,
}

impl Word {
    /// The message that says it.
    pub fn message(self, sync_id: u8) -> [u8; SPOKEN] {
        let [a, b, c, d] = self.bytes();
        [0, sync_id, 0, 12, 0, 1, 0, 0, a, b, c, d]
    }

    const fn bytes(self) -> [u8; 4] {
        match self {
            Self::Want => *b"WANT",
            Self::Done => *b"DONE",
        }
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let all = [Self::Want, Self::Done];
        all.into_iter().find(|word| word.bytes() == bytes)
    }
}

/// The version that messages are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V0,
    V1,
}

/// Gathers entries into messages.
#[derive(Debug)]
pub struct Writer {
    version: Version,
    sync_id: u8,
    len_max: usize,
    message: Vec<u8>,
    entries: u8,
}

impl Writer {
    /// For messages of at most `len_max` bytes; an entry longer than that goes by itself.
    pub fn new(version: Version, sync_id: u8, len_max: u16) -> Self {
        Self {
            version,
            sync_id,
            len_max: len_max.into(),
            message: Vec::new(),
            entries: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds an entry. What is returned is the message before it, when both do not fit into one.
    /// Single datagrams are never said, nor what the version has no words for.
    pub fn push(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        if entry.flags & flags::ONE_PACKET != 0 {
            return None;
        }
        let bytes = match self.version {
            Version::V0 => entry_v0(entry)?,
            Version::V1 => entry_v1(entry)?,
        };
        let begin = match self.version {
            Version::V0 => self.message.len(),
            Version::V1 => self.message.len().next_multiple_of(4),
        };
        let fits = begin + bytes.len() <= self.len_max && self.entries < ENTRIES_MAX;
        let full = if self.is_empty() || fits {
            None
        } else {
            self.take()
        };
        if self.is_empty() {
            let header = match self.version {
                Version::V0 => HEADER_V0,
                Version::V1 => HEADER,
            };
            self.message.resize(header, 0);
        } else {
            self.message.resize(begin, 0);
        }
        self.message.extend(bytes);
        self.entries += 1;
        full
    }

    /// What has gathered.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if self.is_empty() {
            return None;
        }
        let mut message = std::mem::take(&mut self.message);
        let count = std::mem::take(&mut self.entries);
        let [high, low] = u16::try_from(message.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let (first, fifth) = match self.version {
            Version::V0 => (count, None),
            Version::V1 => (0, Some([count, 1, 0, 0])),
        };
        message[..4].copy_from_slice(&[first, self.sync_id, high, low]);
        if let Some(rest) = fifth {
            message[4..HEADER].copy_from_slice(&rest);
        }
        Some(message)
    }
}

/// `None` for addresses of two families, and what is too long to be said.
fn entry_v1(entry: &Entry) -> Option<Vec<u8>> {
    let addresses = [entry.client, entry.vip, entry.server];
    let v6 = entry.is_v6();
    if addresses.iter().any(|address| address.is_ipv6() != v6) {
        return None;
    }
    let mut bytes = vec![u8::from(v6), entry.protocol, 0, 0];
    bytes.extend((entry.flags & !flags::HASHED).to_be_bytes());
    bytes.extend(entry.state.to_be_bytes());
    for address in addresses {
        bytes.extend(address.port().to_be_bytes());
    }
    bytes.extend(entry.mark.to_be_bytes());
    bytes.extend(entry.timeout_s.to_be_bytes());
    for address in addresses {
        push_address(&mut bytes, address.ip());
    }
    if entry.flags & flags::SEQUENCE != 0 {
        let numbers = numbers(entry)
            .flat_map(u32::to_be_bytes)
            .collect::<Vec<_>>();
        push_option(&mut bytes, option::SEQUENCE, &numbers)?;
    }
    if let Some(data) = &entry.engine_data {
        push_option(&mut bytes, option::ENGINE_DATA, data)?;
        push_option(&mut bytes, option::ENGINE_NAME, ENGINE.as_bytes())?;
    }
    if let Some(local) = entry.local {
        let mut data = local.port().to_be_bytes().to_vec();
        push_address(&mut data, local.ip());
        push_option(&mut bytes, option::LOCAL | option::MAY_BE_IGNORED, &data)?;
    }
    let size = u16::try_from(bytes.len())
        .ok()
        .filter(|size| *size < 1 << 12)?;
    bytes[2..4].copy_from_slice(&size.to_be_bytes());
    Some(bytes)
}

/// `None` for IPv6.
fn entry_v0(entry: &Entry) -> Option<Vec<u8>> {
    let addresses = [entry.client, entry.vip, entry.server];
    let mut bytes = vec![0, entry.protocol];
    for address in addresses {
        bytes.extend(address.port().to_be_bytes());
    }
    for address in addresses {
        match address.ip() {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(_) => return None,
        }
    }
    let [.., high, low] = (entry.flags & !flags::HASHED).to_be_bytes();
    bytes.extend([high, low]);
    bytes.extend(entry.state.to_be_bytes());
    if entry.flags & flags::SEQUENCE != 0 {
        // In the sender's own byte order, which was x86's.
        bytes.extend(numbers(entry).flat_map(u32::to_le_bytes));
    }
    Some(bytes)
}

fn numbers(entry: &Entry) -> impl Iterator<Item = u32> {
    let sequences = entry.sequences.unwrap_or_default();
    sequences.into_iter().flat_map(|sequence| {
        let Sequence {
            from,
            delta,
            previous_delta,
        } = sequence;
        [from, delta, previous_delta]
    })
}

fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

fn push_option(bytes: &mut Vec<u8>, kind: u8, data: &[u8]) -> Option<()> {
    let len = u8::try_from(data.len()).ok().filter(|len| *len > 0)?;
    bytes.extend([kind, len]);
    bytes.extend(data);
    Some(())
}

/// Why a message is none of ours, or not one at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Its length is not what it says.
    Size,
    /// Another cluster's.
    SyncId,
}

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is one that nobody should send, or of a protocol, state, engine or option not known here;
    /// the next ones may be good.
    Skipped,
    /// It contradicts itself, so that nobody knows where the next one begins.
    Broken,
}

/// Reads a message: its entries as a backup takes them, up to the first broken one. `sync_id` 0
/// takes everybody's.
pub fn read(message: &[u8], sync_id: u8) -> Result<Entries<'_>, Ignored> {
    let [first, theirs, size @ ..] = *message.first_chunk::<4>().ok_or(Ignored::Size)?;
    if usize::from(u16::from_be_bytes(size)) != message.len() {
        return Err(Ignored::Size);
    }
    if sync_id != 0 && sync_id != theirs {
        return Err(Ignored::SyncId);
    }
    Ok(match (first, message.get(4..HEADER)) {
        (0, Some(&[count, 1, 0, 0])) => Entries {
            version: Version::V1,
            left: count,
            rest: &message[HEADER..],
        },
        _ => Entries {
            version: Version::V0,
            left: first,
            rest: &message[HEADER_V0..],
        },
    })
}

/// A message's entries, in order.
#[derive(Debug, Clone)]
pub struct Entries<'m> {
    version: Version,
    left: u8,
    rest: &'m [u8],
}

impl Entries<'_> {
    /// What the message says instead of entries, before the first one was read.
    pub fn word(&self) -> Option<Word> {
        (self.left == 0).then(|| Word::of(self.rest))?
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = match self.version {
            Version::V0 => self.next_v0(),
            Version::V1 => self.next_v1(),
        };
        if entry == Err(Refused::Broken) {
            self.left = 0;
        }
        Some(entry)
    }
}

impl Entries<'_> {
    fn next_v1(&mut self) -> Result<Entry, Refused> {
        if self.rest.len() < FIXED_V4 {
            return Err(Refused::Broken);
        }
        let size = u16::from_be_bytes([self.rest[2], self.rest[3]]);
        if size >> 12 != 0 {
            return Err(Refused::Broken);
        }
        let size = usize::from(size);
        let bytes = self.rest.get(..size).ok_or(Refused::Broken)?;
        self.rest = self.rest.get(size.next_multiple_of(4)..).unwrap_or(&[]);
        read_v1(bytes)
    }

    fn next_v0(&mut self) -> Result<Entry, Refused> {
        let mut input = Input(self.rest);
        let [_, protocol] = input.take()?;
        let ports = input.ports()?;
        let [client, vip, server] = input.addresses(false, ports)?;
        let flags = u32::from(u16::from_be_bytes(input.take()?));
        let state = u16::from_be_bytes(input.take()?);
        let sequences = if flags & flags::SEQUENCE != 0 {
            let data = input.take::<SEQUENCES>()?;
            Some(sequences(&data, u32::from_le_bytes))
        } else {
            None
        };
        self.rest = input.0;
        acceptable(Entry {
            protocol,
            flags,
            state,
            client,
            vip,
            server,
            mark: 0,
            timeout_s: 0,
            sequences,
            engine_data: None,
            local: None,
        })
    }
}

fn read_v1(bytes: &[u8]) -> Result<Entry, Refused> {
    let mut input = Input(bytes);
    let [kind, protocol, _, _] = input.take()?;
    let v6 = match kind {
        0 => false,
        _ if kind & 1 != 0 => true,
        _ => return Err(Refused::Broken),
    };
    let flags = u32::from_be_bytes(input.take()?);
    let state = u16::from_be_bytes(input.take()?);
    let ports = input.ports()?;
    let mark = u32::from_be_bytes(input.take()?);
    let timeout_s = u32::from_be_bytes(input.take()?);
    let [client, vip, server] = input.addresses(v6, ports)?;
    let mut entry = Entry {
        protocol,
        flags,
        state,
        client,
        vip,
        server,
        mark,
        timeout_s,
        sequences: None,
        engine_data: None,
        local: None,
    };
    read_options(input, &mut entry)?;
    acceptable(entry)
}

fn read_options(mut input: Input<'_>, entry: &mut Entry) -> Result<(), Refused> {
    let (mut name, mut engine_data) = (None, None);
    while !input.0.is_empty() {
        let [kind, len] = input.take()?;
        let data = input.slice(len.into()).filter(|data| !data.is_empty());
        let data = data.ok_or(Refused::Broken)?;
        match kind & !option::MAY_BE_IGNORED {
            option::SEQUENCE if data.len() == SEQUENCES && entry.sequences.is_none() => {
                entry.sequences = Some(sequences(data, u32::from_be_bytes));
            }
            option::ENGINE_DATA if engine_data.is_none() => engine_data = Some(data),
            option::ENGINE_NAME if name.is_none() && data.len() <= option::ENGINE_NAME_MAX => {
                name = Some(data);
            }
            option::SEQUENCE | option::ENGINE_DATA | option::ENGINE_NAME => {
                return Err(Refused::Broken);
            }
            option::LOCAL if kind & option::MAY_BE_IGNORED != 0 => entry.local = local(data),
            _ if kind & option::MAY_BE_IGNORED != 0 => {}
            _ => return Err(Refused::Skipped),
        }
    }
    if let Some(data) = engine_data {
        if name != Some(ENGINE.as_bytes()) {
            return Err(Refused::Skipped);
        }
        entry.engine_data = Some(data.to_vec());
    }
    Ok(())
}

/// The option of ours; what another release of us may say otherwise is passed over.
fn local(data: &[u8]) -> Option<SocketAddr> {
    let mut input = Input(data);
    let port = u16::from_be_bytes(input.take().ok()?);
    let address = input.address(data.len() > 2 + 4).ok()?;
    input.0.is_empty().then_some(SocketAddr::new(address, port))
}

/// An entry that a backup may take, with the flags that it takes.
fn acceptable(mut entry: Entry) -> Result<Entry, Refused> {
    let says = |flag| entry.flags & flag != 0;
    if says(flags::ONE_PACKET) || says(flags::NO_CLIENT_PORT) && says(flags::TEMPLATE) {
        return Err(Refused::Skipped);
    }
    let states = if says(flags::TEMPLATE) {
        2
    } else {
        states(entry.protocol).ok_or(Refused::Skipped)?
    };
    if entry.state >= states {
        return Err(Refused::Skipped);
    }
    // Numbers without the flags say nothing, nor do the flags without numbers.
    entry.sequences = says(flags::SEQUENCE).then(|| entry.sequences.unwrap_or_default());
    entry.flags = entry.flags & flags::KEPT | flags::SYNC;
    Ok(entry)
}

/// How many states connections of an IP protocol have.
const fn states(protocol: u8) -> Option<u16> {
    match protocol {
        6 => Some(11),
        17 | 50 | 51 => Some(1),
        132 => Some(14),
        _ => None,
    }
}

/// `data` is [`SEQUENCES`] long.
fn sequences(data: &[u8], number: fn([u8; 4]) -> u32) -> [Sequence; 2] {
    let (numbers, _) = data.as_chunks::<4>();
    [0, 3].map(|first| Sequence {
        from: number(numbers[first]),
        delta: number(numbers[first + 1]),
        previous_delta: number(numbers[first + 2]),
    })
}

/// What is still to be read of an entry. It ends too early: it is broken.
struct Input<'m>(&'m [u8]);

impl<'m> Input<'m> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or(Refused::Broken)?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn slice(&mut self, len: usize) -> Option<&'m [u8]> {
        let (slice, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(slice)
    }

    /// The client's, the virtual and the server's.
    fn ports(&mut self) -> Result<[u16; 3], Refused> {
        let [a, b, c, d, e, f] = self.take()?;
        Ok([[a, b], [c, d], [e, f]].map(u16::from_be_bytes))
    }

    fn addresses(&mut self, v6: bool, ports: [u16; 3]) -> Result<[SocketAddr; 3], Refused> {
        let [client, vip, server] = ports;
        let mut with = |port| Ok(SocketAddr::new(self.address(v6)?, port));
        Ok([with(client)?, with(vip)?, with(server)?])
    }

    fn address(&mut self, v6: bool) -> Result<IpAddr, Refused> {
        Ok(if v6 {
            Ipv6Addr::from(self.take::<16>()?).into()
        } else {
            Ipv4Addr::from(self.take::<4>()?).into()
        })
    }
}
