//! Netlink's messages and attributes, as bytes: numbers in the machine's order, all aligned to 4.

/// Bytes of a message before its payload.
pub(crate) const HEADER: usize = 16;
/// Bytes of an attribute before its value.
const ATTRIBUTE: usize = 4;
/// An attribute's kind without the flags that are kept in the same number.
const KIND: u16 = 0x3fff;

/// Kinds of messages that every family has.
pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;

/// Flags of a message.
pub(crate) const MULTI: u16 = 0x2;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;

const fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// A message as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) payload: &'a [u8],
    /// All of it, for an error to quote.
    pub(crate) bytes: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The first message of `datagram`, and what is behind it.
fn first(datagram: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let len = usize::try_from(u32_at(datagram, 0)?).ok()?;
    let bytes = datagram.get(..len)?;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        seq: u32_at(bytes, 8)?,
        payload: bytes.get(HEADER..)?,
        bytes,
    };
    let rest = datagram.get(aligned(len)..).unwrap_or_default();
    Some((message, rest))
}

/// The kind of the message that begins so, whole or not.
pub(crate) fn kind(beginning: &[u8]) -> Option<u16> {
    u16_at(beginning, 4)
}

/// What is whole of a datagram's messages.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (message, behind) = first(rest)?;
        rest = behind;
        Some(message)
    })
}

/// Attributes, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & KIND;
        let value = self.0.get(ATTRIBUTE..len)?;
        self.0 = self.0.get(aligned(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of `kind`; of several the last one, as with the kernel.
    pub(crate) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        let mut found = None;
        for (has, value) in &mut self {
            if has == kind {
                found = Some(value);
            }
        }
        found
    }

    pub(crate) fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }

    pub(crate) fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    pub(crate) fn u16(self, kind: u16) -> Option<u16> {
        u16_at(self.get(kind)?, 0)
    }

    /// In network byte order.
    pub(crate) fn be16(self, kind: u16) -> Option<u16> {
        self.u16(kind).map(u16::from_be)
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        u32_at(self.get(kind)?, 0)
    }

    /// Up to its NUL, or to the end where there is none.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        let text = value.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(text).ok()
    }
}

/// Attributes as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// An attribute longer than one can be has no place here: names are short, the rest is numbers.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(aligned(self.0.len()), 0);
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_ne_bytes());
    }

    pub(crate) fn be16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// With its NUL.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value);
    }

    pub(crate) fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.put(kind, &inner.0);
    }
}

/// A message for who has the port id `port`.
pub(crate) fn message(kind: u16, flags: u16, seq: u32, port: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&seq.to_ne_bytes());
    bytes.extend_from_slice(&port.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.u8(1, 7);
        writer.u16(2, 300);
        writer.be16(3, 80);
        writer.u32(4, 70_000);
        writer.text(5, "wlc");
        writer.nested(6, |inner| inner.u64(1, 1 << 40));
        let datagram = [
            message(20, ACK, 5, 9, &writer.0),
            message(21, 0, 6, 9, b"abc"),
        ]
        .concat();
        let found: Vec<Message<'_>> = messages(&datagram).collect();
        let [one, two] = found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((one.kind, one.flags, one.seq), (20, ACK, 5));
        assert_eq!((two.kind, two.payload), (21, &b"abc"[..]));
        let read = Attributes(one.payload);
        assert_eq!(read.u8(1), Some(7));
        assert_eq!(read.u16(2), Some(300));
        assert_eq!(read.get(3), Some(&[0, 80][..]));
        assert_eq!(read.be16(3), Some(80));
        assert_eq!(read.u32(4), Some(70_000));
        assert_eq!(read.text(5), Some("wlc"));
        let inner = read.nested(6).unwrap();
        assert_eq!(inner.get(1), Some(&(1u64 << 40).to_ne_bytes()[..]));
        assert_eq!(read.u32(7), None);
        assert_eq!(read.u32(2), None, "too short for it");
    }

    #[test]
    fn flags_are_no_part_of_a_kind_and_the_last_one_counts() {
        let mut writer = Writer::default();
        writer.u32(0x8000 | 1, 5);
        writer.u32(1, 6);
        assert_eq!(Attributes(&writer.0).u32(1), Some(6));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>, kind in 0u16..16) {
            for message in messages(&bytes) {
                let read = Attributes(message.payload);
                let _ = (read.u8(kind), read.be16(kind), read.u32(kind), read.text(kind));
                let _ = read.nested(kind).map(Iterator::count);
            }
            let _ = Attributes(&bytes).count();
        }
    }
}
