//! Captures as files that Wireshark and tcpdump read.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};

/// Timestamps count 10^-9 s.
const NANOSECONDS: u8 = 9;
/// Of a packet's flags: which way it went.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// One packet, and what is told of it.
pub(super) struct Packet<'p> {
    pub(super) port: &'p str,
    /// It leaves by that port, rather than came in there.
    pub(super) leaves: bool,
    pub(super) at_ns: u64,
    pub(super) bytes: &'p [u8],
    pub(super) length: u32,
    /// Packets that are missing before it.
    pub(super) missed: u32,
    pub(super) comment: &'p str,
}

/// Writes a capture. Interfaces are the director's ports.
pub(super) struct Writer {
    inner: PcapNgWriter<BufWriter<Box<dyn Write>>>,
    ports: Vec<String>,
    snaplen: u32,
}

impl Writer {
    /// To a file, or to standard output for `-`.
    pub(super) fn create(path: &Path, snaplen: u32) -> Result<Self> {
        let to: Box<dyn Write> = if is_stdout(path) {
            Box::new(io::stdout())
        } else {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("creating {}", path.display()))?)
        };
        Self::new(to, snaplen)
    }

    fn new(to: Box<dyn Write>, snaplen: u32) -> Result<Self> {
        let program = concat!("directorctl ", env!("CARGO_PKG_VERSION"));
        let header = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(program.into())],
            ..SectionHeaderBlock::default()
        };
        let inner = PcapNgWriter::with_section_header(BufWriter::new(to), header);
        let inner = inner.map_err(plain)?;
        let ports = Vec::new();
        Ok(Self {
            inner,
            ports,
            snaplen,
        })
    }

    /// The number of the interface with this name, made when new.
    pub(super) fn interface(&mut self, port: &str) -> Result<u32> {
        let known = self.ports.iter().position(|known| known == port);
        let number = known.unwrap_or(self.ports.len());
        if known.is_none() {
            let block = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: self.snaplen,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(port)),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            };
            self.inner.write_pcapng_block(block).map_err(plain)?;
            self.ports.push(port.to_owned());
        }
        u32::try_from(number).context("too many ports")
    }

    pub(super) fn write(&mut self, packet: &Packet<'_>) -> Result<()> {
        let interface_id = self.interface(packet.port)?;
        let way = if packet.leaves { OUTBOUND } else { INBOUND };
        let mut options = vec![
            EnhancedPacketOption::Comment(packet.comment.into()),
            EnhancedPacketOption::Flags(way),
        ];
        if packet.missed > 0 {
            options.push(EnhancedPacketOption::DropCount(packet.missed.into()));
        }
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(packet.at_ns),
            original_len: packet.length,
            data: Cow::Borrowed(packet.bytes),
            options,
        };
        self.inner.write_pcapng_block(block).map_err(plain)?;
        Ok(())
    }

    /// What was written is there to be read.
    pub(super) fn flush(&mut self) -> Result<()> {
        Ok(self.inner.get_mut().flush()?)
    }
}

pub(super) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whether nobody reads any more what is written.
pub(super) fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn plain(error: PcapError) -> anyhow::Error {
    match error {
        PcapError::IoError(error) => error.into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn packets() -> [Packet<'static>; 3] {
        let packet = |port, at_ns, bytes, missed| Packet {
            port,
            leaves: port == "rs",
            at_ns,
            bytes,
            length: 1500,
            missed,
            comment: "forwarded; from lan to rs",
        };
        [
            packet("lan", 1_700_000_000_123_456_789, &[1; 64], 0),
            packet("rs", 1_700_000_000_123_456_790, &[2; 61], 7),
            packet("lan", 1_700_000_001_000_000_000, &[3; 60], 0),
        ]
    }

    fn written() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::create(file.path(), 1518).unwrap();
        for packet in packets() {
            writer.write(&packet).unwrap();
        }
        writer.flush().unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = written();
        let mut reader = PcapNgReader::new(file.reopen().unwrap()).unwrap();
        let (mut names, mut read) = (Vec::new(), 0);
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(block) => {
                    assert_eq!((block.linktype, block.snaplen), (DataLink::ETHERNET, 1518));
                    let name = block.options.iter().find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    });
                    names.push(name.unwrap());
                }
                Block::EnhancedPacket(block) => {
                    let packet = &packets()[read];
                    assert_eq!(names[block.interface_id as usize], packet.port);
                    assert_eq!(block.timestamp, Duration::from_nanos(packet.at_ns));
                    assert_eq!((&*block.data, block.original_len), (packet.bytes, 1500));
                    let (flags, drops) = if packet.leaves {
                        (2, Some(7))
                    } else {
                        (1, None)
                    };
                    let mut expected = vec![
                        EnhancedPacketOption::Comment(packet.comment.into()),
                        EnhancedPacketOption::Flags(flags),
                    ];
                    expected.extend(drops.map(EnhancedPacketOption::DropCount));
                    assert_eq!(block.options, expected);
                    read += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((names, read), (vec!["lan".to_owned(), "rs".to_owned()], 3));
    }

    /// Where it is installed.
    #[test]
    fn tcpdump_reads_it() {
        let file = written();
        let mut tcpdump = std::process::Command::new("tcpdump");
        let said = tcpdump.args(["-ttnr"]).arg(file.path()).output();
        let Ok(said) = said else { return };
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        assert!(text.starts_with("1700000000.123456"), "{text}");
        assert_eq!(
            text.lines().filter(|line| line.starts_with("17")).count(),
            3,
            "{text}"
        );
    }
}
