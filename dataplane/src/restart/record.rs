//! What lies beside the tables and says what they are: a header that is checked before anything is believed,
//! and behind it JSON.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{conn, counters, mem, templates};

const MAGIC: [u8; 8] = *b"directrd";
/// Of this header, and of what is behind it.
const VERSION: u32 = 1;
/// What the tables are made of: a build that has others has another number.
pub(super) const LAYOUT: u64 = {
    let pages = [
        size_of::<counters::ServerPage>(),
        size_of::<counters::ServicePage>(),
        counters::DropReason::ALL.len(),
    ];
    let number = fnv(0xcbf2_9ce4_8422_2325, conn::LAYOUT);
    fnv(fnv(number, templates::LAYOUT), &pages)
};

/// The hash of Fowler, Noll and Vo, a number at a time.
const fn fnv(mut hash: u64, numbers: &[usize]) -> u64 {
    let mut at = 0;
    while at < numbers.len() {
        hash = (hash ^ numbers[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug, Clone, Copy)]
#[repr(C, packed)]
struct Header {
    magic: [u8; 8],
    version: u32,
    /// Of the header with a zero here, and of what is behind it.
    checksum: u32,
    layout: u64,
    len: u64,
}

/// Why what was left is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not one of directord")]
    Foreign,
    #[error("it has version {0}, this directord reads version {VERSION}")]
    Version(u32),
    #[error("it was written by a build whose tables are others ({0:016x}, here {LAYOUT:016x})")]
    Layout(u64),
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it is from before the system was started")]
    OtherBoot,
}

/// Writes a record, which is there whole or not at all.
pub(super) fn write(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let header = Header {
        magic: MAGIC,
        version: VERSION,
        checksum: 0,
        layout: LAYOUT,
        len: 0,
    };
    let mut bytes = header.as_bytes().to_vec();
    serde_json::to_writer(&mut bytes, content)?;
    let len = bytes.len() - size_of::<Header>();
    let header = Header {
        len: len as u64,
        ..header
    };
    let sum = checksum(header, &bytes[size_of::<Header>()..]);
    let header = Header {
        checksum: sum,
        ..header
    };
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    mem::write_whole(path, &bytes)
}

/// Reads a record of this version and layout.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Unusable> {
    let file = mem::Left::open(path)?;
    parse(file.bytes())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unusable> {
    let damaged = |why: &str| Unusable::Damaged(why.to_owned());
    let (header, rest) =
        Header::read_from_prefix(bytes).map_err(|_| damaged("it has no header"))?;
    if header.magic != MAGIC {
        return Err(Unusable::Foreign);
    }
    if header.version != VERSION {
        return Err(Unusable::Version(header.version));
    }
    let content = usize::try_from(header.len)
        .ok()
        .and_then(|len| rest.get(..len))
        .ok_or_else(|| damaged("it ends too early"))?;
    if checksum(header, content) != header.checksum {
        return Err(damaged("its checksum is wrong"));
    }
    if header.layout != LAYOUT {
        return Err(Unusable::Layout(header.layout));
    }
    serde_json::from_slice(content).map_err(|error| Unusable::Damaged(error.to_string()))
}

fn checksum(header: Header, content: &[u8]) -> u32 {
    let header = Header {
        checksum: 0,
        ..header
    };
    crc32c::crc32c_append(crc32c::crc32c(header.as_bytes()), content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(content: &str) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        write(&path, &content).unwrap();
        // Over what was there.
        write(&path, &content).unwrap();
        assert_eq!(read::<String>(&path).unwrap(), content);
        let bytes = mem::Left::open(&path).unwrap().bytes().to_vec();
        assert!(bytes.len().is_multiple_of(4096));
        bytes
    }

    #[test]
    fn what_is_of_others_is_refused_and_why() {
        let bytes = written("all of it");
        let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            parse::<String>(&bytes).unwrap_err().to_string()
        };
        assert!(refusal(&|bytes| bytes[0] ^= 1).contains("not one of directord"));
        assert!(refusal(&|bytes| bytes[8] = 9).contains("version 9"));
        assert!(refusal(&|bytes| bytes[24] = 200).contains("checksum"));
        assert!(refusal(&|bytes| bytes[31] = 1).contains("ends too early"));
        assert!(refusal(&|bytes| bytes.truncate(20)).contains("no header"));
        assert!(refusal(&|bytes| bytes[35] ^= 1).contains("checksum"));
        let other_layout = refusal(&|bytes| {
            let (header, rest) = Header::mut_from_prefix(bytes).unwrap();
            header.layout ^= 1;
            let len = usize::try_from(header.len).unwrap();
            header.checksum = checksum(*header, &rest[..len]);
        });
        assert!(other_layout.contains("tables are others"), "{other_layout}");
    }

    proptest! {
        #[test]
        fn no_damage_goes_unnoticed(at in 0usize..60, value in 1u8..) {
            let mut bytes = written("twenty-eight bytes of content");
            bytes[at] ^= value;
            prop_assert!(parse::<String>(&bytes).is_err());
        }
    }
}
